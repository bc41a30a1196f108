"""Finds the operations of a program that are a softmax together."""

from jaxgrad._program.jaxpr import is_literal
from jaxgrad._types import Atom, Eqn, Jaxpr


def softmaxes(jaxpr: Jaxpr) -> dict[int, Atom | None]:
    """Equations that are a softmax together: the last of them -> what it is of; the others -> None."""
    maker = {var: i for i, eqn in enumerate(jaxpr.eqns) for var in eqn.outvars}
    found: dict[int, Atom | None] = {}
    for i, eqn in enumerate(jaxpr.eqns):
        parts = _softmax(jaxpr, maker, eqn) if eqn.primitive.name == "div" else None
        if parts is not None:
            found |= dict.fromkeys(parts, None) | {i: jaxpr.eqns[min(parts)].invars[0]}
    return found


def _softmax(jaxpr: Jaxpr, maker: dict[Atom, int], quotient: Eqn) -> list[int] | None:
    """The equations of exp(a - max(a)) / sum(exp(a - max(a))) before its last; None if it is no softmax."""
    passed: list[int] = []

    def maker_of(atom: Atom, kind: str) -> int | None:
        """The equation of a kind that a variable comes from, those passed over that only move it."""
        while not is_literal(atom) and atom in maker:
            at = maker[atom]
            if jaxpr.eqns[at].primitive.name == kind:
                return at
            if jaxpr.eqns[at].primitive.name not in _PASSED:
                return None
            passed.append(at)
            atom = jaxpr.eqns[at].invars[-1]
        return None

    above, total = maker_of(quotient.invars[0], "exp"), maker_of(quotient.invars[1], "reduce_sum")
    if above is None or total is None or maker_of(jaxpr.eqns[total].invars[0], "exp") != above:
        return None
    shifted = maker_of(jaxpr.eqns[above].invars[0], "sub")
    largest = None if shifted is None else maker_of(jaxpr.eqns[shifted].invars[1], "reduce_max")
    if shifted is None or largest is None or jaxpr.eqns[largest].invars[0] is not jaxpr.eqns[shifted].invars[0]:
        return None
    return [largest, shifted, above, total, *passed]


_PASSED = {"broadcast_in_dim", "stop_gradient", "reshape", "max", "convert_element_type", "expand_dims"}
