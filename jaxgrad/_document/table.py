"""Reference tables: numbers that somebody printed, with what each of them is, and whether a record has them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np

from jaxgrad import neuron
from jaxgrad._compare.comparison import Comparison
from jaxgrad._compare.rows import Pair, Row, differences
from jaxgrad._compare.tolerance import Tolerance
from jaxgrad._compare.ulp import ulp_distance
from jaxgrad._document.digits import interval, same_digits
from jaxgrad._errors import InputError, TableError
from jaxgrad._record import Record
from jaxgrad._text import did_you_mean


@dataclass(frozen=True)
class Number:
    """One printed number.

    Attributes:
      label: the text before the number, as printed.
      quantity: what the number really is: "z", "df/dw0", "dh/dk", ...
      printed: its digits, as printed.
      part, cell: where it stands in the document, None where the table does not say.
      claims: the quantity that the label names, where that is another one than `quantity`; else None.
    """

    label: str
    quantity: str
    printed: str
    part: int | None = None
    cell: int | None = None
    claims: str | None = None

    @property
    def place(self) -> str:
        """Where it stands and what it is, for messages."""
        where = [f"{name} {at}" for name, at in (("part", self.part), ("cell", self.cell)) if at is not None]
        return ", ".join([*where, f'"{self.label}" ({self.quantity} = {self.printed})'])


@dataclass(frozen=True)
class Cell:
    """One cell of the document that prints nothing, and what it became.

    Attributes:
      part, cell: where it stands in the document.
      source: what it does there, in one line.
      here: what does it here.
    """

    part: int
    cell: int
    source: str
    here: str


@dataclass(frozen=True, eq=False)
class Table:
    """Printed numbers of one function at one input.

    Attributes:
      title: what it is a table of.
      function: the function that the numbers are of; "neuron".
      x: inputs, shape (n,), of the dtype that the numbers were computed in.
      w: weights with the bias last, shape (n+1,), of x's dtype.
      rounded: True where the digits were rounded ("0.73" is any value from 0.725 to 0.735), False where they
        were printed in full, so that a value must print the same digits to agree.
      numbers: the numbers in the order in which they were printed.
      cells: the document's cells that print nothing, in its order; none where the table does not say.
    """

    title: str
    function: str
    x: np.ndarray[Any, Any]
    w: np.ndarray[Any, Any]
    rounded: bool
    numbers: tuple[Number, ...]
    cells: tuple[Cell, ...] = ()

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.x.dtype
        return dtype

    def compare_to(self, got: Record, tolerance: Tolerance) -> Comparison:
        """Compares a record of the neuron with the printed numbers, in their order.

        Where the digits were printed in full, a value agrees when it prints the same digits, as Python prints it or as
        NumPy does. Where they were rounded, it agrees within half a unit of the last printed digit. A tolerance of the
        user's replaces both.

        Raises:
          TableError: the record is not of the neuron, of another number of inputs, or of a batch; the table has a
            quantity that the neuron has not.
          InputError: the record is not in the table's dtype.
        """
        _check_record(got, self)
        with np.errstate(all="ignore"):  # as IEEE arithmetic has it
            columns = neuron.columns(got)
        rows = tuple(_printed(number, columns, self) for number in self.numbers)
        if not tolerance.is_default:
            rows = tuple(_within(row, tolerance) for row in rows)
        pairs = {number.place: _pair(number, columns, self) for number in self.numbers}
        return Comparison(rows, pairs)


def _pair(number: Number, columns: Mapping[str, Any], table: Table) -> Pair:
    """The computed and the printed number, and how far one may be off the other."""
    low, high = interval(number.printed, rounded=table.rounded)
    half = (high - low) / 2 if np.isfinite(high) and np.isfinite(low) else 0.0
    with np.errstate(over="ignore"):
        want = np.asarray(float(Decimal(number.printed))).astype(table.dtype)
    return Pair(np.asarray(columns[number.quantity]), want, Tolerance(0, atol=half, ulp=0))


def _check_record(got: Record, table: Table) -> None:
    if got.names != neuron.NAMES or len(got.arg_grads) != 2:
        raise TableError(
            f'the table "{table.title}" is of the neuron, whose record has {", ".join(neuron.NAMES)} and the gradients '
            f"of x and w; the record has {', '.join(got.names) or 'no tags'} and {len(got.arg_grads)} arguments. "
            "Compare a record of the neuron."
        )
    grads = {**got.grads, "x": got.arg_grads[0], "w": got.arg_grads[1]}
    if missing := [name for name, grad in grads.items() if grad is None]:
        raise TableError(
            f'the record has no gradient of {", ".join(missing)}; the table "{table.title}" expects all of the '
            "neuron's. Compare a record of every argument and tag."
        )
    shapes, expected = [list(np.shape(grad)) for grad in got.arg_grads], [list(table.x.shape), list(table.w.shape)]
    if shapes != expected:
        raise TableError(
            f"the gradients of x and w have the shapes {shapes[0]} and {shapes[1]}; the table "
            f'"{table.title}" expects {expected[0]} and {expected[1]}, one row of its input. Of a batch take one row '
            "out: jax.tree.map(lambda a: a[0], record)."
        )


def _within(row: Row, tolerance: Tolerance) -> Row:
    """The row by the user's tolerance in place of its digits."""
    near = row.absolute == 0 or (tolerance.ulp is not None and row.ulp <= tolerance.ulp)
    near |= row.absolute <= (tolerance.atol or 0) + (tolerance.rtol or 0) * abs(float(row.want))
    return replace(row, ok=near, why="" if near else row.why or "differs")


def _printed(number: Number, columns: Mapping[str, Any], table: Table) -> Row:
    if number.quantity not in columns:
        raise TableError(
            f'{number.place}: there is no quantity "{number.quantity}". {did_you_mean(number.quantity, columns)} '
            f"There are: {', '.join(columns)}."
        )
    got = np.asarray(columns[number.quantity])
    if got.dtype != table.dtype:
        raise InputError(
            f'{number.quantity} is {got.dtype} and the table "{table.title}" was computed in {table.dtype}; expected '
            f"one dtype. Compute the record of x and w in {table.dtype}."
        )
    value = float(got)
    low, high = interval(number.printed, rounded=table.rounded)
    # In this order a NaN among the bounds is kept, and a NaN that was computed is not: it is no number's neighbour.
    nearest = np.float64(min(high, max(low, value)))
    with np.errstate(all="ignore"):  # digits beyond the dtype's range stand for its infinity
        want = nearest.astype(table.dtype)
        ulp = float(ulp_distance(got, want))
        absolute, relative = differences(value, float(want))
    if table.rounded:
        ok = low <= value <= high or (np.isnan(low) and np.isnan(value))
    else:
        ok = any(same_digits(text, number.printed) for text in (repr(value), str(got)))
    kind = "gradient" if "/" in number.quantity else "value"
    why = "" if ok else f"printed {number.printed}"
    return Row(number.quantity, kind, got, want, absolute, relative, ulp, (), bool(ok), why, number.place)
