"""Writes derivatives, numbers and formulas in a style."""

from collections.abc import Iterable, Sequence

import numpy as np

from jaxgrad._graph.graph import Edge, Graph, Node
from jaxgrad._graph.numbers import factor, number
from jaxgrad._graph.style import STYLES, WIDTH, escaped, exponent, wrapped
from jaxgrad._types import Value

MOST_FACTORS = 12


class Writer:
    """Writes derivatives and numbers in a style."""

    def __init__(self, graph: Graph, style: str, width: int, *, formulas: bool):
        self.graph, self.width, self.formulas = graph, width, formulas
        self.latex = style == "latex"
        self.style = STYLES[style]

    def whole(self, name: str, step: str = "") -> str:
        return self.style.whole.format(self.name(self.graph.output), self.name(name) + step)

    def local(self, edge: Edge, steps: tuple[str, str] = ("", ""), *, several: bool = False) -> str:
        """A local derivative; one of several terms must not read as the whole that they are terms of."""
        form = self.style.direct if several and edge.target == self.graph.output else self.style.local
        return form.format(self.name(edge.target) + steps[1], self.name(edge.source) + steps[0])

    def name(self, name: str) -> str:
        if not self.latex:
            return f"({name})" if " " in name else name
        stem = name.rstrip("0123456789")
        if stem.isidentifier() and len(stem) == 1:
            return f"{stem}_{{{name[1:]}}}" if name[1:] else stem
        return rf"\mathrm{{{escaped(name)}}}"

    def words(self, text: str) -> str:
        return rf"& \text{{{escaped(text)}}}" if self.latex else text

    def indented(self, words: str, rest: str) -> str:
        return rf"& \quad \text{{{escaped(words)}}} {rest}" if self.latex else f"  {words}{rest}"

    def lines(self, lines: Sequence[str]) -> str:
        if not self.latex:
            return "\n".join(part for line in lines for part in wrapped(line, self.width))
        return " \\\\\n".join(line if line.startswith("&") else line.replace(" = ", " &= ", 1) for line in lines)

    def number(self, value: Value, beside: float = 0.0) -> str:
        if value is None:
            return r"\text{(not kept)}" if self.latex else "(not kept)"
        text = number(value, beside)
        return rf"\text{{{text}}}" if self.latex and np.ndim(value) else exponent(text) if self.latex else text

    def local_number(self, edge: Edge) -> str:
        if edge.local is None:
            return self.number(None)
        text = factor(edge.local, np.ndim(self.graph.nodes[edge.source].value))
        return rf"\text{{{text}}}" if self.latex and np.ndim(edge.local) else exponent(text) if self.latex else text

    def factor(self, text: str, first: bool) -> str:
        return text if first or not text.startswith("-") else self.style.negative.format(text)

    def times(self, edge: Edge) -> str:
        """What joins the gradient of an edge's target, or what it stands for, with the local derivative."""
        axes = np.ndim(self.graph.nodes[edge.target].value)
        within = axes == 1 and np.ndim(self.graph.nodes[edge.source].value) <= 1
        return self.style.times if not axes else self.style.matmul if within else self.style.contract

    def symbols(self, path: Sequence[Edge], *, several: bool = False) -> str:
        return self._joined(path, [self.local(edge, several=several and len(path) == 1) for edge in path])

    def numbers(self, path: Sequence[Edge]) -> str:
        return self._joined(path, [self.factor(self.local_number(edge), i == 0) for i, edge in enumerate(path)])

    def product(self, path: Sequence[Edge], total: Value) -> str:
        return self.numbers(path) + (self.style.equals + self.number(total) if len(path) > 1 else "")

    def one_line(self, whole: str, path: Sequence[Edge], total: Value) -> str:
        symbols = [] if len(path) == 1 else [self.symbols(path)]
        return self.style.equals.join([whole, *symbols, self.product(path, total)])

    def sum(self, products: Sequence[Value], total: Value) -> str:
        beside = largest([*products, total])
        terms = self.number(products[0], beside)
        for product in products[1:]:
            text = self.number(product, beside)
            terms += f" - {text[1:]}" if text.startswith("-") else f" + {text}"
        return terms + self.style.equals + self.number(total, beside)

    def rules(self, edges: Sequence[Edge]) -> list[str]:
        """What each target is computed by, beside the local derivative that follows from it."""
        if self.latex or not self.formulas:
            return []
        known = [edge for edge in edges if edge.formula or self.graph.nodes[edge.target].formula]
        left = [definition(self.graph.nodes[edge.target]) for edge in known]
        width = min(34, max(map(len, left), default=0))
        lines, said = [], ""
        for edge, words in list(zip(known, left, strict=True))[:MOST_FACTORS]:
            rule = self.rule(edge) if edge.formula else ""
            if words != said or rule:
                lines.append(f"  {'' if words == said else words:<{width}}   {rule}".rstrip())
            said = words
        return lines

    def rule(self, edge: Edge) -> str:
        """A local derivative in symbols and in numbers: dk/dz = -exp(-z) = -1."""
        if " = " in edge.formula:
            return edge.formula
        steps = ("[t-1]", "[t]") if edge.source == edge.target else ("", "")
        value = "" if edge.local is None else self.local_number(edge)
        known = [edge.formula] if edge.formula and (edge.formula != value or steps[0]) else []
        shown = [value] if value and not (known and steps[0]) else []
        return self.style.equals.join([self.local(edge, steps), *known, *shown]) if known or shown else ""

    def _joined(self, path: Sequence[Edge], factors: Sequence[str]) -> str:
        joints = [self.times(edge) for edge in path[1:]]
        if self.style.contract in joints or self.style.matmul in joints:
            joints = [max(joints, key=[self.style.times, self.style.matmul, self.style.contract].index)] * len(joints)
        text = factors[0]
        shown = range(1, len(factors))
        if len(factors) > MOST_FACTORS:
            dots = f"{self.style.dots} ({len(factors) - 6} more)" if not self.latex else self.style.dots
            parts = [*factors[1:3], dots, *factors[-3:]]
            return joints[0].join([text, *parts])
        return text + "".join(joints[i - 1] + factors[i] for i in shown)


def local_rule(graph: Graph, edge: Edge, style: str) -> str:
    """A local derivative in symbols and in numbers; "" if neither is known."""
    return Writer(graph, style, WIDTH, formulas=True).rule(edge)


def definition(node: Node) -> str:
    """What a node is computed by, as "k = exp(-z)", or "h[t] = w*h[t-1]" where it stands in a loop."""
    if not node.formula:
        return node.name
    return f"{node.name}{'[t]' if node.steps else ''} = {node.formula}"


def largest(values: Iterable[Value]) -> float:
    """The largest finite number among arrays."""
    sizes = [np.abs(np.asarray(value)).ravel() for value in values if value is not None]
    every = np.concatenate([size[np.isfinite(size)] for size in sizes] or [np.zeros(1)])
    return float(np.max(every, initial=0.0))
