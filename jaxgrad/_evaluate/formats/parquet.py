"""Parquet."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from jaxgrad._evaluate.formats.columns import (
    arrow_dtype,
    carried_type,
    check_types,
    dropped,
    group_of,
    of_arrow,
    pyarrow,
    record_batch,
    schema_of,
)
from jaxgrad._evaluate.formats.opened import Opened
from jaxgrad._evaluate.output.resumable import Resumable
from jaxgrad._evaluate.output.seal import KEY
from jaxgrad._evaluate.sink import Columns, Schema
from jaxgrad._evaluate.source import Chunk, RowFile


def read_parquet(opened: Opened) -> RowFile:
    # No columns are read ahead as a whole, and pages that have a checksum are held to it.
    file = pyarrow("pyarrow.parquet").ParquetFile(opened.name, pre_buffer=False, page_checksum_verification=True)
    schema, names = file.schema_arrow, tuple(file.schema_arrow.names)
    groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    if min(groups, default=0) < 0 or sum(groups) != file.metadata.num_rows:
        raise ValueError(f"its row groups have {sum(groups)} rows, and its footer says {file.metadata.num_rows}")

    def chunks(positions: Sequence[int], start: int, size: int, carry: Sequence[int] = ()) -> Iterator[Chunk]:
        check_types(opened.path, [schema.field(p) for p in positions])
        first, skipped = group_of(start, groups)
        wanted = list(dict.fromkeys(names[p] for p in (*positions, *carry)))
        batches = file.iter_batches(size, row_groups=list(range(first, len(groups))), columns=wanted)
        for batch in dropped(batches, start - skipped):
            order = {name: i for i, name in enumerate(batch.schema.names)}
            columns = {p: batch.column(order[names[p]]) for p in (*positions, *carry)}
            yield of_arrow([columns[p] for p in positions], [columns[p] for p in carry])

    dtypes = tuple(arrow_dtype(field.type) for field in schema)
    return RowFile(opened, names, dtypes, sum(groups), chunks, lambda p: carried_type(opened.path, schema.field(p)))


COMPRESSIONS = ("none", "snappy", "zstd", "lz4", "gzip", "brotli")


class ParquetSink:
    """A row group for each block, or several; no dictionary, which takes most of the time and packs no floats."""

    def __init__(self, file: Resumable, schema: Schema, compression: str, row_group_size: int | None):
        self._row_group_size = row_group_size
        self._schema = _stored(schema_of(schema)) if schema.carried else schema_of(schema)
        self._writer = pyarrow("pyarrow.parquet").ParquetWriter(
            file,
            self._schema,
            compression=compression,
            use_dictionary=False,
            write_statistics=False,  # and their length would depend on the numbers
        )

    def write(self, columns: Columns) -> None:
        table = pyarrow("pyarrow").Table.from_batches([record_batch(columns, self._schema)])
        self._writer.write_table(table, row_group_size=max(1, self._row_group_size or table.num_rows))

    def close(self, seal: str) -> None:
        self._writer.add_key_value_metadata({KEY: seal})
        self._writer.close()


def _stored(schema: Any) -> Any:
    """A schema with the types that Parquet has for its own: it has no seconds, but milliseconds."""
    parquet, file = pyarrow("pyarrow.parquet"), BytesIO()
    parquet.write_table(schema.empty_table(), file)
    return parquet.read_schema(BytesIO(file.getvalue())).remove_metadata()


def seal_of_parquet(path: Path) -> str | bytes:
    metadata = pyarrow("pyarrow.parquet").read_metadata(path).metadata or {}
    found: str | bytes = metadata[KEY.encode()]
    return found
