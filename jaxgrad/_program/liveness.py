"""What reaches the output of a program: the state of each tag, and which arguments each result depends on."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxgrad._names.tag import tag_p
from jaxgrad._program.control_flow.control import Flow, Live
from jaxgrad._program.control_flow.parameters import is_ref
from jaxgrad._program.control_flow.table import CONTROLS
from jaxgrad._program.jaxpr import Path, Program, is_literal, opened, variables
from jaxgrad._types import Atom, Eqn, Jaxpr


def states(program: Program) -> dict[Path, str]:
    """Where a tag stands -> "live", "bypassed" or "dead", as `Site.state` has it; "live" where it is not said."""
    found: dict[Path, str] = {}
    n_outputs = len(jax.tree.leaves(program.output))
    results, arguments = program.jaxpr.outvars, program.jaxpr.invars
    _flow(program.jaxpr, (), found, [i < n_outputs for i in range(len(results))], [False] * len(arguments))
    return {
        path: "dead" if state == "bypassed" and _in_derivative(program.jaxpr, path) else state
        for path, state in found.items()
    }


def _in_derivative(jaxpr: Jaxpr, path: Path) -> bool:
    """Is an operation differentiated in the program? The derivative of a linear one needs no value."""
    eqn, rest = jaxpr.eqns[path[0]], path[1:]
    if any(type(entry).__name__ == "Transform" and entry.name == "jvp" for entry in eqn.source_info.name_stack.stack):
        return True
    return bool(rest) and _in_derivative(opened(CONTROLS[eqn.primitive.name].bodies(eqn)[rest[0]])[0], rest[1:])


def _flow(
    jaxpr: Jaxpr, path: Path, states: dict[Path, str], live_results: Live, live_refs: Live
) -> tuple[Live, dict[int, list[Path]]]:
    """Which arguments of a program reach the output, and the state of each tag in it.

    A ref is live where what it holds may still be read. What is written to it is live there, and it itself before.

    Args:
      live_results: which of the results reach the output.
      live_refs: which of the arguments are refs that are read later.

    Returns:
      Whether each argument reaches the output; index of an argument -> tags on it whose results do not.
    """
    live = variables(jaxpr.outvars, live_results) | variables(jaxpr.invars, live_refs)
    watched: list[tuple[Any, Path]] = []  # tags whose results do not reach the output, with what they are on
    named: list[tuple[Any, Path]] = []  # tags that only name what they are on
    for i in reversed(range(len(jaxpr.eqns))):
        eqn, here = jaxpr.eqns[i], (*path, i)
        is_live = [v in live for v in eqn.outvars]
        if eqn.primitive is tag_p or eqn.primitive.name == "name":
            states.pop(here, None)
            if eqn.params.get("names_only"):
                named.append((eqn.invars[0], here))
            elif not any(is_live):
                watched.append((eqn.invars[0], here))
        read_later = [is_ref(v.aval) and v in live for v in eqn.invars]
        live |= variables(eqn.invars, _flow_through(eqn, here, states, is_live, read_later, watched))
    for operand, tag_path in named:
        states[tag_path] = "live" if not is_literal(operand) and operand in live else "dead"
    unused: dict[int, list[Path]] = {}
    for operand, tag_path in watched:
        if is_literal(operand):
            states[tag_path] = "dead"
        elif operand in live:
            states[tag_path] = "bypassed"
        else:
            states[tag_path] = "dead"
            if operand in jaxpr.invars:
                unused.setdefault(jaxpr.invars.index(operand), []).append(tag_path)
    return [v in live for v in jaxpr.invars], unused


def _flow_through(
    eqn: Eqn, here: Path, states: dict[Path, str], is_live: Live, read_later: Live, watched: list[tuple[Any, Path]]
) -> Live:
    """Which operands of an equation reach the output, given which results do and which refs are read after it."""
    control = CONTROLS.get(eqn.primitive.name)
    if control is None:
        if eqn.primitive.name in _WRITES and not read_later[0]:  # what it returns is what was there before
            return [any(is_live), False, *[any(is_live)] * (len(eqn.invars) - 2)]
        return [any(is_live) or any(read_later)] * len(eqn.invars)
    found: list[dict[int, list[Path]]] = [{} for _ in control.bodies(eqn)]

    def flow(j: int, body: Jaxpr) -> Flow:
        def run(live: Live, refs: Live) -> Live:
            operands, found[j] = _flow(opened(body)[0], (*here, j), states, live, refs)
            return operands

        return run

    used = control.liveness(eqn, is_live, read_later, [flow(j, body) for j, body in enumerate(control.bodies(eqn))])
    if control.operand is not None:
        for by_argument in found:
            for k, paths in by_argument.items():
                watched.extend((eqn.invars[control.operand + k], path) for path in paths)
    return used


_WRITES = ("swap", "addupdate")  # operations on (ref, what is written, indices)


def dependence(fun: Callable[..., Any], *args: Any) -> list[set[int]]:
    """For each array that `fun(*args)` returns, which of the arrays in `args` it depends on."""
    jaxpr, _ = opened(jax.make_jaxpr(fun)(*args))
    arguments = range(len(jaxpr.invars))
    results, _ = _dependence(jaxpr, [1 << i for i in arguments])
    return [{i for i in arguments if bits >> i & 1} for bits in results]


def _dependence(jaxpr: Jaxpr, arguments: Sequence[int]) -> tuple[list[int], list[int]]:
    """The arguments that each result depends on, as the bits of an integer, given those of each argument.

    Returns:
      Those of each result; those of each argument at the end, which differ where it is a ref that is written to.
    """
    bits: dict[Any, int] = dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Atom) -> int:
        return 0 if is_literal(atom) else bits.get(atom, 0)

    for eqn in jaxpr.eqns:
        operands = [read(atom) for atom in eqn.invars]
        if not any(operands):
            continue
        if eqn.primitive.name in ("jit", "remat2"):
            results, held = _dependence(opened(eqn.params["jaxpr"])[0], operands)
        else:
            results = [_union(_used(eqn, result=k), operands) for k in range(len(eqn.outvars))]
            held = [_union(_used(eqn, ref=k), operands) if is_ref(v.aval) else 0 for k, v in enumerate(eqn.invars)]
        bits.update(zip(eqn.outvars, results, strict=True))
        bits.update((v, now) for v, now in zip(eqn.invars, held, strict=True) if is_ref(v.aval))
    return [read(atom) for atom in jaxpr.outvars], [bits[v] for v in jaxpr.invars]


def _used(eqn: Eqn, *, result: int | None = None, ref: int | None = None) -> Live:
    """Which operands one result of an equation depends on, or what one of its refs holds after it."""
    is_live, read_later = ([k == i for k in range(len(vs))] for vs, i in ((eqn.outvars, result), (eqn.invars, ref)))
    return _flow_through(eqn, (), {}, is_live, read_later, [])


def _union(used: Live, operands: Sequence[int]) -> int:
    total = 0
    for use, operand in zip(used, operands, strict=True):
        total |= operand if use else 0
    return total
