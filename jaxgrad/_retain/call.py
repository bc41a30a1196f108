"""A call of a function, traced and checked once: what retain_grads, ledger and the oracles all start from."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten, tree_unflatten

from jaxgrad._errors import OutputError
from jaxgrad._names.bound import Observer
from jaxgrad._program.control_flow.control import Probes, TagResults
from jaxgrad._program.find_sites import tagged
from jaxgrad._program.interpreter import run
from jaxgrad._program.jaxpr import Program, trace
from jaxgrad._program.refs import IN_REVERSE, refuse_refs
from jaxgrad._program.rules import equations_with_rules
from jaxgrad._program.sites import Site
from jaxgrad._program.wide.promotion import Wide
from jaxgrad._retain.arguments import check_scalar, differentiable, is_array, narrowed
from jaxgrad._retain.selection import Refusing, name_patterns, select, set_aside
from jaxgrad._types import Value


class TracedCall(NamedTuple):
    """A call of a function, traced and checked: everything but the arithmetic.

    Attributes:
      program: the traced function of the leaves that are differentiated.
      sites: the tags to retain.
      leaves: the leaves that are differentiated.
      arg_grads: a gradient for each of `leaves` -> one entry for each argument, None where there is none.
      aux: the auxiliary data's arrays -> the auxiliary data.
      rules: which of the program's equations call derivative rules, as they are differentiated.
      refuse: what to call at a tag that is bound then.
      set_aside: name -> why it is not retained, of what `watch` has named.
      narrowed: "arg[0]" -> what was done to it, of the arguments' NumPy arrays that JAX holds in fewer bits.
    """

    program: Program
    sites: Sequence[Site]
    leaves: list[Any]
    arg_grads: Callable[[Sequence[Any]], tuple[Any, ...]]
    aux: Callable[[list[Any]], Any]
    rules: frozenset[int]
    refuse: Observer
    set_aside: Mapping[str, str] = MappingProxyType({})
    narrowed: Mapping[str, str] = MappingProxyType({})

    def run(self, leaves: Sequence[Any], probes: Probes, wide: Wide | None = None) -> tuple[Any, Any, TagResults]:
        """Output, arrays of the auxiliary data, and what the tags hold, on other leaves; see `interpreter.run`."""
        return run(self.program, self.sites, leaves, probes, wide=wide, rules=self.rules)

    def without_numbers(self) -> "TracedCall":
        """The same, its arguments and what is traced of its constants replaced by their types."""
        consts = [_type(c) if isinstance(c, jax.core.Tracer) else c for c in self.program.consts]
        return self._replace(program=replace(self.program, consts=consts), leaves=list(map(_type, self.leaves)))

    def present(self, by_site: Mapping[int, Any]) -> dict[str, Any]:
        """Name -> stacked value or gradient, its axes in order; None where there is none."""
        return {site.name: site.present(by_site[i]) if i in by_site else None for i, site in enumerate(self.sites)}

    def reached(self, by_site: Mapping[int, Any]) -> dict[str, Any]:
        return {site.name: site.present_reached(by_site[i]) for i, site in enumerate(self.sites) if site.in_branch}

    @property
    def notes(self) -> dict[str, str]:
        hoisted = "the same in each step of a scan: JAX has moved it out of the scan, and its gradient is of all steps"
        notes = {site.name: site.note or (hoisted if site.hoisted else "") for site in self.sites}
        return {name: note for name, note in notes.items() if note} | dict(self.set_aside) | dict(self.narrowed)


def trace_call(
    fun: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    names: str | Iterable[str] | None = None,
    scalar: bool = True,
    choose: Callable[[Program], Sequence[Site]] | None = None,
) -> TracedCall:
    """Traces `fun(*args, **kwargs)` and selects its tags; every error that the call deserves is raised here.

    Args:
      scalar: has the output to be a real scalar?
      choose: the program's sites, in place of its tags by the names in `names`.
    """
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

    n_leaves = len(leaves)  # not the leaves: what is kept of the call below may outlive them
    varied_leaves = [leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf) for leaf in (leaves[i] for i in varied)]
    patterns = name_patterns(names)
    traced = trace(flat, varied_leaves, ("traced for", patterns))
    refuse_refs(traced, IN_REVERSE)
    if scalar:
        check_scalar(traced.output)

    def arg_grads(bars: Sequence[Any]) -> tuple[Any, ...]:
        by_leaf = dict(zip(varied, bars, strict=True))
        return tree_unflatten(structure, [by_leaf.get(i) for i in range(n_leaves)])  # type: ignore[no-any-return]

    found = tagged(traced) if choose is None else []
    return TracedCall(
        program=traced,
        sites=choose(traced) if choose else select(found, patterns, traced.bound),
        leaves=varied_leaves,
        arg_grads=arg_grads,
        aux=lambda aux: _with_static(aux, static_aux),
        rules=equations_with_rules(traced.jaxpr),
        refuse=Refusing(patterns),
        set_aside={} if choose else set_aside(found, patterns, traced.bound),
        narrowed=narrowed(args, varied),
    )


def _type(leaf: Value) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _pair(result: Value) -> tuple[Any, Any]:
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise OutputError(f"with has_aux, fun returns a {type(result).__name__}; expected a pair (output, aux).")
    return result[0], result[1]


def _with_static(arrays: list[Any], static: dict[int, Any]) -> Any:
    """The auxiliary data again: its arrays, with what is none of them put back in its place."""
    structure = static[-1]
    rest = iter(arrays)
    return tree_unflatten(structure, [static[i] if i in static else next(rest) for i in range(structure.num_leaves)])
