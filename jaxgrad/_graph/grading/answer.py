"""One answer of a learner as an array, and how near the true derivative it has to be."""

import inspect
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._graph.grading.mistakes import elements
from jaxgrad._graph.grading.question import Array, Close, Question
from jaxgrad._graph.graph import Graph

Answer: TypeAlias = Any  # a number, an array, or a function of nodes


def as_array(graph: Graph, asked: Question, answer: Answer) -> Array:
    """An answer as an array: a function is given the nodes that its parameters name."""
    if callable(answer):
        names = _parameters(answer) or ([asked.source] if not _has_signature(answer) else [])
        if len(names) == 1 and not _means(graph, asked, names[0]):
            names = [asked.source]
        answer = answer(*(_operand(graph, name) for name in names))
    try:
        return np.asarray(answer).astype(float, casting="unsafe" if _is_number(answer) else "no")
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the answer for {asked.text} is {answer!r:.60}; expected a number, an array, or a function of nodes."
        ) from error


def _has_signature(answer: Callable[..., Any]) -> bool:
    try:
        inspect.signature(answer)
    except (TypeError, ValueError):
        return False
    return True


def _parameters(answer: Callable[..., Any]) -> list[str]:
    """The parameters that an answer has to be given; those with a default are the learner's own."""
    if not _has_signature(answer):
        return []
    parameters: Sequence[inspect.Parameter] = list(inspect.signature(answer).parameters.values())
    return [
        p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]


def _means(graph: Graph, asked: Question, name: str) -> bool:
    """Does a function's only parameter mean the node, or the array, of its name?"""
    if name in graph.nodes:
        return True
    used = {edge.source for edge in graph.into[asked.target]}
    return name in graph.arrays and (name == asked.source or bool(used & set(graph.arrays[name][1])))


def _operand(graph: Graph, name: str) -> Any:
    if name in graph.arrays and name not in graph.nodes:
        return elements(graph, name)
    return graph.node(name).value


def _is_number(answer: Any) -> bool:
    dtype = np.asarray(answer).dtype
    return dtype.kind in "biuf" or dtype.name == "bfloat16"


def closeness(want: Array, answer: Answer, rtol: float | None) -> Close:
    """Whether an answer is right: a typed number to the digits typed, a function as its arithmetic has it."""
    eps = float(np.finfo(want.dtype).eps) if want.dtype.kind == "f" else 2.0**-7
    if rtol is not None:
        return _within(want, rtol)
    # A function is as good as its arithmetic; a number is typed to three digits or more.
    near = _within(want, eps**0.5 if callable(answer) else max(1e-3, eps**0.5))
    typed = np.array(_typed(answer), float)

    def close(got: Array, want: Array) -> Array:
        with np.errstate(all="ignore"):
            rounded = abs(got - np.asarray(want, float)) <= typed if typed.shape in ((), got.shape) else False
        return near(got, want) | rounded

    return near if callable(answer) else close


def _typed(answer: Answer) -> Any:
    """Half a unit of the last digit of each number that was typed with two digits or more; -1 for any other."""
    if isinstance(answer, (list, tuple)):
        return [_typed(part) for part in answer]
    if not isinstance(answer, float) or not np.isfinite(answer):
        return -1.0
    _, digits, exponent = Decimal(repr(answer)).normalize().as_tuple()
    fits = 2 <= len(digits) <= 12 and isinstance(exponent, int)
    return float(Decimal((0, (5,), int(exponent) - 1))) * (1 + 1e-9) if fits else -1.0


def loosely(want: Array, rtol: float | None) -> Close:
    """For telling mistakes: a learner's digits are as few here."""
    return _within(want, rtol or 2e-3)


def _within(want: Array, rtol: float) -> Close:
    # A Jacobian's zeros come out of sums of its other elements' size; a lone factor of 0 has to be 0.
    size = float(np.max(abs(want), initial=0)) if want.ndim else 0.0

    def close(got: Array, want: Array) -> Array:
        with np.errstate(all="ignore"):
            got, want = np.asarray(got, float), np.asarray(want, float)
            near: Array = (abs(got - want) <= rtol * abs(want) + rtol * 1e-3 * size) | (np.isnan(got) & np.isnan(want))
        return near

    return close
