"""NumPy's .npy."""

import math
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._evaluate.formats.columns import arrow_dtype
from jaxgrad._evaluate.formats.opened import Opened
from jaxgrad._evaluate.output.resumable import Resumable
from jaxgrad._evaluate.sink import Columns, Schema
from jaxgrad._evaluate.source import Chunk, RowFile
from jaxgrad._text import short

FIRST = 4096  # bytes that most headers fit in
LONGEST_HEADER = 1 << 24  # bytes: a hundred thousand named columns and more


def read_npy(opened: Opened) -> RowFile:
    path = opened.path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Python 2 wrote it
        shape, fortran, dtype, start_of_data = _header_of(opened)
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

    def carried_as(position: int) -> np.dtype[Any]:
        kind = dtype[names[position]] if dtype.names else dtype
        if dtypes[position] is None or kind.itemsize > 8:
            raise InputError(
                f'"{path}", column {short(names[position])}: it is of dtype {kind}, and cannot be carried; expected '
                "numbers of 64 bits at most."
            )
        return kind.newbyteorder("=")

    def chunks(positions: Sequence[int], start: int, size: int, carry: Sequence[int] = ()) -> Iterator[Chunk]:
        for p in positions:
            if dtypes[p] is None:
                kind = dtype[names[p]] if dtype.names else dtype
                raise InputError(f'"{path}", column {names[p]}: it is of dtype {kind}; expected real numbers.')
        for first in range(start, rows, size):
            count = min(size, rows - first)
            if dtype.names or not fortran:
                found = np.empty(count if dtype.names else (count, len(names)), dtype)
                opened.read(found, start_of_data + first * found[:1].nbytes)
                columns = {p: found[names[p]] if dtype.names else found[:, p] for p in (*positions, *carry)}
            else:
                columns = {p: np.empty(count, dtype) for p in (*positions, *carry)}
                for p, column in columns.items():
                    opened.read(column, start_of_data + (p * rows + first) * dtype.itemsize)
            carried = [columns[p].astype(carried_as(p)) for p in carry]
            yield Chunk([columns[p] for p in positions], carried=carried)

    return RowFile(opened, names, dtypes, rows, chunks, carried_as)


def _header_of(opened: Opened) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether columns are in one piece, dtype, and where the data starts."""
    head = np.empty(min(FIRST, opened.size), np.uint8)
    opened.read(head, 0)
    start = 10 + int.from_bytes(head[8:10].tobytes(), "little")
    if np.lib.format.read_magic(BytesIO(head[:10].tobytes())) == (1, 0) and start <= FIRST:
        shape, fortran, dtype = _parsed_header(head[8:start].tobytes())
        if all(type(length) is int and length >= 0 for length in shape) and not dtype.hasobject:
            return shape, fortran, dtype, start
    # Of another version, long, or wrong, which it says; the map is dropped at once: what is read of it would count as
    # used memory.
    table = np.lib.format.open_memmap(opened.name, mode="r", max_header_size=LONGEST_HEADER)
    return table.shape, not table.flags.c_contiguous, table.dtype, table.offset


@lru_cache(16)  # many small files have the same one
def _parsed_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    found: tuple[tuple[int, ...], bool, np.dtype[Any]]
    found = np.lib.format.read_array_header_1_0(BytesIO(header), max_header_size=FIRST)
    return found


def _number(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    return dtype if dtype.kind in "fiub" else None


def kind_of_carried(kind: Any) -> np.dtype[Any]:
    """NumPy's dtype of a type of pyarrow's.

    Raises:
      InputError: it is none of numbers.
    """
    if isinstance(kind, np.dtype):
        return kind
    found = arrow_dtype(kind)
    if found is None:
        raise InputError(f"it is of type {short(str(kind))}, and .npy holds numbers only")
    return found


@lru_cache(16)  # many small files have the same one
def _header(dtype: np.dtype[Any], rows: int) -> bytes:
    header = BytesIO()
    # NumPy leaves room in it for the number of rows to grow.
    np.lib.format.write_array_header_1_0(
        header, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows,)}
    )
    return header.getvalue()


INTERLEAVED = 16_384  # rows whose columns are put together at a time, in the cache


class NpySink:
    """A structured array: a row has a field for each column."""

    def __init__(self, file: Resumable, schema: Schema, rows: int):
        self._file = file
        carried = [(name, kind_of_carried(kind)) for name, kind in schema.carried.items()]
        self._dtype = np.dtype(carried + [(name, schema.dtype) for name in schema.kept])
        self._block = np.empty(INTERLEAVED, self._dtype)
        self._rows = rows
        file.write_head(_header(self._dtype, 0))
        if rows:
            file.skip()

    def write(self, columns: Columns) -> None:
        rows = len(next(iter(columns.values())))
        for start in range(0, rows, INTERLEAVED):
            block = self._block[: min(INTERLEAVED, rows - start)]
            for name, column in columns.items():
                block[name] = column[start : start + len(block)]
            self._file.write(block.view(np.uint8))
        self._rows += rows

    def close(self, seal: str) -> None:
        self._file.rewrite_head(_header(self._dtype, self._rows))
