"""A learner's derivatives against a graph's own, and what went wrong where one differs."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from html import escape
from typing import Any, TypeAlias

import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._graph.graph import Graph
from jaxgrad._graph.mistakes import Array, Close, Question, elements, mistake
from jaxgrad._graph.numbers import number
from jaxgrad._graph.writer import definition

Answer: TypeAlias = Any  # a number, an array, or a function of nodes
Asked = tuple[str, str] | str  # an edge, for its local derivative; or a node, for the gradient along every path

_BY_CHANCE = "right here by chance"


@dataclass(frozen=True, eq=False)
class Mark:
    """One answer, marked.

    Attributes:
      source, target: the derivative that was asked for; for a total the target is the output.
      ok: is it right, at this input and where it was tried elsewhere?
      got: the learner's derivative.
      want: the true one.
      mistake: what seems to be wrong; "" if it is right, or if no known mistake fits.
      hint: where to look again; "" unless hints were asked for, and then the text has nothing of `want` in it.
    """

    source: str
    target: str
    ok: bool
    got: Any
    want: Any
    mistake: str = ""
    hint: str = ""

    def __str__(self) -> str:
        factor = f"d{self.target}/d{self.source}"
        if self.ok:
            return f"{factor} = {number(self.got)}: right"
        if self.hint:
            return f"{factor} = {number(self.got)} is not right yet: {self.hint}"
        if self.mistake.startswith(_BY_CHANCE):
            return f"{factor} = {number(self.got)} is {self.mistake}"
        why = f": {self.mistake}" if self.mistake else ""
        return f"{factor} = {number(self.got)} is wrong, it is {number(self.want)}{why}"


@dataclass(frozen=True, eq=False)
class Grade:
    """Every answer, marked, in the order given.

    Attributes:
      marks: one for each answer.
      what: what the answers are, "factors" or, where totals are among them, "answers".
    """

    marks: tuple[Mark, ...]
    what: str = "factors"

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
        return "\n".join([*map(str, self.marks), f"{right} of {len(self.marks)} {self.what} are right."])

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{'✓' if mark.ok else '✗'} {escape(str(mark))}</li>" for mark in self.marks)
        right = len(self.marks) - len(self.wrong)
        return f'<ul style="list-style: none">{items}</ul><p>{right} of {len(self.marks)} {self.what} are right.</p>'

    def __repr__(self) -> str:
        return f"Grade({len(self.marks) - len(self.wrong)} of {len(self.marks)} {self.what} right)"


def grade(
    graph: Graph,
    answers: Mapping[Asked, Answer],
    elsewhere: Callable[[float], Graph],
    *,
    rtol: float | None,
    hint: bool = False,
) -> Grade:
    """Marks derivatives; see `Ledger.grade`.

    Args:
      graph, answers, rtol, hint: as there.
      elsewhere: the same graph at another input: at 1 a nearby one, at -1 one of the other sign, at a small number s
        the same input moved by s.
    """
    if not isinstance(answers, Mapping) or not answers:
        raise InputError(
            f"the answers are {answers!r:.60}; expected a dict of local derivatives by their edge, as "
            '{("z", "k"): lambda z: -jnp.exp(-z)}.'
        )
    asked = {key: _question(graph, key) for key in answers}
    marks = []
    for key, answer in answers.items():
        mark = _mark(graph, asked[key], answer, rtol)
        if mark.ok and callable(answer):
            mark = _tried_elsewhere(mark, asked[key], [elsewhere(1.0), elsewhere(-1.0)], answer, rtol)
        elif not mark.ok and _at_a_kink(mark, asked[key], elsewhere):
            mark = replace(mark, ok=True, mistake="")
        marks.append(replace(mark, hint=_hint(graph, asked[key])) if hint and not mark.ok else mark)
    totals = any(question.total for question in asked.values())
    return Grade(tuple(marks), "answers" if totals else "factors")


def _question(graph: Graph, key: Any) -> Question:
    if isinstance(key, str):
        return _total(graph, key)
    if not isinstance(key, tuple) or len(key) != 2:
        raise InputError(
            f'an answer is for {key!r}; expected a pair (source, target), as ("z", "k") for dk/dz, or a node, as "z".'
        )
    source, target = key
    if source in graph.arrays and source not in graph.nodes:
        return Question(source, target, _whole(graph, source, target), total=False)
    graph.node(source), graph.node(target)
    edge = graph.edges[key]
    if edge.local is None:
        raise InputError(f"the edge from {source!r} to {target!r} cannot be graded: {edge.note}.")
    return Question(source, target, np.asarray(edge.local), total=False)


def _total(graph: Graph, name: str) -> Question:
    """The gradient of a node, or of an argument whose elements are nodes."""
    if name in graph.arrays and name not in graph.nodes:
        shape, names = graph.arrays[name]
        want = np.array([graph.nodes[element].grad for element in names]).reshape(shape)
        return Question(name, graph.output, want, total=True)
    if name not in graph.nodes and "/" in name:
        raise InputError(f'an answer is for {name!r}; expected a pair (source, target), or a node, as "z" for df/dz.')
    node = graph.node(name)
    if node.grad is None:
        raise InputError(f"the gradient of {name!r} cannot be graded: {node.note}.")
    return Question(name, graph.output, np.asarray(node.grad), total=True)


def _whole(graph: Graph, source: str, target: str) -> Array:
    """The local derivative with respect to an argument whose elements are nodes."""
    shape, names = graph.arrays[source]
    node = graph.node(target)
    edges = [graph.edges.get((name, target)) for name in names]
    if not any(edges):
        raise InputError(f"there is no edge from {source!r} to {target!r}.")
    zeros = np.zeros(np.shape(node.value), getattr(node.value, "dtype", float))
    columns = [zeros if edge is None else edge.local for edge in edges]
    if any(column is None for column in columns):
        raise InputError(f"the edges from {source!r} to {target!r} cannot be graded: they are not kept.")
    stacked = np.stack([np.asarray(column) for column in columns], axis=-1)
    return stacked.reshape(*zeros.shape, *shape)


def _mark(graph: Graph, asked: Question, answer: Answer, rtol: float | None) -> Mark:
    got, want = _value(graph, asked, answer), np.asarray(asked.want)
    close = _close(want, answer, rtol)
    turned = want.ndim == 2 and got.shape == want.shape[::-1]
    if got.shape not in ((), want.shape) and not turned:
        expected = "the source's" if asked.total else "the target's shape followed by the source's"
        raise InputError(f"the answer for {asked.text} has shape {got.shape}; expected {want.shape}, {expected}.")
    ok = got.shape in ((), want.shape) and bool(np.all(close(got, want)))
    why = "" if ok else mistake(graph, asked, got, _loosely(want, rtol))
    return Mark(asked.source, asked.target, ok, got[()], want[()], why)


def _close(want: Array, answer: Answer, rtol: float | None) -> Close:
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


def _loosely(want: Array, rtol: float | None) -> Close:
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


def _value(graph: Graph, asked: Question, answer: Answer) -> Array:
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


def _tried_elsewhere(mark: Mark, asked: Question, graphs: Sequence[Graph], answer: Answer, rtol: float | None) -> Mark:
    """The mark of a function that is right at one input, and may be so by chance, or on one side of a kink alone."""
    for graph in graphs:
        try:
            there = _question(graph, asked.source if asked.total else (asked.source, asked.target))
        except InputError:
            continue
        if not np.all(np.isfinite(there.want)):
            continue
        again = _mark(graph, there, answer, rtol)
        if again.ok or not np.all(np.isfinite(again.got)):
            continue
        names = [name for name in dict.fromkeys((asked.source, asked.target)) if name in graph.nodes]
        where = ", ".join(f"{name} = {number(graph.nodes[name].value)}" for name in names)
        why = f" ({again.mistake})" if again.mistake else ""
        chance = f"{_BY_CHANCE}; where {where} it gives {number(again.got)} and should give {number(again.want)}{why}"
        return replace(mark, ok=False, mistake=chance)
    return mark


_SIDE = 1e-3


def _at_a_kink(mark: Mark, asked: Question, elsewhere: Callable[[float], Graph]) -> bool:
    """Is the input at a kink, and the answer right on one of its sides? At a corner either slope is a right answer."""
    sides = []
    for step in (-_SIDE, _SIDE):
        try:
            sides.append(_question(elsewhere(step), asked.source if asked.total else (asked.source, asked.target)).want)
        except InputError:
            return False
    left, right = (np.asarray(side, float) for side in sides)
    got = np.asarray(mark.got, float)
    size = max(float(np.max(abs(left), initial=0)), float(np.max(abs(right), initial=0)))
    if got.shape not in ((), left.shape) or not np.isfinite(size) or np.all(abs(left - right) <= 0.1 * size):
        return False
    return any(bool(np.all(abs(got - side) <= 10 * _SIDE * (abs(side) + 1e-3 * size))) for side in (left, right))


def _hint(graph: Graph, asked: Question) -> str:
    """Where to look again, with nothing of the answer in it."""
    if asked.total:
        steps = [edge.target for edge in graph.out_of.get(asked.source, [])]
        if not steps:
            return "follow each element to the output"
        if len(steps) == 1 and steps[0] != graph.output:
            return f"it is d{graph.output}/d{steps[0]} times d{steps[0]}/d{asked.source}"
        return f"add up what comes through {', '.join(steps[:6])}"
    node = graph.nodes[asked.target]
    what = definition(node) if node.formula else asked.target
    return f"look at {what}, and at nothing but {asked.source} in it"
