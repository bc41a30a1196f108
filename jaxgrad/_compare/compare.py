"""Comparing a record with a record, a table or tensors: every verdict comes out of this one function."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgrad._compare import tolerance as tolerances
from jaxgrad._compare.comparison import Comparison, Pair, Reference, Row, differences
from jaxgrad._compare.doubt import is_unsure, rounding_of
from jaxgrad._compare.entries import Entries, Entry, label, of_mapping, of_record
from jaxgrad._compare.ports.pairing import paired
from jaxgrad._compare.snapshot import Snapshot
from jaxgrad._compare.tolerance import Tolerance
from jaxgrad._errors import InputError
from jaxgrad._record import Record
from jaxgrad._types import Value


def compare(
    got: Record,
    want: Record | Reference | Snapshot | Mapping[Any, Any],
    *,
    names: Mapping[str, str] | None = None,
    rounding: Record | None = None,
    ulp: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
) -> Comparison:
    r"""Compares a record with another, with a table of printed numbers, or with arrays or PyTorch tensors by name.

    Without tolerances an element $a$ may be $A u (|a| + s)$ off, what rounding can do: $u$ is the dtype's unit
    roundoff, $s$ the largest element of its row, $A$ grows with the root of the steps before it and of the longest
    axis. A 0 beside another number differs, however small that is, and so does a NaN beside a number. A printed
    number agrees where its digits do. An oracle's own uncertainty is allowed for. Where the rounding of the program
    is known, as in a record of `with_rounding`, that takes the place of this rule: an element may be as far off as
    that and half a unit of its own, and a 0 beside another number too.

    Args:
      got: what was computed.
      want: what it should be. In a dict, "z" is the value of tag z, a PyTorch tensor of it has the gradient too;
        "z.grad" is a gradient, "output" the output; an argument goes by its position, 0 or "arg[0]['w']", as a
        tensor, or its gradient by "arg[0].grad". What a dict or a table has no gradient for is not compared; a tag of
        `got` that it has not is a difference, except for a table. Which branches were taken is compared, whatever
        the tolerance, with a record that says so. A `Snapshot` is a record read from a file.
      names: name in `got` -> its name in `want`, as `align` gives it: what it pairs is compared, in the layout of `got`
        (a kernel with a weight, N H W C with N C H W), and the text says what it leaves out. None for the same names.
      rounding: a record of the same program whose `uncertainty` is to be allowed for: of `with_rounding`, or of any
        oracle, as `in_float64(fun)(*args)`. By default that of `want` or `got`, where one knows it.
      ulp: an element agrees within so many ULP ...
      rtol, atol: ... or within atol + rtol * abs(want). If any of the three is given, it replaces the default.

    Returns:
      A `Comparison`.

    Raises:
      InputError: there is nothing to compare, or it is no array; a tensor requires grad but was not retained; a
        tolerance is negative; `names` pairs what is not there.
      TableError: the table is of another function.

    Example:
      >>> import jax
      >>> from jaxgrad import neuron
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
    if rounding is not None and not (isinstance(rounding, Record) and rounding.uncertainty):
        raise InputError(
            f"`rounding` is {_what(rounding)}; expected a Record that knows its uncertainty, as "
            "with_rounding(fun)(...) or in_float64(fun)(...) returns."
        )
    tolerance = Tolerance(0, ulp, rtol, atol)
    if isinstance(want, Reference):
        if names is not None:
            raise InputError("`want` is a table, which knows what its numbers are called; expected no `names`.")
        return want.compare_to(got, tolerance)
    if isinstance(want, Record):
        wanted = of_record(want)
    elif isinstance(want, Snapshot):
        wanted = want.entries
    elif isinstance(want, Mapping):
        wanted = of_mapping(want)
    else:
        raise InputError(
            f"`want` is a {type(want).__name__}; expected a Record, a table from jaxgrad.reference.load, or a dict of "
            "name -> array or PyTorch tensor."
        )
    if not wanted:
        raise InputError("`want` is empty, so that anything would agree with it; expected a name at least.")
    found = of_record(got)
    remarks: tuple[str, ...] = ()
    sides = [r for r in (want, got) if isinstance(r, Record)] if names is None else [got]  # `want` has other names
    if names is not None:
        found, wanted, remarks = paired(found, wanted, names)
    knows = rounding or next((r for r in sides if r.uncertainty_is_rounding), None)
    comparison = _compare_entries(found, wanted, tolerance, got.names, knows)
    call = next((r._call for r in sides if r._call is not None), None)
    shows_loss = isinstance(want, Record) and bool(want.uncertainty)  # beside an oracle, rounding is what is looked for
    if call is not None and knows is None and not shows_loss and tolerance.is_default and is_unsure(comparison):
        knows, remark = rounding_of(call)
        remarks = (*remarks, remark)
        comparison = _compare_entries(found, wanted, tolerance, got.names, knows) if knows else comparison
    return replace(comparison, remarks=remarks)


def assert_matches(got: Record, want: Record | Reference | Snapshot | Mapping[Any, Any], **options: Any) -> None:
    """Raises where `compare(got, want, **options)` finds a difference: for tests.

    Args:
      got, want, **options: as for `compare`.

    Raises:
      DifferenceError: they differ, an AssertionError; the text is the comparison, row by row.
      InputError, TableError: as for `compare`.

    Example:
      >>> from jaxgrad import neuron
      >>> x, w = jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1])
      >>> assert_matches(neuron.backprop(x, w), neuron.chain_rule(x, w))
    """
    __tracebackhide__ = True
    compare(got, want, **options).raise_if_different()


def _what(rounding: Value) -> str:
    return "a Record without uncertainty" if isinstance(rounding, Record) else f"a {type(rounding).__name__}"


def _compare_entries(
    found: Entries, wanted: Entries, tolerance: Tolerance, tags: tuple[str, ...], knows: Record | None
) -> Comparison:
    arrays = [entry.array for entry in wanted.values() if entry.array is not None]
    longest = max((size for array in arrays for size in array.shape), default=1)
    most = _most_without_a_kink(found, wanted)
    rows, pairs, step = [], {}, 0
    for name in _order(found, wanted, tags):
        got, want = found.get(name), wanted.get(name)
        step += (got or want).kind != "reached"  # type: ignore[union-attr]
        allowed = replace(tolerance, units=tolerances.units(step, longest))
        row, pair = _row(got, want, _with_known(allowed, knows, name, want, most))
        if pair is not None:
            pairs[name] = pair
            row = row if row.got is None else _harmless(row, pair, found)
        rows.append(row)
    return Comparison(tuple(rows), pairs)


def _most_without_a_kink(found: Entries, wanted: Entries) -> float:
    """How far rounding can have a gradient off where every value agrees to the bit, so that no kink lies between.

    Then only the sums of the reverse pass round, which leaves a small part of the largest number about: the root of a
    unit roundoff of it is generous. A relu that sends half a gradient at 0, where another sends none, is above it.
    """
    shared = [(found[name], entry) for name, entry in wanted.items() if name in found]
    values = [(a.array, b.array) for a, b in shared if b.kind == "value" and b.array is not None]
    if not values or not all(a is not None and np.array_equal(a, b) for a, b in values):
        return np.inf
    arrays = [entry.array for pair in shared for entry in pair if entry.array is not None and entry.array.size]
    floating = [array for array in arrays if jnp.issubdtype(array.dtype, jnp.inexact)]
    with np.errstate(all="ignore"):
        largest = max((float(np.max(np.abs(array.astype(complex)))) for array in floating), default=np.inf)
    unit = max((tolerances.roundoff(array.dtype) for array in floating), default=1.0)
    return float(np.sqrt(unit)) * largest if np.isfinite(largest) else np.inf


def _with_known(tolerance: Tolerance, knows: Record | None, name: str, want: Entry | None, most: float) -> Tolerance:
    """The tolerance of an entry, with what is known of its program's rounding; that of a gradient is `most` at most."""
    known = None if knows is None else knows.uncertainty.get(name)
    if known is None or knows is None or want is None or want.array is None or np.shape(known) != want.array.shape:
        return tolerance
    if knows.uncertainty_is_rounding:
        return replace(tolerance, rounding=np.minimum(known, most if want.kind == "gradient" else np.inf))
    return replace(tolerance, uncertainty=np.asarray(known))


def _order(found: Entries, wanted: Entries, tags: tuple[str, ...]) -> list[str]:
    """The labels to compare in the order of `found`; what it lacks stands behind what it follows in `wanted`."""
    names = [name for name, entry in found.items() if name in wanted or (entry.name in tags and entry.kind == "value")]
    gradients = sum((found | wanted)[name].kind == "gradient" for name in names)
    before: dict[bool, str] = {}
    for name, entry in wanted.items():
        backward = entry.kind == "gradient"
        if name not in names:
            first = len(names) - gradients if backward else 0
            names.insert(names.index(before[backward]) + 1 if backward in before else first, name)
            gradients += backward
        before[backward] = name
    return names


def _row(got: Entry | None, want: Entry | None, tolerance: Tolerance) -> tuple[Row, Pair | None]:
    entry = got or want
    assert entry is not None
    empty = Row(entry.name, entry.kind, None, None, np.inf, np.inf, np.inf, (), ok=False)
    if got is None or want is None:
        return replace(empty, why="missing: `got` has none" if got is None else "extra: `want` has none"), None
    a, b = got.array, want.array
    if a is None and b is None:
        return replace(empty, absolute=0.0, relative=0.0, ulp=0.0, ok=True, why=_neither(got, want)), None
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
        tolerance = replace(tolerance, uncertainty=tolerance.uncertainty + np.asarray(want.uncertainty))
    if entry.kind == "reached":  # no tolerance makes of one branch another
        tolerance = Tolerance(0, uncertainty=0.0 if want.uncertainty is None else np.asarray(want.uncertainty))
        return _compared(empty, Pair(a, b, tolerance), ": another branch was taken")
    return _compared(empty, Pair(a, b, tolerance), f": {want.note}" * bool(want.note))


def _compared(empty: Row, pair: Pair, why: str) -> tuple[Row, Pair]:
    worst = tolerances.worst(pair.got, pair.want, pair.tolerance)
    if not pair.got.size:
        return replace(empty, absolute=0.0, relative=0.0, ulp=0.0, ok=True), pair
    index = tuple(int(i) for i in np.unravel_index(worst.index, pair.got.shape))
    a, b = pair.got[index], np.asarray(pair.want[index])
    with np.errstate(all="ignore"):
        b = b.astype(a.dtype)[()]
        absolute, relative = differences(a, b)
    ulp = float(np.max(tolerances.steps(np.asarray(a), np.asarray(b), a.dtype))) if absolute else 0.0
    why = "" if not worst.far else f"{_share(worst.far, pair.got.size)}{why}"
    return replace(
        empty, got=a, want=b, absolute=absolute, relative=relative, ulp=ulp, index=index, ok=not worst.far, why=why
    ), pair


def _neither(got: Entry, want: Entry) -> str:
    """What stands in a row that has no number on either side."""
    return f"none in either: {want.note or got.note}" if want.note or got.note else ""


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
    if (
        row.ok
        or row.kind != "value"
        or not known
        or pair.got.size >= 8
        or not pair.tolerance.is_default
        or pair.tolerance.rounding is not None
    ):
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
    unit = tolerances.roundoff(dtype)
    with np.errstate(all="ignore"):
        off = np.abs(pair.got.astype(np.float64) - pair.want.astype(np.float64))
        small = bool(np.all(off <= np.sqrt(unit) / 4 * np.abs(pair.want.astype(np.float64))))
        moved = float(np.sum(off * np.abs(gradient.array.astype(np.float64))))
        lost = moved <= unit * abs(float(output.array.reshape(())))
    return replace(row, ok=True, why="") if small and lost else row
