"""The order of the Taylor remainder: a check of a gradient for which no step has to be chosen."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad._compare.oracles.float64_call import float64, to_numpy
from jaxgrad._compare.oracles.in_float64 import in_float64
from jaxgrad._errors import InputError
from jaxgrad._program.quick_jit import quick_jit
from jaxgrad._program.wide.promotion import Wide
from jaxgrad._retain.call import trace_call
from jaxgrad._types import PyTree

Array = np.ndarray[Any, Any]

_EPS = float(np.finfo(np.float64).eps)
_STEPS = np.logspace(-1, -4, 13)


def taylor_order(
    fun: Callable[..., Any],
    *args: Any,
    grads: PyTree = None,
    direction: PyTree = None,
    seed: int = 0,
    has_aux: bool = False,
) -> float:
    r"""The order of the Taylor remainder: 2 for a right gradient, 1 for a wrong one.

    $R(s) = |y(a + s d) - y(a) - s \bar a \cdot d|$ falls as $s^2$ if $\bar a$ is the gradient and as $s$ if not. The
    order is the slope of $\log R$ over $\log s$ for steps from $10^{-1}$ to $10^{-4}$: no step has to be chosen. It is
    evaluated in float64.

    Args:
      fun: pure function of pytrees of real arrays; returns a real scalar.
      *args: where.
      grads: the gradients to check, one for each argument, as `record.arg_grads`; None for JAX's own.
      direction: one tangent for each argument; None for a random one.
      seed: of the random direction.
      has_aux: does `fun` return a pair of the output and auxiliary data?

    Returns:
      The order; infinity where there is no remainder, as for a linear function; NaN where a gradient or the output
      is not finite.

    Raises:
      OutputError: the output is not a real scalar.
      InputError: `grads` or `direction` is not like the arguments.

    Example:
      >>> print(round(taylor_order(jnp.sin, 0.5), 1), round(taylor_order(jnp.sin, 0.5, grads=(0.88,)), 1))
      2.0 1.0
    """
    planned = trace_call(fun, args, {}, names=(), has_aux=has_aux)
    if grads is None:
        grads = in_float64(fun, names=(), has_aux=has_aux)(*args).arg_grads
    with jax.enable_x64(True):
        leaves = [float64(to_numpy(leaf)) for leaf in planned.leaves]
        bars, given = _like(leaves, grads, "grads"), _like(leaves, direction, "direction")
        rng = np.random.default_rng(seed)
        dots = given or [rng.standard_normal(leaf.shape) * np.maximum(1, np.abs(leaf)) for leaf in leaves]
        run = quick_jit(lambda leaves: planned.run(leaves, {}, wide=Wide(jnp.float64))[0])
        base = float(run(leaves))
        slope = sum(float(np.sum(bar * dot)) for bar, dot in zip(bars, dots, strict=True))
        moved = [float(run([leaf + s * dot for leaf, dot in zip(leaves, dots, strict=True)])) - base for s in _STEPS]
    return _order(np.abs(np.array(moved) - _STEPS * slope), 64 * _EPS * max(abs(base), abs(slope) * _STEPS[-1]))


def _like(leaves: list[Array], tree: PyTree, name: str) -> list[Array]:
    """The tree's leaves, one for each argument's; none if it is None."""
    given = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    if tree is not None and [leaf.shape for leaf in given] != [leaf.shape for leaf in leaves]:
        raise InputError(
            f"{name} has the shapes {[leaf.shape for leaf in given]}; expected the arguments', "
            f"{[leaf.shape for leaf in leaves]}. Give one like record.arg_grads."
        )
    return given


def _order(remainders: Array, noise: float) -> float:
    """The slope at the small steps whose remainder is more than noise: there the first term rules the others."""
    if not np.isfinite(remainders[-1]):
        return float("nan")
    seen = np.flatnonzero(remainders > noise)[-4:]
    if seen.size < 3:
        return float("inf")
    return float(np.polyfit(np.log(_STEPS[seen]), np.log(remainders[seen]), 1)[0])
