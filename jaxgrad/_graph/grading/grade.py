"""A learner's derivatives against a graph's own, and what went wrong where one differs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._graph.grading.answer import Answer, as_array, closeness, loosely
from jaxgrad._graph.grading.mark import BY_CHANCE, Grade, Mark
from jaxgrad._graph.grading.mistakes import mistake
from jaxgrad._graph.grading.question import Question, question
from jaxgrad._graph.graph import Graph
from jaxgrad._graph.numbers import number
from jaxgrad._graph.writer import definition

Asked = tuple[str, str] | str  # an edge, for its local derivative; or a node, for the gradient along every path


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
    asked = {key: question(graph, key) for key in answers}
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


def _mark(graph: Graph, asked: Question, answer: Answer, rtol: float | None) -> Mark:
    got, want = as_array(graph, asked, answer), np.asarray(asked.want)
    close = closeness(want, answer, rtol)
    turned = want.ndim == 2 and got.shape == want.shape[::-1]
    if got.shape not in ((), want.shape) and not turned:
        expected = "the source's" if asked.total else "the target's shape followed by the source's"
        raise InputError(f"the answer for {asked.text} has shape {got.shape}; expected {want.shape}, {expected}.")
    ok = got.shape in ((), want.shape) and bool(np.all(close(got, want)))
    why = "" if ok else mistake(graph, asked, got, loosely(want, rtol))
    return Mark(asked.source, asked.target, ok, got[()], want[()], why)


def _tried_elsewhere(mark: Mark, asked: Question, graphs: Sequence[Graph], answer: Answer, rtol: float | None) -> Mark:
    """The mark of a function that is right at one input, and may be so by chance, or on one side of a kink alone."""
    for graph in graphs:
        try:
            there = question(graph, asked.source if asked.total else (asked.source, asked.target))
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
        chance = f"{BY_CHANCE}; where {where} it gives {number(again.got)} and should give {number(again.want)}{why}"
        return replace(mark, ok=False, mistake=chance)
    return mark


_SIDE = 1e-3


def _at_a_kink(mark: Mark, asked: Question, elsewhere: Callable[[float], Graph]) -> bool:
    """Is the input at a kink, and the answer right on one of its sides? At a corner either slope is a right answer."""
    sides = []
    for step in (-_SIDE, _SIDE):
        try:
            sides.append(question(elsewhere(step), asked.source if asked.total else (asked.source, asked.target)).want)
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
