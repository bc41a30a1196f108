"""Diagnosis: why two arrays differ, where their numbers tell."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgrad._compare.tolerance import Tolerance, far, roundoff, worst
from jaxgrad._types import DType

Array = np.ndarray[Any, Any]

_MOST_ROWS = 8  # that a text names


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with one value or gradient.

    Attributes:
      label: the row of the comparison: "z", "z.grad".
      cause: "overflow", "underflow", "flushed subnormal", "0 times infinity", "NaN", "false 0", "cut off",
        "missing minus", "factor 2", "transpose", "mean for sum", "sum for mean", "cancellation", or "unknown".
      text: the same for people, with numbers.
      rows: the differing rows of a batch, indices along the leading axis; () for a scalar.
    """

    label: str
    cause: str
    text: str
    rows: tuple[int, ...]

    def __str__(self) -> str:
        shown = ", ".join(str(row) for row in self.rows[:_MOST_ROWS])
        more = f" and {len(self.rows) - _MOST_ROWS:,} more" if len(self.rows) > _MOST_ROWS else ""
        return f"{self.label}: {self.cause}: {self.text}" + (f" (rows {shown}{more})" if self.rows else "")


def diagnose(label: str, got: Array, want: Array, tolerance: Tolerance, infinite: Array | None = None) -> Diagnosis:
    """Why `got` differs from `want`.

    Args:
      label: what they are.
      got, want: of one shape and dtype, or one the transpose of the other.
      tolerance: by which they differ.
      infinite: where, in the array's shape, another value of the same computation is infinite; None if nowhere.
    """
    if got.shape != want.shape:
        same = got.ndim == 2 and got.T.shape == want.shape and _agree(got.T, want, tolerance)
        shapes = f"the shape is {list(got.shape)} and should be {list(want.shape)}"
        return Diagnosis(label, *(("transpose", f"it is the transpose: {shapes}") if same else ("shape", shapes)), ())
    wrong = far(got, want, tolerance)
    leading = got.shape[0] if got.ndim else 0
    rows = tuple(int(i) for i in np.unique(wrong // (got.size // leading))) if leading else ()
    if got.dtype == bool:
        return Diagnosis(label, "unknown", "a boolean does not tell why", rows)
    want = want.astype(got.dtype)
    a, b = (array.reshape(-1)[wrong] for array in (got, want))
    zeros = None if infinite is None else np.broadcast_to(infinite, got.shape).reshape(-1)[wrong]
    for find in (_not_finite, _zero):
        if found := find(a, b, zeros):
            return Diagnosis(label, *found, rows)
    if found := _whole(got, want, tolerance):
        return Diagnosis(label, *found, rows)
    if found := _factor(a, b, got, tolerance):
        return Diagnosis(label, *found, rows)
    return Diagnosis(label, *_cancelled(a, b, got.dtype, want), rows)


Found = tuple[str, str] | None


def _not_finite(a: Array, b: Array, infinite: Array | None) -> Found:
    at = np.flatnonzero(np.isnan(a) & ~np.isnan(b))
    if at.size:
        if infinite is not None and infinite[at].any():
            return "0 times infinity", f"NaN in place of {b[at[0]]}: an intermediate is infinite there"
        return "NaN", f"NaN in place of {b[at[0]]}"
    at = np.flatnonzero(np.isinf(a) & np.isfinite(b))
    if at.size:
        largest = jnp.finfo(a.dtype).max
        return "overflow", f"{a[at[0]]} in place of {b[at[0]]}: beyond {largest}, {a.dtype}'s largest, on the way"
    return None


def _zero(a: Array, b: Array, infinite: Array | None) -> Found:
    at = np.flatnonzero((a == 0) & (b != 0) & np.isfinite(b))
    if not at.size or at.size < a.size / 2 or not jnp.issubdtype(a.dtype, jnp.inexact):
        return None
    info = jnp.finfo(a.dtype)
    largest = b[at][np.argmax(np.abs(b[at]))]
    size = abs(complex(largest))
    if size < float(info.tiny):
        return "flushed subnormal", f"0 in place of {largest}, which is below {info.tiny}, {a.dtype}'s smallest normal"
    if infinite is not None and infinite[at].any():
        return "overflow", f"0 in place of {largest}: an intermediate is infinite there, and what it divides is 0"
    if size < float(np.sqrt(float(info.tiny))):
        return "underflow", f"0 in place of {largest}: a product on the way is below {info.tiny}, {a.dtype}'s smallest"
    if at.size == a.size and size > roundoff(a.dtype):
        return "cut off", f"0 in place of {largest}: nothing flows through here, as through a detached branch"
    return "false 0", f"0 in place of {largest}: a difference that rounds to 0, as 1 - f does where f is nearly 1"


def _whole(got: Array, want: Array, tolerance: Tolerance) -> Found:
    """What is wrong with the array as a whole."""
    if not np.isfinite(got).all() or not np.any(want):
        return None
    if _agree(-got, want, tolerance):
        return "missing minus", "every element has the opposite sign"
    if got.ndim == 2 and got.shape[0] == got.shape[1] and got.size > 1 and _agree(got.T, want, tolerance):
        return "transpose", "it is the transpose of what it should be"
    return None


def _factor(a: Array, b: Array, got: Array, tolerance: Tolerance) -> Found:
    """One factor between all that differs: a sign, a small number, or the length of an axis."""
    both = (a != 0) & (b != 0) & np.isfinite(a) & np.isfinite(b)
    if np.count_nonzero(both) < a.size or not a.size or np.iscomplexobj(a):
        return None
    with np.errstate(all="ignore"):
        a, b = a.astype(np.float64), b.astype(np.float64)
        # The largest elements know the factor best.
        factor = float(np.sum(a * np.abs(b)) / np.sum(b * np.abs(b))) if np.sum(b * np.abs(b)) else float(np.nan)
        loose = 16 * tolerance.units * roundoff(got.dtype) + 1e-12
    if not np.isfinite(factor) or factor == 0 or not np.all(np.abs(a - factor * b) <= loose * np.max(np.abs(a))):
        return None
    if abs(factor + 1) <= loose:
        return "missing minus", "what differs has the opposite sign"
    for size, what in _lengths(got):
        if size > 2 and abs(factor * size - 1) <= loose * 4:
            return "mean for sum", f"1/{size} of what it should be: {what}"
        if size > 2 and abs(factor / size - 1) <= loose * 4:
            return "sum for mean", f"{size} times what it should be: {what}"
    nearest = round(factor) if abs(factor) >= 1 else 1 / round(1 / factor)
    if abs(nearest / factor - 1) <= loose * 4 and nearest != 1:
        shown = f"{nearest:g}" if abs(nearest) >= 1 else f"1/{round(1 / nearest)}"
        return f"factor {shown}", f"{shown} times what it should be"
    return (f"factor {factor:.4g}", f"{factor:.6g} times what it should be") if abs(factor - 1) > loose else None


def _lengths(got: Array) -> Iterator[tuple[int, str]]:
    for axis, size in enumerate(got.shape):
        yield size, f"the length of axis {axis}"
    yield got.size, "the number of its elements"


def _cancelled(a: Array, b: Array, dtype: DType, want: Array) -> tuple[str, str]:
    if not a.size or not jnp.issubdtype(dtype, jnp.inexact):
        return "unknown", "the numbers do not tell why"
    with np.errstate(all="ignore"):
        off = np.abs(a.astype(np.complex128) - b.astype(np.complex128))
        relative = float(np.max(off / np.abs(b.astype(np.complex128))))
        scale = float(np.max(np.abs(want[np.isfinite(want)]).astype(np.float64), initial=0))
    unit = roundoff(dtype)
    if np.isfinite(relative) and np.all(off <= 64 * unit * max(scale, 1)) and relative > 64 * unit:
        lost = int(np.log2(relative / unit))
        return (
            "cancellation",
            f"{lost} of {int(-np.log2(unit))} bits are lost, though it is off by {off.max():.2g} at most",
        )
    return "unknown", "the numbers do not tell why"


def _agree(a: Array, b: Array, tolerance: Tolerance) -> bool:
    free = Tolerance(tolerance.units) if np.ndim(tolerance.uncertainty) else tolerance
    return worst(np.ascontiguousarray(a), b, free).far == 0
