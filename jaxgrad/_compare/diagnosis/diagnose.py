"""Diagnosis: why two arrays differ, where their numbers tell."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgrad._compare.diagnosis.activations import other_gelu
from jaxgrad._compare.diagnosis.factors import about_a_shift, one_a_row, one_factor
from jaxgrad._compare.diagnosis.layouts import backward, other_axes, other_order
from jaxgrad._compare.tolerance import Tolerance, far, roundoff, worst
from jaxgrad._types import DType

Array = np.ndarray[Any, Any]

_MOST_ROWS = 8  # that a text names
_SMALL = 64  # units of the largest number: what a difference that rounds to 0 may lose, times a few factors


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with one value or gradient.

    Attributes:
      label: the row of the comparison: "z", "z.grad".
      cause: "overflow", "underflow", "flushed subnormal", "0 times infinity", "NaN", "false 0", "false 0 in want", "cut
        off", "missing minus", "factor 2", "mean for sum", "sum for mean", "mean over n-1", "variance with n-1",
        "epsilon", "transpose", "layout", "flipped", "order", "tanh-GELU for erf", "cancellation", "not comparable",
        "another branch", "shape", or "unknown".
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


def diagnose(
    label: str,
    got: Array,
    want: Array,
    tolerance: Tolerance,
    infinite: Array | None = None,
    lengths: Collection[int] = (),
) -> Diagnosis:
    """Why `got` differs from `want`.

    Args:
      label: what they are.
      got, want: of one dtype; where their shapes differ, one may be the other in another layout.
      tolerance: by which they differ.
      infinite: where, in the array's shape, another value of the same computation is infinite; None if nowhere.
      lengths: of the axes of all arrays of the computation, over which a sum may have been.
    """

    def agree(a: Array, b: Array) -> bool:
        return _agree(a, b, tolerance)

    if got.shape != want.shape:
        shapes = f"the shape is {list(got.shape)} and should be {list(want.shape)}"
        return Diagnosis(label, *(other_axes(got, want, agree) or ("shape", shapes)), ())
    wrong = far(got, want, tolerance)
    leading = got.shape[0] if got.ndim else 0
    rows = tuple(int(i) for i in np.unique(wrong // (got.size // leading))) if leading else ()
    if got.dtype == bool:
        return Diagnosis(label, "unknown", "a boolean does not tell why", rows)
    want = want.astype(got.dtype)
    a, b = (array.reshape(-1)[wrong] for array in (got, want))
    zeros = None if infinite is None else np.broadcast_to(infinite, got.shape).reshape(-1)[wrong]
    found = (
        _not_finite(a, b, zeros)
        or _zero(a, b, zeros)
        or _zero_in_want(a, b, want, tolerance, wrong)
        or _whole(got, want, agree)
        or _scaled(a, b, got, want, tolerance, lengths)
        or _cancelled(a, b, got.dtype, want)
        or ("unknown", "the numbers do not tell why")
    )
    return Diagnosis(label, *found, rows)


Found = tuple[str, str] | None
Agree = Callable[[Array, Array], bool]


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


def _zero_in_want(a: Array, b: Array, want: Array, tolerance: Tolerance, wrong: Array) -> Found:
    """Has the reference a 0 where the other side has a number that is small beside the array, but no rounding?"""
    at = np.flatnonzero((b == 0) & (a != 0) & np.isfinite(a))
    if not at.size or at.size < a.size / 2 or not jnp.issubdtype(a.dtype, jnp.inexact):
        return None
    worst_at = at[np.argmax(np.abs(a[at]))]
    scale = float(np.max(np.abs(want[np.isfinite(want)].astype(np.complex128)), initial=0))
    if abs(complex(a[worst_at])) > _SMALL * roundoff(a.dtype) * scale:
        return None
    known = ""
    if tolerance.rounding is not None:
        bound = np.broadcast_to(tolerance.rounding, want.shape).reshape(-1)[wrong[worst_at]]
        known = f", of which rounding makes {bound:.1e} at most"
    return "false 0 in want", (
        f"want is 0 in place of {a[worst_at]}{known}: want is the worse side if in_float64(fun) has that number too, "
        "as where 1 + erf rounds to 0 in a tail"
    )


def _whole(got: Array, want: Array, agree: Agree) -> Found:
    """What is wrong with the array as a whole."""
    if not np.isfinite(got).all() or not np.any(want) or agree(got, want):  # too near to tell one place from another
        return None
    if agree(-got, want):
        return "missing minus", "every element has the opposite sign"
    return other_axes(got, want, agree) or backward(got, want, agree) or other_order(got, want, agree)


def _scaled(a: Array, b: Array, got: Array, want: Array, tolerance: Tolerance, lengths: Collection[int]) -> Found:
    """One factor, or one a row; or another function of the same inputs."""
    if np.iscomplexobj(got) or not a.size:
        return None
    unit = roundoff(got.dtype)
    loose = 16 * tolerance.units * unit + 1e-12
    own = {size: f"the length of axis {axis}" for axis, size in reversed(list(enumerate(got.shape)))}
    own.setdefault(got.size, "the number of its elements")
    with np.errstate(all="ignore"):
        a, b = a.astype(np.float64), b.astype(np.float64)
    if found := one_factor(a, b, loose, own, lengths):
        return found
    if not (np.isfinite(got).all() and np.isfinite(want).all()):
        return None
    return about_a_shift(got, want, loose, lengths) or other_gelu(a, b, unit) or one_a_row(got, want)


def _cancelled(a: Array, b: Array, dtype: DType, want: Array) -> Found:
    if not a.size or not jnp.issubdtype(dtype, jnp.inexact):
        return None
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
    return None


def _agree(a: Array, b: Array, tolerance: Tolerance) -> bool:
    known = np.ndim(tolerance.uncertainty) or tolerance.rounding is not None  # element by element, as they stand
    free = Tolerance(tolerance.units) if known else tolerance
    return worst(np.ascontiguousarray(a), np.ascontiguousarray(b), free).far == 0
