"""Known mistakes in a derivative: what a learner did to the true one, told from the numbers."""

import re
from collections.abc import Iterator

import numpy as np

from jaxgrad._graph.grading.question import Array, Close, Question
from jaxgrad._graph.graph import Graph

Mistake = tuple[str, Array]  # what it is, and what it makes of the true derivative


def mistake(graph: Graph, asked: Question, got: Array, close: Close) -> str:
    """The simplest mistake that turns the true derivative into the answer; several where the numbers cannot tell."""
    want = np.asarray(asked.want, float)
    for group in _groups(graph, asked, want):
        with np.errstate(all="ignore"):
            fitting = [what for what, value in group if _is(got, value, close)]
        if fitting:
            return " or ".join(dict.fromkeys(fitting))
    return _elements(got, want, close)


def _is(got: Array, value: Array, close: Close) -> bool:
    value = np.asarray(value, float)
    return got.shape == value.shape and bool(np.all(np.isfinite(value))) and bool(np.all(close(got, value)))


def _groups(graph: Graph, asked: Question, want: Array) -> Iterator[list[Mistake]]:
    """Known mistakes, the simplest first; those of one group are as likely as one another."""
    sign = "a minus is missing" if np.all(want <= 0) else "there is a minus too many" if np.all(want >= 0) else ""
    yield [(sign or "the sign is wrong", -want)]
    if want.ndim == 2 and not (want.shape[0] == want.shape[1] and np.array_equal(want, want.T)):
        yield [("it is transposed", want.T)]
    yield from _another(graph, asked, want)
    if want.ndim:
        yield from _of_arrays(graph, asked, want)
        return
    yield [(f"{asked.source} is taken as a constant", np.zeros(()))] if want else []
    yield from _of_numbers(graph, asked, want, sign)


def _another(graph: Graph, asked: Question, want: Array) -> Iterator[list[Mistake]]:
    """Another derivative in place of this one."""
    s, t, output = asked.source, asked.target, graph.output
    if asked.total:
        yield [
            (f"that is d{e.target}/d{s}, the local derivative: what is upstream of {e.target} is missing", e.local)
            for e in graph.out_of.get(s, [])
            if e.local is not None and e.target != output
        ]
        yield [
            (f"that is the path through {e.target} alone", e.contribution)
            for e in graph.out_of.get(s, [])
            if len(graph.out_of[s]) > 1
        ]
        yield (
            [
                (f"that is d{output}/d{name}, a neighbour's", node.grad)
                for name, node in graph.nodes.items()
                if name != s and node.grad is not None and node.kind == graph.nodes[s].kind
            ]
            if s in graph.nodes
            else []
        )
        return
    upstream = graph.nodes[t].grad
    if t != output and upstream is not None and not np.ndim(upstream):
        yield [(f"that is d{output}/d{s}, multiplied by what is upstream already", upstream * want)]
    beside = [edge for edge in graph.into[t] if edge.source != s] + [
        edge for edge in graph.out_of.get(s, []) if edge.target != t
    ]
    if s in graph.nodes and np.ndim(graph.nodes[s].value) == 0:
        values = [(name, np.asarray(node.value, float)) for name, node in graph.nodes.items() if name == s]
        yield [(f"that is the value of {name}, not a derivative", value) for name, value in values if not want.ndim]
    yield [
        (f"that is d{edge.target}/d{edge.source}, a neighbour's", edge.local)
        for edge in beside
        if edge.local is not None and np.shape(edge.local) == want.shape and np.any(np.asarray(edge.local) != 0)
    ]
    own = {name: np.asarray(graph.nodes[name].value, float) for name in _family(graph, s) if name != s}
    yield [(f"that is {name}, a neighbour of {s}", value) for name, value in own.items() if not want.ndim and value]


def elements(graph: Graph, name: str) -> Array:
    """The value of an argument whose elements are nodes."""
    shape, names = graph.arrays[name]
    return np.array([graph.nodes[element].value for element in names]).reshape(shape)


def _family(graph: Graph, name: str) -> list[str]:
    """The elements of the array that a node is an element of."""
    return next((list(names) for _, names in graph.arrays.values() if name in names), [])


def _of_arrays(graph: Graph, asked: Question, want: Array) -> Iterator[list[Mistake]]:
    n = max(want.shape)
    sizes = sorted({want.size, *want.shape} - {1})
    yield [(f"a mean is forgotten: a factor of 1/{size} is missing", want * size) for size in sizes] + [
        (f"it is {k} times too large", k * want) for k in (2, 3) if k not in sizes
    ]
    yield [(f"there is a factor of 1/{size} too many", want / size) for size in sizes] + [
        ("a factor of 2 is missing", want / 2)
    ]
    values = {name: np.asarray(node.value, float) for name, node in graph.nodes.items() if node.value is not None}
    values |= {name: elements(graph, name) for name in graph.arrays if name not in values}
    if want.ndim == 2 and want.shape == (n, n):
        yield [
            (f"that is diag({name}): what is off the diagonal, - {name} {name}^T, is missing", np.diag(value))
            for name, value in values.items()
            if value.shape == (n,) and np.allclose(want, np.diag(value) - np.outer(value, value), rtol=1e-3, atol=1e-6)
        ]
        yield [("what is off the diagonal is missing", np.diag(np.diagonal(want)))]
    for scale in (1.0, 1.0 / n):
        yield [
            (f"{name} is not subtracted", want + scale * value)
            for name, value in values.items()
            if value.shape == want.shape and np.any(value)
        ]
        if want.shape == (n,) and abs(np.sum(want)) <= 1e-3 * np.max(abs(want)):  # as p - y has it
            yield [(f"1 is not subtracted at [{i}]", want + scale * np.eye(n)[i]) for i in range(n)]
    yield [
        (f"that is the value of {name}, not a derivative", value)
        for name, value in values.items()
        if value.shape == want.shape
    ]
    yield [(f"{asked.source} is taken as a constant", np.zeros(want.shape))] if np.any(want) else []
    yield [("it is upside down", 1 / want)]


def _of_numbers(graph: Graph, asked: Question, want: Array, sign: str) -> Iterator[list[Mistake]]:
    values = [
        (name, np.asarray(graph.nodes[name].value, float))
        for name in dict.fromkeys((asked.source, asked.target))
        if name in graph.nodes
    ]
    powers = [(name, value) for name, value in values if value.ndim == 0]
    edge = graph.edges.get((asked.source, asked.target))
    words = set(re.findall(r"\w+", "" if edge is None else edge.formula)) - {asked.source, asked.target}
    others = sorted(words & set(graph.nodes))
    factors = [(f"(1 - {name})", 1 - value) for name, value in powers if name == asked.target]
    factors += [(name, np.asarray(graph.nodes[name].value, float)) for name in others]
    factors = [(name, value) for name, value in factors if value.ndim == 0]
    flipped = f", and {sign}" if sign else ", and the sign is wrong"
    with np.errstate(all="ignore"):
        yield [
            (f"that is ln({name}): integrated, not differentiated", np.log(value))
            for name, value in powers
            if value > 0
        ]
        for factor, suffix in ((1.0, ""), (-1.0, flipped)):
            yield [(f"a factor of 1/{name} is missing{suffix}", factor * want * value) for name, value in powers] + [
                (f"a factor of {name} is missing{suffix}", factor * want / value) for name, value in powers
            ]
        for factor, suffix in ((1.0, ""), (-1.0, flipped)):
            yield [(f"a factor of {name} is missing{suffix}", factor * want / value) for name, value in factors]
        for factor, suffix in ((1.0, ""), (-1.0, flipped)):
            yield [(f"that is the value of {name}, not a derivative{suffix}", factor * value) for name, value in powers]
            yield [(f"it is upside down{suffix}", factor / want)]
            yield [(f"it is {n} times too large{suffix}", factor * n * want) for n in (2, 3)]
            yield [(f"a factor of {n} is missing{suffix}", factor * want / n) for n in (2, 3)]
            yield [
                (f"the decimal point has slipped{suffix}", factor * want * scale) for scale in (10.0, 0.1, 100.0, 0.01)
            ]
        yield [("it is squared", want**2), ("its square root is due", np.sqrt(np.abs(want)))]


def _elements(got: Array, want: Array, close: Close) -> str:
    """Which elements are wrong, where most are right."""
    if not want.ndim or got.shape != want.shape or want.size < 2:
        return ""
    wrong = np.argwhere(~close(got, want))
    if not 0 < len(wrong) <= max(1, want.size // 4):
        return ""
    places = ", ".join(str([int(i) for i in place]) for place in wrong[:3])
    return f"it is right but for {'element' if len(wrong) == 1 else 'elements'} {places}"
