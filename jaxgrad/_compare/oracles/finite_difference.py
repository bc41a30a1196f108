"""Gradients by central differences."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxgrad._compare.oracles.perturbation import Names, Point, by_steps
from jaxgrad._errors import InputError
from jaxgrad._record import Record
from jaxgrad._types import P


def finite_difference(
    fun: Callable[P, Any],
    *,
    order: int = 2,
    argnums: int | Sequence[int] | None = None,
    names: Names = None,
    has_aux: bool = False,
) -> Callable[P, Record]:
    r"""Transforms `fun` to estimate its gradients by central differences.

    Each element $a_i$ of an argument or a tagged intermediate moves by $\pm s_i$ with
    $s_i = \epsilon^{1/(p+1)} \max(1, |a_i|)$, $p$ the order and $\epsilon$ float64's, in which it is evaluated, and
    $\partial y / \partial a_i \approx (y(a + s_i) - y(a - s_i)) / 2 s_i$: an oracle that shares nothing with automatic
    differentiation but `fun` itself. It does not see `stop_gradient` nor derivative rules of your own.

    Args:
      fun: pure function of pytrees; returns a real scalar.
      order: accuracy of the stencil, 2 or 4.
      argnums, names, has_aux: as for `retain_grads`.

    Returns:
      A function of the same arguments that returns a `Record` in float64, its gradients of the arguments' shapes, with
      how far each may be off in `uncertainty`: the difference from twice the step, rounding, and a kink.

    Raises:
      OutputError: the output is not a real scalar.
      InputError: an order other than 2 or 4; complex arguments or tags.
      TagError: as for `retain_grads`.

    Example:
      >>> import jax.numpy as jnp
      >>> record = finite_difference(jnp.sin, names=())(0.5)
      >>> print(f"{record.arg_grads[0]:.6f}")
      0.877583

    Reference: Nocedal and Wright, Numerical Optimization, 2nd ed., section 8.1.
    """
    if order not in (2, 4):
        raise InputError(f"order is {order!r}; expected 2 or 4.")

    def gradient(point: Point) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        steps = np.finfo(np.float64).eps ** (1 / (order + 1)) * np.maximum(1, np.abs(point.at))
        (one, bend), (two, wider_bend) = (_central(point, steps * times) for times in (1, 2))
        found = one if order == 2 else (4 * one - two) / 3
        # Doubling the step quadruples the error of order 2; what is left of the better estimate is far less.
        rounding = 64 * np.finfo(np.float64).eps * max(abs(point.output), point.size) / steps
        # Over twice the step a curve bends twice as much, a kink as much: there any slope between is right (relu at 0).
        kink = np.where(np.abs(wider_bend) < 1.5 * np.abs(bend), np.abs(bend), 0)
        return found, np.abs(one - two) + rounding + kink

    return by_steps(fun, gradient, argnums, names, has_aux)


def _central(point: Point, steps: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The central differences, and by how much the slope to the right is above that to the left."""
    plus, minus = (point.outputs(sign * steps, np.float64) for sign in (1, -1))
    # The steps as they are: a + s is a rounded number.
    taken = (point.at + steps) - (point.at - steps)
    return (plus - minus) / taken, (plus - 2 * point.output + minus) / steps
