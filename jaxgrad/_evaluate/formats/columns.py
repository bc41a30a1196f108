"""Columns as pyarrow has them, to NumPy and back."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._evaluate.sink import Columns
from jaxgrad._evaluate.source import Chunk


def pyarrow(module: str) -> Any:
    """A module of pyarrow, which reads and writes every format but .npy."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        raise InputError(
            "pyarrow is not installed, and only .npy can do without; expected it here. "
            "Write pip install 'jaxgrad[files]'."
        ) from None


def group_of(row: int, groups: Sequence[int]) -> tuple[int, int]:
    """The group that a row is in, and how many rows are before the group."""
    before = 0
    for i, rows in enumerate(groups):
        if row < before + rows:
            return i, before
        before += rows
    return len(groups), before


def dropped(batches: Iterable[Any], rows: int) -> Iterator[Any]:
    """The batches without their first rows."""
    for batch in batches:
        if rows < batch.num_rows:
            yield batch.slice(rows)
        rows = max(0, rows - batch.num_rows)


def without_last(batches: Iterable[Any], rows: int) -> Iterator[Any]:
    """The batches without their last rows."""
    waiting: list[Any] = []  # more than `rows`, but for what the first of them has
    for batch in batches:
        waiting.append(batch)
        while waiting and sum(later.num_rows for later in waiting[1:]) >= rows:
            yield waiting.pop(0)
    left = sum(batch.num_rows for batch in waiting) - rows
    for batch in waiting:
        if left > 0:
            yield batch.slice(0, left)
        left -= batch.num_rows


def arrow_dtype(kind: Any) -> np.dtype[Any] | None:
    types = pyarrow("pyarrow").types
    return np.dtype(kind.to_pandas_dtype()) if types.is_integer(kind) or types.is_floating(kind) else None


def of_arrow(columns: Sequence[Any]) -> Chunk:
    why: dict[tuple[int, int], str] = {}
    found = []
    for position, column in enumerate(columns):
        if arrow_dtype(column.type) is None:
            column = _parsed(column.cast(pyarrow("pyarrow").string()), position, why)
        if column.null_count:
            for row in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist():
                why.setdefault((row, position), "is missing")
        found.append(column.to_numpy(zero_copy_only=False))
    return Chunk(found, why)


def _parsed(column: Any, position: int, why: dict[tuple[int, int], str]) -> Any:
    """A column of text as numbers, null where it is none."""
    pa, compute = pyarrow("pyarrow"), pyarrow("pyarrow.compute")
    column = compute.utf8_trim_whitespace(column)
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid:
        numbers = []
        for row, text in enumerate(column.to_pylist()):
            try:
                numbers.append(None if text is None else number(text))
            except ValueError:
                numbers.append(None)
                why[row, position] = f'is "{text}"' if text else "is missing"
        return pa.array(numbers, pa.float64())


def number(text: str) -> float:
    if "_" in text:  # 1_000 is a number to Python alone
        raise ValueError
    return float(text)


def schema_of(names: Sequence[str], dtype: np.dtype[Any]) -> Any:
    pa = pyarrow("pyarrow")
    return pa.schema([pa.field(name, pa.from_numpy_dtype(dtype), nullable=False) for name in names])


def record_batch(columns: Columns) -> Any:
    pa = pyarrow("pyarrow")
    arrays = [pa.array(column) for column in columns.values()]
    return pa.record_batch(arrays, schema=schema_of(list(columns), next(iter(columns.values())).dtype))
