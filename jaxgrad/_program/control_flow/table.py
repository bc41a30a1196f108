"""Every structured operation that can be followed, by its name, and why a tag in another cannot."""

from jaxgrad._program.control_flow.control import Control
from jaxgrad._program.control_flow.reaching import through, through_cond, through_scan, through_while
from jaxgrad._program.control_flow.rebuild import (
    rebuild_call,
    rebuild_checkpoint,
    rebuild_cond,
    rebuild_jit,
    rebuild_scan,
    rebuild_while,
)
from jaxgrad._program.control_flow.shards import rebuild_shard_map, shards
from jaxgrad._types import Eqn

CONTROLS = {
    "jit": Control(lambda eqn: [eqn.params["jaxpr"]], through, rebuild_jit, operand=0),
    **dict.fromkeys(
        ("eval_jaxpr", "closed_call", "core_call"),  # eval_jaxpr: JAX 0.12, what jax.closure_convert returns
        Control(lambda eqn: [eqn.params["call_jaxpr"]], through, rebuild_call, operand=0),
    ),
    "remat2": Control(lambda eqn: [eqn.params["jaxpr"]], through, rebuild_checkpoint, operand=0),
    "scan": Control(
        lambda eqn: [eqn.params["jaxpr"]],
        through_scan,
        rebuild_scan,
        lead=lambda eqn, aval: (eqn.params["length"],),
        operand=0,
    ),
    "while": Control(
        lambda eqn: [eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"]], through_while, rebuild_while, branches=True
    ),
    "cond": Control(lambda eqn: eqn.params["branches"], through_cond, rebuild_cond, operand=1, branches=True),
    "shard_map": Control(lambda eqn: [eqn.params["jaxpr"]], through, rebuild_shard_map, lead=shards),
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
