"""Where the boxes and arrows of a graph stand: a layered layout, what is too much to read folded.

Layers, dummy boxes where an arrow passes a layer, and barycentres to order each layer: Sugiyama, Tagawa and Toda,
Methods for visual understanding of hierarchical system structures, 1981.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from jaxgrad.explain import number
from jaxgrad.graph import Edge, Graph, Node

MOST_BOXES = 40
_ENDS = 8  # intermediates that stay at either end where the rest is folded
_FONT, _LINE, _PAD = 13, 19, 10
_CHAR = 0.61 * _FONT  # a monospaced character is so wide
LABEL_CHAR = 0.61 * 11
_MOST_CHARS = 34

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A node, or nodes folded into one, with its centre and size."""

    name: str
    kind: str
    value: str
    grad: str
    folded: tuple[str, ...]
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0


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
    """Places a graph; of more than 40 nodes, what is in the middle is folded into one box.

    Args:
      graph: any graph; an edge from a node to itself is a loop.

    Returns:
      Boxes and arrows; those folded say how many they are.
    """
    groups = _folded(graph)
    boxes = {members[0]: _box(graph, members) for members in groups}
    home = {name: members[0] for members in groups for name in members}
    edges: dict[tuple[str, str], list[Edge]] = {}
    for edge in graph.edges.values():
        ends = home[edge.source], home[edge.target]
        if ends[0] != ends[1] or edge.source == edge.target:
            edges.setdefault(ends, []).append(edge)
    return _placed(boxes, edges)


def _folded(graph: Graph) -> list[tuple[str, ...]]:
    """The graph's nodes in program order, in groups that become one box each; mostly of one node."""
    nodes = list(graph.nodes.values())
    if len(nodes) <= MOST_BOXES:
        return [(node.name,) for node in nodes]
    # Neighbours in program order can be one box: no arrow leads from what is after them to what is before.
    arguments = [node.name for node in nodes if node.kind == "argument"]
    rest = [node.name for node in nodes if node.kind != "argument"]
    return _fold_middle(_by_stem(arguments), 6) + _fold_middle([(name,) for name in rest], _ENDS)


def _by_stem(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Elements of one array together: w0, w1, ... or w[0,0], w[0,1], ..."""
    groups: dict[str, list[str]] = {}
    for name in names:
        stem = name.rpartition("[")[0] if name.endswith("]") else name.rstrip("0123456789")
        groups.setdefault(stem or name, []).append(name)
    return [tuple(group) for group in groups.values()]


def _fold_middle(groups: list[tuple[str, ...]], ends: int) -> list[tuple[str, ...]]:
    if len(groups) <= 2 * ends + 1:
        return groups
    middle = tuple(name for group in groups[ends:-ends] for name in group)
    return [*groups[:ends], middle, *groups[-ends:]]


def _box(graph: Graph, members: Sequence[str]) -> Box:
    nodes = [graph.nodes[name] for name in members]
    if len(nodes) == 1:
        (node,) = nodes
        box = Box(node.name, node.kind, _equal(node.name, node.value), _gradient(graph, node), ())
    else:
        kind = nodes[0].kind
        what = {"argument": "arguments", "operation": "operations"}.get(kind, "nodes")
        text = f"{nodes[0].name} ... {nodes[-1].name}"
        box = Box(members[0], kind, _short(text), f"{len(nodes)} {what}", tuple(members))
    chars = max(len(box.value), len(box.grad))
    lines = 2 if box.grad else 1
    return Box(
        *(box.name, box.kind, box.value, box.grad, box.folded),
        width=chars * _CHAR + 2 * _PAD,
        height=lines * _LINE + 2 * _PAD - 4,
    )


def _equal(name: str, value: object) -> str:
    return f"{_short(name, 18)} = {number(value)}"


def _gradient(graph: Graph, node: Node) -> str:
    if node.grad is None:
        return "no gradient"
    return f"d{_short(graph.output, 10)}/d{_short(node.name, 14)} = {number(node.grad)}"


def _short(text: str, most: int = _MOST_CHARS) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _label(edges: Sequence[Edge]) -> str:
    if len(edges) > 1:
        return f"{len(edges)} edges"
    return number(edges[0].local) if edges[0].local is not None else "not kept"


def _placed(boxes: Mapping[str, Box], edges: Mapping[tuple[str, str], Sequence[Edge]]) -> Layout:
    labels = {ends: _label(several) for ends, several in edges.items()}
    of = {ends: tuple((edge.source, edge.target) for edge in several) for ends, several in edges.items()}
    layer = _layers(list(boxes), [ends for ends in labels if ends[0] != ends[1]])
    downward = max(layer.values(), default=0) > 6
    chains, rows = _with_dummies(layer, labels)
    _order(rows, chains)

    def along(name: str) -> float:  # a box's size in the direction of the arrows
        box = boxes.get(name)
        return 0.0 if box is None else box.height if downward else box.width

    def across(name: str) -> float:
        box = boxes.get(name)
        return 24.0 if box is None else box.width if downward else box.height

    place = _across(rows, chains, across, gap=26.0 if downward else 20.0)
    room = 62.0 if downward else 44.0 + LABEL_CHAR * max([4, *(min(len(label), 24) for label in labels.values())])
    starts, at = [], 24.0
    for row in rows:
        deep = max(along(name) for name in row)
        starts.append(at + deep / 2)
        at += deep + room
    low = min(place[name] - across(name) / 2 for name in place) - 24.0
    high = max(place[name] + across(name) / 2 for name in place) + 24.0
    loops = 40.0 if any(a == b for a, b in labels) else 0.0

    def point(row: int, across_: float, offset: float = 0.0) -> Point:
        a, c = starts[row] + offset, across_ - low + loops
        return (c, a) if downward else (a, c)

    level = {name: i for i, row in enumerate(rows) for name in row}
    placed = {}
    for name, box in boxes.items():
        x, y = point(level[name], place[name])
        placed[name] = Box(box.name, box.kind, box.value, box.grad, box.folded, x, y, box.width, box.height)
    out_of, into = Counter(a for a, _ in labels), Counter(b for _, b in labels)
    arrows = []
    for ends, label in labels.items():
        if ends[0] == ends[1]:
            arrows.append(_loop(placed[ends[0]], label, of[ends]))
            continue
        chain = chains[ends]
        first = point(level[chain[0]], place[chain[0]], along(chain[0]) / 2)
        last = point(level[chain[-1]], place[chain[-1]], -along(chain[-1]) / 2 - 5)
        points = (first, *(point(level[name], place[name]) for name in chain[1:-1]), last)
        late = out_of[ends[0]] > into[ends[1]]
        arrows.append(Arrow(*ends, label, of[ends], _curve(points, downward), _beside(points, downward, late)))
    length, breadth = at - room + 24.0, high - low + loops
    loop_room = max([0.0, *(len(label) * LABEL_CHAR for (a, b), label in labels.items() if a == b)])
    size = (breadth + loop_room, length) if downward else (length, breadth)
    return Layout(tuple(placed.values()), tuple(arrows), *size, downward)


def _layers(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """A layer for each box: one past those that it is computed from; an argument's is just before its first use."""
    into: dict[str, list[str]] = {name: [] for name in names}
    out: dict[str, list[str]] = {name: [] for name in names}
    for source, target in edges:
        into[target].append(source)
        out[source].append(target)
    place = {name: i for i, name in enumerate(names)}
    layer: dict[str, int] = {}
    for name in names:  # program order; an arrow backward, from a later step of a loop, counts for nothing
        layer[name] = max((layer[source] + 1 for source in into[name] if place[source] < place[name]), default=0)
    for name in names:
        later = [layer[target] for target in out[name] if place[target] > place[name]]
        if not into[name] and later:
            layer[name] = min(later) - 1
    lowest = min(layer.values(), default=0)
    return {name: depth - lowest for name, depth in layer.items()}


def _with_dummies(
    layer: Mapping[str, int], ends: Iterable[tuple[str, str]]
) -> tuple[dict[tuple[str, str], list[str]], list[list[str]]]:
    """Each arrow as a chain of boxes in successive layers, and the layers with those that stand for nothing."""
    rows: list[list[str]] = [[] for _ in range(max(layer.values(), default=0) + 1)]
    for name, depth in layer.items():
        rows[depth].append(name)
    chains = {}
    for source, target in ends:
        first, last = layer[source], layer[target]
        step = 1 if last > first else -1
        dummies = [(f"\0{source}\0{target}\0{i}", i) for i in range(first + step, last, step)]
        for name, depth in dummies:
            rows[depth].append(name)
        chains[source, target] = [source, *(name for name, _ in dummies), target]
    return chains, [row for row in rows if row]


def _order(rows: list[list[str]], chains: Mapping[tuple[str, str], Sequence[str]]) -> None:
    """Sorts each layer by the mean place of its neighbours, there and back, so that few arrows cross."""
    near = _neighbours(chains)
    for sweep in range(8):
        place = {name: i / max(1, len(row) - 1) if len(row) > 1 else 0.5 for row in rows for i, name in enumerate(row)}
        for row in rows if sweep % 2 == 0 else reversed(rows):
            mean = {name: sum(place[n] for n in near.get(name, [name])) / len(near.get(name, [name])) for name in row}
            row.sort(key=lambda name, mean=mean: mean[name])  # type: ignore[misc]
            for i, name in enumerate(row):
                place[name] = i / (len(row) - 1) if len(row) > 1 else 0.5


def _neighbours(chains: Mapping[tuple[str, str], Sequence[str]]) -> dict[str, list[str]]:
    near: dict[str, list[str]] = {}
    for chain in chains.values():
        for a, b in pairwise(chain):
            near.setdefault(a, []).append(b)
            near.setdefault(b, []).append(a)
    return near


def _across(
    rows: Sequence[Sequence[str]],
    chains: Mapping[tuple[str, str], Sequence[str]],
    measure: Callable[[str], float],
    gap: float,
) -> dict[str, float]:
    """A coordinate for each box in its layer: near its neighbours, never on another."""
    near = _neighbours(chains)
    place: dict[str, float] = {}
    for row in rows:
        total = sum(measure(name) + gap for name in row)
        at = -total / 2
        for name in row:
            place[name] = at + (measure(name) + gap) / 2
            at += measure(name) + gap
    for sweep in range(12):
        for row in rows if sweep % 2 == 0 else list(reversed(rows)):
            wish = [
                sum(place[n] for n in near[name]) / len(near[name]) if name in near else place[name] for name in row
            ]
            place.update(zip(row, _apart(wish, [measure(name) + gap for name in row]), strict=True))
    return place


def _apart(wishes: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """The places nearest to those wished for, in order, at which no two overlap: pool the neighbours that do."""
    blocks: list[tuple[float, float, int]] = []  # sum of wished starts, total size, how many
    for wish, size in zip(wishes, sizes, strict=True):
        block = (wish - size / 2, size, 1)
        while blocks and blocks[-1][0] / blocks[-1][2] + blocks[-1][1] > block[0] / block[2]:
            total, length, n = blocks.pop()
            block = (total + block[0] - block[2] * length, length + block[1], n + block[2])
        blocks.append(block)
    places, i = [], 0
    for total, _, n in blocks:
        at = total / n
        for size in sizes[i : i + n]:
            places.append(at + size / 2)
            at += size
        i += n
    return places


def _curve(points: Sequence[Point], downward: bool) -> tuple[Point, ...]:
    """Cubic curves through points, each leaving and arriving in the direction of the layers."""
    found = [points[0]]
    for (x0, y0), (x1, y1) in pairwise(points):
        if downward:
            found += [(x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2), (x1, y1)]
        else:
            found += [((x0 + x1) / 2, y0), ((x0 + x1) / 2, y1), (x1, y1)]
    return tuple(found)


def _beside(points: Sequence[Point], downward: bool, late: bool) -> Point:
    """Where an arrow's label stands: nearer to its source, or to its target if fewer arrows meet there (`late`)."""
    (x0, y0), (x1, y1) = points[-2:] if late else points[:2]
    t = 0.6 if late else 0.36
    along, across = 1.5 * t * (1 - t) + t**3, 3 * t**2 - 2 * t**3
    if downward:
        return x0 + (x1 - x0) * across, y0 + (y1 - y0) * along
    return x0 + (x1 - x0) * along, y0 + (y1 - y0) * across


def _loop(box: Box, label: str, edges: tuple[tuple[str, str], ...]) -> Arrow:
    """An arrow from a box to itself, above its upper right corner."""
    right, top = box.x + box.width / 2, box.y - box.height / 2
    points = ((right - 14, top), (right - 14, top - 34), (right - 64, top - 34), (right - 64, top - 5))
    return Arrow(box.name, box.name, label, edges, points, (right - 39, top - 28))
