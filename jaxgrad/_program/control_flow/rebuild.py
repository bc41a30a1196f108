"""Structured operations of one device rebuilt, probes threaded in and values of sites out."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxgrad._program.control_flow.control import Avals, Body, Probes, TagResults
from jaxgrad._program.control_flow.parameters import scan_sizes, specified
from jaxgrad._types import Eqn, PyTree


def rebuild_jit(eqn: Eqn, operands: Sequence[Any], bodies: Sequence[Body], probes: Probes, avals: Avals) -> Any:
    (body,) = bodies
    if eqn.params["inline"] is True:
        return body(operands, probes)

    def run(operands: Sequence[Any], probes: Probes) -> Any:
        return body(operands, probes)

    run.__name__ = eqn.params["name"]
    shardings: dict[str, Any] = {}
    if any(specified(s) for s in eqn.params["in_shardings"]):
        shardings["in_shardings"] = ([s if specified(s) else None for s in eqn.params["in_shardings"]], None)
    if any(specified(s) for s in eqn.params["out_shardings"]):
        shardings["out_shardings"] = ([s if specified(s) else None for s in eqn.params["out_shardings"]], None)
    options = dict(eqn.params["compiler_options_kvs"])
    return jax.jit(run, compiler_options=options or None, **shardings)(list(operands), probes)


def rebuild_call(eqn: Eqn, operands: Sequence[Any], bodies: Sequence[Body], probes: Probes, avals: Avals) -> Any:
    return bodies[0](operands, probes)


def rebuild_checkpoint(eqn: Eqn, operands: Sequence[Any], bodies: Sequence[Body], probes: Probes, avals: Avals) -> Any:
    rebuilt = jax.checkpoint(bodies[0], prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"])
    return rebuilt(list(operands), probes)


def rebuild_scan(eqn: Eqn, operands: Sequence[Any], bodies: Sequence[Body], probes: Probes, avals: Avals) -> Any:
    n_constants, n_carry = scan_sizes(eqn)
    constants = operands[:n_constants]

    def step(carry: Sequence[Any], sliced: PyTree) -> Any:
        xs, probes = sliced
        results, found = bodies[0]([*constants, *carry, *xs], probes)
        return results[:n_carry], (results[n_carry:], found)

    start, xs = operands[n_constants : n_constants + n_carry], operands[n_constants + n_carry :]
    # Where the arrays tell the length it is not given: it may be a symbol, which lax.scan takes from arrays only.
    length = None if jax.tree.leaves((list(xs), probes)) else eqn.params["length"]
    settings = {name: eqn.params[name] for name in ("reverse", "unroll")}
    carry, (stacked, found) = lax.scan(step, list(start), (list(xs), probes), length=length, **settings)
    return [*carry, *stacked], found


def _while_parts(eqn: Eqn, operands: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
    n_condition, n_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    return operands[:n_condition], operands[n_condition : n_condition + n_body], operands[n_condition + n_body :]


def rebuild_while(eqn: Eqn, operands: Sequence[Any], bodies: Sequence[Body], probes: Probes, avals: Avals) -> Any:
    condition_constants, body_constants, start = _while_parts(eqn, operands)
    condition, body = bodies

    def going(state: PyTree) -> Any:
        (goes_on,), _ = condition([*condition_constants, *state[0]], {})
        return goes_on

    def step(state: PyTree) -> Any:
        results, (values, reached) = body([*body_constants, *state[0]], {})
        return results, (values, _all(reached, values, hit=True))

    _, (values, reached) = jax.eval_shape(step, (list(start), None))
    never_ran = _zeros(values), _all(reached, values, hit=False)
    return lax.while_loop(going, step, (list(start), never_ran))


def rebuild_cond(eqn: Eqn, operands: Sequence[Any], bodies: Sequence[Body], probes: Probes, avals: Avals) -> Any:
    index, *shared = operands
    shapes = [jax.eval_shape(body, shared, probes)[1] for body in bodies]

    def branch(taken: Body) -> Body:
        def run(shared: Sequence[Any], probes: Probes) -> tuple[list[Any], TagResults]:
            results, (values, reached) = taken(shared, probes)
            values, reached = dict(values), _all(reached, values, hit=True)
            for other_values, other_reached in shapes:
                for site in other_values.keys() - values.keys():
                    values[site] = _zeros(other_values[site])
                    reached[site] = jnp.zeros(getattr(other_reached.get(site), "shape", ()), bool)
            return results, (values, reached)

        return run

    branches = [branch(body) for body in bodies]
    platforms = eqn.params.get("branches_platforms")
    if platforms is None:
        return lax.switch(index, branches, shared, probes)
    by_platform = {name: run for names, run in zip(platforms, branches, strict=True) for name in names or ("default",)}
    return lax.platform_dependent(shared, probes, **by_platform)


def _all(reached: dict[int, Any], values: dict[int, Any], *, hit: bool) -> dict[int, Any]:
    """Adds to `reached` the sites that it lacks, as `hit`; where nothing is hit, all are False."""
    if not hit:
        return {site: jnp.zeros(getattr(reached.get(site), "shape", ()), bool) for site in values}
    return {site: reached.get(site, jnp.bool_(True)) for site in values}


def _zeros(tree: PyTree) -> Any:
    return jax.tree.map(jnp.zeros_like, tree)  # like it too in the mesh axes along which it varies
