"""Which operands of a structured operation reach its live results, from what its bodies say."""

from collections.abc import Sequence

from jaxgrad._program.control_flow.control import Flow, Live
from jaxgrad._program.control_flow.parameters import is_ref, scan_sizes
from jaxgrad._types import Eqn


def through(eqn: Eqn, live: Live, refs: Live, flows: Sequence[Flow]) -> Live:
    """Liveness of an operation whose operands and results are its body's."""
    return flows[0](live, refs)


def through_scan(eqn: Eqn, live: Live, refs: Live, flows: Sequence[Flow]) -> Live:
    n_constants, n_carry = scan_sizes(eqn)
    carry, stacked = live[:n_carry], live[n_carry:]
    while True:  # what a step carries on, and leaves in a ref, is what the next one starts from
        operands = flows[0]([*carry, *stacked], refs)
        grown = _either(carry, operands[n_constants : n_constants + n_carry])
        read = _either(refs, [use and is_ref(v.aval) for use, v in zip(operands, eqn.invars, strict=True)])
        if (grown, read) == (carry, refs):
            return operands[:n_constants] + grown + operands[n_constants + n_carry :]
        carry, refs = grown, read


def through_while(eqn: Eqn, live: Live, refs: Live, flows: Sequence[Flow]) -> Live:
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


def through_cond(eqn: Eqn, live: Live, refs: Live, flows: Sequence[Flow]) -> Live:
    branches = [flow(live, refs[1:]) for flow in flows]
    return [any(live) or any(refs), *(any(uses) for uses in zip(*branches, strict=True))]


def _either(first: Live, second: Live) -> Live:
    return [a or b for a, b in zip(first, second, strict=True)]
