"""The columns of an Arrow batch as arguments of a function of rows, and which of the rows are bad."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np

from jaxgrad._errors import InputError

Array: TypeAlias = np.ndarray[Any, Any]
Arrow: TypeAlias = Any  # a batch, column or type of pyarrow, an extra that is not imported for its types
ON_BAD_ROW = ("error", "skip", "nan")


@dataclass(frozen=True)
class Argument:
    """One argument, and the columns that it is made of.

    Attributes:
      columns: their names.
      is_stacked: whether it has shape (rows, columns), or (rows,) for one column.
      dtype: what the numbers become.
      narrows: whether columns of a wider floating-point type are taken too.
      finite: whether NaN and infinity are bad as well as what is missing.
    """

    columns: tuple[str, ...]
    is_stacked: bool
    dtype: np.dtype[Any]
    narrows: bool
    finite: bool

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (len(self.columns),) if self.is_stacked else ()


@dataclass(frozen=True)
class Rows:
    """The arguments of some rows; those that are bad have 0 for what is wrong with them."""

    arguments: tuple[Array, ...]
    bad: Array  # numbers of the bad rows, ascending
    first_bad: str | None


def pyarrow() -> Any:
    """pyarrow, an extra.

    Raises:
      InputError: it is not installed.
    """
    try:
        return import_module("pyarrow")
    except ImportError:
        raise InputError(
            "pyarrow is not installed, and batches of Arrow are its; expected it here. Write pip install "
            "'jaxgrad[files]'."
        ) from None


def column(batch: Arrow, name: str) -> Arrow:
    """A column of a batch or table, in one piece.

    Raises:
      InputError: it is not there, or twice.
    """
    found = batch.schema.get_all_field_indices(name)
    if len(found) != 1:
        what = f'two columns "{name}"' if found else f'no column "{name}"'
        raise InputError(f"the batch has {what}; expected one, among {', '.join(batch.schema.names) or 'none'}.")
    column = batch.column(found[0])
    return column.combine_chunks() if isinstance(column, pyarrow().ChunkedArray) else column


def read(batch: Arrow, arguments: Sequence[Argument]) -> Rows:
    """The arguments that a batch holds.

    Raises:
      InputError: a column is not there, or is of a type that is no number or would be narrowed.
    """
    arrays, bad = [], np.zeros(batch.num_rows, bool)
    why: dict[int, str] = {}  # row -> what is wrong with its first bad number, for the first bad row of each column
    for argument in arguments:
        array = np.empty((batch.num_rows, len(argument.columns)), argument.dtype)
        for i, name in enumerate(argument.columns):
            is_bad = _read_into(array[:, i], column(batch, name), name, argument, why)
            bad |= is_bad
        arrays.append(array if argument.is_stacked else array[:, 0])
    return Rows(tuple(arrays), np.flatnonzero(bad), why[min(why)] if why else None)


def _read_into(out: Array, column: Arrow, name: str, argument: Argument, why: dict[int, str]) -> Array:
    """Fills `out` with a column's numbers, 0 for bad ones; which of them are bad."""
    column = _numeric(column, name, argument)
    missing = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else np.zeros(len(column), bool)
    numbers = _without_nulls(column).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is infinite, and bad
        out[:] = numbers
    unfit = _unfit(numbers, out, argument)
    bad: Array = missing | unfit
    if bad.any():
        row = int(bad.argmax())
        what = "is missing" if missing[row] else _what(numbers[row], argument.dtype)
        why.setdefault(row, f'row {row} of the batch, column "{name}": it {what}')
        out[bad] = 0
    return bad


def _numeric(column: Arrow, name: str, argument: Argument) -> Arrow:
    """The column as integers, floating-point numbers or booleans, checked against what it is to become."""
    pa = pyarrow()
    kind, dtype = column.type, argument.dtype
    if pa.types.is_dictionary(kind):
        return _numeric(column.dictionary_decode(), name, argument)
    if pa.types.is_decimal(kind) and dtype.kind == "f":
        return column.cast(pa.string()).cast(pa.float64())  # rounded once, as from text
    if pa.types.is_null(kind):
        return column.cast(pa.from_numpy_dtype(dtype))
    takes = {
        "f": pa.types.is_floating(kind) or pa.types.is_integer(kind),
        "i": pa.types.is_integer(kind),
        "u": pa.types.is_integer(kind),
        "b": pa.types.is_boolean(kind),
    }[dtype.kind]
    if not takes:
        raise InputError(
            f'column "{name}" is {kind}, and {dtype.name} is computed in; expected numbers that it can hold. Cast the '
            "column in your engine first."
        )
    if pa.types.is_floating(kind) and kind.bit_width > 8 * dtype.itemsize and not argument.narrows:
        raise InputError(
            f'column "{name}" is {kind}, which {dtype.name} would silently narrow; expected one dtype. Give '
            f'`dtype="{np.dtype(kind.to_pandas_dtype()).name}"` to compute in the column\'s, or `dtype="{dtype.name}"` '
            "to narrow it."
        )
    return column


def _without_nulls(column: Arrow) -> Arrow:
    if not column.null_count or pyarrow().types.is_floating(column.type):
        return column  # which has NaN for them
    return column.fill_null(False if pyarrow().types.is_boolean(column.type) else 0)


def _unfit(numbers: Array, converted: Array, argument: Argument) -> Array:
    """Which numbers the dtype cannot hold, or are not finite where they have to be."""
    if argument.dtype.kind != "f":
        return np.asarray(numbers != converted)
    if argument.finite:
        return ~np.isfinite(converted)
    return np.isinf(converted) & np.isfinite(numbers)


def _what(value: Any, dtype: np.dtype[Any]) -> str:
    return f"is {value}, which {dtype.name} cannot hold" if np.isfinite(value) else f"is {value}"


def check_on_bad_row(on_bad_row: str, dtypes: Mapping[str, np.dtype[Any]]) -> None:
    """Whether the policy is one, and these results' columns can follow it.

    Raises:
      InputError: it is not, or a column cannot hold NaN.
    """
    if on_bad_row not in ON_BAD_ROW:
        raise InputError(f'`on_bad_row` is {on_bad_row!r}; expected "error", "skip" or "nan".')
    whole = next((name for name, dtype in dtypes.items() if dtype.kind != "f"), None)
    if on_bad_row == "nan" and whole is not None:
        raise InputError(
            f'`on_bad_row` is "nan" and the result "{whole}" is {dtypes[whole].name}, which has no NaN; expected '
            'floating-point results. Give `on_bad_row="skip"`.'
        )
