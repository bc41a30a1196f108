"""The chain rule of one node in words: in symbols and in numbers, path by path."""

import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._graph.graph import Edge, Graph, Node
from jaxgrad._graph.numbers import factor, number
from jaxgrad._types import Value

MOST_PATHS = 8
MOST_FACTORS = 12
WIDTH = 80


class Explanation(str):
    """The chain rule as text, which a notebook sets as mathematics."""

    latex: str

    def __new__(cls, text: str, latex: str) -> "Explanation":
        made = super().__new__(cls, text)
        made.latex = latex
        return made

    def _repr_latex_(self) -> str:
        return "$$\\begin{align*}\n" + self.latex + "\n\\end{align*}$$"


class _Style(NamedTuple):
    """How a chain rule is written."""

    whole: str  # gradient: the derivative of {0} with respect to {1} along every path
    local: str  # local derivative: every other node held fixed
    direct: str  # the same where it would read as the whole
    times: str
    matmul: str
    contract: str  # of more axes than a matrix product has
    equals: str
    dots: str
    negative: str  # a negative factor


STYLES = {
    "unicode": _Style("d{0}/d{1}", "∂{0}/∂{1}", "∂{0}/∂{1}", " · ", " · ", " · ", " = ", "…", "{}"),
    "plain": _Style("d{0}/d{1}", "d{0}/d{1}", "(d{0}/d{1})", " * ", " @ ", " . ", " = ", "...", "{}"),
    "latex": _Style(
        r"\frac{{\mathrm{{d}} {0}}}{{\mathrm{{d}} {1}}}",
        r"\frac{{\partial {0}}}{{\partial {1}}}",
        r"\frac{{\partial {0}}}{{\partial {1}}}",
        r" \cdot ",
        r" \, ",
        r" \, ",
        " = ",
        r"\cdots",
        r"\left({}\right)",
    ),
}


def explain(graph: Graph, name: str, *, style: str = "unicode", formulas: bool = True, width: int = WIDTH) -> str:
    """The chain rule from a node to the output: every path and their sum, or one step where there are too many.

    Below it stands what each node on the way is computed by, and the local derivative that follows, where that is
    known.

    Args:
      graph: values, gradients and local derivatives.
      name: the node whose gradient is explained.
      style: "unicode", "plain" (ASCII, `d` for the curly one) or "latex".
      formulas: with what each node on the way is computed by.
      width: columns that a line may take, but for names and numbers that are longer.

    Returns:
      Lines of text; for "latex" what goes inside an `align*`.

    Raises:
      InputError: there is no such node, or no such style.
    """
    if style not in STYLES:
        raise InputError(f"`style` is {style!r}; expected one of {', '.join(map(repr, sorted(STYLES)))}.")
    node = graph.node(name)
    writer = _Writer(graph, style, width, formulas=formulas)
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
        rules = writer.rules(graph.out_of[name])
        return writer.lines([writer.words(why), *_one_step(graph, name, writer), *rules])
    paths = graph.paths(name)
    rules = writer.rules(list(dict.fromkeys(edge for path in paths for edge in path)))
    if len(paths) == 1:
        return writer.lines([writer.one_line(whole, paths[0], node.grad), *rules])
    products = [_product(path) for path in paths]
    return writer.lines(
        [
            whole + writer.style.equals + " + ".join(writer.symbols(path, several=True) for path in paths),
            *(
                writer.indented(f"through {_through(path)}: ", writer.product(path, product))
                for path, product in zip(paths, products, strict=True)
            ),
            writer.indented("sum: ", writer.sum(products, node.grad)),
            writer.words("Each factor on the right holds every other node fixed."),
            *rules,
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
    steps = ("[t]", "[t+1]") if any(edge.source == edge.target for edge in edges) else ("", "")

    def term(edge: Edge) -> str:
        if edge.source == edge.target:  # it feeds itself: this step's from the next one's
            return writer.whole(name, steps[1]) + writer.times(edge) + writer.local(edge, steps)
        if edge.target == graph.output and not graph.out_of[edge.target]:
            return writer.local(edge, (steps[0], ""), several=True)
        return writer.whole(edge.target) + writer.times(edge) + writer.local(edge, (steps[0], ""))

    terms = list(map(term, shown))
    rest = edges[len(shown) :]
    lines = [writer.whole(name, steps[0]) + style.equals + " + ".join(terms + [style.dots] * bool(rest))]
    beside = _largest(edge.contribution for edge in edges)
    for edge in shown:
        upstream, local = writer.number(graph.nodes[edge.target].grad), writer.local_number(edge)
        numbers = upstream + writer.times(edge) + local + style.equals + writer.number(edge.contribution, beside)
        lines.append(writer.indented(f"through {edge.target}: ", numbers))
    if rest:
        total = sum((edge.contribution for edge in rest), start=np.zeros_like(rest[0].contribution))
        lines.append(writer.indented(f"through {len(rest)} more: ", writer.number(total, beside)))
    lines.append(writer.indented("sum: ", writer.number(graph.nodes[name].grad, beside)))
    return lines


def _largest(values: Iterable[Value]) -> float:
    """The largest finite number among arrays."""
    sizes = [np.abs(np.asarray(value)).ravel() for value in values if value is not None]
    every = np.concatenate([size[np.isfinite(size)] for size in sizes] or [np.zeros(1)])
    return float(np.max(every, initial=0.0))


def _product(path: Sequence[Edge]) -> Value:
    """The local derivatives along a path multiplied, from the output down."""
    product = path[0].local
    with np.errstate(all="ignore"):
        for edge in path[1:]:
            times: Callable[..., Value] = (
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
        return rf"\mathrm{{{_escaped(name)}}}"

    def words(self, text: str) -> str:
        return rf"& \text{{{_escaped(text)}}}" if self.latex else text

    def indented(self, words: str, rest: str) -> str:
        return rf"& \quad \text{{{_escaped(words)}}} {rest}" if self.latex else f"  {words}{rest}"

    def lines(self, lines: Sequence[str]) -> str:
        if not self.latex:
            return "\n".join(part for line in lines for part in _wrapped(line, self.width))
        return " \\\\\n".join(line if line.startswith("&") else line.replace(" = ", " &= ", 1) for line in lines)

    def number(self, value: Value, beside: float = 0.0) -> str:
        if value is None:
            return r"\text{(not kept)}" if self.latex else "(not kept)"
        text = number(value, beside)
        return rf"\text{{{text}}}" if self.latex and np.ndim(value) else _exponent(text) if self.latex else text

    def local_number(self, edge: Edge) -> str:
        if edge.local is None:
            return self.number(None)
        text = factor(edge.local, np.ndim(self.graph.nodes[edge.source].value))
        return rf"\text{{{text}}}" if self.latex and np.ndim(edge.local) else _exponent(text) if self.latex else text

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
        beside = _largest([*products, total])
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
    return _Writer(graph, style, WIDTH, formulas=True).rule(edge)


def definition(node: Node) -> str:
    """What a node is computed by, as "k = exp(-z)", or "h[t] = w*h[t-1]" where it stands in a loop."""
    if not node.formula:
        return node.name
    return f"{node.name}{'[t]' if node.steps else ''} = {node.formula}"


def _wrapped(line: str, width: int) -> list[str]:
    """A line broken at its spaces, what follows it indented; a number stays with its equals sign."""
    if len(line) <= width:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()))
    glued = re.sub(r"\[[^\[\]]{1,50}\]|\([^()]{1,50}\)", lambda match: match.group().replace(" ", "\0"), line.strip())
    glued = re.sub(r"([=\N{MIDDLE DOT}*@]) ", "\\1\0", glued)
    first, *rest = textwrap.wrap(glued, width - len(indent) - 4, break_long_words=False, break_on_hyphens=False) or [""]
    return [part.replace("\0", " ") for part in [indent + first, *(f"{indent}    {part}" for part in rest)]]


def _exponent(text: str) -> str:
    mantissa, e, exponent = text.partition("e")
    return rf"{mantissa} \times 10^{{{int(exponent)}}}" if e and exponent.lstrip("+-").isdigit() else text


def _escaped(text: str) -> str:
    specials = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(specials.get(c, "\\" + c if c in "_#$%&{}" else c) for c in text)
