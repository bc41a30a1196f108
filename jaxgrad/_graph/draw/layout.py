"""Where the boxes and arrows of a graph stand, and what is written on them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from jaxgrad._graph.draw.fold import Group, fold
from jaxgrad._graph.draw.grid import make_grid, spread_ports
from jaxgrad._graph.draw.labels import place_labels
from jaxgrad._graph.draw.layers import layers, order, with_dummies
from jaxgrad._graph.draw.picture import LINE, Arrow, Box, Ends, Layout, loop
from jaxgrad._graph.graph import Edge, Graph, Node
from jaxgrad._graph.numbers import factor, number
from jaxgrad._types import Value

_PAD = 10
_CHAR = 0.61 * 13  # a character in a box is so wide, in a monospaced font
_WIDEST = 1100.0  # a picture that would be longer leads down, not to the right
_MOST_LABEL, _MOST_NUMBER = 22, 24  # characters of a local derivative, and of a number in a box


def layout(graph: Graph) -> Layout:
    """Places a graph; of more than 40 nodes, what repeats is folded into one box.

    Args:
      graph: any graph; an edge from a node to itself is a loop.

    Returns:
      Boxes and arrows; those folded say what they hold.
    """
    groups = fold(graph)
    boxes = {group.members[0]: _box(graph, group) for group in groups}
    home = {name: group.members[0] for group in groups for name in group.members}
    edges: dict[tuple[str, str], list[Edge]] = {}
    for edge in graph.edges.values():
        ends = home[edge.source], home[edge.target]
        if ends[0] != ends[1] or edge.source == edge.target:
            edges.setdefault(ends, []).append(edge)
    return _placed(graph, boxes, edges)


def _placed(graph: Graph, boxes: Mapping[str, Box], edges: Mapping[Ends, Sequence[Edge]]) -> Layout:
    labels = {ends: _label(graph, several) for ends, several in edges.items()}
    layer = layers(list(boxes), [ends for ends in labels if ends[0] != ends[1]])
    chains, rows = with_dummies(layer, labels)
    order(rows, chains)
    grid = make_grid(boxes, labels, chains, rows, downward=False)
    if grid.length > _WIDEST and len(rows) > 3:
        grid = make_grid(boxes, labels, chains, rows, downward=True)
    at = {name: grid.centre(name) for name in boxes}
    placed = {name: replace(box, x=at[name][0], y=at[name][1]) for name, box in boxes.items()}
    ports = spread_ports(grid)
    stand = place_labels(grid, labels, ports, list(placed.values()))
    arrows = []
    for ends, label in labels.items():
        stands_for = tuple((edge.source, edge.target) for edge in edges[ends])
        if ends[0] == ends[1]:
            arrows.append(loop(placed[ends[0]], label, stands_for, grid.downward))
        else:
            arrows.append(Arrow(*ends, label, stands_for, grid.curve(ends, ports), stand[ends]))
    size = (grid.breadth, grid.length) if grid.downward else (grid.length, grid.breadth)
    return Layout(tuple(placed.values()), tuple(arrows), *size, grid.downward)


def _box(graph: Graph, group: Group) -> Box:
    first, last = graph.nodes[group.members[0]], graph.nodes[group.members[-1]]
    if not group.says:
        texts = _equal(first.name, first.value), "", _gradient(graph, first)
    else:
        names = f"{_short(first.name, 12)} .. {_short(last.name, 12)}"
        values = f"{_equal(first.name, first.value)} .. {_equal(last.name, last.value)}"
        grads = f"{_gradient(graph, first)} .. {_gradient(graph, last)}"
        texts = f"{group.says}: {names}", values, grads
    lines = [text for text in texts if text]
    width, height = max(map(len, lines)) * _CHAR + 2 * _PAD, len(lines) * LINE + 2 * _PAD - 4
    if group.says and first.kind == "argument":
        width += height / 2  # its ends are round
    return Box(first.name, first.kind, *texts, group.members if group.says else (), width=width, height=height)


def _equal(name: str, value: object) -> str:
    return f"{_short(name, 18)} = {_brief(value)}"


def _brief(value: Value) -> str:
    """A number, or an array's elements where they are short; else its shape and extremes."""
    text = number(value)
    if len(text) <= _MOST_NUMBER or np.iscomplexobj(value) or not np.size(value):
        return text
    shape = "x".join(map(str, np.shape(value))) if np.ndim(value) > 1 else f"{np.size(value)} values"
    return f"({shape}, {number(np.min(value))} to {number(np.max(value))})"


def _gradient(graph: Graph, node: Node) -> str:
    if node.grad is None:
        return "no gradient"
    return f"d{_short(graph.output, 10)}/d{_short(node.name, 14)} = {_brief(node.grad)}"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _label(graph: Graph, edges: Sequence[Edge]) -> str:
    """What is written on an arrow: its local derivative, or its shape where that is long."""
    if len(edges) > 1:
        return f"{len(edges)} edges"
    local = edges[0].local
    text = factor(local, np.ndim(graph.nodes[edges[0].source].value))
    shape = np.shape(local)
    short = "x".join(map(str, shape)) if len(shape) > 1 else f"{np.size(local)} values"
    return text if len(text) <= _MOST_LABEL else short
