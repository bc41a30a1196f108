"""The named intermediates of a program, or its operations where it has no names."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from jaxgrad._names.tag import tag_p
from jaxgrad._program import liveness
from jaxgrad._program.control_flow.shards import manual
from jaxgrad._program.control_flow.table import CONTROLS, unsupported
from jaxgrad._program.formulas.names import library_name, operation_name
from jaxgrad._program.formulas.softmax import softmaxes
from jaxgrad._program.jaxpr import Path, Program, inner, is_literal, opened
from jaxgrad._program.lines import line
from jaxgrad._program.sites import Site, named
from jaxgrad._types import Atom, Eqn, Jaxpr


def tagged(program: Program) -> list[Site]:
    """Every named intermediate of a program, in program order; last, those that were bound and are nowhere in it."""
    states = liveness.states(program)
    sites = list(_find(program.jaxpr, (), Site("", "", "", True, (), None), in_shard_map=False))
    found = {(site.given, site.where) for site in sites}
    lost = [
        Site(name, name, where, True, (), None, names_only=origin.names_only, unsupported=_why_lost(origin.functions))
        for (name, where), origin in program.bound.items()
        if (name, where) not in found
    ]
    hoisted = _hoisted(program, sites)
    return [*(_judged(site, states.get(site.path, "live"), hoisted) for site in sites), *lost]


def _judged(site: Site, state: str, hoisted: set[tuple[str, str]]) -> Site:
    moved = (site.given, site.where) in hoisted
    return replace(site, hoisted=moved, state="dead" if moved and state == "bypassed" else state)


def _hoisted(program: Program, sites: Sequence[Site]) -> set[tuple[str, str]]:
    """(name, where) of the tags that were bound in more scans than any of their sites is in."""
    most: dict[tuple[str, str], int] = {}
    for site in sites:
        key = site.given, site.where
        if key in program.bound and program.bound[key].scans:
            most[key] = max(most.get(key, 0), _loops(program.jaxpr, site.path))
    return {key for key, loops in most.items() if loops < program.bound[key].scans}


def _loops(jaxpr: Jaxpr, path: Path) -> int:
    """How many loops the equation at a path stands in."""
    eqn, rest = jaxpr.eqns[path[0]], path[1:]
    if not rest:
        return 0
    return (eqn.primitive.name in ("scan", "while")) + _loops(opened(_bodies(eqn)[rest[0]])[0], rest[1:])


def _why_lost(traced_in: str) -> str:
    by = f" in {traced_in}" if traced_in else ""
    return (
        f"was traced{by} and is not in the program that came of it: an operation keeps its body to itself, or JAX has "
        "dropped it. Tag the operation's operands or its results"
    )


def operations(program: Program) -> tuple[Site, ...]:
    """A site for each result of each operation that computes, named as NumPy's users name it; the last is "output".

    Calls of `jit` are looked into, but for functions that everyone knows by their name: relu, where, softmax.
    """
    sites = list(_operations(program.jaxpr, ()))
    at = output_site(program, sites)
    if at is not None:
        sites[at] = replace(sites[at], given="output", name="output")
    return tuple(named(sites))


def output_site(program: Program, sites: Sequence[Site]) -> int | None:
    """Which of the sites the output is, None if it is none of them."""
    origin = _origin(program.jaxpr, program.jaxpr.outvars[0], ())
    return next((i for i, site in enumerate(sites) if site.place == origin), None)


def _find(jaxpr: Jaxpr, path: Path, around: Site, *, in_shard_map: bool) -> Iterator[Site]:
    """The sites of a program in its order; `around` has what its surroundings impose on each."""
    made: dict[Any, tuple[Path, int]] = {}
    for i, eqn in enumerate(jaxpr.eqns):
        here = (*path, i)
        made.update((v, (here, k)) for k, v in enumerate(eqn.outvars))
        name = eqn.primitive.name
        vmaps = _vmaps(eqn)
        if eqn.primitive is tag_p or name == "name":
            by_tag = eqn.primitive is tag_p
            yield replace(
                around,
                given=eqn.params["name"],
                name=eqn.params["name"],
                where=eqn.params["where"] if by_tag else "",
                by_tag=by_tag,
                path=here,
                aval=eqn.outvars[0].aval,
                axes=eqn.params["axes"] if by_tag else (),
                nest=vmaps,
                names_only=eqn.params.get("names_only", False),
                origin=None if is_literal(eqn.invars[0]) else made.get(eqn.invars[0]),
            )
        for j, body in enumerate(_bodies(eqn)):
            within = replace(
                around,
                unsupported=around.unsupported or unsupported(eqn, j, in_shard_map=in_shard_map),
                in_branch=around.in_branch or (name in CONTROLS and CONTROLS[name].branches),
                in_while=around.in_while or name == "while",
                manual=around.manual | manual(eqn),
            )
            for site in _find(opened(body)[0], (*here, j), within, in_shard_map=in_shard_map or name == "shard_map"):
                lead = CONTROLS[name].lead(eqn, site.aval) if name in CONTROLS else ()
                yield replace(site, lead=lead + site.lead, nest=vmaps + ("lead",) * len(lead) + site.nest)


def _vmaps(eqn: Eqn) -> tuple[str, ...]:
    """A "vmap" for each vmap that the equation was traced under, inside the program it stands in."""
    return tuple("vmap" for entry in eqn.source_info.name_stack.stack if _is_vmap(entry))


def _is_vmap(entry: Any) -> bool:
    return type(entry).__name__ == "Transform" and entry.name == "vmap"


def _bodies(eqn: Eqn) -> Sequence[Any]:
    control = CONTROLS.get(eqn.primitive.name)
    return control.bodies(eqn) if control else inner(eqn)


# Operations that move numbers and compute none: no step of a chain rule.
_MOVES = {
    "broadcast_in_dim",
    "convert_element_type",
    "copy",
    "copy_p",
    "reshape",
    "squeeze",
    "expand_dims",
    "stop_gradient",
}


def _operations(jaxpr: Jaxpr, path: Path, called_at: str = "") -> Iterator[Site]:
    """Every floating-point result of an operation, in program order; a jit's body stands in its place.

    Args:
      called_at: the line that calls the program: that of an operation in it that has none, for it is JAX's own.
    """
    within = softmaxes(jaxpr)
    for i, eqn in enumerate(jaxpr.eqns):
        name, here, where = eqn.primitive.name, (*path, i), line(eqn) or called_at
        if name == "jit":
            body = opened(eqn.params["jaxpr"])[0]
            known = library_name(eqn)
            origin = _origin(body, body.outvars[0], (*here, 0)) if known else None
            if origin is not None and jnp.issubdtype(body.outvars[0].aval.dtype, jnp.inexact):
                yield Site(known, known, where, True, origin[0], body.outvars[0].aval, result=origin[1])
            else:
                yield from _operations(body, (*here, 0), where)
        elif name not in _MOVES and within.get(i, eqn) is not None:
            for k, var in enumerate(eqn.outvars):
                if jnp.issubdtype(var.aval.dtype, jnp.inexact):
                    given = "softmax" if i in within else operation_name(eqn)
                    yield Site(given, given, where, True, here, var.aval, result=k)


def _origin(jaxpr: Jaxpr, var: Atom, path: Path) -> tuple[Path, int] | None:
    """Where a variable is computed, calls of `jit` and `checkpoint` looked into; None for an argument or literal."""
    for i, eqn in enumerate(jaxpr.eqns):
        for k, result in enumerate(eqn.outvars):
            if result is var:
                if eqn.primitive.name not in ("jit", "remat2"):
                    return (*path, i), k
                body = opened(eqn.params["jaxpr"])[0]
                return _origin(body, body.outvars[k], (*path, i, 0))
    return None
