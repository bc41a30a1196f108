r"""The neuron's true numbers, in wider arithmetic than what they check, and how far from them a result is.

Nothing here is a formula of the package's: with $p = e^{z/2}$ and $c = p + 1/p = 2 \cosh(z/2)$,

    k = 1/p^2   h = c/p   f = p/c   df/dh = df/dk = -(p/c)^2   f' = 1/c^2   f'' = -2 sinh(z/2) / c^3

are quotients of numbers that cannot cancel, so each is right to a few units in the last place of the wider type:
float64 for float16, bfloat16 and float32; np.longdouble, which must be wider than float64, for float64.
"""

from typing import Any

import ml_dtypes
import mpmath
import numpy as np

Floats = np.ndarray[Any, Any]

QUANTITIES = ("k", "h", "f", "df/dh", "df/dk", "df/dz", "d2f/dz2")


def truth(z: Floats) -> dict[str, Floats]:
    """Quantity -> its true values for each z, in the wider type; NaN for NaN. Below the dtype's range they saturate."""
    wide = np.longdouble if z.dtype == np.float64 else np.float64
    # Beyond this, all are 0, 1 or infinite in the narrow type, and c**3 would overflow in the wider one.
    limit = 1000 if z.dtype == np.float64 else 100
    with np.errstate(invalid="ignore"):  # signalling NaN
        half = np.clip(z.astype(wide) / 2, -limit, limit)
    p = np.exp(half)
    c = p + 1 / p
    f = p / c
    slope = 1 / (c * c)
    df_dh = -(f * f)
    curve = -2 * np.sinh(half) / c * slope
    return {
        "k": 1 / (p * p), "h": c / p, "f": f, "df/dh": df_dh, "df/dk": df_dh, "df/dz": slope, "d2f/dz2": curve,
    }  # fmt: skip


def truth_by_mpmath(z: Floats) -> dict[str, Floats]:
    """As `truth`, each number of 60 digits rounded once to np.longdouble: the oracle's own oracle."""
    columns: dict[str, list[np.longdouble]] = {name: [] for name in QUANTITIES}
    with mpmath.workdps(60):
        for number in z.tolist():
            k = mpmath.exp(-mpmath.mpf(number))
            h = 1 + k
            slope = k / h**2
            values = (k, h, 1 / h, -1 / h**2, -1 / h**2, slope, -slope * mpmath.tanh(mpmath.mpf(number) / 2))
            for column, value in zip(columns.values(), values, strict=True):
                column.append(_longdouble(value))
    return {name: np.array(column) for name, column in columns.items()}


def _longdouble(value: mpmath.mpf) -> np.longdouble:
    high = float(value)
    if not np.isfinite(high) or high == 0:  # beyond float64 altogether: only the side it lies on matters
        return np.longdouble(high)
    fraction, exponent = mpmath.frexp(value)
    head = float(fraction)
    return np.ldexp(np.longdouble(head) + np.longdouble(float(fraction - head)), int(exponent))


def ulp_error(got: Floats, true: Floats) -> Floats:
    """How far each of `got` is from `true`, in units in the last place of the true value: 0 to 0.5 is correct rounding.

    Where the true value is no normal number of got's dtype there is nothing to measure, only right (0) and wrong
    (infinite): below the range, right is 0 or a subnormal of the true sign (or the least normal number); above it,
    infinity (or the greatest number, where that is nearest); for NaN, NaN. A NaN elsewhere is infinitely wrong.
    """
    least, greatest, digits = _range(got.dtype)
    size, wide = np.abs(true), got.astype(true.dtype)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        error = (np.abs(wide - true) * 2.0**digits / _binade(size)).astype(np.float64)
    odd = np.flatnonzero(~((size >= least) & (size <= greatest) & (error < np.inf)))
    error[odd] = np.where(_is_right(wide[odd], true[odd], least, greatest, digits), 0.0, np.inf)
    return error


def _is_right(got: Floats, true: Floats, least: float, greatest: float, digits: int) -> Floats:
    """Right where there are no units in the last place: below the least normal number, above the greatest, NaN."""
    same_sign = got * np.sign(true) >= 0
    below = (np.abs(true) < least) & (np.abs(got) <= least)
    above = (np.abs(true) > greatest) & np.isinf(got)
    nearest_is_greatest = np.abs(true) <= greatest * (1 + 2.0 ** -(digits + 2))
    above |= (np.abs(true) > greatest) & nearest_is_greatest & (np.abs(got) == greatest)
    return ((below | above) & same_sign) | (np.isnan(got) & np.isnan(true))


def is_false_zero(got: Floats, true: Floats) -> Floats:
    """Where the true value is a normal number of got's dtype, and `got` is 0."""
    return (got == 0) & (np.abs(true) >= _range(got.dtype)[0])


def _range(dtype: np.dtype[Any]) -> tuple[float, float, int]:
    """The least normal number, the greatest, and the binary digits after the point."""
    info = ml_dtypes.finfo(dtype)
    return float(info.smallest_normal), float(info.max), int(info.nmant)


def _binade(size: Floats) -> Floats:
    """The power of 2 at or below each number."""
    if size.dtype == np.float64:
        return (size.view(np.int64) & 0x7FF0000000000000).view(np.float64)
    return np.ldexp(size.dtype.type(1), np.frexp(size)[1] - 1)


def patterns(dtype: str, start: int, stop: int, step: int = 1) -> Floats:
    """The floats whose bit patterns are start, start + step, ... below stop; 0 to 2**bits is every float."""
    bits = ml_dtypes.finfo(dtype).bits
    return np.arange(start, stop, step, dtype=np.uint64).astype(f"u{bits // 8}").view(np.dtype(dtype))
