"""ULP: the distance of two numbers in steps from one representable number to the next."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxgrad._errors import InputError


def ulp_distance(got: ArrayLike, want: ArrayLike) -> np.ndarray[Any, Any]:
    """How many steps from one representable number to the next lie between `got` and `want`.

    Floating-point numbers of one dtype, read as sign and magnitude, are ordered as their bit patterns are; the
    distance is the difference of the patterns. It is 0 for equal numbers (-0.0 equals 0.0; NaN equals NaN) and
    infinite between NaN and a number.

    Args:
      got, want: arrays of one shape and one dtype: float16, bfloat16, float32 or float64.

    Returns:
      float64 array of that shape, exact up to 2**53.

    Raises:
      InputError: the dtypes or shapes differ, or are not floating-point.

    Example:
      >>> print(ulp_distance(np.float32([1.0, 1.0, 0.0]), np.float32([1.0, 1.0000001, 1e-45])))
      [0. 1. 1.]

    Reference: Bruce Dawson, Comparing Floating Point Numbers, 2012 edition.
    """
    got, want = np.asarray(got), np.asarray(want)
    if got.dtype != want.dtype or got.shape != want.shape:
        raise InputError(
            f"got {got.dtype}{list(got.shape)} and want {want.dtype}{list(want.shape)} cannot be compared in ULP; "
            "expected one dtype and one shape. Cast one to the other's dtype first."
        )
    if got.dtype.name not in ("float16", "bfloat16", "float32", "float64"):
        raise InputError(f"{got.dtype} has no ULP; expected float16, bfloat16, float32 or float64.")
    a, b = _ordered(got), _ordered(want)
    with np.errstate(over="ignore"):  # the difference of two int64 may need 64 bits: modulo 2**64, read as unsigned
        steps = (np.maximum(a, b).view(np.uint64) - np.minimum(a, b).view(np.uint64)).astype(np.float64)
    one_is_nan = np.isnan(got) != np.isnan(want)
    both_are_nan = np.isnan(got) & np.isnan(want)
    return np.where(one_is_nan, np.inf, np.where(both_are_nan, 0.0, steps))


def _ordered(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Integers in the order of the floating-point numbers, both zeros at 0."""
    bits = array.view(f"i{array.dtype.itemsize}").astype(np.int64)
    sign = np.int64(-1 << (8 * array.dtype.itemsize - 1))  # the bit pattern of -0.0
    return np.where(bits < 0, sign - bits, bits)
