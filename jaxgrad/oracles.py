r"""Oracles: a function's gradients by another road than automatic differentiation, each a Record.

All evaluate the program that JAX traced, its constants as they are, in float64 or complex128 whatever the global
setting and the arguments' dtypes, so that what is left of rounding is the function's own. They are for checking: they
run outside of `jit`, and cost two evaluations or one for each element of every argument and tag.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad._program.promotion import Wide
from jaxgrad.entries import of_record
from jaxgrad.errors import InputError
from jaxgrad.float64 import filled, float64, probes, to_numpy
from jaxgrad.record import Record
from jaxgrad.retain import Plan, plan
from jaxgrad.rounding import roundoff
from jaxgrad.steps import Names, Point, by_steps

_DRAWS = 4  # of random roundings of the arguments


def finite_difference(
    fun: Callable[..., Any], *, order: int = 2, argnums: int | Sequence[int] | None = None, names: Names = None
) -> Callable[..., Record]:
    r"""Transforms `fun` to estimate its gradients by central differences.

    Each element $a_i$ of an argument or a tagged intermediate moves by $\pm s_i$ with
    $s_i = \epsilon^{1/(p+1)} \max(1, |a_i|)$, $p$ the order and $\epsilon$ float64's, in which it is evaluated, and
    $\partial y / \partial a_i \approx (y(a + s_i) - y(a - s_i)) / 2 s_i$: an oracle that shares nothing with automatic
    differentiation but `fun` itself. It does not see `stop_gradient` nor derivative rules of your own.

    Args:
      fun: pure function of pytrees; returns a real scalar.
      order: accuracy of the stencil, 2 or 4.
      argnums, names: as for `retain_grads`.

    Returns:
      A function of the same arguments that returns a `Record` in float64, its gradients of the arguments' shapes, with
      how far each may be off in `uncertainty`: the difference from twice the step, rounding, and a kink.

    Raises:
      OutputError: the output is not a real scalar.
      InputError: an order other than 2 or 4; complex arguments or tags.
      TagError: as for `retain_grads`.

    Example:
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

    return by_steps(fun, gradient, argnums, names)


def _central(point: Point, steps: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The central differences, and by how much the slope to the right is above that to the left."""
    plus, minus = (point.outputs(sign * steps, np.float64) for sign in (1, -1))
    # The steps as they are: a + s is a rounded number.
    taken = (point.at + steps) - (point.at - steps)
    return (plus - minus) / taken, (plus - 2 * point.output + minus) / steps


def complex_step(
    fun: Callable[..., Any], *, argnums: int | Sequence[int] | None = None, names: Names = None
) -> Callable[..., Record]:
    r"""Transforms `fun` to find its gradients by steps in the imaginary direction.

    For an analytic function $\partial y / \partial a_i = \mathrm{Im}\, y(a + i s e_i) / s + O(s^2)$, and no
    difference is taken, so that with $s = 10^{-100}$ it is right to the last places of float64. Comparisons, `abs`
    and `max` go by the real part.

    Args:
      fun, argnums, names: as for `finite_difference`.

    Returns:
      A function of the same arguments that returns a `Record` in float64.

    Raises:
      OutputError: the output is not a real scalar; `fun` has an operation that is not analytic.
      InputError: complex arguments or tags.
      TagError: as for `retain_grads`.

    Example:
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

    return by_steps(fun, gradient, argnums, names)


def in_float64(
    fun: Callable[..., Any], *, argnums: int | Sequence[int] | None = None, names: Names = None
) -> Callable[..., Record]:
    """Transforms `fun` to evaluate the same traced program, and its reverse pass, in float64.

    Compared with it, `retain_grads(fun)` shows the rounding error at every tag. What rounding the arguments by half a
    unit in the last place of their own dtype would change is in `uncertainty`: no program can be asked for more.

    Args:
      fun, argnums, names: as for `finite_difference`.

    Returns:
      A function of the same arguments that returns a `Record` in float64.

    Raises:
      OutputError, TagError, InputError: as for `retain_grads`.

    Example:
      >>> from jaxgrad import neuron
      >>> record = in_float64(neuron.forward)(np.float32([1, 2]), np.float32([0.5, -0.3, 0.1]))
      >>> print(record.output.dtype, f"{record.output:.12f}")
      float64 0.499999994412
    """

    @functools.wraps(fun, assigned=("__module__", "__name__", "__qualname__"), updated=())
    def with_grads(*args: Any, **kwargs: Any) -> Record:
        planned = plan(fun, args, kwargs, argnums=argnums, names=names)
        with jax.enable_x64(True):
            leaves = [to_numpy(leaf) for leaf in planned.leaves]
            run = jax.jit(functools.partial(_wide_grads, planned))
            record = filled(planned, *jax.device_get(run([float64(leaf) for leaf in leaves])))
            rng = np.random.default_rng(0)
            draws = [
                filled(planned, *jax.device_get(run([_rounded(leaf, rng) for leaf in leaves]))) for _ in range(_DRAWS)
            ]
        return _with_uncertainty(record, draws)

    return with_grads


def _wide_grads(planned: Plan, leaves: list[Any]) -> Any:
    wide = Wide(jnp.float64)

    def forward(leaves: list[Any], probes: dict[int, Any]) -> Any:
        output, _, found = planned.run(leaves, probes, wide=wide)
        return output, found

    output, vjp, (values, reached) = jax.vjp(forward, leaves, probes(planned, wide), has_aux=True)
    return output, values, reached, *vjp(jnp.ones_like(output))


def _with_uncertainty(record: Record, draws: Sequence[Record]) -> Record:
    """The record, with how far it lies from the others at most; twice, as few are drawn."""
    entries = of_record(record)
    drawn = [of_record(draw) for draw in draws]
    others = {name: [array for each in drawn if (array := each[name].array) is not None] for name in entries}
    uncertainty = {}
    for name, entry in entries.items():
        if entry.array is None:
            continue
        with np.errstate(all="ignore"):
            away = [np.abs(float64(other) - float64(entry.array)) for other in others[name]]
        uncertainty[name] = 2 * np.max([np.where(np.isfinite(a), a, 0) for a in away], axis=0)
    return replace(record, uncertainty=uncertainty)


def _rounded(leaf: np.ndarray[Any, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """The argument, each element half a unit of its own dtype's last place up or down."""
    return np.asarray(float64(leaf) * (1 + roundoff(leaf.dtype) * rng.choice([-1, 1], leaf.shape)))
