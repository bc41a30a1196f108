r"""How far rounding may take one array from another, and which element is worst.

Rounding leaves two traces. An operation on single numbers is off by a few units $u$ of its own result. A sum is off
by a few $u$ of its largest summands, however much of them cancels. The largest elements show the size of the
summands: those of the row (along the last axis), for a matrix product has its sums there, and those of the whole
array, from which a small row may have its error. So an element $a$ may be $A u (|a| + s)$ off, where $s$ is the
geometric mean of the row's largest and the array's, and $A$ grows with the root of the number of steps before and of
the length of the sums: roundings go up as often as down. $A u$ is never above 3/16, so that half or twice the right
number shows in the largest elements.

An exact 0 beside another number is not rounding but underflow, a saturated difference or a branch cut off. It agrees
only where numbers are so coarse (16 bits) that sums do cancel to 0, and only where the other number is neither larger
nor much smaller than what a cancelled sum leaves over.

Where it is known what the rounding of the program itself can do (`with_rounding`), that takes the place of all this.

Reference: Higham and Mary, A new approach to probabilistic rounding error analysis, SIAM J. Sci. Comput. 41, 2019.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgrad._compare.ulp import ulp_distance
from jaxgrad._types import DType, Value

Array = np.ndarray[Any, Any]

_BLOCK = 1 << 17  # elements: what is computed on the way stays in the cache
_SHORT = 8  # a shorter row does not show the size of its summands: only the whole array does
_ROUNDINGS = 8.0  # A at the first step: measured over 1,000 seeds of a network of eight layers, written twice
_WIDEST = 3 / 16  # of an element and of its scale: half or twice the right number is further off
_COARSE = 1 / 4096  # a cancelled sum leaves 0 or at least this many units of its row's scale
_QUANTA = 4  # of the smallest subnormal: what underflow may take


@dataclass(frozen=True)
class Tolerance:
    """How far an element may be off.

    Attributes:
      units: A, what rounding alone can do, in units of the dtype's.
      ulp, rtol, atol: what the user allows in its place: `ulp` steps, or `atol + rtol * abs(want)`.
      uncertainty: how far `want` itself may be off: an array of its shape, or one number.
      slack: how many times that is allowed, 0s aside, where the rule for all programs is not sure of itself.
      cancelled: how large a number beside a 0 may be, an array, where rounding is all that the program leaves there.
      rounding: how far the program's own rounding may have an element off, in place of `units`; None if not known.
    """

    units: float
    ulp: float | None = None
    rtol: float | None = None
    atol: float | None = None
    uncertainty: Any = 0.0
    rounding: Any = None
    slack: float = 1.0
    cancelled: Any = None

    @property
    def is_default(self) -> bool:
        return self.ulp is None and self.rtol is None and self.atol is None


@dataclass(frozen=True)
class Worst:
    """The worst element: its flat index, how many times its tolerance it is off; and how many are off by more."""

    index: int
    times: float
    far: int


def units(step: int, longest: int) -> float:
    """A, the units of rounding allowed after `step` steps with sums over at most `longest` elements."""
    return _ROUNDINGS * math.sqrt(step) * (1 + math.sqrt(longest) / 8)


def roundoff(dtype: DType) -> float:
    """u, the largest relative error of one rounding; 0 where nothing is rounded."""
    return float(jnp.finfo(dtype).eps) / 2 if jnp.issubdtype(dtype, jnp.inexact) else 0.0


def worst(got: Array, want: Array, tolerance: Tolerance) -> Worst:
    """The worst element of two arrays of one shape; `want` is rounded to `got`'s dtype first.

    Goes block by block, and needs no memory to speak of beside the arrays.
    """
    index, times, far = 0, 0.0, 0
    for start, scores in _scored(got, want, tolerance):
        i = int(np.argmax(scores))
        if scores[i] > times:
            index, times = start + i, float(scores[i])
        far += int(np.count_nonzero(scores > 1))
    return Worst(index, times, far)


def far(got: Array, want: Array, tolerance: Tolerance) -> Array:
    """Flat indices of the elements that are off by more than their tolerance."""
    found = [start + np.flatnonzero(scores > 1) for start, scores in _scored(got, want, tolerance)]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _scored(got: Array, want: Array, tolerance: Tolerance) -> Iterator[tuple[int, Array]]:
    """The blocks that are not equal to the bit: flat index of the first element, how many times over each one is."""
    row = got.shape[-1] if got.ndim and _SHORT <= got.shape[-1] <= _BLOCK else 0
    flat_got, flat_want = got.reshape(-1), want.reshape(-1)
    uncertainty = tolerance.uncertainty + (0 if tolerance.rounding is None else tolerance.rounding)
    spread = np.ndim(uncertainty) > 0
    uncertainty = np.broadcast_to(uncertainty, got.shape).reshape(-1) if spread else uncertainty
    largest: float | None = None  # found where it is first needed
    for start, stop in _blocks(got.size, row):
        g, w = flat_got[start:stop], flat_want[start:stop]
        if g.dtype == w.dtype and np.array_equal(g.view(np.uint8), w.view(np.uint8)):
            continue
        g, w = _widened(g), _widened(_cast(w, got.dtype))
        if largest is None:
            rest = ((i, j) for i, j in _blocks(got.size, row) if i != start)
            others = (float(_largest(_widened(_cast(flat_want[i:j], got.dtype)))) for i, j in rest)
            largest = max((float(_largest(w)), *others))
        scale = np.repeat(np.sqrt(_largest(w.reshape(-1, row))) * np.sqrt(largest), row) if row else largest
        cancelled = 0.0 if tolerance.cancelled is None else tolerance.cancelled.reshape(-1)[start:stop]
        within = uncertainty[start:stop] if spread else uncertainty
        yield start, _scores(g, w, got.dtype, tolerance, within, scale, cancelled)


def _blocks(size: int, row: int) -> Iterator[tuple[int, int]]:
    """First and last element of each block, of whole rows."""
    step = _BLOCK // row * row if row else _BLOCK
    for start in range(0, size, step):
        yield start, min(start + step, size)


def _cast(array: Array, dtype: DType) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(array, dtype)


def _widened(array: Array) -> Array:
    """In the dtype in which differences are taken: of 32 bits or more, integers in 64."""
    if jnp.issubdtype(array.dtype, jnp.inexact):
        return array.astype(np.float32) if array.dtype.itemsize == 2 else np.asarray(array)
    return array.astype(np.float64)


def _largest(rows: Array) -> Array:
    """The largest finite element of each row."""
    sizes = np.abs(rows)
    largest = sizes.max(axis=-1, initial=0)
    if not np.isfinite(largest).all():
        largest = np.where(np.isfinite(sizes), sizes, 0).max(axis=-1, initial=0)
    return np.asarray(largest)


def _scores(
    g: Array, w: Array, dtype: DType, tolerance: Tolerance, uncertainty: Value, scale: Value, cancelled: Value
) -> Array:
    """How many times its tolerance each element is off: above 1 is too far; equal ones and NaN beside NaN are 0."""
    with np.errstate(all="ignore"):
        off = np.abs(g - w)
        if tolerance.is_default:
            allowed = _allowed(w, dtype, tolerance, uncertainty, scale)
        else:
            allowed = np.abs(w)
            allowed *= tolerance.rtol or 0
            allowed += tolerance.atol or 0
        scores: Array = off / allowed
        odd = np.flatnonzero(~(scores <= 1))  # also NaN: of NaN, of infinities, of 0 / 0
        equal = (g[odd] == w[odd]) | (np.isnan(g[odd]) & np.isnan(w[odd]))
        scores[odd] = np.where(equal, 0, np.where(scores[odd] > 1, scores[odd], np.inf))
        if tolerance.is_default and tolerance.rounding is None:
            _no_false_zero(scores, g, w, dtype, uncertainty, scale, cancelled)
        elif tolerance.ulp is not None:
            distance = steps(g, w, dtype)
            scores = np.asarray(np.minimum(scores, np.where(distance <= tolerance.ulp, 0, distance + 1)))
    return scores


def _allowed(w: Array, dtype: DType, tolerance: Tolerance, uncertainty: Value, scale: Value) -> Array:
    if tolerance.rounding is not None:
        return np.asarray(np.abs(w) * roundoff(dtype) + uncertainty)
    relative = min(tolerance.slack * tolerance.units * roundoff(dtype), _WIDEST)
    allowed = np.abs(w)
    allowed += scale
    allowed *= relative
    allowed += _quantum(dtype) + uncertainty
    return allowed


def _quantum(dtype: DType) -> float:
    return _QUANTA * float(jnp.finfo(dtype).smallest_subnormal) if jnp.issubdtype(dtype, jnp.inexact) else 0.0


def _no_false_zero(
    scores: Array, g: Array, w: Array, dtype: DType, uncertainty: Value, scale: Value, cancelled: Value
) -> None:
    """Marks each 0 beside another number as infinitely far, unless underflow, 16 bits or what is known explain it."""
    alone = np.flatnonzero((g == 0) != (w == 0))
    if not alone.size:
        return
    other = np.maximum(np.abs(g[alone]), np.abs(w[alone]))
    explained = other <= _quantum(dtype) + (uncertainty[alone] if np.ndim(uncertainty) else uncertainty)
    if jnp.issubdtype(dtype, jnp.inexact) and dtype.itemsize == 2:
        unit = roundoff(dtype) * (scale[alone] if np.ndim(scale) else scale)
        explained |= (other >= _COARSE * unit) & (scores[alone] <= 1)
    scores[alone[~explained]] = np.inf
    if np.ndim(cancelled):
        scores[alone[other <= cancelled[alone]]] = 0


def steps(g: Array, w: Array, dtype: DType) -> Array:
    """The distance in ULP of the dtype; the larger of two for a complex number, infinite where there is none."""
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return np.asarray(np.maximum(ulp_distance(g.real, w.real), ulp_distance(g.imag, w.imag)))
    if not jnp.issubdtype(dtype, jnp.inexact):
        return np.asarray(np.abs(_widened(g) - _widened(w)), np.float64)
    return ulp_distance(g.astype(dtype), w.astype(dtype))
