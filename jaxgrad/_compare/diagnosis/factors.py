"""One factor between two arrays, or one a row, and what it tells: a mean for a sum, a variance with n-1."""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Found = tuple[str, str] | None

_NEAR = 1e-2  # an epsilon or a constant with too few digits scales by less than that
_FIT = 0.1  # what a fit may leave of a difference: the rest of it is rounding
_STEPS = 30  # of the fit


def one_factor(a: Array, b: Array, loose: float, own: dict[int, str], lengths: Collection[int]) -> Found:
    """One factor between all that differs: a sign, a small number, or the length of an axis.

    Args:
      a, b: the numbers that differ, in float64 and flat: what is there, and what should be.
      loose: how far rounding may have a factor off.
      own: the lengths of the array itself -> what they are the lengths of.
      lengths: those of all arrays beside it.
    """
    both = (a != 0) & (b != 0) & np.isfinite(a) & np.isfinite(b)
    if np.count_nonzero(both) < a.size or not a.size:
        return None
    with np.errstate(all="ignore"):
        # The largest elements know the factor best.
        factor = float(np.sum(a * np.abs(b)) / np.sum(b * np.abs(b))) if np.sum(b * np.abs(b)) else float(np.nan)
    if not np.isfinite(factor) or factor == 0 or not np.all(np.abs(a - factor * b) <= loose * np.max(np.abs(a))):
        return None
    return named(factor, loose, own, lengths)


def about_a_shift(got: Array, want: Array, loose: float, lengths: Collection[int]) -> Found:
    """One factor, but for what each column adds: a normalisation with its shift."""
    if got.ndim < 2 or got.size < 2 * got.shape[-1] + 2:
        return None
    with np.errstate(all="ignore"):
        a, b = (x.reshape(-1, x.shape[-1]).astype(np.float64) for x in (got, want))
        a, b = a - a.mean(0), b - b.mean(0)
        factor = float(np.sum(a * b) / np.sum(b * b)) if np.any(b) else float(np.nan)
        fits = bool(np.all(np.abs(a - factor * b) <= loose * np.max(np.abs(a))))
    found = named(factor, loose, {}, lengths) if np.isfinite(factor) and factor and fits else None
    return found and (found[0], f"{found[1]} (about what each column adds)")


def one_a_row(got: Array, want: Array) -> Found:
    """A factor near 1 for each row, but for what each column adds; or one for each column: another epsilon.

    With $c_i$ a row's factor and $s_j$ a column's shift, $a_{ij} - b_{ij} = (c_i - 1)(b_{ij} - s_j)$, solved for
    $c$ and $s$ in turns.
    """
    if got.ndim < 2 or got.shape[-1] < 3:
        return None
    b = want.reshape(-1, want.shape[-1]).astype(np.float64)
    off = got.reshape(b.shape).astype(np.float64) - b
    for scaled, which in ((_rows_scaled, "row"), (_columns_scaled, "column")):
        if b.size <= 2 * sum(b.shape) or not np.any(off):
            return None
        with np.errstate(all="ignore"):
            excess, left = scaled(off, b)
            if np.max(np.abs(excess)) < _NEAR and np.sqrt(np.mean(left**2)) <= _FIT * np.sqrt(np.mean(off**2)):
                least, most = (_beside_one(float(e)) for e in (excess.min(), excess.max()))
                return (
                    "epsilon",
                    f"each {which} is scaled by its own factor, {least} to {most}: another epsilon in a root",
                )
    return None


def _rows_scaled(off: Array, b: Array) -> tuple[Array, Array]:
    shift = np.zeros(b.shape[1])
    for _ in range(_STEPS):
        centred = b - shift
        excess = np.sum(off * centred, 1) / np.sum(centred**2, 1)
        shift = np.sum(excess[:, None] * (excess[:, None] * b - off), 0) / np.sum(excess**2)
    excess = np.sum(off * (b - shift), 1) / np.sum((b - shift) ** 2, 1)
    return excess, off - excess[:, None] * (b - shift)


def _columns_scaled(off: Array, b: Array) -> tuple[Array, Array]:
    off, b = off - off.mean(0), b - b.mean(0)
    excess = np.sum(off * b, 0) / np.sum(b**2, 0)
    return excess, off - excess * b


def named(factor: float, loose: float, own: dict[int, str], lengths: Collection[int]) -> Found:
    """What a factor tells."""
    if abs(factor + 1) <= loose:
        return "missing minus", "what differs has the opposite sign"
    for size, what in own.items():
        if size > 2 and abs(factor * size - 1) <= loose * 4:
            return "mean for sum", f"1/{size} of what it should be: {what}"
        if size > 2 and abs(factor / size - 1) <= loose * 4:
            return "sum for mean", f"{size} times what it should be: {what}"
    for expected, cause, what in _of_lengths(sorted({*own, *lengths})):
        if abs(factor - expected) <= min(loose, abs(expected - 1) / 20):
            return cause, what
    nearest = round(factor) if abs(factor) >= 1 else 1 / round(1 / factor)
    if abs(nearest / factor - 1) <= loose * 4 and nearest != 1:
        shown = f"{nearest:g}" if abs(nearest) >= 1 else f"1/{round(1 / nearest)}"
        return f"factor {shown}", f"{shown} times what it should be"
    if abs(factor - 1) <= loose:
        return None
    if abs(factor - 1) < _NEAR / 10:
        return "epsilon", f"{_beside_one(factor - 1)} times what it should be: another epsilon, or a constant cut short"
    return f"factor {factor:.4g}", f"{factor:.6g} times what it should be"


def _of_lengths(lengths: Collection[int]) -> Iterator[tuple[float, str, str]]:
    """A factor that the length of a sum less 1 makes, its name, and what it tells."""
    for n in lengths:
        if n > 2:
            yield (
                n / (n - 1),
                "mean over n-1",
                f"{n}/{n - 1} of what it should be: a mean over {n - 1} for {n}, as of a variance with n-1",
            )
            yield (n - 1) / n, "mean over n", f"{n - 1}/{n} of what it should be: a mean over {n} for {n - 1}"
            for sign, cause in ((-1, "variance with n-1"), (1, "variance with n")):
                root = f"the root of {n - 1}/{n}" if sign < 0 else f"the root of {n}/{n - 1}"
                yield ((n - 1) / n) ** (-sign / 2), cause, f"{root} times what it should be: its scale has a {cause}"


def _beside_one(excess: float) -> str:
    return f"1 {'-' if excess < 0 else '+'} {abs(excess):.2g}"
