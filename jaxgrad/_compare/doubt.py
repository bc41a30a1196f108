"""When the rule for all programs is unsure of a difference, and the rounding of the one program that settles it."""

import numpy as np

from jaxgrad._compare.comparison import Comparison
from jaxgrad._compare.oracles.rounding import SIGMAS, with_rounding
from jaxgrad._compare.rows import Pair, Row
from jaxgrad._compare.tolerance import far, roundoff
from jaxgrad._record import Call, Record

UNSURE = 0.5  # of the rule's tolerance: of honest ports 1 in 20 comes so far, of LayerNorms with another epsilon all
LENIENT = 3.0  # of it, where the program is not known: of 2,600 honest pairs none was further off than 2.4
GROSS = (
    "differs by more than rounding does: the program's own rounding was not looked for; if its numbers cancel so far, "
    "give compare `rounding=with_rounding(fun)(...)`"
)
_SHOWING = 8  # elements of an array that shows the size of what it is made of
_MOST = 0.9  # of its elements differ, by ...
_PART = 0.25  # ... so much of its norm, where all is wrong


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
    of_kind = [comparison.pairs[r.label] for r in comparison.rows if r.kind == row.kind and r.want is not None]
    output, value = (comparison.pairs.get(name) for name in ("output", row.name))
    known = row.kind == "gradient" and output is not None and value is not None and _size(value) > 0
    return max(*map(_size, of_kind), _size(output) / _size(value) if known and output and value else 0.0)


def _size(pair: Pair) -> float:
    return float(np.max(np.abs(pair.want.astype(np.complex128)), initial=0))


def rounding_of(call: Call) -> tuple[Record | None, str]:
    """The record of a call with its rounding, found once, and a remark on it; None where it cannot be found."""
    try:
        if call.found is None:
            call.found = with_rounding(call.fun, **call.options)(*call.args, **call.kwargs)
    except Exception as error:  # whatever the program is, the comparison stands without it
        why = str(error).partition("\n")[0]
        return None, f"judged by the rule for all programs: the rounding of this one could not be found: {why}"
    return call.found, f"judged by the rounding of the program itself, found for this: within {SIGMAS:g} of its spread"
