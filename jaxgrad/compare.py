"""Comparing numbers: how far apart they are in ULP, and whether they agree."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxgrad.errors import InputError, TableError
from jaxgrad.reference import Number, Table


def ulp_distance(got: ArrayLike, want: ArrayLike) -> np.ndarray[Any, Any]:
    """How many steps from one representable number to the next lie between `got` and `want`.

    Floating-point numbers of one dtype, read as sign and magnitude, are ordered as their bit patterns are; the
    distance is the difference of the patterns. It is 0 for equal numbers (-0.0 equals 0.0; NaN equals NaN) and
    infinite between NaN and a number.

    Args:
      got, want: arrays of one shape and one dtype: float16, bfloat16, float32 or float64.

    Returns:
      float64 array of that shape, exact up to 2**53.

    Raises:
      InputError: the dtypes or shapes differ, or are not floating-point.

    Example:
      >>> print(ulp_distance(np.float32([1.0, 1.0, 0.0]), np.float32([1.0, 1.0000001, 1e-45])))
      [0. 1. 1.]

    Reference: Bruce Dawson, Comparing Floating Point Numbers, 2012 edition.
    """
    got, want = np.asarray(got), np.asarray(want)
    if got.dtype != want.dtype or got.shape != want.shape:
        raise InputError(
            f"got {got.dtype}{list(got.shape)} and want {want.dtype}{list(want.shape)} cannot be compared in ULP; "
            "expected one dtype and one shape. Cast one to the other's dtype first."
        )
    if got.dtype.name not in ("float16", "bfloat16", "float32", "float64"):
        raise InputError(f"{got.dtype} has no ULP; expected float16, bfloat16, float32 or float64.")
    a, b = _ordered(got), _ordered(want)
    with np.errstate(over="ignore"):  # the difference of two int64 may need 64 bits: modulo 2**64, read as unsigned
        steps = (np.maximum(a, b).view(np.uint64) - np.minimum(a, b).view(np.uint64)).astype(np.float64)
    one_is_nan = np.isnan(got) != np.isnan(want)
    both_are_nan = np.isnan(got) & np.isnan(want)
    return np.where(one_is_nan, np.inf, np.where(both_are_nan, 0.0, steps))


def _ordered(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Integers in the order of the floating-point numbers, both zeros at 0."""
    bits = array.view(f"i{array.dtype.itemsize}").astype(np.int64)
    sign = np.int64(-1 << (8 * array.dtype.itemsize - 1))  # the bit pattern of -0.0
    return np.where(bits < 0, sign - bits, bits)


@dataclass(frozen=True)
class Row:
    """One printed number beside one computed value.

    Attributes:
      number: the printed number.
      got: the computed value, of shape ().
      ulp: the distance in ULP from the nearest value that the printed digits stand for.
      ok: whether they agree.
    """

    number: Number
    got: Any
    ulp: float
    ok: bool


def compare_table(columns: Mapping[str, Any], table: Table) -> tuple[Row, ...]:
    """Compares computed values with the printed numbers of a table, in the table's order.

    Where the table's digits were printed in full, a value agrees when it prints the same digits, as Python prints
    it or as NumPy does. Where they were rounded, it agrees within half a unit of the last printed digit.

    Args:
      columns: name of a quantity -> its value, of shape () and the table's dtype.
      table: the printed numbers.

    Returns:
      A `Row` for each number.

    Raises:
      TableError: the table has a quantity that `columns` lacks.
      InputError: a value is not of the table's dtype.

    Example:
      >>> from jaxgrad import reference
      >>> values = {number.quantity: np.float32(number.printed) for number in reference.load().numbers}
      >>> rows = compare_table(values, reference.load())
      >>> print(all(row.ok for row in rows), max(row.ulp for row in rows))
      True 0.0
    """
    return tuple(_row(number, columns, table) for number in table.numbers)


def _row(number: Number, columns: Mapping[str, Any], table: Table) -> Row:
    if number.quantity not in columns:
        near = difflib.get_close_matches(number.quantity, columns, n=1, cutoff=0)
        raise TableError(
            f'{number.place}: there is no quantity "{number.quantity}". Did you mean "{near[0]}"? '
            f"There are: {', '.join(columns)}."
        )
    got = np.asarray(columns[number.quantity])
    value = float(got)
    low, high = _interval(number, rounded=table.rounded)
    # In this order a NaN among the bounds is kept, and a NaN that was computed is not: it is no number's neighbour.
    nearest = np.float64(min(high, max(low, value)))
    with np.errstate(over="ignore"):  # digits beyond the dtype's range stand for its infinity
        ulp = float(ulp_distance(got, nearest.astype(table.dtype)))
    if table.rounded:
        ok = low <= value <= high or (np.isnan(low) and np.isnan(value))
    else:
        ok = any(_same_digits(text, number.printed) for text in (repr(value), str(got)))
    return Row(number, got, ulp, bool(ok))


def _interval(number: Number, *, rounded: bool) -> tuple[float, float]:
    """The least and the greatest value that the printed digits stand for."""
    printed = Decimal(number.printed)
    if not rounded or not printed.is_finite():
        return float(printed), float(printed)
    half = Decimal((0, (5,), int(printed.as_tuple().exponent) - 1))
    exact = Context(prec=len(printed.as_tuple().digits) + 2, traps=[])  # no trap: what overflows becomes infinite
    return float(exact.subtract(printed, half)), float(exact.add(printed, half))


def _same_digits(text: str, printed: str) -> bool:
    a, b = Decimal(text), Decimal(printed)
    return a == b or (a.is_nan() and b.is_nan())
