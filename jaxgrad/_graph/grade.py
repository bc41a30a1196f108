"""A learner's local derivatives against a graph's own, and what went wrong where one differs."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._graph.graph import Edge, Graph
from jaxgrad._graph.numbers import number
from jaxgrad._types import Value

Answer = Callable[..., Any] | Any
Mistake = tuple[str, Any]  # what it is, and what it makes of the true factor


_BY_CHANCE = "right here by chance"


@dataclass(frozen=True, eq=False)
class Mark:
    """One answer, marked.

    Attributes:
      source, target: the edge that was answered.
      ok: is it right, at this input and where it was tried elsewhere?
      got: the learner's local derivative.
      want: the true one.
      mistake: what seems to be wrong; "" if it is right, or if no known mistake fits.
    """

    source: str
    target: str
    ok: bool
    got: Any
    want: Any
    mistake: str = ""

    def __str__(self) -> str:
        factor = f"d{self.target}/d{self.source}"
        if self.ok:
            return f"{factor} = {number(self.got)}: right"
        if self.mistake.startswith(_BY_CHANCE):
            return f"{factor} = {number(self.got)} is {self.mistake}"
        hint = f": {self.mistake}" if self.mistake else ""
        return f"{factor} = {number(self.got)} is wrong, it is {number(self.want)}{hint}"


@dataclass(frozen=True, eq=False)
class Grade:
    """Every answer, marked, in the order given.

    Attributes:
      marks: one for each answer.
    """

    marks: tuple[Mark, ...]

    @property
    def ok(self) -> bool:
        """Are all of them right?"""
        return all(mark.ok for mark in self.marks)

    @property
    def wrong(self) -> tuple[Mark, ...]:
        """The marks that are not."""
        return tuple(mark for mark in self.marks if not mark.ok)

    def __str__(self) -> str:
        right = len(self.marks) - len(self.wrong)
        return "\n".join([*map(str, self.marks), f"{right} of {len(self.marks)} factors are right."])


def grade(
    graph: Graph, answers: Mapping[tuple[str, str], Answer], elsewhere: Callable[[], Graph], *, rtol: float | None
) -> Grade:
    """Marks local derivatives; see `Ledger.grade`. `elsewhere` is the same graph at a nearby input."""
    if not isinstance(answers, Mapping) or not answers:
        raise InputError(
            f"the answers are {answers!r:.60}; expected a dict of local derivatives by their edge, as "
            '{("z", "k"): lambda z: -jnp.exp(-z)}.'
        )
    edges = {ends: _edge(graph, ends) for ends in answers}
    marks = []
    for ends, answer in answers.items():
        mark = _mark(graph, edges[ends], answer, rtol)
        if mark.ok and callable(answer):
            mark = _tried_elsewhere(mark, elsewhere(), answer, rtol)
        marks.append(mark)
    return Grade(tuple(marks))


def _edge(graph: Graph, ends: Any) -> Edge:
    if not isinstance(ends, tuple) or len(ends) != 2:
        raise InputError(f'an answer is for {ends!r}; expected a pair (source, target), as ("z", "k") for dk/dz.')
    source, target = ends
    graph.node(source), graph.node(target)
    edge = graph.edges[ends]
    if edge.local is None:
        raise InputError(f"the edge from {source!r} to {target!r} cannot be graded: {edge.note}.")
    return edge


def _mark(graph: Graph, edge: Edge, answer: Answer, rtol: float | None) -> Mark:
    got, want = _value(graph, edge, answer), np.asarray(edge.local)
    if got.shape not in ((), want.shape):
        raise InputError(
            f"the answer for d{edge.target}/d{edge.source} has shape {got.shape}; expected {want.shape}, the target's "
            "shape followed by the source's."
        )
    close = _close(want, callable(answer), rtol)
    ok = bool(np.all(close(got, want)))
    mistake = "" if ok else _mistake(graph, edge, got, close)
    return Mark(edge.source, edge.target, ok, got[()], want[()], mistake)


def _close(want: Value, computed: bool, rtol: float | None) -> Callable[[Any, Any], Any]:
    if rtol is None:
        # A function is as good as its arithmetic; a number is typed to three digits or more.
        eps = float(np.finfo(want.dtype).eps) if want.dtype.kind == "f" else 2.0**-7
        rtol = eps**0.5 if computed else max(1e-3, eps**0.5)
    # A Jacobian's zeros come out of sums of its other elements' size; a lone factor of 0 has to be 0.
    size = float(np.max(abs(want), initial=0)) if want.ndim else 0.0

    def close(got: Value, want: Value) -> Any:
        with np.errstate(all="ignore"):
            got, want = np.asarray(got, float), np.asarray(want, float)
            return (abs(got - want) <= rtol * abs(want) + rtol * 1e-3 * size) | (np.isnan(got) & np.isnan(want))

    return close


def _value(graph: Graph, edge: Edge, answer: Answer) -> Any:
    """An answer as an array: a function is given the nodes that its parameters name."""
    if callable(answer):
        try:
            names = list(inspect.signature(answer).parameters)
        except (TypeError, ValueError):
            names = [edge.source]
        if len(names) == 1 and names[0] not in graph.nodes:
            names = [edge.source]
        answer = answer(*(graph.node(name).value for name in names))
    try:
        return np.asarray(answer).astype(float, casting="unsafe" if _is_number(answer) else "no")
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the answer for d{edge.target}/d{edge.source} is {answer!r:.60}; expected a number, an array, or a "
            "function of nodes."
        ) from error


def _is_number(answer: Value) -> bool:
    dtype = np.asarray(answer).dtype
    return dtype.kind in "biuf" or dtype.name == "bfloat16"


def _mistake(graph: Graph, edge: Edge, got: Value, close: Callable[[Any, Any], Any]) -> str:
    """The simplest mistake that turns the true factor into the answer; several where the numbers cannot tell."""
    want = np.asarray(edge.local, float)
    fitting: list[str] = []
    for group in _mistakes(graph, edge, want):
        with np.errstate(all="ignore"):
            fitting = [what for what, value in group if np.all(np.isfinite(value)) and np.all(close(got, value))]
        if fitting:
            break
    return " or ".join(dict.fromkeys(fitting))


def _mistakes(graph: Graph, edge: Edge, want: Value) -> Iterator[list[Mistake]]:
    """Known mistakes, the simplest first; those of one group are as likely as one another."""
    s, t = edge.source, edge.target
    sign = "a minus is missing" if np.all(want <= 0) else "there is a minus too many" if np.all(want >= 0) else ""
    yield [(sign or "the sign is wrong", -want)]
    if want.ndim == 2 and want.shape[0] == want.shape[1]:
        yield [("it is transposed", want.T)]
    if want.ndim:
        return
    upstream = graph.nodes[t].grad
    if t != graph.output and upstream is not None:
        yield [(f"that is d{graph.output}/d{s}, multiplied by what is upstream already", upstream * want)]
    values = [(name, np.asarray(graph.nodes[name].value, float)) for name in dict.fromkeys((s, t))]
    powers = [(name, value) for name, value in values if value.ndim == 0]
    with np.errstate(all="ignore"):
        yield [(f"that is the value of {s}, not a derivative", value) for name, value in powers if name == s]
        flipped = f", and {sign}" if sign else ", and the sign is wrong"
        for factor, suffix in ((1.0, ""), (-1.0, flipped)):
            yield [(f"a factor of 1/{name} is missing{suffix}", factor * want * value) for name, value in powers] + [
                (f"a factor of {name} is missing{suffix}", factor * want / value) for name, value in powers
            ]
        for factor, suffix in ((1.0, ""), (-1.0, flipped)):
            yield [(f"that is the value of {name}, not a derivative{suffix}", factor * value) for name, value in powers]
            yield [(f"it is upside down{suffix}", factor / want)]
            yield [(f"it is {n} times too large{suffix}", factor * n * want) for n in (2, 3)]
            yield [(f"a factor of {n} is missing{suffix}", factor * want / n) for n in (2, 3)]


def _tried_elsewhere(mark: Mark, graph: Graph, answer: Answer, rtol: float | None) -> Mark:
    """The mark of a function that is right at one input, and may be so by chance."""
    edge = graph.edges.get((mark.source, mark.target))
    if edge is None or edge.local is None or not np.all(np.isfinite(edge.local)):
        return mark
    again = _mark(graph, edge, answer, rtol)
    if again.ok:
        return mark
    where = ", ".join(
        f"{name} = {number(graph.nodes[name].value)}" for name in dict.fromkeys((mark.source, mark.target))
    )
    mistake = f" ({again.mistake})" if again.mistake else ""
    chance = f"{_BY_CHANCE}; where {where} it gives {number(again.got)} and should give {number(again.want)}{mistake}"
    return Mark(mark.source, mark.target, False, mark.got, mark.want, chance)
