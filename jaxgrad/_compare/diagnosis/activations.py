"""One activation in place of another of nearly its values: the GELU by erf, by tanh, and by a sigmoid."""

import functools
import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_GRID = 2**-9  # of the inputs at which the functions are tabulated
_FIT = 0.05  # of the difference of the two functions there ...
_FINE = 1e-3  # ... and of their largest, for what lies between the table's inputs, beside rounding


def other_gelu(a: Array, b: Array, unit: float) -> tuple[str, str] | None:
    """Is what differs one GELU of some inputs where another is due?

    An input is found by inverting the function that is due, on either side of its least value.

    Args:
      a, b: the numbers that differ, in float64: what is there, and what should be.
      unit: the roundoff of their dtype.
    """
    if a.size < 3 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    off, rounding = a - b, 8 * unit * (1 + np.abs(b))  # 1 + erf cancels far below 0
    for due, right in _tables().items():
        turn = int(np.argmin(right))
        sides = ((right[turn:], slice(turn, None)), (right[turn::-1], slice(turn, None, -1)))
        for there, wrong in _tables().items():
            if there == due:
                continue
            table = _FINE * np.max(np.abs(wrong - right))
            expected = [np.interp(b, values, (wrong - right)[at]) for values, at in sides]
            near = [np.abs(off - e) <= rounding + table + _FIT * np.abs(e) for e in expected]
            fits = near[0] | (near[1] & (b <= 0))
            if fits.all() and np.count_nonzero(np.abs(off) > 4 * (rounding + table)) >= 3:
                return f"{there}-GELU for {due}", f"it is the GELU by {there} where the one by {due} is due"
    return None


@functools.cache
def _tables() -> dict[str, Array]:
    """Name of a GELU -> its values on a grid."""
    u = np.arange(-9, 9, _GRID)
    erf = np.array([math.erf(x / math.sqrt(2)) for x in u])
    return {
        "erf": u * (1 + erf) / 2,
        "tanh": u * (1 + np.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3))) / 2,
        "sigmoid": u / (1 + np.exp(-1.702 * u)),
    }
