"""The rows of a comparison: each entry of one side beside that of the other, and how far they may be apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgrad._compare import tolerance as tolerances
from jaxgrad._compare.entries import Entries, Entry, label, largest
from jaxgrad._compare.tolerance import Tolerance
from jaxgrad._record import Record
from jaxgrad._types import Value

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Row:
    """One value or one gradient, at its worst element; or whether one branch was taken.

    Attributes:
      name: the tag's; "output"; "arg[0]" for an argument; for a printed number, the quantity.
      kind: "value", "gradient" or "reached", which is whether the tag's branch was taken.
      got, want: the two numbers, of shape (); None where there is none.
      absolute, relative: the difference, and the difference over the size of `want`.
      ulp: the difference in ULP of `got`'s dtype; for a printed number, from the nearest that its digits stand for.
      index: where the worst element stands in the array; () in a scalar.
      ok: whether they agree.
      why: where they don't, in what; where neither side has a number, why; else "".
      key: of a printed number, its place in its table, by which its pair is known; else "".
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
    key: str = ""

    @property
    def label(self) -> str:
        """The name of a value, "name.grad" for a gradient, "name.reached" for a branch."""
        return self.name if self.key else label(self.name, self.kind)


@dataclass(frozen=True, eq=False)
class Pair:
    """The two arrays behind a row, and how far one may be off the other."""

    got: np.ndarray[Any, Any]
    want: np.ndarray[Any, Any]
    tolerance: Tolerance


def differences(a: Value, b: Value) -> tuple[float, float]:
    """|a - b|, and that over |b|; 0 for equal ones, infinities and NaN among them."""
    if a == b or (np.isnan(a) and np.isnan(b)):
        return 0.0, 0.0
    a, b = (complex(v) if np.iscomplexobj(v) else float(v) for v in (a, b))
    absolute = float(np.abs(np.subtract(a, b)))
    return absolute, float(np.divide(absolute, np.abs(b)))


def compare_entries(
    found: Entries,
    wanted: Entries,
    tolerance: Tolerance,
    tags: tuple[str, ...],
    knows: Record | None,
    cancels: Sequence[Mapping[str, Array]] = (),
) -> tuple[tuple[Row, ...], dict[str, Pair]]:
    """A row for each entry, in the order of `found`.

    Args:
      knows: a record that knows the rounding of the program.
      cancels: label -> where one of the programs leaves nothing but rounding, in one example.
    """
    arrays = [entry.array for entry in wanted.values() if entry.array is not None]
    longest = max((size for array in arrays for size in array.shape), default=1)
    most = _most_without_a_kink(found, wanted)
    rows: list[Row] = []
    pairs: dict[str, Pair] = {}
    step = 0
    for name in _order(found, wanted, tags):
        got, want = found.get(name), wanted.get(name)
        step += (got or want).kind != "reached"  # type: ignore[union-attr]
        allowed = replace(tolerance, units=tolerances.units(step, longest))
        allowed = _with_known(allowed, knows, name, want, most)
        row, pair = _row(got, want, _with_cancelled(allowed, cancels, name, want, wanted))
        if pair is not None:
            pairs[name] = pair
            row = row if row.got is None else _harmless(row, pair, found)
        rows.append(row)
    return tuple(rows), pairs


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
        greatest = max((float(np.max(np.abs(array.astype(complex)))) for array in floating), default=np.inf)
    unit = max((tolerances.roundoff(array.dtype) for array in floating), default=1.0)
    return float(np.sqrt(unit)) * greatest if np.isfinite(greatest) else np.inf


def _with_known(tolerance: Tolerance, knows: Record | None, name: str, want: Entry | None, most: float) -> Tolerance:
    """The tolerance of an entry, with what is known of its program's rounding; that of a gradient is `most` at most."""
    known = None if knows is None else knows.uncertainty.get(name)
    if known is None or knows is None or want is None or want.array is None or np.shape(known) != want.array.shape:
        return tolerance
    if knows.uncertainty_is_rounding:
        return replace(tolerance, rounding=np.minimum(known, most if want.kind == "gradient" else np.inf))
    return replace(tolerance, uncertainty=np.asarray(known))


def _with_cancelled(
    tolerance: Tolerance, cancels: Sequence[Mapping[str, Array]], name: str, want: Entry | None, wanted: Entries
) -> Tolerance:
    """The tolerance of an entry, where rounding is all that is left beside a 0: of the largest number of its kind."""
    if want is None or want.array is None:
        return tolerance
    shape = want.array.shape
    masks = [mask for each in cancels if (mask := np.asarray(each.get(name, False))).any()]
    masks = [mask for mask in masks if mask.shape == shape[len(shape) - mask.ndim :]]
    if not masks:
        return tolerance
    limit = tolerance.slack * tolerance.units * tolerances.roundoff(want.array.dtype) * largest(wanted, want.kind)
    return replace(tolerance, cancelled=limit * np.any([np.broadcast_to(mask, shape) for mask in masks], axis=0))


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
