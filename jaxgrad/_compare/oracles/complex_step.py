"""Gradients by a step in the imaginary direction."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxgrad._compare.oracles.perturbation import Names, Point, by_steps
from jaxgrad._record import Record
from jaxgrad._types import P


def complex_step(
    fun: Callable[P, Any], *, argnums: int | Sequence[int] | None = None, names: Names = None, has_aux: bool = False
) -> Callable[P, Record]:
    r"""Transforms `fun` to find its gradients by steps in the imaginary direction.

    For an analytic function $\partial y / \partial a_i = \mathrm{Im}\, y(a + i s e_i) / s + O(s^2)$, and no
    difference is taken, so that with $s = 10^{-100}$ it is right to the last places of float64. Comparisons, `abs`
    and `max` go by the real part. Only operations that are known to be analytic are followed, and the gradient is
    held to that of another step on either side of the point: what that changes, as at a kink, is in `uncertainty`.

    Args:
      fun, argnums, names, has_aux: as for `finite_difference`.

    Returns:
      A function of the same arguments that returns a `Record` in float64.

    Raises:
      OutputError: the output is not a real scalar; `fun` has an operation that is not analytic.
      InputError: complex arguments or tags.
      TagError: as for `retain_grads`.

    Example:
      >>> import jax.numpy as jnp
      >>> record = complex_step(jnp.sin, names=())(0.5)
      >>> print(record.arg_grads[0] == np.cos(0.5))
      True

    Reference: Squire and Trapp, Using complex variables to estimate derivatives of real functions, SIAM Review 40,
    1998.
    """

    return by_steps(fun, _gradient, argnums, names, has_aux)


def _gradient(point: Point) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The gradient, and how far it changes with the size of the step and with a few roundings of each element.

    Where a step underflows, where a branch begins or ends (of sqrt, of abs), and where two pieces meet, it changes.
    """
    found = _slopes(point, 0 * point.at, _STEP)
    scale = np.abs(np.where(point.at == 0, 1, point.at))
    with np.errstate(all="ignore"):
        away = [np.abs(_slopes(point, aside * scale, _LARGER_STEP * scale) - found) for aside in (-_ASIDE, _ASIDE)]
        # Where large numbers cancel, two points beside it show the size of rounding and not its bound: so twice.
        off = 2 * np.where(np.isfinite(away), away, np.inf).sum(axis=0)
    rounding = 64 * np.finfo(np.float64).eps * np.abs(found) + np.finfo(np.float64).tiny / _STEP
    return found, np.where(np.isnan(found), np.nan, off) + rounding


def _slopes(point: Point, shift: np.ndarray[Any, Any], step: float | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The slope of the output along each element, `shift` away from where it is."""
    return np.asarray(point.outputs(shift + step * 1j, np.complex128).imag / step)


_STEP = 1e-100
_LARGER_STEP = 1e-20  # of an element: what a step of 1e-100 would lose to underflow, it keeps
_ASIDE = 2.0**-44  # of an element: some 250 of its roundings
