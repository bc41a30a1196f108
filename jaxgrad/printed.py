"""Printed numbers: whether a computed value is one that the printed digits stand for."""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from decimal import Context, Decimal
from typing import Any

import numpy as np

from jaxgrad import neuron
from jaxgrad.comparison import Row, differences
from jaxgrad.errors import TableError
from jaxgrad.record import Record
from jaxgrad.reference import Number, Table
from jaxgrad.ulp import ulp_distance


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
    return tuple(_printed(number, columns, table) for number in table.numbers)


def compare_neuron(
    got: Record, table: Table, ulp: float | None, rtol: float | None, atol: float | None
) -> tuple[Row, ...]:
    if got.names != neuron.NAMES or len(got.arg_grads) != 2:
        raise TableError(
            f'the table "{table.title}" is of the neuron, whose record has {", ".join(neuron.NAMES)} and the gradients '
            f"of x and w; the record has {', '.join(got.names) or 'no tags'} and {len(got.arg_grads)} arguments. "
            "Compare a record of the neuron."
        )
    rows = compare_table(neuron.columns(got), table)
    if ulp is None and rtol is None and atol is None:
        return rows
    ours = [
        row.ulp <= (-1 if ulp is None else ulp)
        or row.absolute <= (atol or 0) + (rtol or 0) * abs(float(row.want))
        or row.absolute == 0
        for row in rows
    ]
    return tuple(replace(row, ok=ok, why="" if ok else "differs") for row, ok in zip(rows, ours, strict=True))


def _printed(number: Number, columns: Mapping[str, Any], table: Table) -> Row:
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
    with np.errstate(over="ignore", invalid="ignore"):  # digits beyond the dtype's range stand for its infinity
        want = nearest.astype(table.dtype)
        ulp = float(ulp_distance(got, want))
        absolute, relative = differences(value, float(want))
    if table.rounded:
        ok = low <= value <= high or (np.isnan(low) and np.isnan(value))
    else:
        ok = any(_same_digits(text, number.printed) for text in (repr(value), str(got)))
    kind = "gradient" if "/" in number.quantity else "value"
    why = "" if ok else f"printed {number.printed}"
    return Row(number.quantity, kind, got, want, absolute, relative, ulp, (), bool(ok), why, number)


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
