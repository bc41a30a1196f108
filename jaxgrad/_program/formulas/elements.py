"""The elements of an operation's result as formulas, where they are nodes of their own."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from jaxgrad._graph.formula import Formula, apply, number
from jaxgrad._program.formulas.operation import whole_of
from jaxgrad._program.formulas.written import Parts, Shape, Written, objects
from jaxgrad._types import Eqn

_MOST_ELEMENTS, _MOST_PARTS = 16, 60  # that are told apart, and of one of them


def elements_of(eqn: Eqn, operands: Sequence[Written], shape: tuple[int, ...]) -> Parts | None:
    """The elements of a result, where those of an operand are told apart and there are few."""
    if all(operand.elements is None for operand in operands) or np.prod(shape, dtype=int) > _MOST_ELEMENTS:
        return None
    parts = [_parts(operand) for operand in operands]
    if any(part is None for part in parts):
        return None
    move = _MOVES.get(eqn.primitive.name)
    found = move(eqn, parts, shape) if move is not None else None
    if found is None or any(part.size > _MOST_PARTS for part in found.flat):
        return None
    return found


def _parts(operand: Written) -> Parts | None:
    if operand.elements is not None:
        return operand.elements
    whole = operand.whole
    if np.prod(whole.shape, dtype=int) > _MOST_ELEMENTS:
        return None
    if whole.shape == () or whole.op == "number":
        return objects([whole] * int(np.prod(whole.shape, dtype=int)), whole.shape)
    if whole.op == "name" and len(whole.shape) == 1 and whole.text != "constant":
        return objects([apply("[]", whole, text=str(i), shape=()) for i in range(whole.shape[0])], whole.shape)
    return None


def _slice(eqn: Eqn, parts: list[Parts], shape: Shape) -> Parts:
    p = eqn.params
    strides = p["strides"] or [1] * len(p["start_indices"])
    return parts[0][tuple(map(slice, p["start_indices"], p["limit_indices"], strides))]


def _broadcast(eqn: Eqn, parts: list[Parts], shape: Shape) -> Parts:
    at = eqn.params["broadcast_dimensions"]
    inner = [1] * len(shape)
    for axis, n in zip(at, parts[0].shape, strict=True):
        inner[axis] = n
    return np.broadcast_to(parts[0].reshape(inner), shape)


def _by_element(eqn: Eqn, parts: list[Parts], shape: Shape) -> Parts | None:
    if any(part.shape not in ((), shape) for part in parts):
        return None
    spread = [np.broadcast_to(part, shape) for part in parts]
    found = np.empty(shape, object)
    for place in np.ndindex(*shape):
        formulas: list[Any] = [part[place] for part in spread]
        found[place] = whole_of(eqn, formulas, ())
    return found


def _added(terms: Iterable[Any]) -> Formula:
    total = number(0)
    for term in terms:
        total = apply("+", total, term)
    return total


def _dot_elements(eqn: Eqn, parts: list[Parts], shape: Shape) -> Parts | None:
    ((left, right), (batch, _)) = eqn.params["dimension_numbers"]
    if batch or len(left) != 1:
        return None
    a, b = np.moveaxis(parts[0], left[0], -1), np.moveaxis(parts[1], right[0], -1)
    found = np.empty(shape, object)
    for i in np.ndindex(*a.shape[:-1]):
        for j in np.ndindex(*b.shape[:-1]):
            found[(*i, *j)] = _added(apply("*", u, v) for u, v in zip(a[i], b[j], strict=True))
    return found


def _sum_elements(eqn: Eqn, parts: list[Parts], shape: Shape) -> Parts | None:
    if shape != ():
        return None
    return objects([_added(parts[0].flat)], ())


_MOVES: dict[str, Callable[[Eqn, list[Parts], Shape], Parts | None]] = {
    "slice": _slice,
    "squeeze": lambda eqn, parts, shape: parts[0].reshape(shape),
    "reshape": lambda eqn, parts, shape: parts[0].reshape(shape),
    "expand_dims": lambda eqn, parts, shape: parts[0].reshape(shape),
    "transpose": lambda eqn, parts, shape: parts[0].transpose(eqn.params["permutation"]),
    "broadcast_in_dim": _broadcast,
    "dot_general": _dot_elements,
    "reduce_sum": _sum_elements,
    "convert_element_type": lambda eqn, parts, shape: parts[0],
} | dict.fromkeys(
    ["add", "sub", "mul", "div", "neg", "exp", "log", "tanh", "logistic", "integer_pow", "square", "sin", "cos", "max"],
    _by_element,
)
