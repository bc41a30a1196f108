"""When the rule for all programs is unsure of a difference, and the rounding of the one program that settles it."""

from jaxgrad._compare.comparison import Comparison
from jaxgrad._compare.oracles.rounding import SIGMAS, with_rounding
from jaxgrad._record import Call, Record


def is_unsure(comparison: Comparison) -> bool:
    """Could rounding explain what differs? Not another shape or dtype, nor another branch, nor what is not there."""
    wrong = [row for row in comparison.rows if not row.ok]
    return bool(wrong) and all(row.kind != "reached" and row.got is not None and row.want is not None for row in wrong)


def rounding_of(call: Call) -> tuple[Record | None, str]:
    """The record of a call with its rounding, found once, and a remark on it; None where it cannot be found."""
    try:
        if call.found is None:
            call.found = with_rounding(call.fun, **call.options)(*call.args, **call.kwargs)
    except Exception as error:  # whatever the program is, the comparison stands without it
        why = str(error).partition("\n")[0]
        return None, f"judged by the rule for all programs: the rounding of this one could not be found: {why}"
    return call.found, f"judged by the rounding of the program itself, found for this: within {SIGMAS:g} of its spread"
