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
    and `max` go by the real part.

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

    def gradient(point: Point) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        step = 1e-100
        found = point.outputs(np.full(point.at.shape, step * 1j), np.complex128).imag / step
        return found, 64 * np.finfo(np.float64).eps * np.abs(found)

    return by_steps(fun, gradient, argnums, names, has_aux)
