"""The same program and its reverse pass in float64."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad._compare.entries import of_record
from jaxgrad._compare.oracles.float64_call import filled, float64, noted, probes, to_numpy
from jaxgrad._compare.oracles.perturbation import Names
from jaxgrad._compare.tolerance import roundoff
from jaxgrad._program.quick_jit import quick_jit
from jaxgrad._program.wide.promotion import Wide
from jaxgrad._record import Record
from jaxgrad._retain.call import TracedCall, trace_call
from jaxgrad._types import P

_DRAWS = 4  # of random roundings of the arguments


def in_float64(
    fun: Callable[P, Any], *, argnums: int | Sequence[int] | None = None, names: Names = None, has_aux: bool = False
) -> Callable[P, Record]:
    """Transforms `fun` to evaluate the same traced program, and its reverse pass, in float64.

    Compared with it, `retain_grads(fun)` shows the rounding error at every tag. What rounding the arguments by half a
    unit in the last place of their own dtype would change is in `uncertainty`: no program can be asked for more.

    Args:
      fun, argnums, names, has_aux: as for `finite_difference`.

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
    def with_grads(*args: P.args, **kwargs: P.kwargs) -> Record:
        planned = trace_call(fun, args, kwargs, argnums=argnums, names=names, has_aux=has_aux)
        with jax.enable_x64(True):
            leaves = [to_numpy(leaf) for leaf in planned.leaves]
            run = quick_jit(functools.partial(_wide_grads, planned))
            record = filled(planned, *jax.device_get(run([float64(leaf) for leaf in leaves])))
            rng = np.random.default_rng(0)
            draws = [
                filled(planned, *jax.device_get(run([_rounded(leaf, rng) for leaf in leaves]))) for _ in range(_DRAWS)
            ]
        return noted(_with_uncertainty(record, draws))

    return with_grads


def _wide_grads(planned: TracedCall, leaves: list[Any]) -> Any:
    wide = Wide(jnp.float64)

    def forward(leaves: list[Any], probes: dict[int, Any]) -> Any:
        output, aux, found = planned.run(leaves, probes, wide=wide)
        return output, (aux, found)

    output, vjp, (aux, (values, reached)) = jax.vjp(forward, leaves, probes(planned, wide), has_aux=True)
    return output, aux, values, reached, *vjp(jnp.ones_like(output))


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
