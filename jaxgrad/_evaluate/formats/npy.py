"""NumPy's .npy."""

import math
import warnings
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._evaluate.opened import Opened
from jaxgrad._evaluate.output.resumable import Resumable
from jaxgrad._evaluate.sink import Columns
from jaxgrad._evaluate.source import Chunk, RowFile

LONGEST_HEADER = 1 << 24  # bytes: a hundred thousand named columns and more


def read_npy(opened: Opened) -> RowFile:
    path = opened.path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Python 2 wrote it
        table = np.lib.format.open_memmap(opened.name, mode="r", max_header_size=LONGEST_HEADER)
    shape, dtype, start_of_data = table.shape, table.dtype, table.offset
    fortran = not table.flags.c_contiguous
    del table  # the map: what is mapped and was read counts as used memory
    if dtype.names is not None and len(shape) == 1:
        names = dtype.names
        dtypes = tuple(_number(dtype[name]) for name in names)
    elif dtype.names is None and len(shape) == 2:
        names = tuple(f"x{i}" for i in range(shape[1]))
        dtypes = (_number(dtype),) * len(names)
    else:
        raise InputError(
            f'"{path}" holds an array of shape {shape} and dtype {dtype}; expected (rows, columns), or '
            "named columns of shape (rows,)."
        )
    expected = start_of_data + math.prod(shape) * dtype.itemsize
    if opened.size != expected:
        raise ValueError(f"it is {opened.size} bytes long; its header, of shape {shape}, says {expected}")
    rows = shape[0]

    def chunks(positions: Sequence[int], start: int, size: int) -> Iterator[Chunk]:
        for p in positions:
            if dtypes[p] is None:
                kind = dtype[names[p]] if dtype.names else dtype
                raise InputError(f'"{path}", column {names[p]}: it is of dtype {kind}; expected real numbers.')
        for first in range(start, rows, size):
            count = min(size, rows - first)
            if dtype.names or not fortran:
                found = np.empty(count if dtype.names else (count, len(names)), dtype)
                opened.read(found, start_of_data + first * found[:1].nbytes)
                yield Chunk([found[names[p]] if dtype.names else found[:, p] for p in positions])
                continue
            columns = [np.empty(count, dtype) for _ in positions]
            for p, column in zip(positions, columns, strict=True):
                opened.read(column, start_of_data + (p * rows + first) * dtype.itemsize)
            yield Chunk(columns)

    return RowFile(opened, names, dtypes, rows, chunks)


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
        file.write_head(self._header(0))
        if written:
            file.skip()

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

    def close(self, seal: str) -> None:
        self._file.rewrite_head(self._header(self._rows))
