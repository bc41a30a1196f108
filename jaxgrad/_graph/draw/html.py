"""A graph as one self-contained HTML page to step through."""

import json
from importlib.resources import files

import numpy as np

from jaxgrad._graph.draw.layout import layout
from jaxgrad._graph.draw.picture import Arrow, Box
from jaxgrad._graph.draw.svg import attribute, svg_of, title_of
from jaxgrad._graph.explain import explain
from jaxgrad._graph.graph import Graph
from jaxgrad._graph.numbers import factor, number
from jaxgrad._graph.writer import definition, local_rule


def html(graph: Graph) -> str:
    """The graph as one page that needs nothing else: step through it, point at an arrow to see its factor."""
    placed = layout(graph)
    data = {
        "whole": f"Nothing is computed yet. Next steps through the values up to {graph.output}, then back.",
        "boxes": [
            {"name": box.name, "forward": _forward(graph, box), "backward": _backward(graph, box)}
            for box in placed.boxes
        ],
        "edges": [_arrow_words(graph, arrow) for arrow in placed.arrows],
    }
    page = (files("jaxgrad._graph.draw") / "page.html").read_text(encoding="utf-8")
    text = json.dumps(data).replace("<", "\\u003c")  # no text in it can end the script
    parts = {"@TITLE@": attribute(title_of(graph)), "@SVG@": svg_of(placed, graph), "@DATA@": text}
    before, *rest = page.split("@SVG@")
    after = "@SVG@".join(rest)
    for mark in ("@TITLE@", "@DATA@"):
        before, after = before.replace(mark, parts[mark]), after.replace(mark, parts[mark])
    return before + parts["@SVG@"] + after


def _forward(graph: Graph, box: Box) -> str:
    if box.folded:
        return _list(box, [f"{name} = {number(graph.nodes[name].value)}" for name in box.folded])
    formula = graph.nodes[box.name].formula
    value = f"{definition(graph.nodes[box.name])} = {number(graph.nodes[box.name].value)}" if formula else box.value
    sources = ", ".join(edge.source for edge in graph.into[box.name])
    return value + (f"\ncomputed from {sources}" if sources else "\nan argument" * (box.kind == "argument"))


def _backward(graph: Graph, box: Box) -> str:
    if not box.folded:
        return explain(graph, box.name)
    return _list(box, [f"d{graph.output}/d{name} = {number(graph.nodes[name].grad)}" for name in reversed(box.folded)])


def _list(box: Box, texts: list[str]) -> str:
    """What is in a folded box: all of it for steps of the program, for arguments the first and the last."""
    if box.kind == "argument" and len(texts) > 2 * _ENDS:
        texts = [*texts[:_ENDS], f"... ({len(texts) - 2 * _ENDS} more)", *texts[-_ENDS:]]
    return f"{box.value}\n" + ", ".join(texts)


_ENDS = 3


def _arrow_words(graph: Graph, arrow: Arrow) -> str:
    if len(arrow.edges) > 1:
        return "\n".join(
            [f"{len(arrow.edges)} edges, drawn as one:", *(_edge_words(graph, e) for e in arrow.edges[:6])]
        )
    return _edge_words(graph, arrow.edges[0])


def _edge_words(graph: Graph, ends: tuple[str, str]) -> str:
    edge = graph.edges[ends]
    source, target, output = graph.nodes[edge.source], graph.nodes[edge.target], graph.output
    local = factor(edge.local, np.ndim(source.value))
    rule = local_rule(graph, edge, "unicode") or f"∂{edge.target}/∂{edge.source}: {local}"
    return (
        f"{rule}   {edge.note}\n"
        f"its share of d{output}/d{edge.source}: d{output}/d{edge.target} · ∂{edge.target}/∂{edge.source} = "
        f"{number(target.grad)} · {local} = {number(edge.contribution)}"
    )
