"""Arrow's IPC files and streams."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgrad._evaluate.formats.columns import arrow_dtype, dropped, group_of, of_arrow, pyarrow, record_batch, schema_of
from jaxgrad._evaluate.sink import Columns
from jaxgrad._evaluate.source import Chunk, RowFile
from jaxgrad._evaluate.unfinished import Resumable


def read_arrow(path: Path) -> RowFile:
    ipc = pyarrow("pyarrow.ipc")
    try:
        file = ipc.open_file(pyarrow("pyarrow").OSFile(str(path)))
        sizes = [file.get_batch(i).num_rows for i in range(file.num_record_batches)]
        schema, count = file.schema, sum(sizes)
    except ValueError:  # the stream format has no list of its batches
        file, sizes, count = None, [], None
        schema = ipc.open_stream(pyarrow("pyarrow").OSFile(str(path))).schema

    def chunks(positions: Sequence[int], start: int, size: int) -> Iterator[Chunk]:
        first, skipped = group_of(start, sizes)
        if file is None:
            batches = iter(ipc.open_stream(pyarrow("pyarrow").OSFile(str(path))))
        else:
            batches = (file.get_batch(i) for i in range(first, len(sizes)))
        for batch in dropped(batches, start - skipped):
            for begin in range(0, batch.num_rows, size):
                yield of_arrow([batch.column(p).slice(begin, size) for p in positions])

    return RowFile(path, tuple(schema.names), tuple(arrow_dtype(f.type) for f in schema), count, chunks)


class ArrowSink:
    """The IPC file format, a record batch for each block."""

    def __init__(self, file: Resumable, names: Sequence[str], dtype: np.dtype[Any]):
        self._writer = pyarrow("pyarrow.ipc").new_file(file, schema_of(names, dtype))

    def write(self, columns: Columns) -> None:
        self._writer.write_batch(record_batch(columns))

    def close(self) -> None:
        self._writer.close()
