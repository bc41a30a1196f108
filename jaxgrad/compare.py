"""Comparing records: which number disagrees first, by how much, and whether rounding can be why."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Context, Decimal
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgrad import neuron, rounding
from jaxgrad.diagnose import Diagnosis, diagnose
from jaxgrad.entries import Entries, Entry, label, of_mapping, of_record
from jaxgrad.errors import DifferenceError, InputError, TableError
from jaxgrad.record import Record
from jaxgrad.reference import Number, Table
from jaxgrad.rounding import Tolerance
from jaxgrad.ulp import ulp_distance

__all__ = ["Comparison", "Pair", "Row", "compare", "compare_table", "ulp_distance"]


@dataclass(frozen=True)
class Row:
    """One value or one gradient, at its worst element.

    Attributes:
      name: the tag's; "output"; "arg[0]" for an argument; for a printed number, the quantity.
      kind: "value" or "gradient".
      got, want: the two numbers, of shape (); None where there is none.
      absolute, relative: the difference, and the difference over the size of `want`.
      ulp: the difference in ULP of `got`'s dtype; for a printed number, from the nearest that its digits stand for.
      index: where the worst element stands in the array; () in a scalar.
      ok: whether they agree.
      why: where they don't, in what; where they do, "".
      number: the printed number, where it is one.
    """

    name: str
    kind: str
    got: Any
    want: Any
    absolute: float
    relative: float
    ulp: float
    index: tuple[int, ...]
    ok: bool
    why: str = ""
    number: Number | None = None

    @property
    def label(self) -> str:
        """The name of a value, "name.grad" for a gradient."""
        return self.name if self.number else label(self.name, self.kind)


@dataclass(frozen=True, eq=False)
class Pair:
    """The two arrays behind a row, and how far one may be off the other."""

    got: np.ndarray[Any, Any]
    want: np.ndarray[Any, Any]
    tolerance: Tolerance


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` finds.

    Attributes:
      rows: a `Row` for each value in program order, then for each gradient from the output back.
      pairs: label of a row -> its two arrays, where both are there and can be compared.
    """

    rows: tuple[Row, ...]
    pairs: Mapping[str, Pair] = field(default_factory=dict, repr=False)

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows)

    @property
    def first_divergence(self) -> Row | None:
        """The first row that differs: the first value in program order, or else the gradient nearest the output."""
        return next((row for row in self.rows if not row.ok), None)

    def raise_if_different(self) -> None:
        """Raises:
        DifferenceError: they differ; the text is the comparison.
        """
        if not self.ok:
            raise DifferenceError(str(self))

    def diagnose(self) -> tuple[Diagnosis, ...]:
        """Why each row that differs does, where its numbers tell, and in which rows of a batch.

        Example:
          >>> got = Record(np.float32(1), ("h",), {"h": np.float32([[2, 4], [1, 3]])}, {"h": None}, ())
          >>> for diagnosis in compare(got, {"h": np.float32([[1, 2], [1, 3]])}).diagnose():
          ...     print(diagnosis)
          h: factor 2: 2 times what it should be (rows 0)
        """
        return tuple(self._diagnosis(row) for row in self.rows if not row.ok)

    def _diagnosis(self, row: Row) -> Diagnosis:
        pair = self.pairs.get(row.label)
        if pair is None:
            return Diagnosis(row.label, "not comparable", row.why, ())
        of_name = [self.pairs[name] for name in (row.name, label(row.name, "gradient")) if name in self.pairs]
        infinite = [~np.isfinite(p.got) for p in of_name if p.got.shape == pair.got.shape and p is not pair]
        elsewhere = any(np.isinf(p.got).any() for p in self.pairs.values() if p is not pair)
        mask = np.any(infinite, axis=0) if infinite and np.any(infinite) else np.asarray(True) if elsewhere else None
        return diagnose(row.label, pair.got, pair.want, pair.tolerance, mask)

    def __str__(self) -> str:
        return "\n".join(_text(self.rows))


def compare(
    got: Record,
    want: Record | Table | Mapping[Any, Any],
    *,
    ulp: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
) -> Comparison:
    r"""Compares a record with another, with a table of printed numbers, or with arrays or PyTorch tensors by name.

    Without tolerances an element $a$ may be $A u (|a| + s)$ off, what rounding can do: $u$ is the dtype's unit
    roundoff, $s$ the largest element of its row, $A$ grows with the root of the steps before it and of the longest
    axis (see `jaxgrad.rounding`). A 0 beside another number differs, however small that is, and so does a NaN beside
    a number. A printed number agrees where its digits do. An oracle's own uncertainty is allowed for.

    Args:
      got: what was computed.
      want: what it should be. In a dict, "z" is the value of tag z, a PyTorch tensor of it has the gradient too;
        "z.grad" is a gradient, "output" the output; an argument goes by its position, 0 or "arg[0]['w']", as a
        tensor, or its gradient by "arg[0].grad". What a dict or a table has no gradient for is not compared; a tag of
        `got` that it has not is a difference, except for a table.
      ulp: an element agrees within so many ULP ...
      rtol, atol: ... or within atol + rtol * abs(want). If any of the three is given, it replaces the default.

    Returns:
      A `Comparison`.

    Raises:
      InputError: there is nothing to compare, or it is no array; a tensor requires grad but was not retained; a
        tolerance is negative.
      TableError: the table is of another function.

    Example:
      >>> import jax
      >>> x, w = jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1])
      >>> comparison = compare(jax.jit(neuron.backprop)(x, w), neuron.chain_rule(x, w))
      >>> comparison.ok
      True
      >>> wrong = compare(neuron.backprop(x, w), {"z": 0.0, "k": 1.0, "h": 2.0, "f": 0.5, "h.grad": 0.25})
      >>> print([row.label for row in wrong.rows if not row.ok], wrong.first_divergence.name)
      ['z', 'h.grad'] z
    """
    if not isinstance(got, Record):
        raise InputError(f"`got` is a {type(got).__name__}; expected a Record, as retain_grads(fun)(...) returns.")
    for name, limit in (("ulp", ulp), ("rtol", rtol), ("atol", atol)):
        if limit is not None and not limit >= 0:
            raise InputError(f"{name} is {limit}; expected a number that is not negative.")
    if isinstance(want, Table):
        return Comparison(_compare_numbers(got, want, ulp, rtol, atol))
    if isinstance(want, Record):
        wanted = of_record(want)
    elif isinstance(want, Mapping):
        wanted = of_mapping(want)
    else:
        raise InputError(
            f"`want` is a {type(want).__name__}; expected a Record, a table from jaxgrad.reference.load, or a dict of "
            "name -> array or PyTorch tensor."
        )
    if not wanted:
        raise InputError("`want` is empty, so that anything would agree with it; expected a name at least.")
    return _compare_entries(of_record(got), wanted, Tolerance(0, ulp, rtol, atol), got.names)


def _compare_entries(found: Entries, wanted: Entries, tolerance: Tolerance, tags: tuple[str, ...]) -> Comparison:
    arrays = [entry.array for entry in wanted.values() if entry.array is not None]
    longest = max((size for array in arrays for size in array.shape), default=1)
    rows, pairs = [], {}
    for step, name in enumerate(_order(found, wanted, tags), start=1):
        allowed = replace(tolerance, units=rounding.units(step, longest))
        row, pair = _row(found.get(name), wanted.get(name), allowed)
        if pair is not None:
            pairs[name] = pair
            row = row if row.got is None else _harmless(row, pair, found)
        rows.append(row)
    return Comparison(tuple(rows), pairs)


def _order(found: Entries, wanted: Entries, tags: tuple[str, ...]) -> list[str]:
    """The labels to compare in the order of `found`; what it lacks stands behind what it follows in `wanted`."""
    names = [name for name, entry in found.items() if name in wanted or (entry.name in tags and entry.kind == "value")]
    before: dict[str, str] = {}
    for name, entry in wanted.items():
        if name not in names:
            values = [other for other in names if found.get(other, wanted.get(other)).kind == "value"]  # type: ignore[union-attr]
            at = (
                names.index(before[entry.kind]) + 1
                if entry.kind in before
                else (entry.kind == "gradient") * len(values)
            )
            names.insert(at, name)
        before[entry.kind] = name
    return names


def _row(got: Entry | None, want: Entry | None, tolerance: Tolerance) -> tuple[Row, Pair | None]:
    entry = got or want
    assert entry is not None
    empty = Row(entry.name, entry.kind, None, None, np.inf, np.inf, np.inf, (), ok=False)
    if got is None or want is None:
        return replace(empty, why="missing: `got` has none" if got is None else "extra: `want` has none"), None
    a, b = got.array, want.array
    if a is None and b is None:
        return replace(empty, absolute=0.0, relative=0.0, ulp=0.0, ok=True), None
    if a is not None and b is None and want.is_zero:
        b = np.zeros_like(a)  # PyTorch's way to say so
    if a is None or b is None:
        side, note = ("got", got.note) if a is None else ("want", want.note)
        return replace(empty, why=f"`{side}` has no {entry.kind}" + f": {note}" * bool(note)), None
    if want.weak and a.shape == b.shape:
        b = b.astype(a.dtype)
    if a.shape != b.shape:
        return replace(empty, why=f"shape {list(a.shape)}; expected {list(b.shape)}"), Pair(a, b, tolerance)
    if a.dtype != b.dtype and want.uncertainty is None:
        return replace(empty, why=f"dtype {a.dtype}; expected {b.dtype}"), None
    if want.uncertainty is not None:
        tolerance = replace(tolerance, uncertainty=np.asarray(want.uncertainty))
    why = f": {want.note}" * bool(want.note)
    return _compared(empty, Pair(a, b, tolerance), why)


def _compared(empty: Row, pair: Pair, why: str) -> tuple[Row, Pair]:
    worst = rounding.worst(pair.got, pair.want, pair.tolerance)
    if not pair.got.size:
        return replace(empty, absolute=0.0, relative=0.0, ulp=0.0, ok=True), pair
    index = tuple(int(i) for i in np.unravel_index(worst.index, pair.got.shape))
    a, b = pair.got[index], np.asarray(pair.want[index])
    with np.errstate(all="ignore"):
        b = b.astype(a.dtype)[()]
        absolute, relative = _differences(a, b)
    ulp = float(np.max(rounding.steps(np.asarray(a), np.asarray(b), a.dtype)))
    why = "" if not worst.far else f"{_share(worst.far, pair.got.size)}{why}"
    return replace(
        empty, got=a, want=b, absolute=absolute, relative=relative, ulp=ulp, index=index, ok=not worst.far, why=why
    ), pair


def _differences(a: Any, b: Any) -> tuple[float, float]:
    """|a - b|, and that over |b|; 0 for equal ones, infinities and NaN among them."""
    if a == b or (np.isnan(a) and np.isnan(b)):
        return 0.0, 0.0
    a, b = (complex(v) if np.iscomplexobj(v) else float(v) for v in (a, b))
    absolute = float(np.abs(np.subtract(a, b)))
    return absolute, float(np.divide(absolute, np.abs(b)))


def _share(far: int, size: int) -> str:
    return "differs" if size == 1 else f"{far:,} of {size:,} differ"


def _harmless(row: Row, pair: Pair, found: Entries) -> Row:
    """A value too small an array to show the size of its sums agrees where its error is lost in the output's rounding.

    z = w . x + b may cancel to any part of its summands. Where z is off by no more than a small part of itself (so no
    0, no sign and no factor), and that moves the output by less than its own rounding, rounding is what it is.
    """
    gradient, output = found.get(label(row.name, "gradient")), found.get("output")
    dtype = pair.got.dtype
    known = gradient is not None and gradient.array is not None and output is not None and output.array is not None
    if row.ok or row.kind != "value" or not known or pair.got.size >= 8 or not pair.tolerance.is_default:
        return row
    assert gradient is not None
    assert output is not None
    if (
        not jnp.issubdtype(dtype, jnp.floating)
        or gradient.array is None
        or output.array is None
        or output.array.size != 1
    ):
        return row
    unit = rounding.roundoff(dtype)
    with np.errstate(all="ignore"):
        off = np.abs(pair.got.astype(np.float64) - pair.want.astype(np.float64))
        small = bool(np.all(off <= np.sqrt(unit) / 4 * np.abs(pair.want.astype(np.float64))))
        moved = float(np.sum(off * np.abs(gradient.array.astype(np.float64))))
        lost = moved <= unit * abs(float(output.array.reshape(())))
    return replace(row, ok=True, why="") if small and lost else row


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


def _compare_numbers(
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
        absolute, relative = _differences(value, float(want))
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


def _text(rows: tuple[Row, ...]) -> Iterator[str]:
    """A line on what differs first, then the rows as a table."""
    wrong = [row for row in rows if not row.ok]
    if not wrong:
        yield f"all {len(rows)} rows agree"
    else:
        first = {kind: next((row.label for row in wrong if row.kind == kind), None) for kind in ("value", "gradient")}
        begins = [f"the first {kind} to differ is {name}" for kind, name in first.items() if name]
        yield f"{len(wrong)} of {len(rows)} rows differ: {', '.join(begins)}"
    yield ""
    lines: list[tuple[str, ...]] = [("", "", "got", "want", "absolute", "relative", "ULP", "at", "")]
    lines += [_cells(row) for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        ends = [
            cell.ljust(width) if i < 2 or i > 6 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(ends).rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    mark = "" if row.ok else "!"
    if row.got is None or row.want is None:
        return mark, row.label, "", "", "", "", "", "", row.why or "nothing to compare"
    at = str(list(row.index)) if row.index else ""
    steps = f"{row.ulp:.0f}" if row.ulp < 1e6 else f"{row.ulp:.1e}"
    numbers = (f"{row.absolute:.2g}", f"{row.relative:.2g}", steps)
    return mark, row.label, _digits(row.got), _digits(row.want), *numbers, at, row.why or "ok"


def _digits(value: Any) -> str:
    return str(np.asarray(value)[()])
