"""retain_grads and retain_vjp: the value and gradient of every tagged intermediate."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.tree_util import Partial

from jaxgrad._errors import TagError
from jaxgrad._names.bound import afresh, observing
from jaxgrad._program.probe import Forced
from jaxgrad._program.sites import Site
from jaxgrad._record import Call, Origin, Record
from jaxgrad._retain.call import TracedCall, trace_call
from jaxgrad._retain.forced import references
from jaxgrad._retain.selection import name_patterns
from jaxgrad._types import P, PyTree, Value


def retain_grads(
    fun: Callable[P, Any],
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    names: str | Iterable[str] | Mapping[str, str] | None = None,
    *,
    forced: Record | Mapping[Any, Any] | None = None,
) -> Callable[P, Record]:
    r"""Transforms `fun` to return the value and gradient of each of its tagged intermediates.

    What PyTorch's `retain_grad` does, for any pure function: for $y = f(a)$ with tagged intermediates $v_i$ it
    finds all $v_i$, $\partial y / \partial v_i$ and $\partial y / \partial a_j$ in one forward and one reverse
    pass, by `jax.vjp` with respect to the arguments and one probe $\epsilon_i$ at each tag,
    $v_i + \epsilon_i$ at $\epsilon_i = 0$. It is a pure function: it can be jitted, vmapped and differentiated.

    A tag in `scan` or `fori_loop` yields its values and gradients stacked on a leading axis, one for each step;
    in a `vmap` inside `fun`, with the batch axis leading (behind the axes of scans, if it is in both); in a
    `shard_map`, one for each shard it varies over. In `cond` and `switch` the tags of each branch are there,
    zeros where not taken, and `record.reached` says which. In `while_loop` the last value, no gradient.

    Args:
      fun: pure function of pytrees; returns a real scalar, or (scalar, aux) with `has_aux`.
      argnums: position or positions of the arguments to differentiate; None for every floating-point array in
        any of them. The other arguments are not traced: they may be anything, as with `jax.grad`.
      has_aux: does `fun` return a pair of the output and auxiliary data?
      names: names or globs (`*`, `?`) of the tags to retain, None for all. With "h" tagged several times, "h" is
        all of them and "h[0]" the first. `jax.ad_checkpoint.checkpoint_name`s are retained too where `names` asks
        for them.
      forced: a reference, as `compare` takes it, whose values and gradients stand in at the tags that it has: what
        follows a tag is computed from the reference's value, and what flows back to before it is the reference's
        gradient. So each piece from tag to tag shows its own mistake and no other's; `values` and `grads` are what the
        pieces make of it. Where the reference calls the tags differently, `names` is the dict of `align`.

    Returns:
      A function of the same arguments that returns a `Record`: output, values and grads by name, arg_grads.
      Keyword arguments are passed on and not differentiated.

    Raises:
      TagError: no tag by a name in `names`, or none at all; a tag that is bypassed, in the body of a custom_jvp
        or custom_vjp function, or anywhere else where its gradient would be misleading.
      OutputError: the output is no real scalar: use `retain_vjp`.
      InputError: `argnums` is out of range, or names an argument that has no gradient; `forced` knows none of the
        tags, or has one in another shape.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgrad import tag
      >>> def loss(w, x):
      ...     h = tag(jnp.tanh(w @ x), "h")
      ...     return jnp.sum(tag(h * h, "squares"))
      >>> record = retain_grads(loss)(jnp.eye(2), jnp.array([0.0, 1.0]))
      >>> record.names
      ('h', 'squares')
      >>> print(record.grads["h"], record.grads["squares"])
      [0.        1.5231884] [1. 1.]
    """

    pairs = names if isinstance(names, Mapping) else None
    patterns = None if isinstance(names, Mapping) else name_patterns(names)
    if pairs is not None and forced is None:
        raise TagError("`names` is a dict, which goes with `forced`; expected names or globs, or None for every tag.")

    options = {"argnums": argnums, "has_aux": has_aux, "names": patterns if pairs is None else pairs, "forced": forced}

    @functools.wraps(fun, assigned=("__module__", "__name__", "__qualname__"), updated=())
    def with_grads(*args: P.args, **kwargs: P.kwargs) -> Record:
        planned = trace_call(fun, args, kwargs, argnums=argnums, has_aux=has_aux, names=patterns)
        record = record_of(planned, {} if forced is None else references(planned.sites, forced, pairs))
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((record.output, args, kwargs))):
            return replace(record, _origin=Origin(planned.without_numbers() if forced is None else None))
        return replace(record, _call=Call(fun, args, kwargs, options))

    return with_grads


def retain_vjp(
    fun: Callable[..., Any], *primals: Any, has_aux: bool = False, names: str | Iterable[str] | None = None
) -> tuple[Any, ...]:
    r"""Evaluates `fun`, with a pullback to its arguments and to each tagged intermediate.

    `jax.vjp` with tags: for an output of any shape, and several cotangents. With $y = f(a)$ and a cotangent
    $\bar y$, the pullback gives $\bar y^T \partial y / \partial a_j$ and $\bar y^T \partial y / \partial v_i$.

    Args:
      fun: pure function of pytrees; returns a pytree of floating-point or complex arrays.
      *primals: its arguments. A NumPy array of float64 is narrowed as by `jax.vjp` where JAX has 64 bits switched off:
        a record says so in its `notes`, and here there is none to say it.
      has_aux: does `fun` return a pair of the output and auxiliary data?
      names: as for `retain_grads`.

    Returns:
      (output, values, pullback): the output; name -> intermediate, in program order; and a function of a cotangent
      like the output to (arg_grads, grads), a tuple with an entry for each argument and name -> gradient. With
      `has_aux`, the auxiliary data is the fourth, as `jax.vjp` has it.

    Raises:
      TagError: as for `retain_grads`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgrad import tag
      >>> output, values, pullback = retain_vjp(lambda x: jnp.sin(tag(2 * x, "y")), jnp.array([0.0, 1.0]))
      >>> arg_grads, grads = pullback(jnp.array([1.0, 1.0]))
      >>> print(values["y"], grads["y"].round(2), arg_grads[0].round(2))
      [0. 2.] [ 1.   -0.42] [ 2.   -0.83]
    """
    retained = _retain(trace_call(fun, primals, {}, has_aux=has_aux, names=names, scalar=False))
    found = retained.output, retained.values, retained.pullback
    return (*found, retained.aux) if has_aux else found


def record_of(planned: TracedCall, forced: Mapping[int, Forced] = MappingProxyType({})) -> Record:
    """The record of a traced call."""
    retained = _retain(planned, forced)
    arg_grads, grads = retained.pullback(_one(retained.output))
    return Record(
        output=retained.output,
        names=tuple(retained.values),
        values=retained.values,
        grads=grads,
        arg_grads=arg_grads,
        notes=retained.notes,
        reached=retained.reached,
        aux=retained.aux,
    )


class _Retained(NamedTuple):
    output: Any
    aux: Any
    values: dict[str, Any]
    reached: dict[str, Any]
    notes: dict[str, str]
    pullback: Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]


def _retain(planned: TracedCall, forced: Mapping[int, Forced] = MappingProxyType({})) -> _Retained:
    """One `jax.vjp`: the output, the values, and what pulls a cotangent back to all of them."""
    sites = planned.sites

    def forward(leaves: list[Any], probes: dict[int, Any]) -> Any:
        joined = probes | {i: at._replace(probe=probes.get(i)) for i, at in forced.items()}
        output, aux, found = planned.run(leaves, joined)
        return output, (aux, found)

    probes = _probes(sites)
    with observing(planned.refuse):
        output, vjp, (aux, (values, reached)) = jax.vjp(forward, planned.leaves, probes, has_aux=True)

    def pull_back(vjp: Any, cotangent: Value) -> tuple[tuple[Any, ...], dict[str, Any]]:
        with observing(planned.refuse), afresh() if planned.rules else nullcontext():
            leaf_bars, probe_bars = vjp(cotangent)
        return planned.arg_grads(leaf_bars), planned.present(probe_bars)

    return _Retained(
        output=output,
        aux=planned.aux(aux),
        values=planned.present(values),
        reached=planned.reached(reached),
        notes=planned.notes,
        pullback=Partial(pull_back, vjp),
    )


def _probes(sites: Sequence[Site]) -> dict[int, Any]:
    """Index into the sites -> the probe of each that has a gradient; those of one type are one array."""
    made: dict[Any, Any] = {}
    probes = {}
    for i, site in enumerate(sites):
        if site.note is None:
            kind = site.lead, site.aval, site.manual
            probes[i] = made[kind] if kind in made else made.setdefault(kind, site.probe())
    return probes


def _one(output: PyTree) -> Any:
    """The cotangent of a scalar output: like it, but not committed to its devices, as a cotangent of `jax.grad`."""
    return lax.full_like(output, 1, shape=(), sharding=jax.typeof(output).sharding)
