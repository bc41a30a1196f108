"""Where the boxes and arrows of a graph stand, and what is written on them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from jaxgrad._graph.draw.fold import Group, fold
from jaxgrad._graph.draw.layers import across, layers, order, with_dummies
from jaxgrad._graph.graph import Edge, Graph, Node
from jaxgrad._graph.numbers import number

_FONT, LINE, _PAD, _MARGIN = 13, 19, 10, 24.0
_CHAR = 0.61 * _FONT  # a monospaced character is so wide
LABEL_CHAR = 0.61 * 11
Point = tuple[float, float]
Ends = tuple[str, str]
_Label = tuple[float, float, float]  # centre and width


@dataclass(frozen=True)
class Box:
    """A node, or nodes folded into one, with its centre and size.

    Attributes:
      name, kind: of the node, or the first of those folded.
      value: what is written first: its name and value, or what is folded.
      extent: the first and last value of what is folded; "" for one node.
      grad: the gradient, or the first and last.
      folded: names of the nodes folded; none for one node.
      x, y, width, height: in pixels.
    """

    name: str
    kind: str
    value: str
    extent: str
    grad: str
    folded: tuple[str, ...]
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0

    @property
    def lines(self) -> list[tuple[str, str, float]]:
        """What is written in it: "value" or "grad", the text, and how far its middle is below the box's centre."""
        texts = [("value", self.value), ("value", self.extent), ("grad", self.grad)]
        texts = [(kind, text) for kind, text in texts if text]
        return [(kind, text, LINE * (i - (len(texts) - 1) / 2)) for i, (kind, text) in enumerate(texts)]


@dataclass(frozen=True)
class Arrow:
    """Edges that are drawn as one, mostly one: cubic curves through points, its label beside them."""

    source: str
    target: str
    label: str
    edges: tuple[tuple[str, str], ...]
    points: tuple[Point, ...]
    at: Point


@dataclass(frozen=True)
class Layout:
    """Boxes and arrows on a page of a size, in pixels."""

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    width: float
    height: float
    downward: bool


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
    return _placed(boxes, edges)


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
    return f"{_short(name, 18)} = {number(value)}"


def _gradient(graph: Graph, node: Node) -> str:
    if node.grad is None:
        return "no gradient"
    return f"d{_short(graph.output, 10)}/d{_short(node.name, 14)} = {number(node.grad)}"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _label(edges: Sequence[Edge]) -> str:
    if len(edges) > 1:
        return f"{len(edges)} edges"
    return number(edges[0].local) if edges[0].local is not None else "not kept"


class _Grid(NamedTuple):
    """Where the centre of every box stands, and of the dummies on the way of long arrows.

    Attributes:
      downward: do the arrows lead down, not to the right?
      chains: each arrow as boxes in successive layers.
      along, across: coordinates in the direction of the arrows, and across it.
      deep, wide: sizes of the boxes in those directions; 0 for dummies.
      length, breadth: of the page.
    """

    downward: bool
    chains: Mapping[Ends, Sequence[str]]
    along: Mapping[str, float]
    across: Mapping[str, float]
    deep: Mapping[str, float]
    length: float
    breadth: float

    def point(self, name: str, offset: float = 0.0) -> Point:
        along, across = self.along[name] + offset, self.across[name]
        return (across, along) if self.downward else (along, across)

    def curve(self, ends: Ends) -> list[Point]:
        """The points that an arrow goes through, from the edge of a box to the edge of another."""
        first, *inner, last = self.chains[ends]
        start, end = self.point(first, self.deep[first] / 2), self.point(last, -self.deep[last] / 2 - 5)
        return [start, *map(self.point, inner), end]


def _grid(boxes: Mapping[str, Box], labels: Mapping[Ends, str]) -> _Grid:
    layer = layers(list(boxes), [ends for ends in labels if ends[0] != ends[1]])
    downward = max(layer.values(), default=0) > 6
    chains, rows = with_dummies(layer, labels)
    order(rows, chains)
    names = [name for row in rows for name in row]
    sizes = {name: (box.width, box.height) for name, box in boxes.items()}
    deep = {name: sizes[name][downward] if name in boxes else 0.0 for name in names}
    wide = {name: sizes[name][not downward] if name in boxes else 24.0 for name in names}
    place = across(rows, chains, wide.__getitem__, gap=26.0 if downward else 20.0)
    room = 62.0 if downward else 44.0 + LABEL_CHAR * max([4, *(min(len(label), 24) for label in labels.values())])
    at, along = _MARGIN, dict[str, float]()
    for row in rows:
        most = max(deep[name] for name in row)
        along |= dict.fromkeys(row, at + most / 2)
        at += most + room
    low = min(place[name] - wide[name] / 2 for name in place) - _MARGIN
    high = max(place[name] + wide[name] / 2 for name in place) + _MARGIN
    loops = 40.0 if any(a == b for a, b in labels) else 0.0
    place = {name: where - low + loops for name, where in place.items()}
    return _Grid(downward, chains, along, place, deep, at - room + _MARGIN, high - low + loops)


def _placed(boxes: Mapping[str, Box], edges: Mapping[Ends, Sequence[Edge]]) -> Layout:
    labels = {ends: _label(several) for ends, several in edges.items()}
    grid = _grid(boxes, labels)
    at = {name: grid.point(name) for name in boxes}
    placed = {name: replace(box, x=at[name][0], y=at[name][1]) for name, box in boxes.items()}
    out_of, into = Counter(a for a, _ in labels), Counter(b for _, b in labels)
    arrows: list[Arrow] = []
    beside: list[_Label] = []
    for ends, label in labels.items():
        stands_for = tuple((edge.source, edge.target) for edge in edges[ends])
        if ends[0] == ends[1]:
            arrows.append(_loop(placed[ends[0]], label, stands_for))
            continue
        points, late = grid.curve(ends), out_of[ends[0]] > into[ends[1]]
        label_at = _beside(points, grid.downward, late, label, beside)
        arrows.append(Arrow(*ends, label, stands_for, _curve(points, grid.downward), label_at))
    loop_room = max([0.0, *(len(label) * LABEL_CHAR for (a, b), label in labels.items() if a == b)])
    size = (grid.breadth + loop_room, grid.length) if grid.downward else (grid.length, grid.breadth)
    return Layout(tuple(placed.values()), tuple(arrows), *size, grid.downward)


def _curve(points: Sequence[Point], downward: bool) -> tuple[Point, ...]:
    """Cubic curves through points, each leaving and arriving in the direction of the layers."""
    found = [points[0]]
    for (x0, y0), (x1, y1) in pairwise(points):
        if downward:
            found += [(x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2), (x1, y1)]
        else:
            found += [((x0 + x1) / 2, y0), ((x0 + x1) / 2, y1), (x1, y1)]
    return tuple(found)


def _beside(points: Sequence[Point], downward: bool, late: bool, label: str, others: list[_Label]) -> Point:
    """Where an arrow's label stands: nearer to its source, or to its target if fewer arrows meet there (`late`).

    It moves along the arrow where another label is in its way, and joins the `others`.
    """
    (x0, y0), (x1, y1) = points[-2:] if late else points[:2]
    places, width = [], len(label) * LABEL_CHAR + 4
    for t in (0.6, 0.45, 0.75, 0.85) if late else (0.36, 0.5, 0.22, 0.65):
        along, across = 1.5 * t * (1 - t) + t**3, 3 * t**2 - 2 * t**3
        if not downward:
            along, across = across, along
        places.append((x0 + (x1 - x0) * across, y0 + (y1 - y0) * along))
    free = (p for p in places if all(abs(p[0] - x) > (width + w) / 2 or abs(p[1] - y) > 14 for x, y, w in others))
    x, y = next(free, places[0])
    others.append((x, y, width))
    return x, y


def _loop(box: Box, label: str, edges: tuple[tuple[str, str], ...]) -> Arrow:
    """An arrow from a box to itself, above its upper right corner."""
    right, top = box.x + box.width / 2, box.y - box.height / 2
    points = ((right - 14, top), (right - 14, top - 34), (right - 64, top - 34), (right - 64, top - 5))
    return Arrow(box.name, box.name, label, edges, points, (right - 39, top - 28))
