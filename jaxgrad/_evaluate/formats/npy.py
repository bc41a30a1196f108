"""NumPy's .npy."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._evaluate.sink import Columns
from jaxgrad._evaluate.source import Chunk, RowFile
from jaxgrad._evaluate.unfinished import Resumable


def read_npy(path: Path) -> RowFile:
    table = np.lib.format.open_memmap(path, mode="r")
    if table.dtype.names is not None and table.ndim == 1:
        names = table.dtype.names
        dtypes = tuple(_number(table.dtype[name]) for name in names)
    elif table.dtype.names is None and table.ndim == 2:
        names = tuple(f"x{i}" for i in range(table.shape[1]))
        dtypes = (_number(table.dtype),) * len(names)
    else:
        raise InputError(
            f'"{path}" holds an array of shape {table.shape} and dtype {table.dtype}; expected (rows, columns), or '
            "named columns of shape (rows,)."
        )
    start_of_data, dtype, contiguous = table.offset, table.dtype, table.flags.c_contiguous

    def chunks(positions: Sequence[int], start: int, size: int) -> Iterator[Chunk]:
        for p in positions:
            if dtypes[p] is None:
                kind = table.dtype[names[p]] if dtype.names else dtype
                raise InputError(f'"{path}", column {names[p]}: it is of dtype {kind}; expected real numbers.')
        for first in range(start, len(table), size):
            count = min(size, len(table) - first)
            if contiguous:  # read, not mapped: what is mapped and was read counts as used memory
                row = dtype.itemsize * (1 if dtype.names else len(names))
                found = np.fromfile(path, dtype, count * row // dtype.itemsize, offset=start_of_data + first * row)
                found = found if dtype.names else found.reshape(count, len(names))
            else:
                found = table[first : first + count]
            yield Chunk([found[names[p]] if dtype.names else found[:, p] for p in positions])

    return RowFile(path, names, dtypes, len(table), chunks)


def _number(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    return dtype if dtype.kind in "fiub" else None


INTERLEAVED = 16_384  # rows whose columns are put together at a time, in the cache


class NpySink:
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
