r"""Oracles: a function's gradients by another road than automatic differentiation, each a Record.

All evaluate the program that JAX traced, its constants as they are, in float64 or complex128 whatever the global
setting and the arguments' dtypes, so that what is left of rounding is the function's own. They are for checking: they
run outside of `jit`, and cost two evaluations or one for each element of every argument and tag.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxgrad.entries import of_record
from jaxgrad.errors import InputError
from jaxgrad.record import Record
from jaxgrad.retain import Plan, plan
from jaxgrad.rounding import roundoff
from jaxgrad.wide import Wide

Names = str | Iterable[str] | None
_ROWS = 64  # points that are evaluated at once
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

    def gradient(point: _Point) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        steps = np.finfo(np.float64).eps ** (1 / (order + 1)) * np.maximum(1, np.abs(point.at))
        (one, bend), (two, wider_bend) = (_central(point, steps * times) for times in (1, 2))
        found = one if order == 2 else (4 * one - two) / 3
        # Doubling the step quadruples the error of order 2; what is left of the better estimate is far less.
        rounding = 64 * np.finfo(np.float64).eps * max(abs(point.output), point.size) / steps
        # Over twice the step a curve bends twice as much, a kink as much: there any slope between is right (relu at 0).
        kink = np.where(np.abs(wider_bend) < 1.5 * np.abs(bend), np.abs(bend), 0)
        return found, np.abs(one - two) + rounding + kink

    return _oracle(fun, gradient, argnums, names)


def _central(point: "_Point", steps: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
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
      fun: pure function of pytrees; returns a real scalar.
      argnums, names: as for `retain_grads`.

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

    def gradient(point: _Point) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        step = 1e-100
        found = point.outputs(np.full(point.at.shape, step * 1j), np.complex128).imag / step
        return found, 64 * np.finfo(np.float64).eps * np.abs(found)

    return _oracle(fun, gradient, argnums, names)


def in_float64(
    fun: Callable[..., Any], *, argnums: int | Sequence[int] | None = None, names: Names = None
) -> Callable[..., Record]:
    """Transforms `fun` to evaluate the same traced program, and its reverse pass, in float64.

    Compared with it, `retain_grads(fun)` shows the rounding error at every tag. What rounding the arguments by half a
    unit in the last place of their own dtype would change is in `uncertainty`: no program can be asked for more.

    Args:
      fun: pure function of pytrees; returns a real scalar.
      argnums, names: as for `retain_grads`.

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
            leaves = [_to_numpy(leaf) for leaf in planned.leaves]
            run = jax.jit(functools.partial(_wide_grads, planned))
            record = _filled(planned, *jax.device_get(run([_float64(leaf) for leaf in leaves])))
            rng = np.random.default_rng(0)
            draws = [
                _filled(planned, *jax.device_get(run([_rounded(leaf, rng) for leaf in leaves]))) for _ in range(_DRAWS)
            ]
        return _with_uncertainty(record, draws)

    return with_grads


def _wide_grads(planned: Plan, leaves: list[Any]) -> Any:
    wide = Wide(jnp.float64)

    def forward(leaves: list[Any], probes: dict[int, Any]) -> Any:
        output, _, found = planned.program.run(planned.sites, leaves, probes, wide=wide)
        return output, found

    output, vjp, (values, reached) = jax.vjp(forward, leaves, _probes(planned, wide), has_aux=True)
    return output, values, reached, *vjp(jnp.ones_like(output))


def _probes(planned: Plan, wide: Wide) -> dict[int, Any]:
    return {
        i: jnp.zeros((*site.lead, *site.aval.shape), wide.kind(site.aval.dtype))
        for i, site in enumerate(planned.sites)
        if site.note is None
    }


def _filled(planned: Plan, output: Any, values: Any, reached: Any, leaf_bars: Any, probe_bars: Any) -> Record:
    as_numpy = functools.partial(jax.tree.map, np.asarray)
    return Record(
        output=np.asarray(output)[()],
        names=tuple(site.name for site in planned.sites),
        values=as_numpy(planned.present(values)),
        grads={name: None if grad is None else np.asarray(grad) for name, grad in planned.present(probe_bars).items()},
        arg_grads=as_numpy(planned.arg_grads(leaf_bars)),
        notes=planned.notes,
        reached=planned.reached(reached),
    )


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
            away = [np.abs(_float64(other) - _float64(entry.array)) for other in others[name]]
        uncertainty[name] = 2 * np.max([np.where(np.isfinite(a), a, 0) for a in away], axis=0)
    return replace(record, uncertainty=uncertainty)


def _to_numpy(leaf: Any) -> np.ndarray[Any, Any]:
    if isinstance(leaf, jax.core.Tracer):
        raise InputError(
            "an oracle needs numbers and was given traced arguments. Call it outside of jit, vmap and grad."
        )
    # A Python number has the dtype that JAX gives it.
    return (
        np.asarray(leaf)
        if hasattr(leaf, "dtype")
        else np.asarray(leaf, jax.dtypes.canonicalize_dtype(np.result_type(leaf)))
    )


def _float64(leaf: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return leaf.astype(np.complex128 if np.iscomplexobj(leaf) else np.float64)


def _rounded(leaf: np.ndarray[Any, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """The argument, each element half a unit of its own dtype's last place up or down."""
    return np.asarray(_float64(leaf) * (1 + roundoff(leaf.dtype) * rng.choice([-1, 1], leaf.shape)))


class _Point(NamedTuple):
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


def _oracle(
    fun: Callable[..., Any],
    gradient: Callable[[_Point], tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]],
    argnums: int | Sequence[int] | None,
    names: Names,
) -> Callable[..., Record]:
    @functools.wraps(fun, assigned=("__module__", "__name__", "__qualname__"), updated=())
    def with_grads(*args: Any, **kwargs: Any) -> Record:
        planned = plan(fun, args, kwargs, argnums=argnums, names=names)
        for leaf in [*planned.leaves, *(site.aval for site in planned.sites if site.note is None)]:
            if jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating):
                raise InputError(
                    "an argument or a tag is complex, and this oracle steps along the real line; expected real ones. "
                    "Take its real and imaginary part as arguments."
                )
        with jax.enable_x64(True):
            leaves = [_float64(_to_numpy(leaf)) for leaf in planned.leaves]
            return _by_steps(planned, leaves, gradient)

    return with_grads


def _by_steps(planned: Plan, leaves: list[Any], gradient: Callable[[_Point], Any]) -> Record:
    probes = _probes(planned, Wide(jnp.float64))
    run = jax.jit(lambda leaves: planned.program.run(planned.sites, leaves, {}, wide=Wide(jnp.float64)))
    output, _, (values, reached) = jax.device_get(run(leaves))
    base, unravel = ravel_pytree((leaves, probes))
    places, _ = ravel_pytree((leaves, {i: values[i] for i in probes}))
    point = _Point(
        np.asarray(places),
        float(output),
        _stepper(planned, base, unravel),
        max((abs(float(v)) for v in places), default=0.0),
    )
    found, uncertainty = gradient(point)
    bars, errors = (jax.device_get(unravel(jnp.asarray(v))) for v in (found, uncertainty))
    record = _filled(planned, output, values, reached, *bars)
    by_error = of_record(_filled(planned, output, values, reached, *errors))
    entries = of_record(record)
    known = {
        name: np.abs(entry.array) if entry.kind == "gradient" else np.zeros(entry.array.shape)
        for name, entry in by_error.items()
        if entry.array is not None and name in entries
    }
    return replace(record, uncertainty=known)


def _stepper(planned: Plan, base: Any, unravel: Any) -> Callable[[np.ndarray[Any, Any], Any], np.ndarray[Any, Any]]:
    """(steps, dtype) -> the output after each step alone, some at once."""

    @functools.partial(jax.jit, static_argnums=2)
    def outputs(indices: Any, steps: Any, dtype: Any) -> Any:
        wide = Wide(dtype)

        def output(index: Any, step: Any) -> Any:
            moved = leaves, probes = unravel(base.at[index].add(jnp.real(step)))
            if wide.is_complex:
                imaginary = unravel(jnp.zeros_like(base).at[index].add(jnp.imag(step)))
                leaves, probes = jax.tree.map(jax.lax.complex, moved, imaginary)
            return planned.program.run(planned.sites, leaves, probes, wide=wide)[0]

        return jax.vmap(output)(indices, steps)

    def each(steps: np.ndarray[Any, Any], dtype: Any) -> np.ndarray[Any, Any]:
        if not steps.size:
            return np.zeros(0, dtype)
        padded = -steps.size % min(_ROWS, steps.size)
        indices = np.append(np.arange(steps.size), np.zeros(padded, int))
        steps = np.append(steps, np.zeros(padded))
        rows = min(_ROWS, steps.size)
        blocks = [outputs(indices[i : i + rows], steps[i : i + rows], dtype) for i in range(0, steps.size, rows)]
        return np.concatenate([np.asarray(block) for block in blocks])[: steps.size - padded]

    return each


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
        leaves = [_float64(_to_numpy(leaf)) for leaf in planned.leaves]
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
