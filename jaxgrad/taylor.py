"""The order of the Taylor remainder: a check of a gradient for which no step has to be chosen."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad.errors import InputError
from jaxgrad.float64 import float64, to_numpy
from jaxgrad.oracles import in_float64
from jaxgrad.retain import plan
from jaxgrad.wide import Wide


def taylor_order(fun: Callable[..., Any], *args: Any, grads: Any = None, direction: Any = None, seed: int = 0) -> float:
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

    Returns:
      The order; infinity where there is no remainder, as for a linear function.

    Raises:
      OutputError: the output is not a real scalar.
      InputError: `grads` is not like the arguments.

    Example:
      >>> print(round(taylor_order(jnp.sin, 0.5), 1), round(taylor_order(jnp.sin, 0.5, grads=(0.88,)), 1))
      2.0 1.0
    """
    planned = plan(fun, args, {}, names=())
    if grads is None:
        grads = in_float64(fun, names=())(*args).arg_grads
    bars = [np.asarray(bar, np.float64) for bar in jax.tree.leaves(grads)]
    with jax.enable_x64(True):
        leaves = [float64(to_numpy(leaf)) for leaf in planned.leaves]
        if [bar.shape for bar in bars] != [leaf.shape for leaf in leaves]:
            raise InputError(
                f"grads has the shapes {[bar.shape for bar in bars]}; expected the arguments', "
                f"{[leaf.shape for leaf in leaves]}. Give record.arg_grads."
            )
        rng = np.random.default_rng(seed)
        given = [np.asarray(d, np.float64) for d in jax.tree.leaves(direction)]
        dots = given or [rng.standard_normal(leaf.shape) * np.maximum(1, np.abs(leaf)) for leaf in leaves]
        run = jax.jit(lambda leaves: planned.program.run((), leaves, {}, wide=Wide(jnp.float64))[0])
        base = float(run(leaves))
        slope = sum(float(np.sum(bar * dot)) for bar, dot in zip(bars, dots, strict=True))
        steps = np.logspace(-1, -4, 13)
        moved = [
            float(run([leaf + step * dot for leaf, dot in zip(leaves, dots, strict=True)])) - base for step in steps
        ]
    remainders = np.abs(np.array(moved) - steps * slope)
    noise = 64 * np.finfo(np.float64).eps * max(abs(base), abs(slope) * 1e-4)
    seen = remainders > noise
    if np.count_nonzero(seen) < 3:
        return float("inf")
    # The small steps, where the first term that is left rules the others.
    smallest = np.flatnonzero(seen)[-4:]
    return float(np.polyfit(np.log(steps[smallest]), np.log(remainders[smallest]), 1)[0])
