"""What there is to know about one structured operation."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxgrad._types import Eqn

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
