"""Refs (`jax.new_ref`): where a derivative cannot follow what is written to them."""

from collections.abc import Iterator, Mapping

from jaxgrad._errors import TagError
from jaxgrad._program.jaxpr import Program, inner, opened
from jaxgrad._types import Eqn, Jaxpr

IN_REVERSE = {"remat2": ("jax.checkpoint", "JAX's derivative through it is wrong or fails. Leave the checkpoint out")}
IN_LEDGER = {"cond": ("lax.cond", "a ledger's local derivatives cannot be batched through it. Use retain_grads")}


def refuse_refs(program: Program, operations: Mapping[str, tuple[str, str]]) -> None:
    """Raises a TagError where one of these operations reads or writes a ref in its body."""
    if not program.jaxpr.effects:
        return
    for eqn in _equations(program.jaxpr):
        if eqn.primitive.name in operations and any(opened(body)[0].effects for body in inner(eqn)):
            what, why = operations[eqn.primitive.name]
            raise TagError(f"{what} has a ref (jax.new_ref) in its body, and {why}, or carry the value in place of it.")


def _equations(jaxpr: Jaxpr) -> Iterator[Eqn]:
    for eqn in jaxpr.eqns:
        yield eqn
        for body in inner(eqn):
            yield from _equations(opened(body)[0])
