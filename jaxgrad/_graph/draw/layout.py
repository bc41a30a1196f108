"""Where the boxes and arrows of a graph stand, and what is written on them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from jaxgrad._graph.draw.fold import Group, fold
from jaxgrad._graph.draw.layers import across, layers, order, with_dummies
from jaxgrad._graph.graph import Edge, Graph, Node
from jaxgrad._graph.numbers import factor, number
from jaxgrad._types import Value

_FONT, LINE, _PAD, _MARGIN = 13, 19, 10, 24.0
_CHAR = 0.61 * _FONT  # a monospaced character is so wide
LABEL_CHAR = 0.61 * 11
_WIDEST = 1100.0  # a picture that would be longer leads down, not to the right
_HEAD = 6.0  # the head of an arrow ends so far before its box
_MOST_LABEL, _MOST_NUMBER = 22, 24  # characters of a local derivative, and of a number in a box
Point = tuple[float, float]
Ends = tuple[str, str]
_Rect = tuple[float, float, float, float]  # centre, width and height


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
    return _placed(graph, boxes, edges)


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


@dataclass(frozen=True)
class _Grid:
    """Where every box stands, and the channels between layers, in which arrows turn and labels stand.

    Attributes:
      downward: do the arrows lead down, not to the right?
      chains: each arrow as boxes in successive layers, with dummies on the way of long ones.
      layer: of each box and dummy.
      across: its coordinate across the arrows' direction.
      deep, wide: its sizes along that direction and across it; 0 deep for dummies.
      starts, ends: of each layer, along.
      length, breadth: of the page.
    """

    downward: bool
    chains: Mapping[Ends, Sequence[str]]
    layer: Mapping[str, int]
    across: Mapping[str, float]
    deep: Mapping[str, float]
    wide: Mapping[str, float]
    starts: Sequence[float]
    ends: Sequence[float]
    length: float
    breadth: float

    def xy(self, along: float, across: float) -> Point:
        return (across, along) if self.downward else (along, across)

    def centre(self, name: str) -> Point:
        i = self.layer[name]
        return self.xy((self.starts[i] + self.ends[i]) / 2, self.across[name])

    def steps(self, ends: Ends, ports: Mapping[tuple[Ends, int], float]) -> list[tuple[Point, Point]]:
        """The pieces of an arrow in the channels between layers, each from its first point to its last."""
        chain = self.chains[ends]
        places = [self.across[name] for name in chain]
        places[0] += ports[ends, 0]
        places[-1] += ports[ends, 1]
        pieces = []
        for (a, x), (b, y) in pairwise(zip(chain, places, strict=True)):
            forward = self.layer[b] > self.layer[a]
            start = self.ends[self.layer[a]] if forward else self.starts[self.layer[a]]
            stop = self.starts[self.layer[b]] - _HEAD if forward else self.ends[self.layer[b]] + _HEAD
            pieces.append((self.xy(start, x), self.xy(stop, y)))
        return pieces

    def curve(self, ends: Ends, ports: Mapping[tuple[Ends, int], float]) -> tuple[Point, ...]:
        """Cubic curves from the edge of a box to the edge of another: they turn in the channels, else are straight."""
        pieces = self.steps(ends, ports)
        first, last = self._edge(ends, 0, pieces[0][0]), self._edge(ends, -1, pieces[-1][1])
        points = [first]
        for start, stop in pieces:
            points += _straight(points[-1], start) + self._turn(start, stop)
        return tuple(points + _straight(points[-1], last))

    def _edge(self, ends: Ends, i: int, towards: Point) -> Point:
        """Where an arrow leaves or meets a box, opposite of where it enters or leaves its layer; heads end before."""
        name = ends[i]
        at, across = (towards[1], towards[0]) if self.downward else towards
        middle = (self.starts[self.layer[name]] + self.ends[self.layer[name]]) / 2
        side = 1 if at > middle else -1
        return self.xy(middle + side * (self.deep[name] / 2 + (_HEAD - 1 if i else 0)), across)

    def _turn(self, start: Point, stop: Point) -> list[Point]:
        (x0, y0), (x1, y1) = start, stop
        if self.downward:
            return [(x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2), stop]
        return [((x0 + x1) / 2, y0), ((x0 + x1) / 2, y1), stop]


def _straight(a: Point, b: Point) -> list[Point]:
    """A straight line as a cubic curve."""
    (x0, y0), (x1, y1) = a, b
    return [((2 * x0 + x1) / 3, (2 * y0 + y1) / 3), ((x0 + 2 * x1) / 3, (y0 + 2 * y1) / 3), b]


def _placed(graph: Graph, boxes: Mapping[str, Box], edges: Mapping[Ends, Sequence[Edge]]) -> Layout:
    labels = {ends: _label(graph, several) for ends, several in edges.items()}
    layer = layers(list(boxes), [ends for ends in labels if ends[0] != ends[1]])
    chains, rows = with_dummies(layer, labels)
    order(rows, chains)
    grid = _grid(boxes, labels, chains, rows, downward=False)
    if grid.length > _WIDEST and len(rows) > 3:
        grid = _grid(boxes, labels, chains, rows, downward=True)
    at = {name: grid.centre(name) for name in boxes}
    placed = {name: replace(box, x=at[name][0], y=at[name][1]) for name, box in boxes.items()}
    ports = _ports(grid)
    stand = _stand(grid, labels, ports, list(placed.values()))
    arrows = []
    for ends, label in labels.items():
        stands_for = tuple((edge.source, edge.target) for edge in edges[ends])
        if ends[0] == ends[1]:
            arrows.append(_loop(placed[ends[0]], label, stands_for, grid.downward))
        else:
            arrows.append(Arrow(*ends, label, stands_for, grid.curve(ends, ports), stand[ends]))
    size = (grid.breadth, grid.length) if grid.downward else (grid.length, grid.breadth)
    return Layout(tuple(placed.values()), tuple(arrows), *size, grid.downward)


def _grid(
    boxes: Mapping[str, Box], labels: Mapping[Ends, str], chains: Mapping[Ends, Sequence[str]], rows: list[list[str]],
    *, downward: bool,
) -> _Grid:  # fmt: skip
    names = [name for row in rows for name in row]
    looped = {a: _loop_room(label, downward) for (a, b), label in labels.items() if a == b}
    sizes = {name: (box.width, box.height) for name, box in boxes.items()}
    deep = {name: sizes[name][downward] if name in boxes else 0.0 for name in names}
    wide = {name: sizes[name][not downward] if name in boxes else 16.0 for name in names}
    taken = {name: wide[name] + 2 * looped.get(name, 0.0) for name in names}
    place = across(rows, chains, taken.__getitem__, gap=26.0 if downward else 20.0)
    layer = {name: i for i, row in enumerate(rows) for name in row}
    starts, ends, at = [], [], _MARGIN
    for i, row in enumerate(rows):
        starts.append(at)
        ends.append(at + max(deep[name] for name in row))
        passing = [label for chain_ends, label in labels.items() if _passes(chains[chain_ends], layer, i)]
        at = ends[-1] + _room(passing, downward)
    low = min(place[name] - taken[name] / 2 for name in place) - _MARGIN
    high = max(place[name] + taken[name] / 2 for name in place) + _MARGIN
    place = {name: where - low for name, where in place.items()}
    return _Grid(downward, chains, layer, place, deep, wide, starts, ends, ends[-1] + _MARGIN, high - low)


def _passes(chain: Sequence[str], layer: Mapping[str, int], i: int) -> bool:
    """Does an arrow pass the channel after a layer?"""
    return any({layer[a], layer[b]} == {i, i + 1} for a, b in pairwise(chain))


def _room(labels: Sequence[str], downward: bool) -> float:
    """How long the channel after a layer is, so that its labels find a place."""
    longest = LABEL_CHAR * max([4, *map(len, labels)])
    return 46.0 + 15.0 * min(len(labels), 8) ** 0.5 if downward else 44.0 + longest


def _ports(grid: _Grid) -> dict[tuple[Ends, int], float]:
    """How far from a box's middle each arrow starts and ends: they spread along its edge in the order of the others."""
    meeting: dict[tuple[str, bool, int], list[tuple[float, Ends, int]]] = {}
    for ends, chain in grid.chains.items():
        if ends[0] == ends[1]:
            continue
        for i, (here, there) in enumerate(((chain[0], chain[1]), (chain[-1], chain[-2]))):
            side = grid.layer[there] > grid.layer[here]
            meeting.setdefault((here, side, 0), []).append((grid.across[there], ends, i))
    ports = {}
    for (name, *_), arrows in meeting.items():
        space = max(0.0, grid.wide[name] - 20.0)
        step = min(14.0, space / max(1, len(arrows) - 1))
        for k, (_, ends, i) in enumerate(sorted(arrows)):
            ports[ends, i] = step * (k - (len(arrows) - 1) / 2)
    return ports


def _stand(
    grid: _Grid, labels: Mapping[Ends, str], ports: Mapping[tuple[Ends, int], float], boxes: Sequence[Box]
) -> dict[Ends, Point]:
    """Where each arrow's label stands: on the arrow, in a channel, on no box and no other label."""
    taken: list[_Rect] = [(box.x, box.y, box.width, box.height) for box in boxes]
    for box in boxes:
        if (box.name, box.name) in labels:
            x, y = _loop(box, labels[box.name, box.name], (), grid.downward).at
            taken.append((x, y, len(labels[box.name, box.name]) * LABEL_CHAR + 4, 14))
    out_of, into = Counter(a for a, _ in labels), Counter(b for _, b in labels)
    found: dict[Ends, Point] = {}
    # The longest first: a short one finds a place between long ones, not the other way round.
    for ends, label in sorted(labels.items(), key=lambda item: -len(item[1])):
        if ends[0] == ends[1]:
            continue
        late = out_of[ends[0]] > into[ends[1]]
        width = len(label) * LABEL_CHAR + 4
        places = _places(grid, grid.steps(ends, ports), late, width)
        free = (p for p in places if not any(_overlap(p, width, other) for other in taken))
        x, y = found[ends] = next(free, places[0])
        taken.append((x, y, width, 14))
    return found


def _places(grid: _Grid, pieces: Sequence[tuple[Point, Point]], late: bool, width: float) -> list[Point]:
    """Points on an arrow for its label, the best first: nearer to its source, or to its target where `late`."""
    near = [0.36, 0.45, 0.28, 0.54, 0.2, 0.62, 0.7, 0.14, 0.78, 0.86]
    found = []
    for (x0, y0), (x1, y1) in reversed(pieces) if late else pieces:
        for t in [1 - t for t in near] if late else near:
            along, across = 1.5 * t * (1 - t) + t**3, 3 * t**2 - 2 * t**3
            if grid.downward:
                found.append((x0 + (x1 - x0) * across, y0 + (y1 - y0) * along))
                continue
            least, most = sorted((x0, x1))
            x = x0 + (x1 - x0) * along
            found.append((min(max(x, least + width / 2), max(most - width / 2 - 8, least)), y0 + (y1 - y0) * across))
    return found


def _overlap(at: Point, width: float, other: _Rect) -> bool:
    x, y, w, h = other
    return abs(at[0] - x) < (width + w) / 2 and abs(at[1] - y) < (14 + h) / 2


def _loop_room(label: str, downward: bool) -> float:
    """How much room beside its box an arrow to itself takes."""
    return 44.0 + len(label) * LABEL_CHAR if downward else 48.0


def _loop(box: Box, label: str, edges: tuple[Ends, ...], downward: bool) -> Arrow:
    """An arrow from a box to itself, on a side that no other arrow meets."""
    right, top = box.x + box.width / 2, box.y - box.height / 2
    if downward:
        points = ((right, box.y + 8), (right + 38, box.y + 8), (right + 38, box.y - 8), (right + 5, box.y - 8))
        return Arrow(box.name, box.name, label, edges, points, (right + 36 + len(label) * LABEL_CHAR / 2, box.y))
    points = ((box.x + 22, top), (box.x + 22, top - 32), (box.x - 22, top - 32), (box.x - 22, top - 5))
    return Arrow(box.name, box.name, label, edges, points, (box.x, top - 32))
