"""The chain rule of one node in words: in symbols and in numbers, path by path."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._graph.graph import Edge, Graph
from jaxgrad._graph.style import STYLES, WIDTH
from jaxgrad._graph.writer import MOST_FACTORS, Writer, largest
from jaxgrad._types import Value

MOST_PATHS = 8


class Explanation(str):
    """The chain rule as text, which a notebook sets as mathematics."""

    latex: str

    def __new__(cls, text: str, latex: str) -> "Explanation":
        made = super().__new__(cls, text)
        made.latex = latex
        return made

    def _repr_latex_(self) -> str:
        return "$$\\begin{align*}\n" + self.latex + "\n\\end{align*}$$"


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
    writer = Writer(graph, style, width, formulas=formulas)
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


def _one_step(graph: Graph, name: str, writer: Writer) -> list[str]:
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
    beside = largest(edge.contribution for edge in edges)
    for edge in shown:
        upstream, local = writer.number(graph.nodes[edge.target].grad), writer.local_number(edge)
        numbers = upstream + writer.times(edge) + local + style.equals + writer.number(edge.contribution, beside)
        lines.append(writer.indented(f"through {edge.target}: ", numbers))
    if rest:
        total = sum((edge.contribution for edge in rest), start=np.zeros_like(rest[0].contribution))
        lines.append(writer.indented(f"through {len(rest)} more: ", writer.number(total, beside)))
    lines.append(writer.indented("sum: ", writer.number(graph.nodes[name].grad, beside)))
    return lines


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
