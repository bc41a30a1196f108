"""Where the rule for all programs is unsure of a difference, what is known of the one program settles it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from jaxgrad._compare.comparison import Comparison
from jaxgrad._compare.doubt.typical import Typical, typical_of
from jaxgrad._compare.oracles.rounding import SIGMAS, rounding_of_call
from jaxgrad._compare.rows import Pair, Row
from jaxgrad._compare.tolerance import far, roundoff
from jaxgrad._compare.tried import tried
from jaxgrad._record import Origin, Record

UNSURE = 0.5  # of the rule's tolerance: of honest ports 1 in 20 comes so far, of LayerNorms with another epsilon all
LENIENT = 3.0  # of it, where the arguments are not known: of 2,600 honest pairs none was further off than 2.4
GROSS = (
    "differs by more than rounding does: the program's own rounding was not looked for; if its numbers cancel so far, "
    "give compare `rounding=with_rounding(fun)(...)`"
)
TYPICAL = (
    "judged by the rounding of the program at arguments that stand in for its own, which a record that comes out of "
    "jit or vmap does not have; for a sharper verdict give compare `rounding=with_rounding(fun)(...)`"
)
_UNKNOWN = "judged by the rule for all programs: the rounding of this one could not be found: {why}"
_SHOWING = 8  # elements of an array that shows the size of what it is made of
_MOST = 0.9  # of its elements differ, by ...
_PART = 0.25  # ... so much of its norm, where all is wrong
_NORM = 1 / 3  # of what rounding may do to a norm: honest ports are off by 1/5 of it at most, another epsilon by 3/5
_ONE_WAY = 0.8  # the cosine of a difference that is a factor
_MANY = 32  # elements of an array whose norm shows what rounding does, whatever cancels in some of them

Cancels = Mapping[str, np.ndarray[Any, Any]]  # label -> where nothing but rounding is left
Settled = tuple[Comparison, tuple[str, ...]]  # with remarks


class Judge(Protocol):
    """The comparison of two sides by so many times the rule, or by what is known of the program."""

    def __call__(
        self, slack: float = 1.0, knows: Record | None = None, cancels: Sequence[Cancels] = ()
    ) -> Comparison: ...


def by_rounding(judge: Judge, record: Record) -> Settled:
    """Judged by the rounding of the program and its arguments, where that can matter."""
    comparison = judge(slack=UNSURE)
    if comparison.ok:
        return comparison, ()
    comparison = judge(slack=LENIENT)
    if not comparison.ok and (is_gross(comparison) or not is_unsure(comparison)):
        return comparison, (GROSS,) if is_unsure(comparison) else ()
    call = record._call
    assert call is not None
    if call.found is None:
        call.found, why = tried(lambda: rounding_of_call(call, record))
        if call.found is None:
            return comparison, (_UNKNOWN.format(why=why),)
    remark = f"judged by the rounding of the program itself, found for this: within {SIGMAS:g} of its spread"
    return judge(knows=call.found), (remark,)


def by_origins(judge: Judge, origins: Sequence[Origin]) -> Settled:
    """Judged by what rounding does in the programs whatever their arguments, where that can matter."""
    comparison = judge(slack=LENIENT)
    if not origins or (not comparison.ok and (is_gross(comparison) or not is_unsure(comparison))):
        return comparison, ()
    strict = comparison if not comparison.ok else judge(slack=UNSURE)
    if strict.ok:
        return comparison, ()
    found = [tried(partial(typical_of, origin)) for origin in origins]
    known = [typical for typical, _ in found if typical is not None]
    if not known:
        return comparison, (_UNKNOWN.format(why=found[0][1]),)
    lenient = judge(slack=LENIENT, cancels=[typical.cancels for typical in known])
    return _by_typical(lenient, judge(slack=UNSURE), known), (TYPICAL,)


def _by_typical(lenient: Comparison, strict: Comparison, known: Sequence[Typical]) -> Comparison:
    """The lenient comparison, but for what is further off as a whole than rounding has it, or no further than that."""
    rows, pairs = list(lenient.rows), dict(lenient.pairs)
    for i, (row, other) in enumerate(zip(lenient.rows, strict.rows, strict=True)):
        pair = pairs.get(row.label)
        share, part = (max((of.get(row.label, 0.0) for of in limits), default=0.0) for limits in _limits(known))
        if pair is None or not share or not part:
            continue
        off, want, ends = _distance(pair)
        within = (_NORM if _goes_one_way(pair) else 1.0) * share * want
        if row.ok and not other.ok and pair.want.size >= _MANY and off > within:
            rows[i], pairs[row.label] = other, strict.pairs[row.label]
        if not row.ok and ends <= part * _greatest(lenient, row.kind):
            whole = pair.want.size < _MANY or off <= _NORM * share * want
            rows[i] = replace(row, ok=True, why="") if whole else row
    return replace(lenient, rows=tuple(rows), pairs=pairs)


def _goes_one_way(pair: Pair) -> bool:
    """Is the difference of two arrays but one factor? Roundings go up as often as down, and differ from row to row."""
    with np.errstate(all="ignore"):
        want = pair.want.astype(np.complex128).ravel()
        off = pair.got.astype(np.complex128).ravel() - want
        return bool(abs(np.vdot(want, off)) > _ONE_WAY * np.linalg.norm(want) * np.linalg.norm(off))


def _limits(known: Sequence[Typical]) -> tuple[list[Mapping[str, float]], list[Mapping[str, float]]]:
    return [typical.share for typical in known], [typical.part for typical in known]


def _distance(pair: Pair) -> tuple[float, float, float]:
    """How far two arrays are apart by their norm, and the norm; and in their elements, infinitely where one is 0."""
    with np.errstate(all="ignore"):
        got, want = pair.got.astype(np.complex128), pair.want.astype(np.complex128)
        off = np.abs(got - want)
        cancelled = np.False_ if pair.tolerance.cancelled is None else off <= pair.tolerance.cancelled
        false_0 = ((got == 0) != (want == 0)) & ~cancelled
        return float(np.linalg.norm(off)), float(np.linalg.norm(want)), np.inf if false_0.any() else float(off.max())


def is_unsure(comparison: Comparison) -> bool:
    """Could rounding explain what differs? Not another shape or dtype, nor another branch, nor what is not there."""
    wrong = [row for row in comparison.rows if not row.ok]
    return bool(wrong) and all(row.kind != "reached" and row.got is not None and row.want is not None for row in wrong)


def is_gross(comparison: Comparison) -> bool:
    """Is the first row that differs another array altogether, and of the size of the others of its kind?

    What a cancelled sum leaves over is all rounding too, but it is small beside the other values or gradients.
    """
    row = comparison.first_divergence
    pair = None if row is None else comparison.pairs.get(row.key or row.label)
    if row is None or pair is None or pair.want.size < _SHOWING or not np.issubdtype(pair.want.dtype, np.number):
        return False
    if far(pair.got, pair.want, pair.tolerance).size < _MOST * pair.want.size:
        return False
    with np.errstate(all="ignore"):
        want = pair.want.astype(np.complex128)
        off = np.abs(pair.got.astype(np.complex128) - want)
        share = np.linalg.norm(off.ravel()) / np.linalg.norm(want.ravel())
        return bool(share > _PART and np.max(off) > np.sqrt(roundoff(pair.want.dtype)) * _largest(comparison, row))


def _largest(comparison: Comparison, row: Row) -> float:
    """The largest number of the rows of the same kind; a gradient is also as the output to its value."""
    output, value = (comparison.pairs.get(name) for name in ("output", row.name))
    known = row.kind == "gradient" and output is not None and value is not None and _size(value) > 0
    of_loss = _size(output) / _size(value) if known and output and value else 0.0
    return max(_greatest(comparison, row.kind), of_loss)


def _greatest(comparison: Comparison, kind: str) -> float:
    of_kind = [comparison.pairs[row.label] for row in comparison.rows if row.kind == kind and row.want is not None]
    return max(map(_size, of_kind), default=0.0)


def _size(pair: Pair) -> float:
    return float(np.max(np.abs(pair.want.astype(np.complex128)), initial=0))
