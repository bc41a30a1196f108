"""What reaches the output of a program: the state of each tag, and which arguments each result depends on."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxgrad._names.tag import tag_p
from jaxgrad._program.control_flow import CONTROLS, Flow, Live
from jaxgrad._program.jaxpr import Path, Program, is_literal, opened, variables
from jaxgrad._types import Atom, Eqn, Jaxpr


def states(program: Program) -> dict[Path, str]:
    """Where a tag stands -> "live", "bypassed" or "dead", as `Site.state` has it; "live" where it is not said."""
    found: dict[Path, str] = {}
    n_outputs = len(jax.tree.leaves(program.output))
    _flow(program.jaxpr, (), found, [i < n_outputs for i in range(len(program.jaxpr.outvars))])
    return found


def _flow(jaxpr: Jaxpr, path: Path, states: dict[Path, str], live_results: Live) -> tuple[Live, dict[int, list[Path]]]:
    """Which arguments of a program reach the output, and the state of each tag in it.

    Returns:
      Whether each argument reaches the output; index of an argument -> tags on it whose results do not.
    """
    live = variables(jaxpr.outvars, live_results)
    watched: list[tuple[Any, Path]] = []  # tags whose results do not reach the output, with what they are on
    for i in reversed(range(len(jaxpr.eqns))):
        eqn, here = jaxpr.eqns[i], (*path, i)
        is_live = [v in live for v in eqn.outvars]
        if eqn.primitive is tag_p or eqn.primitive.name == "name":
            states.pop(here, None)
            if not any(is_live):
                watched.append((eqn.invars[0], here))
        used = _flow_through(eqn, here, states, is_live, watched)
        live |= variables(eqn.invars, used)
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
    eqn: Eqn, here: Path, states: dict[Path, str], is_live: Live, watched: list[tuple[Any, Path]]
) -> Live:
    """Which operands of an equation reach the output, given which results do."""
    control = CONTROLS.get(eqn.primitive.name)
    if control is None:
        return [any(is_live)] * len(eqn.invars)
    found: list[dict[int, list[Path]]] = [{} for _ in control.bodies(eqn)]

    def flow(j: int, body: Jaxpr) -> Flow:
        def run(live: Live) -> Live:
            operands, found[j] = _flow(opened(body)[0], (*here, j), states, live)
            return operands

        return run

    used = control.liveness(eqn, is_live, [flow(j, body) for j, body in enumerate(control.bodies(eqn))])
    if control.operand is not None:
        for by_argument in found:
            for k, paths in by_argument.items():
                watched.extend((eqn.invars[control.operand + k], path) for path in paths)
    return used


def dependence(fun: Callable[..., Any], *args: Any) -> list[set[int]]:
    """For each array that `fun(*args)` returns, which of the arrays in `args` it depends on."""
    jaxpr, _ = opened(jax.make_jaxpr(fun)(*args))
    arguments = range(len(jaxpr.invars))
    return [{i for i in arguments if bits >> i & 1} for bits in _dependence(jaxpr, [1 << i for i in arguments])]


def _dependence(jaxpr: Jaxpr, arguments: Sequence[int]) -> list[int]:
    """The arguments that each result depends on, as the bits of an integer, given those of each argument."""
    bits: dict[Any, int] = dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Atom) -> int:
        return 0 if is_literal(atom) else bits.get(atom, 0)

    for eqn in jaxpr.eqns:
        operands = [read(atom) for atom in eqn.invars]
        if not any(operands):
            continue
        if eqn.primitive.name in ("jit", "remat2"):
            results = _dependence(opened(eqn.params["jaxpr"])[0], operands)
        else:
            results = [_union(_used(eqn, k), operands) for k in range(len(eqn.outvars))]
        bits.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _used(eqn: Eqn, result: int) -> Live:
    """Which operands one result of an equation depends on."""
    return _flow_through(eqn, (), {}, [k == result for k in range(len(eqn.outvars))], [])


def _union(used: Live, operands: Sequence[int]) -> int:
    total = 0
    for use, operand in zip(used, operands, strict=True):
        total |= operand if use else 0
    return total
