"""retain_grads and retain_vjp: the value and gradient of every tagged intermediate."""

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial, tree_flatten, tree_unflatten

from jaxgrad._program.control_flow import Found, Probes
from jaxgrad._program.find_sites import tagged
from jaxgrad._program.interpreter import run
from jaxgrad._program.jaxpr import Program, trace
from jaxgrad._program.promotion import Wide
from jaxgrad._program.sites import Site, select
from jaxgrad.errors import InputError, OutputError, TagError
from jaxgrad.record import Record


def retain_grads(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    names: str | Iterable[str] | None = None,
) -> Callable[..., Record]:
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
      names: names or globs of the tags to retain, None for all. With "h" tagged several times, "h" is all of them
        and "h[0]" the first. `jax.ad_checkpoint.checkpoint_name`s are retained too where `names` asks for them.

    Returns:
      A function of the same arguments that returns a `Record`: output, values and grads by name, arg_grads.
      Keyword arguments are passed on and not differentiated.

    Raises:
      TagError: no tag by a name in `names`, or none at all; a tag that is bypassed, in the body of a custom_jvp
        or custom_vjp function, or anywhere else where its gradient would be misleading.
      OutputError: the output is no real scalar: use `retain_vjp`.
      InputError: `argnums` is out of range, or names an argument that has no gradient.

    Example:
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

    patterns = name_patterns(names)

    @functools.wraps(fun, assigned=("__module__", "__name__", "__qualname__"), updated=())
    def with_grads(*args: Any, **kwargs: Any) -> Record:
        retained = _retain(plan(fun, args, kwargs, argnums=argnums, has_aux=has_aux, names=patterns))
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

    return with_grads


def retain_vjp(
    fun: Callable[..., Any], *primals: Any, names: str | Iterable[str] | None = None
) -> tuple[Any, dict[str, Any], Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]]:
    r"""Evaluates `fun`, with a pullback to its arguments and to each tagged intermediate.

    `jax.vjp` with tags: for an output of any shape, and several cotangents. With $y = f(a)$ and a cotangent
    $\bar y$, the pullback gives $\bar y^T \partial y / \partial a_j$ and $\bar y^T \partial y / \partial v_i$.

    Args:
      fun: pure function of pytrees; returns a pytree of floating-point or complex arrays.
      *primals: its arguments.
      names: as for `retain_grads`.

    Returns:
      (output, values, pullback): the output; name -> intermediate, in program order; and a function of a cotangent
      like the output to (arg_grads, grads), a tuple with an entry for each argument and name -> gradient.

    Raises:
      TagError: as for `retain_grads`.

    Example:
      >>> from jaxgrad import tag
      >>> output, values, pullback = retain_vjp(lambda x: jnp.sin(tag(2 * x, "y")), jnp.array([0.0, 1.0]))
      >>> arg_grads, grads = pullback(jnp.array([1.0, 1.0]))
      >>> print(values["y"], grads["y"].round(2), arg_grads[0].round(2))
      [0. 2.] [ 1.   -0.42] [ 2.   -0.83]
    """
    retained = _retain(plan(fun, primals, {}, names=names, scalar=False))
    return retained.output, retained.values, retained.pullback


class Plan(NamedTuple):
    """A call of a function, traced and checked: everything but the arithmetic.

    Attributes:
      program: the traced function of the leaves that are differentiated.
      sites: the tags to retain.
      leaves: the leaves that are differentiated.
      arg_grads: a gradient for each of `leaves` -> one entry for each argument, None where there is none.
      aux: the auxiliary data's arrays -> the auxiliary data.
    """

    program: Program
    sites: Sequence[Site]
    leaves: list[Any]
    arg_grads: Callable[[Sequence[Any]], tuple[Any, ...]]
    aux: Callable[[list[Any]], Any]

    def run(self, leaves: Sequence[Any], probes: Probes, wide: Wide | None = None) -> tuple[Any, Any, Found]:
        """Output, arrays of the auxiliary data, and what the tags hold, on other leaves; see `interpreter.run`."""
        return run(self.program, self.sites, leaves, probes, wide=wide)

    def present(self, by_site: Mapping[int, Any]) -> dict[str, Any]:
        """Name -> stacked value or gradient, its axes in order; None where there is none."""
        return {site.name: site.present(by_site[i]) if i in by_site else None for i, site in enumerate(self.sites)}

    def reached(self, by_site: Mapping[int, Any]) -> dict[str, Any]:
        return {site.name: by_site[i] for i, site in enumerate(self.sites) if site.in_branch}

    @property
    def notes(self) -> dict[str, str]:
        return {site.name: site.note for site in self.sites if site.note}


def plan(
    fun: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    names: str | Iterable[str] | None = None,
    scalar: bool = True,
) -> Plan:
    """Traces `fun(*args, **kwargs)` and selects its tags; every error that the call deserves is raised here."""
    leaves, structure = tree_flatten(args)
    varied = differentiable(args, argnums)
    static_aux: dict[int, Any] = {}

    @functools.wraps(fun, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
    def flat(*varied_leaves: Any) -> tuple[Any, list[Any]]:
        given = dict(zip(varied, varied_leaves, strict=True))
        result = fun(*tree_unflatten(structure, [given.get(i, leaf) for i, leaf in enumerate(leaves)]), **kwargs)
        output, aux = _pair(result) if has_aux else (result, None)
        aux_leaves, aux_structure = tree_flatten(aux)
        static_aux[-1] = aux_structure
        static_aux.update((i, leaf) for i, leaf in enumerate(aux_leaves) if not is_array(leaf))
        return output, [leaf for leaf in aux_leaves if is_array(leaf)]

    varied_leaves = [leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf) for leaf in (leaves[i] for i in varied)]
    traced = trace(flat, varied_leaves)
    if scalar:
        check_scalar(traced.output)

    def arg_grads(bars: Sequence[Any]) -> tuple[Any, ...]:
        by_leaf = dict(zip(varied, bars, strict=True))
        return tree_unflatten(structure, [by_leaf.get(i) for i in range(len(leaves))])  # type: ignore[no-any-return]

    sites = select(tagged(traced), name_patterns(names))
    return Plan(traced, sites, varied_leaves, arg_grads, lambda aux: _with_static(aux, static_aux))


class _Retained(NamedTuple):
    output: Any
    aux: Any
    values: dict[str, Any]
    reached: dict[str, Any]
    notes: dict[str, str]
    pullback: Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]


def _retain(planned: Plan) -> _Retained:
    """One `jax.vjp`: the output, the values, and what pulls a cotangent back to all of them."""
    sites = planned.sites

    def forward(leaves: list[Any], probes: dict[int, Any]) -> Any:
        output, aux, found = planned.run(leaves, probes)
        return output, (aux, found)

    probes = {i: site.probe() for i, site in enumerate(sites) if site.note is None}
    output, vjp, (aux, (values, reached)) = jax.vjp(forward, planned.leaves, probes, has_aux=True)

    def pull_back(vjp: Any, cotangent: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
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


def _one(output: Any) -> Any:
    """The cotangent of a scalar output: like it, but not committed to its devices, as a cotangent of `jax.grad`."""
    return lax.full_like(output, 1, shape=(), sharding=jax.typeof(output).sharding)


def name_patterns(names: str | Iterable[str] | None) -> tuple[str, ...] | None:
    if names is None or isinstance(names, str):
        return names if names is None else (names,)
    patterns = tuple(names) if isinstance(names, Iterable) else (names,)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TagError(f"`names` has {pattern!r}; expected names or globs, as strings, or None for every tag.")
    return patterns


def differentiable(args: tuple[Any, ...], argnums: int | Sequence[int] | None) -> list[int]:
    """Which of the leaves of `args` are differentiated."""
    chosen = _positions(argnums, len(args))
    varied, i = [], 0
    for j, arg in enumerate(args):
        for leaf in jax.tree.leaves(arg):
            if j in chosen and is_array(leaf):
                if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
                    varied.append(i)
                elif argnums is not None:
                    raise InputError(
                        f"argument {j} has a leaf of dtype {jnp.result_type(leaf)}, which has no gradient; expected "
                        "floating-point or complex. Leave the argument out of `argnums`, or cast it."
                    )
            i += 1
    return varied


def _positions(argnums: int | Sequence[int] | None, n: int) -> set[int]:
    if argnums is None:
        return set(range(n))
    positions = list(argnums) if isinstance(argnums, Iterable) else [argnums]
    for position in positions:
        if not isinstance(position, SupportsIndex) or not -n <= position < n:
            raise InputError(f"`argnums` has {position!r}, and the function was called with {n} positional arguments.")
    return {operator.index(position) % n for position in positions}


def is_array(leaf: Any) -> bool:
    if isinstance(leaf, np.ndarray):
        return leaf.dtype.kind not in "OSUMm" and leaf.dtype != jax.dtypes.float0
    return isinstance(leaf, (jax.Array, np.generic, bool, int, float, complex))


def _pair(result: Any) -> tuple[Any, Any]:
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise OutputError(f"with has_aux, fun returns a {type(result).__name__}; expected a pair (output, aux).")
    return result[0], result[1]


def check_scalar(output: Any) -> None:
    leaves = jax.tree.leaves(output)
    if len(leaves) != 1 or leaves[0] is not output:
        raise OutputError(
            f"the output of fun is {jax.tree.structure(output)}; expected one real scalar. For (output, aux) give "
            "has_aux=True; for several outputs use retain_vjp."
        )
    if output.shape or not jnp.issubdtype(output.dtype, jnp.floating):
        raise OutputError(
            f"the output of fun is {output.dtype}{list(output.shape)}; expected a real scalar, of shape () and "
            "floating-point. Use retain_vjp for any other, or reduce it, as by jnp.sum."
        )


def _with_static(arrays: list[Any], static: dict[int, Any]) -> Any:
    """The auxiliary data again: its arrays, with what is none of them put back in its place."""
    structure = static[-1]
    rest = iter(arrays)
    return tree_unflatten(structure, [static[i] if i in static else next(rest) for i in range(structure.num_leaves)])
