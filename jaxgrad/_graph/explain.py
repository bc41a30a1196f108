"""The chain rule of one node in words: in symbols and in numbers, path by path."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._graph.graph import Edge, Graph
from jaxgrad._graph.numbers import number
from jaxgrad._types import Value

MOST_PATHS = 8
MOST_FACTORS = 12


class _Style(NamedTuple):
    """How a chain rule is written."""

    whole: str  # gradient: the derivative of {0} with respect to {1} along every path
    local: str  # local derivative: every other node held fixed
    times: str
    matmul: str
    plus: str
    equals: str
    dots: str
    negative: str  # a negative factor


STYLES = {
    "plain": _Style("d{0}/d{1}", "d{0}/d{1}", " * ", " @ ", " + ", " = ", "...", "{}"),
    "unicode": _Style("d{0}/d{1}", "∂{0}/∂{1}", " · ", " · ", " + ", " = ", "…", "{}"),
    "latex": _Style(
        r"\frac{{\mathrm{{d}} {0}}}{{\mathrm{{d}} {1}}}",
        r"\frac{{\partial {0}}}{{\partial {1}}}",
        r" \cdot ",
        r" \, ",
        " + ",
        " = ",
        r"\cdots",
        r"\left({}\right)",
    ),
}


def explain(graph: Graph, name: str, *, style: str = "plain") -> str:
    """The chain rule from a node to the output: every path and their sum, or one step where there are too many.

    Args:
      graph: values, gradients and local derivatives.
      name: the node whose gradient is explained.
      style: "plain", "unicode" or "latex".

    Returns:
      Lines of text; for "latex" what goes inside an `align*` environment.

    Raises:
      InputError: there is no such node, or no such style.
    """
    if style not in STYLES:
        raise InputError(f"`style` is {style!r}; expected one of {', '.join(map(repr, STYLES))}.")
    node = graph.node(name)
    writer = _Writer(graph, style)
    whole = writer.whole(name)
    if node.grad is None:
        return writer.lines([writer.words(f"{name} has no gradient: {node.note}")])
    n_paths = graph.n_paths(name)
    if n_paths == 0:
        return writer.lines([f"{whole}{writer.style.equals}0", writer.words(f"{name} does not reach {graph.output}")])
    if name == graph.output and not graph.out_of[name]:
        return writer.lines([f"{whole}{writer.style.equals}1"])
    why = _why_one_step(graph, name, n_paths)
    if why:
        return writer.lines([writer.words(why), *_one_step(graph, name, writer)])
    paths = graph.paths(name)
    if len(paths) == 1:
        return writer.lines([writer.one_line(whole, paths[0], node.grad)])
    products = [_product(path) for path in paths]
    return writer.lines(
        [
            whole + writer.style.equals + writer.style.plus.join(writer.symbols(path) for path in paths),
            *(
                writer.indented(f"through {_through(path)}: ", writer.product(path, product))
                for path, product in zip(paths, products, strict=True)
            ),
            writer.indented("sum: ", writer.sum(products, node.grad)),
            writer.words("Each factor on the right holds every other node fixed."),
        ]
    )


def _why_one_step(graph: Graph, name: str, n_paths: int | None) -> str:
    """Why the paths are not written out; "" if they are."""
    if n_paths is None:
        return f"From {name} on, a node feeds itself from step to step: one step of the chain rule, not every path."
    if n_paths > MOST_PATHS:
        return f"{n_paths:,} paths lead from {name} to {graph.output}: one step of the chain rule, not every path."
    if any(edge.local is None for path in graph.paths(name) for edge in path):
        return f"A local derivative between {name} and {graph.output} is not kept: one step of the chain rule."
    return ""


def _one_step(graph: Graph, name: str, writer: "_Writer") -> list[str]:
    """The gradient of a node from those of the nodes that are computed from it."""
    edges = graph.out_of[name]
    shown = edges if len(edges) <= MOST_FACTORS else edges[: MOST_FACTORS - 1]
    style = writer.style

    def times(edge: Edge) -> str:
        return style.matmul if np.ndim(graph.nodes[edge.target].value) else style.times

    terms = [writer.whole(edge.target) + times(edge) + writer.local(edge) for edge in shown]
    rest = edges[len(shown) :]
    lines = [writer.whole(name) + style.equals + style.plus.join(terms + [style.dots] * bool(rest))]
    for edge in shown:
        upstream, local = writer.number(graph.nodes[edge.target].grad), writer.number(edge.local)
        numbers = upstream + times(edge) + local + style.equals + writer.number(edge.contribution)
        lines.append(writer.indented(f"through {edge.target}: ", numbers))
    if rest:
        total = sum((edge.contribution for edge in rest), start=np.zeros_like(rest[0].contribution))
        lines.append(writer.indented(f"through {len(rest)} more: ", writer.number(total)))
    lines.append(writer.indented("sum: ", writer.number(graph.nodes[name].grad)))
    return lines


def _product(path: Sequence[Edge]) -> Any:
    """The local derivatives along a path multiplied, from the output down."""
    product = path[0].local
    with np.errstate(all="ignore"):
        for edge in path[1:]:
            times: Callable[..., Any] = (
                np.multiply if np.ndim(product) == 0 else partial(np.tensordot, axes=np.ndim(product))
            )
            product = times(product, edge.local)
    return product


def _through(path: Sequence[Edge]) -> str:
    inner = [edge.source for edge in path[:-1]]
    if len(inner) > MOST_FACTORS:
        inner = [*inner[:3], "...", *inner[-3:]]
    return ", ".join(inner) or "no node in between"


class _Writer:
    """Writes derivatives and numbers in a style."""

    def __init__(self, graph: Graph, style: str):
        self.graph = graph
        self.latex = style == "latex"
        self.style = STYLES[style]

    def whole(self, name: str) -> str:
        return self.style.whole.format(self.name(self.graph.output), self.name(name))

    def local(self, edge: Edge) -> str:
        return self.style.local.format(self.name(edge.target), self.name(edge.source))

    def name(self, name: str) -> str:
        if not self.latex:
            return f"({name})" if " " in name else name
        stem = name.rstrip("0123456789")
        if stem.isidentifier() and len(stem) == 1:
            return f"{stem}_{{{name[1:]}}}" if name[1:] else stem
        return rf"\mathrm{{{_escaped(name)}}}"

    def words(self, text: str) -> str:
        return rf"& \text{{{_escaped(text)}}}" if self.latex else text

    def indented(self, words: str, rest: str) -> str:
        return rf"& \quad \text{{{_escaped(words)}}} {rest}" if self.latex else f"  {words}{rest}"

    def lines(self, lines: Sequence[str]) -> str:
        if not self.latex:
            return "\n".join(lines)
        return " \\\\\n".join(line if line.startswith("&") else line.replace(" = ", " &= ", 1) for line in lines)

    def number(self, value: Value) -> str:
        if value is None:
            return r"\text{(not kept)}" if self.latex else "(not kept)"
        text = number(value)
        return rf"\text{{{text}}}" if self.latex and np.ndim(value) else _exponent(text) if self.latex else text

    def factor(self, value: Value, first: bool) -> str:
        text = self.number(value)
        return text if first or not text.startswith("-") else self.style.negative.format(text)

    def symbols(self, path: Sequence[Edge]) -> str:
        return self._joined(path, [self.local(edge) for edge in path])

    def numbers(self, path: Sequence[Edge]) -> str:
        return self._joined(path, [self.factor(edge.local, i == 0) for i, edge in enumerate(path)])

    def product(self, path: Sequence[Edge], total: Value) -> str:
        return self.numbers(path) + (self.style.equals + self.number(total) if len(path) > 1 else "")

    def one_line(self, whole: str, path: Sequence[Edge], total: Value) -> str:
        symbols = [] if len(path) == 1 else [self.symbols(path)]
        return self.style.equals.join([whole, *symbols, self.product(path, total)])

    def sum(self, products: Sequence[Any], total: Value) -> str:
        terms = self.style.plus.join(self.factor(product, i == 0) for i, product in enumerate(products))
        return terms + self.style.equals + self.number(total)

    def _joined(self, path: Sequence[Edge], factors: Sequence[str]) -> str:
        arrays = any(np.ndim(self.graph.nodes[edge.source].value) for edge in path[:-1])
        times = self.style.matmul if arrays else self.style.times
        if len(factors) > MOST_FACTORS:
            dots = f"{self.style.dots} ({len(factors) - 6} more)" if not self.latex else self.style.dots
            factors = [*factors[:3], dots, *factors[-3:]]
        return times.join(factors)


def _exponent(text: str) -> str:
    mantissa, e, exponent = text.partition("e")
    return rf"{mantissa} \times 10^{{{int(exponent)}}}" if e and exponent.lstrip("+-").isdigit() else text


def _escaped(text: str) -> str:
    specials = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(specials.get(c, "\\" + c if c in "_#$%&{}" else c) for c in text)
