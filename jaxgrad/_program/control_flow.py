"""JAX's structured operations (jit, scan, cond, ...): how each is read from a traced program, and rebuilt.

A structured operation has bodies, programs of their own. To find the tags in them and to thread probes and values
through them takes four facts about each operation, one `Control`. All reading of its parameters is in this file,
and what it is rebuilt with is public: `lax.scan`, `lax.switch`, `jax.jit`, ...
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ref import AbstractRef
from jax.sharding import PartitionSpec

from jaxgrad._types import Aval, Eqn, PyTree

Probes = dict[int, Any]  # site -> the probe that its gradient is taken with respect to
Avals = dict[int, Any]
TagResults = tuple[dict[int, Any], dict[int, Any]]  # site -> value, site -> was it reached
Body = Callable[[Sequence[Any], Probes], tuple[list[Any], TagResults]]  # (operands, probes) -> (results, found)
Live = list[bool]  # for each variable: does it reach the output?
Flow = Callable[[Live, Live], Live]  # a body's live results, its refs that are read later -> its live operands


class Control(NamedTuple):
    """What there is to know about one structured operation.

    Attributes:
      bodies: eqn -> the bodies that can hold tags.
      liveness: (eqn, live results, operands that are refs read later, flow of each body) -> live operands.
      rebuild: (eqn, operands, bodies, probes, avals) -> (results, found); avals: site -> type of its value, in the
        body that holds it.
      lead: (eqn, aval) -> the axes that a value of a body gains on its way out, one for each scan step or shard.
      operand: index of the operand that a body's first argument is another name of, or has a part of; None where it
        is none.
      branches: is it unsure whether a body runs at all?
    """

    bodies: Callable[[Eqn], Sequence[Any]]
    liveness: Callable[[Eqn, Live, Live, Sequence[Flow]], Live]
    rebuild: Callable[[Eqn, Sequence[Any], Sequence[Body], Probes, Avals], tuple[Sequence[Any], TagResults]]
    lead: Callable[[Eqn, Any], tuple[int, ...]] = lambda eqn, aval: ()
    operand: int | None = None
    branches: bool = False


def _through(eqn: Eqn, live: Live, refs: Live, flows: Sequence[Flow]) -> Live:
    """Liveness of an operation whose operands and results are its body's."""
    return flows[0](live, refs)


def _jit(eqn: Eqn, operands: Sequence[Any], bodies: Sequence[Body], probes: Probes, avals: Avals) -> Any:
    (body,) = bodies
    if eqn.params["inline"] is True:
        return body(operands, probes)

    def run(operands: Sequence[Any], probes: Probes) -> Any:
        return body(operands, probes)

    run.__name__ = eqn.params["name"]
    shardings: dict[str, Any] = {}
    if any(_specified(s) for s in eqn.params["in_shardings"]):
        shardings["in_shardings"] = ([s if _specified(s) else None for s in eqn.params["in_shardings"]], None)
    if any(_specified(s) for s in eqn.params["out_shardings"]):
        shardings["out_shardings"] = ([s if _specified(s) else None for s in eqn.params["out_shardings"]], None)
    options = dict(eqn.params["compiler_options_kvs"])
    return jax.jit(run, compiler_options=options or None, **shardings)(list(operands), probes)


def is_plain(eqn: Eqn) -> bool:
    """Is a `jit` without shardings and compiler options, which inside of another does nothing?"""
    shardings = (*eqn.params["in_shardings"], *eqn.params["out_shardings"])
    return not any(map(_specified, shardings)) and not eqn.params["compiler_options_kvs"]


def _specified(sharding: Any) -> bool:
    return isinstance(sharding, jax.sharding.Sharding)


def _call(eqn: Eqn, operands: Sequence[Any], bodies: Sequence[Body], probes: Probes, avals: Avals) -> Any:
    return bodies[0](operands, probes)


def _checkpoint(eqn: Eqn, operands: Sequence[Any], bodies: Sequence[Body], probes: Probes, avals: Avals) -> Any:
    rebuilt = jax.checkpoint(bodies[0], prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"])
    return rebuilt(list(operands), probes)


def scan_sizes(eqn: Eqn) -> tuple[int, int]:
    """How many of a scan's operands are constants, and how many are carried."""
    if "ft_in" in eqn.params:  # JAX 0.11 and later
        constants, carry, _ = eqn.params["ft_in"].unpack()
        return len(constants), len(carry)
    return eqn.params["num_consts"], eqn.params["num_carry"]


def _scan_liveness(eqn: Eqn, live: Live, refs: Live, flows: Sequence[Flow]) -> Live:
    n_constants, n_carry = scan_sizes(eqn)
    carry, stacked = live[:n_carry], live[n_carry:]
    while True:  # what a step carries on, and leaves in a ref, is what the next one starts from
        operands = flows[0]([*carry, *stacked], refs)
        grown = _either(carry, operands[n_constants : n_constants + n_carry])
        read = _either(refs, [use and is_ref(v.aval) for use, v in zip(operands, eqn.invars, strict=True)])
        if (grown, read) == (carry, refs):
            return operands[:n_constants] + grown + operands[n_constants + n_carry :]
        carry, refs = grown, read


def _either(first: Live, second: Live) -> Live:
    return [a or b for a, b in zip(first, second, strict=True)]


def is_ref(aval: Aval) -> bool:
    """Is a variable a ref (`jax.new_ref`), that operations read and write?"""
    return isinstance(aval, AbstractRef)


def _scan(eqn: Eqn, operands: Sequence[Any], bodies: Sequence[Body], probes: Probes, avals: Avals) -> Any:
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


def _while_liveness(eqn: Eqn, live: Live, refs: Live, flows: Sequence[Flow]) -> Live:
    n_condition, n_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    if not any(live) and not any(refs):
        return [False] * (n_condition + n_body + len(live))
    condition, body = flows
    constants, read = eqn.invars[: n_condition + n_body], {v for v, use in zip(eqn.invars, refs, strict=True) if use}
    carry, unread = live, [False] * len(live)
    while True:  # the condition and the body may hold the same ref
        later = [is_ref(v.aval) and v in read for v in constants]
        tested = condition([True], later[:n_condition] + unread)
        operands = body(carry, later[n_condition:] + unread)
        grown = _either(carry, _either(tested[n_condition:], operands[n_body:]))
        used = tested[:n_condition] + operands[:n_body]
        found = read | {v for v, use in zip(constants, used, strict=True) if use and is_ref(v.aval)}
        if (grown, found) == (carry, read):
            return used + grown
        carry, read = grown, found


def _while(eqn: Eqn, operands: Sequence[Any], bodies: Sequence[Body], probes: Probes, avals: Avals) -> Any:
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


def _cond_liveness(eqn: Eqn, live: Live, refs: Live, flows: Sequence[Flow]) -> Live:
    branches = [flow(live, refs[1:]) for flow in flows]
    return [any(live) or any(refs), *(any(uses) for uses in zip(*branches, strict=True))]


def _cond(eqn: Eqn, operands: Sequence[Any], bodies: Sequence[Body], probes: Probes, avals: Avals) -> Any:
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


def varying(aval: Aval) -> frozenset[str]:
    """The mesh axes along which a value in a shard_map differs from shard to shard."""
    return frozenset(aval.vma if hasattr(aval, "vma") else aval.manual_axis_type.varying)


def manual(eqn: Eqn) -> frozenset[str]:
    """The mesh axes that an operation makes manual in its bodies."""
    return frozenset(eqn.params["newly_manual_axes"]) if eqn.primitive.name == "shard_map" else frozenset()


def _shard_axes(eqn: Eqn, aval: Aval) -> tuple[str, ...]:
    return tuple(axis for axis in eqn.params["mesh"].axis_names if axis in varying(aval) & manual(eqn))


def _shards(eqn: Eqn, aval: Aval) -> tuple[int, ...]:
    axes = _shard_axes(eqn, aval)
    return (prod(eqn.params["mesh"].shape[axis] for axis in axes),) if axes else ()


def _own_shard(probe: Any) -> Any:
    return jax.tree.map(lambda array: array[0], probe)


def _shard_map(eqn: Eqn, operands: Sequence[Any], bodies: Sequence[Body], probes: Probes, avals: Avals) -> Any:
    axes = {site: _shard_axes(eqn, aval) for site, aval in avals.items()}
    specs = {site: PartitionSpec(axes[site]) if axes[site] else PartitionSpec() for site in avals}

    def run(operands: Sequence[Any], probes: Probes) -> tuple[list[Any], TagResults]:
        own = {site: _own_shard(probe) if axes[site] else probe for site, probe in probes.items()}
        results, (values, reached) = bodies[0](operands, own)
        return results, ({site: v[None] if axes[site] else v for site, v in values.items()}, reached)

    rebuilt = jax.shard_map(
        run,
        mesh=eqn.params["mesh"],
        in_specs=(list(eqn.params["in_specs"]), {site: specs[site] for site in probes}),
        out_specs=(list(eqn.params["out_specs"]), (specs, {})),
        axis_names=eqn.params["newly_manual_axes"],
        check_vma=True,
    )
    return rebuilt(list(operands), probes)


CONTROLS = {
    "jit": Control(lambda eqn: [eqn.params["jaxpr"]], _through, _jit, operand=0),
    **dict.fromkeys(
        ("eval_jaxpr", "closed_call", "core_call"),  # eval_jaxpr: JAX 0.12, what jax.closure_convert returns
        Control(lambda eqn: [eqn.params["call_jaxpr"]], _through, _call, operand=0),
    ),
    "remat2": Control(lambda eqn: [eqn.params["jaxpr"]], _through, _checkpoint, operand=0),
    "scan": Control(
        lambda eqn: [eqn.params["jaxpr"]],
        _scan_liveness,
        _scan,
        lead=lambda eqn, aval: (eqn.params["length"],),
        operand=0,
    ),
    "while": Control(
        lambda eqn: [eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"]], _while_liveness, _while, branches=True
    ),
    "cond": Control(lambda eqn: eqn.params["branches"], _cond_liveness, _cond, operand=1, branches=True),
    "shard_map": Control(lambda eqn: [eqn.params["jaxpr"]], _through, _shard_map, lead=_shards),
}


def unsupported(eqn: Eqn, body: int, *, in_shard_map: bool) -> str | None:
    """Why a tag in this body of the operation cannot be retained, and what to do; None if it can."""
    name = eqn.primitive.name
    if name == "while" and body == 0:
        return "is in the condition of a while_loop, which returns nothing else. Tag in its body"
    if name == "while" and eqn.params["cond_jaxpr"].out_avals[0].shape:
        return "is inside a while_loop in a vmap that ends at its own step for each row. Write vmap(retain_grads(...))"
    if name in ("custom_jvp_call", "custom_vjp_call"):
        kind = name.removesuffix("_call")
        return f"is inside a {kind} function, whose rule bypasses it. Tag the function's arguments or its result"
    if name not in CONTROLS:
        held = eqn.params.get("_prim")  # what JAX's `call_hi_primitive` calls
        what = name if held is None else type(held).__name__
        return f'is inside the operation "{what}", which cannot be followed. Tag its operands or its results'
    if name == "remat2" and eqn.params["differentiated"]:
        return "is inside a jax.checkpoint that is differentiated in here, and computed twice. Tag outside of it"
    if name == "shard_map" and not eqn.params["check_vma"]:
        return (
            "is inside a shard_map with check_vma=False (jax.pmap is one too), where sums over shards are unknown. Use "
            "jax.shard_map with check_vma=True"
        )
    if in_shard_map and CONTROLS[name].branches:
        return f"is inside a {name} inside a shard_map, which is not supported. Tag outside of the {name}"
    return None
