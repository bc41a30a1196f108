"""Where both sides of a comparison are NaN: they count as equal there, which must not go unsaid."""

import numpy as np

from jaxgrad._compare.comparison import Comparison

_MOST = 5


def both_nan(comparison: Comparison) -> tuple[str, ...]:
    """A remark on the rows at which both sides are NaN, the first of them first; none if there are none."""
    found = {}
    for row in comparison.rows:
        pair = comparison.pairs.get(row.key or row.label)
        if pair is not None and np.shape(pair.got) == np.shape(pair.want):
            here = np.isnan(pair.got) & np.isnan(pair.want)
            if here.any():
                found[row.label] = f"{row.label} ({np.count_nonzero(here)} of {here.size})"
    if not found:
        return ()
    first, more = next(iter(found)), len(found) - _MOST
    listed = ", ".join(list(found.values())[:_MOST]) + (f" and {more} more" if more > 0 else "")
    return (
        f"Both sides are NaN, which counts as equal, in {listed}. The first is {first}: look there, at what it is "
        "computed from.",
    )
