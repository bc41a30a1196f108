"""Columns as pyarrow has them, to NumPy and back."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._evaluate.sink import Columns, Schema
from jaxgrad._evaluate.source import Chunk
from jaxgrad._text import short

BOOLEANS = {"true": "1", "false": "0"}


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
    is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    return np.dtype(kind.to_pandas_dtype()) if is_number else None


def check_types(path: Path, fields: Iterable[Any]) -> None:
    """Raises an `InputError` where a column is of no type that holds numbers, or text that may be numbers."""
    for field in fields:
        if not _may_be_numbers(field.type):
            raise InputError(
                f'"{path}", column {short(field.name)}: it is of type {short(str(field.type))}; expected real numbers.'
            )


def _may_be_numbers(kind: Any) -> bool:
    types = pyarrow("pyarrow").types
    if types.is_dictionary(kind):
        return _may_be_numbers(kind.value_type)
    text = (types.is_string, types.is_large_string, types.is_string_view, types.is_decimal, types.is_null)
    return arrow_dtype(kind) is not None or any(is_kind(kind) for is_kind in text)


def carried_type(path: Path, field: Any) -> Any:
    """The type in which a column passes through: its own, of a dictionary that of its values.

    Raises:
      InputError: there are dictionaries within it, which formats have one of in a file.
    """
    types = pyarrow("pyarrow").types
    kind = field.type.value_type if types.is_dictionary(field.type) else field.type
    if _has_dictionary(kind):
        raise InputError(
            f'"{path}", column {short(field.name)}: it is of type {short(str(field.type))}, and cannot be carried; '
            "expected a type without dictionaries in it."
        )
    return kind


def _has_dictionary(kind: Any) -> bool:
    inner = [kind.field(i).type for i in range(kind.num_fields)]
    return pyarrow("pyarrow").types.is_dictionary(kind) or any(map(_has_dictionary, inner))


def carried(column: Any) -> Any:
    """A column as it passes through."""
    return column.dictionary_decode() if pyarrow("pyarrow").types.is_dictionary(column.type) else column


def of_arrow(columns: Sequence[Any], passing: Sequence[Any] = ()) -> Chunk:
    why: dict[tuple[int, int], str] = {}
    pa = pyarrow("pyarrow")
    found = []
    for position, column in enumerate(columns):
        dtype = arrow_dtype(column.type)
        if dtype is None:
            column = _parsed(column.cast(pa.string()), position, why)
        elif dtype.kind == "b":
            column = column.cast(pa.uint8())
        if column.null_count:
            for row in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist():
                why.setdefault((row, position), "is missing")
        found.append(column.to_numpy(zero_copy_only=False))
    return Chunk(found, why, [carried(column) for column in passing])


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
                why[row, position] = f'is "{short(text)}"' if text else "is missing"
        return pa.array(numbers, pa.float64())


def number(text: str) -> float:
    """The number that a cell of text holds; a boolean is 0 or 1, as it is in every other format.

    Raises:
      ValueError: it holds none.
    """
    if "_" in text:  # 1_000 is a number to Python alone
        raise ValueError
    return float(BOOLEANS.get(text.lower(), text))


def schema_of(schema: Schema) -> Any:
    """pyarrow's schema of an output; only what is carried may be missing."""
    pa = pyarrow("pyarrow")
    carried = [pa.field(name, _arrow_type(kind)) for name, kind in schema.carried.items()]
    return pa.schema(
        carried + [pa.field(name, pa.from_numpy_dtype(schema.dtype), nullable=False) for name in schema.kept]
    )


def _arrow_type(kind: Any) -> Any:
    return pyarrow("pyarrow").from_numpy_dtype(kind) if isinstance(kind, np.dtype) else kind


def record_batch(columns: Columns, schema: Any) -> Any:
    """The columns, of the types of pyarrow's schema."""
    pa = pyarrow("pyarrow")
    arrays = []
    for name, column in columns.items():
        array = column if isinstance(column, pa.Array) else pa.array(column)
        kind = schema.field(name).type
        arrays.append(array if array.type == kind else array.cast(kind))
    return pa.record_batch(arrays, schema=schema)
