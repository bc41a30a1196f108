"""Where every box of a graph stands, the channels between them, and the arrows through these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from jaxgrad._graph.draw.layers import across
from jaxgrad._graph.draw.picture import LABEL_CHAR, Box, Ends, Point, loop_room

_MARGIN = 24.0
_HEAD = 6.0  # the head of an arrow ends so far before its box


@dataclass(frozen=True)
class Grid:
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


def make_grid(
    boxes: Mapping[str, Box], labels: Mapping[Ends, str], chains: Mapping[Ends, Sequence[str]], rows: list[list[str]],
    *, downward: bool,
) -> Grid:  # fmt: skip
    names = [name for row in rows for name in row]
    looped = {a: loop_room(label, downward) for (a, b), label in labels.items() if a == b}
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
    return Grid(downward, chains, layer, place, deep, wide, starts, ends, ends[-1] + _MARGIN, high - low)


def _passes(chain: Sequence[str], layer: Mapping[str, int], i: int) -> bool:
    """Does an arrow pass the channel after a layer?"""
    return any({layer[a], layer[b]} == {i, i + 1} for a, b in pairwise(chain))


def _room(labels: Sequence[str], downward: bool) -> float:
    """How long the channel after a layer is, so that its labels find a place."""
    longest = LABEL_CHAR * max([4, *map(len, labels)])
    return 46.0 + 15.0 * min(len(labels), 8) ** 0.5 if downward else 44.0 + longest


def spread_ports(grid: Grid) -> dict[tuple[Ends, int], float]:
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
