"""Sinks: named columns written to a file, block by block, in its format.

A sink whose writing was broken off can go on. What is written already is known by the number of rows of each block;
for a format that ends in a list of its blocks, blocks of as many rows are written again into nothing, so that the
library that writes it knows them: their numbers don't matter, only their lengths, which depend on the rows alone.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from jaxgrad.errors import InputError
from jaxgrad.sources import pyarrow

WRITES = (".npy", ".parquet", ".arrow", ".csv")
INTERLEAVED = 16_384  # rows whose columns are put together at a time, in the cache

Columns = Mapping[str, np.ndarray[Any, Any]]


class Sink(Protocol):
    """Writes columns to a file that is open."""

    def write(self, columns: Columns) -> None: ...

    def close(self) -> None:
        """Writes what comes after the last block; the file stays open."""


def open_sink(
    ending: str, file: "Resumable", names: Sequence[str], dtype: np.dtype[Any], written: Sequence[int]
) -> Sink:
    """A sink of that ending, at the end of blocks that have `written` rows each.

    Raises:
      InputError: there is no such format.
    """
    match ending.lower():
        case ".npy":
            return _Npy(file, names, dtype, written)
        case ".parquet":
            return _replayed(_Parquet(file, names, dtype), file, names, dtype, written)
        case ".arrow":
            return _replayed(_Arrow(file, names, dtype), file, names, dtype, written)
        case ".csv":
            return _Csv(file, names, dtype, header=not written)
    raise InputError(f'the output ends in "{ending}"; expected one of {", ".join(WRITES)}.')


class Resumable:
    """A file to write to whose first `kept` bytes stay as they are, whatever is written there."""

    closed = False

    def __init__(self, path: Path, kept: int):
        self._file: BinaryIO = path.open("r+b" if kept else "w+b")
        self._file.truncate(kept)
        self._file.seek(kept)
        self.kept = kept
        self._position = 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if not self._file.closed:  # a library that is given up still writes its last bytes
            self._file.write(view[max(0, self.kept - self._position) :])
        self._position += len(view)
        return len(view)

    def tell(self) -> int:
        return self._position

    def skip(self) -> None:
        """Goes on after what is kept."""
        self._position = self.kept

    def rewrite(self, data: bytes) -> None:
        """Writes `data` over the start."""
        self._file.seek(0)
        self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """For the libraries that close what they write to: it stays open."""

    def end(self) -> None:
        self._file.close()

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


def _replayed(sink: Sink, file: Resumable, names: Sequence[str], dtype: np.dtype[Any], written: Sequence[int]) -> Sink:
    for rows in written:
        sink.write(dict.fromkeys(names, np.zeros(rows, dtype)))
    if written and file.tell() != file.kept:
        raise InputError(
            f"the part that is written is {file.kept} bytes long and would be {file.tell()} as this pyarrow writes it; "
            "expected the same. Give --overwrite to begin anew."
        )
    return sink


class _Npy:
    """A structured array: a row has a field for each column."""

    def __init__(self, file: Resumable, names: Sequence[str], dtype: np.dtype[Any], written: Sequence[int]):
        self._file = file
        self._dtype = np.dtype([(name, dtype) for name in names])
        self._block = np.empty(INTERLEAVED, self._dtype)
        self._rows = sum(written)
        if written:
            file.skip()
        else:
            file.write(self._header(0))

    def _header(self, rows: int) -> bytes:
        header = BytesIO()
        # NumPy leaves room in it for the number of rows to grow.
        np.lib.format.write_array_header_1_0(
            header, {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (rows,)}
        )
        return header.getvalue()

    def write(self, columns: Columns) -> None:
        rows = len(next(iter(columns.values())))
        for start in range(0, rows, INTERLEAVED):
            block = self._block[: min(INTERLEAVED, rows - start)]
            for name, column in columns.items():
                block[name] = column[start : start + len(block)]
            self._file.write(block.view(np.uint8))
        self._rows += rows

    def close(self) -> None:
        self._file.rewrite(self._header(self._rows))


class _Parquet:
    """A row group for each block, uncompressed: a dictionary of floats and their compression take most of the time."""

    def __init__(self, file: Resumable, names: Sequence[str], dtype: np.dtype[Any]):
        self._writer = pyarrow("pyarrow.parquet").ParquetWriter(
            file,
            _schema(names, dtype),
            compression="none",
            use_dictionary=False,
            write_statistics=False,  # and their length would depend on the numbers
        )

    def write(self, columns: Columns) -> None:
        table = pyarrow("pyarrow").Table.from_batches([_batch(columns)])
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))

    def close(self) -> None:
        self._writer.close()


class _Arrow:
    """The IPC file format, a record batch for each block."""

    def __init__(self, file: Resumable, names: Sequence[str], dtype: np.dtype[Any]):
        self._writer = pyarrow("pyarrow.ipc").new_file(file, _schema(names, dtype))

    def write(self, columns: Columns) -> None:
        self._writer.write_batch(_batch(columns))

    def close(self) -> None:
        self._writer.close()


class _Csv:
    """A line of names, then a line for each row; as many digits as give the same number back."""

    def __init__(self, file: Resumable, names: Sequence[str], dtype: np.dtype[Any], *, header: bool):
        arrow_csv = pyarrow("pyarrow.csv")
        if not header:
            file.skip()
        options = arrow_csv.WriteOptions(include_header=header, quoting_style="needed")
        self._writer = arrow_csv.CSVWriter(file, _schema(names, dtype), write_options=options)

    def write(self, columns: Columns) -> None:
        self._writer.write_batch(_batch(columns))

    def close(self) -> None:
        self._writer.close()


def _schema(names: Sequence[str], dtype: np.dtype[Any]) -> Any:
    pa = pyarrow("pyarrow")
    return pa.schema([pa.field(name, pa.from_numpy_dtype(dtype), nullable=False) for name in names])


def _batch(columns: Columns) -> Any:
    pa = pyarrow("pyarrow")
    arrays = [pa.array(column) for column in columns.values()]
    return pa.record_batch(arrays, schema=_schema(list(columns), next(iter(columns.values())).dtype))
