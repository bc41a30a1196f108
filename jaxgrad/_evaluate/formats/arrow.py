"""Arrow's IPC files and streams."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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

MAGIC, END_OF_STREAM = b"ARROW1", b"\xff\xff\xff\xff\x00\x00\x00\x00"


def read_arrow(opened: Opened) -> RowFile:
    ipc, file, sizes, count = pyarrow("pyarrow.ipc"), None, [], None
    with open(opened.name, "rb") as start:
        is_file = start.read(len(MAGIC)) == MAGIC
    if is_file:
        file = ipc.open_file(_file(opened))
        sizes = [file.get_batch(i).num_rows for i in range(file.num_record_batches)]
        schema, count = file.schema, sum(sizes)
    else:  # the stream format has no list of its batches, and a mark at its end
        end = np.empty(min(8, opened.size), np.uint8)
        opened.read(end, opened.size - len(end))
        if end.tobytes() != END_OF_STREAM:
            raise ValueError("it is cut off: no mark is at its end")
        schema = ipc.open_stream(_file(opened)).schema

    def chunks(positions: Sequence[int], start: int, size: int, carry: Sequence[int] = ()) -> Iterator[Chunk]:
        check_types(opened.path, [schema.field(p) for p in positions])
        first, skipped = group_of(start, sizes)
        if file is None:
            batches = iter(ipc.open_stream(_file(opened)))
        else:
            batches = (file.get_batch(i) for i in range(first, len(sizes)))
        for batch in dropped(map(_valid, batches), start - skipped):
            for begin in range(0, batch.num_rows, size):
                columns = {p: batch.column(p).slice(begin, size) for p in (*positions, *carry)}
                yield of_arrow([columns[p] for p in positions], [columns[p] for p in carry])

    dtypes = tuple(arrow_dtype(field.type) for field in schema)
    return RowFile(
        opened, tuple(schema.names), dtypes, count, chunks, lambda p: carried_type(opened.path, schema.field(p))
    )


def _file(opened: Opened) -> Any:
    return pyarrow("pyarrow").OSFile(opened.name)


def _valid(batch: Any) -> Any:
    """The batch; offsets of a damaged file would lead out of its memory."""
    batch.validate(full=True)
    return batch


class ArrowSink:
    """The IPC file format, a record batch for each block; a last one of no rows has the seal."""

    def __init__(self, file: Resumable, schema: Schema):
        self._schema = schema_of(schema)
        self._writer = pyarrow("pyarrow.ipc").new_file(file, self._schema)

    def write(self, columns: Columns) -> None:
        self._writer.write_batch(
            record_batch(dict(zip(columns, map(_afresh, columns.values()), strict=True)), self._schema)
        )

    def close(self, seal: str) -> None:
        self._writer.write_batch(_no_rows(self._schema), custom_metadata={KEY: seal})
        self._writer.close()


def _afresh(column: Any) -> Any:
    """A column in memory of its own: of a slice, the format would hold bits of the rows beside it too."""
    return column if isinstance(column, np.ndarray) else column.take(pyarrow("pyarrow").array(np.arange(len(column))))


def _no_rows(schema: Any) -> Any:
    pa = pyarrow("pyarrow")
    return pa.record_batch([pa.nulls(0, field.type) for field in schema], schema=schema)


def seal_of_arrow(path: Path) -> str | bytes:
    file = pyarrow("pyarrow.ipc").open_file(pyarrow("pyarrow").OSFile(str(path)))
    _, metadata = file.get_batch_with_custom_metadata(file.num_record_batches - 1)
    found: str | bytes = (metadata or {})[KEY.encode()]
    return found
