"""Gradients by steps: the output after each element of each argument and tag has moved alone."""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxgrad._compare.entries import of_record
from jaxgrad._compare.oracles.float64_call import filled, float64, noted, probes, to_numpy
from jaxgrad._errors import InputError
from jaxgrad._program.quick_jit import quick_jit
from jaxgrad._program.wide.promotion import Wide
from jaxgrad._record import Record
from jaxgrad._retain.call import TracedCall, trace_call
from jaxgrad._types import DType, P, Value

Names = str | Iterable[str] | None
_ROWS = 64  # points that are evaluated at once
_FEW = 1024  # points for which compiling costs more than they do


class Point(NamedTuple):
    """Where gradients are asked for: every element that can move, in one vector.

    Attributes:
      at: the elements, of the arguments and then of the tags.
      output: the output there.
      outputs: (a step for each element, dtype) -> the output after each step alone.
      size: the largest number on the way: its rounding is in every output.
    """

    at: np.ndarray[Any, Any]
    output: float
    outputs: Callable[[np.ndarray[Any, Any], Any], np.ndarray[Any, Any]]
    size: float


def by_steps(
    fun: Callable[P, Any],
    gradient: Callable[[Point], tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]],
    argnums: int | Sequence[int] | None,
    names: Names,
    has_aux: bool,
) -> Callable[P, Record]:
    """`fun` with the gradients, and how far off they may be, that `gradient` finds at a point."""

    @functools.wraps(fun, assigned=("__module__", "__name__", "__qualname__"), updated=())
    def with_grads(*args: P.args, **kwargs: P.kwargs) -> Record:
        planned = trace_call(fun, args, kwargs, argnums=argnums, names=names, has_aux=has_aux)
        for leaf in [*planned.leaves, *(site.aval for site in planned.sites if site.note is None)]:
            if jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating):
                raise InputError(
                    "an argument or a tag is complex, and this oracle steps along the real line; expected real ones. "
                    "Take its real and imaginary part as arguments."
                )
        with jax.enable_x64(True):
            leaves = [float64(to_numpy(leaf)) for leaf in planned.leaves]
            return _record(planned, leaves, gradient)

    return with_grads


def _record(planned: TracedCall, leaves: list[Any], gradient: Callable[[Point], Any]) -> Record:
    zeros = probes(planned, Wide(jnp.float64))
    run = quick_jit(lambda leaves: planned.run(leaves, {}, wide=Wide(jnp.float64)))
    output, aux, (values, reached) = jax.device_get(run(leaves))
    base, unravel = ravel_pytree((leaves, zeros))
    places, _ = ravel_pytree((leaves, {i: values[i] for i in zeros}))
    point = Point(
        np.asarray(places),
        float(output),
        _stepper(planned, base, unravel),
        max((abs(float(v)) for v in places), default=0.0),
    )
    found, uncertainty = gradient(point)
    bars, errors = (jax.device_get(unravel(jnp.asarray(v))) for v in (found, uncertainty))
    record = filled(planned, output, aux, values, reached, *bars)
    known = {
        name: np.abs(entry.array) if entry.kind == "gradient" else np.zeros(entry.array.shape)
        for name, entry in of_record(filled(planned, output, None, values, reached, *errors)).items()
        if entry.array is not None
    }
    return noted(replace(record, uncertainty=known))


def _stepper(
    planned: TracedCall, base: Value, unravel: Any
) -> Callable[[np.ndarray[Any, Any], Any], np.ndarray[Any, Any]]:
    """(steps, dtype) -> the output after each step alone, some at once; refs in a branch have no vmap."""
    rows = 1 if planned.program.jaxpr.effects else min(_ROWS, base.size)

    def outputs(indices: Any, steps: Value, dtype: DType) -> Any:
        wide = Wide(dtype)

        def output(index: Any, step: Any) -> Any:
            moved = leaves, shifts = unravel(base.at[index].add(jnp.real(step)))
            if wide.is_complex:
                imaginary = unravel(jnp.zeros_like(base).at[index].add(jnp.imag(step)))
                leaves, shifts = jax.tree.map(jax.lax.complex, moved, imaginary)
            return planned.run(leaves, shifts, wide=wide)[0]

        return jax.vmap(output)(indices, steps) if rows > 1 else output(indices[0], steps[0])[None]

    best = jax.jit(outputs, static_argnums=2)
    quick = quick_jit(outputs, static_argnums=2) if base.size <= _FEW else best

    def each(steps: np.ndarray[Any, Any], dtype: DType) -> np.ndarray[Any, Any]:
        if not steps.size:
            return np.zeros(0, dtype)
        run = best if np.issubdtype(dtype, np.complexfloating) else quick  # which rounds complex numbers more coarsely
        padded = -steps.size % rows
        indices = np.append(np.arange(steps.size), np.zeros(padded, int))
        steps = np.append(steps, np.zeros(padded))
        blocks = [run(indices[i : i + rows], steps[i : i + rows], dtype) for i in range(0, steps.size, rows)]
        return np.concatenate([np.asarray(block) for block in blocks])[: steps.size - padded]

    return each
