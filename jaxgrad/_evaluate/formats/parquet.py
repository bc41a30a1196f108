"""Parquet."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgrad._evaluate.formats.columns import (
    arrow_dtype,
    check_types,
    dropped,
    group_of,
    of_arrow,
    pyarrow,
    record_batch,
    schema_of,
)
from jaxgrad._evaluate.opened import Opened
from jaxgrad._evaluate.output.resumable import Resumable
from jaxgrad._evaluate.output.seal import KEY
from jaxgrad._evaluate.sink import Columns
from jaxgrad._evaluate.source import Chunk, RowFile


def read_parquet(opened: Opened) -> RowFile:
    # No columns are read ahead as a whole, and pages that have a checksum are held to it.
    file = pyarrow("pyarrow.parquet").ParquetFile(opened.name, pre_buffer=False, page_checksum_verification=True)
    schema, names = file.schema_arrow, tuple(file.schema_arrow.names)
    groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    if min(groups, default=0) < 0 or sum(groups) != file.metadata.num_rows:
        raise ValueError(f"its row groups have {sum(groups)} rows, and its footer says {file.metadata.num_rows}")

    def chunks(positions: Sequence[int], start: int, size: int) -> Iterator[Chunk]:
        check_types(opened.path, [schema.field(p) for p in positions])
        first, skipped = group_of(start, groups)
        wanted = [names[p] for p in positions]
        batches = file.iter_batches(size, row_groups=list(range(first, len(groups))), columns=wanted)
        for batch in dropped(batches, start - skipped):
            order = {name: i for i, name in enumerate(batch.schema.names)}
            yield of_arrow([batch.column(order[name]) for name in wanted])

    return RowFile(opened, names, tuple(arrow_dtype(f.type) for f in schema), sum(groups), chunks)


COMPRESSIONS = ("none", "snappy", "zstd", "lz4", "gzip", "brotli")


class ParquetSink:
    """A row group for each block, or several; no dictionary, which takes most of the time and packs no floats."""

    def __init__(
        self, file: Resumable, names: Sequence[str], dtype: np.dtype[Any], compression: str, row_group_size: int | None
    ):
        self._row_group_size = row_group_size
        self._writer = pyarrow("pyarrow.parquet").ParquetWriter(
            file,
            schema_of(names, dtype),
            compression=compression,
            use_dictionary=False,
            write_statistics=False,  # and their length would depend on the numbers
        )

    def write(self, columns: Columns) -> None:
        table = pyarrow("pyarrow").Table.from_batches([record_batch(columns)])
        self._writer.write_table(table, row_group_size=max(1, self._row_group_size or table.num_rows))

    def close(self, seal: str) -> None:
        self._writer.add_key_value_metadata({KEY: seal})
        self._writer.close()


def seal_of_parquet(path: Path) -> str | bytes:
    metadata = pyarrow("pyarrow.parquet").read_metadata(path).metadata or {}
    found: str | bytes = metadata[KEY.encode()]
    return found
