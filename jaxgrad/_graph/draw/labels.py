"""Where the labels of arrows stand: on no box, and on no other label."""

from collections import Counter
from collections.abc import Mapping, Sequence

from jaxgrad._graph.draw.grid import Grid
from jaxgrad._graph.draw.picture import LABEL_CHAR, Box, Ends, Point, loop

_Rect = tuple[float, float, float, float]  # centre, width and height


def place_labels(
    grid: Grid, labels: Mapping[Ends, str], ports: Mapping[tuple[Ends, int], float], boxes: Sequence[Box]
) -> dict[Ends, Point]:
    """Where each arrow's label stands: on the arrow, in a channel, on no box and no other label."""
    taken: list[_Rect] = [(box.x, box.y, box.width, box.height) for box in boxes]
    for box in boxes:
        if (box.name, box.name) in labels:
            x, y = loop(box, labels[box.name, box.name], (), grid.downward).at
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


def _places(grid: Grid, pieces: Sequence[tuple[Point, Point]], late: bool, width: float) -> list[Point]:
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
