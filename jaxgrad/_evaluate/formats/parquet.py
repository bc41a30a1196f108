"""Parquet."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgrad._evaluate.formats.columns import arrow_dtype, dropped, group_of, of_arrow, pyarrow, record_batch, schema_of
from jaxgrad._evaluate.sink import Columns
from jaxgrad._evaluate.source import Chunk, RowFile
from jaxgrad._evaluate.unfinished import Resumable


def read_parquet(path: Path) -> RowFile:
    # No columns are read ahead as a whole, and pages that have a checksum are held to it.
    file = pyarrow("pyarrow.parquet").ParquetFile(path, pre_buffer=False, page_checksum_verification=True)
    schema = file.schema_arrow
    groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]

    def chunks(positions: Sequence[int], start: int, size: int) -> Iterator[Chunk]:
        first, skipped = group_of(start, groups)
        names = [schema.names[p] for p in positions]
        batches = file.iter_batches(size, row_groups=list(range(first, len(groups))), columns=names)
        for batch in dropped(batches, start - skipped):
            yield of_arrow([batch.column(name) for name in names])

    return RowFile(path, tuple(schema.names), tuple(arrow_dtype(f.type) for f in schema), sum(groups), chunks)


class ParquetSink:
    """A row group for each block, uncompressed: a dictionary of floats and their compression take most of the time."""

    def __init__(self, file: Resumable, names: Sequence[str], dtype: np.dtype[Any]):
        self._writer = pyarrow("pyarrow.parquet").ParquetWriter(
            file,
            schema_of(names, dtype),
            compression="none",
            use_dictionary=False,
            write_statistics=False,  # and their length would depend on the numbers
        )

    def write(self, columns: Columns) -> None:
        table = pyarrow("pyarrow").Table.from_batches([record_batch(columns)])
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))

    def close(self) -> None:
        self._writer.close()
