"""What a picture consists of: boxes, arrows between them and from a box to itself, and the page."""

from dataclasses import dataclass

LINE = 19  # from one line of text in a box to the next, in pixels
LABEL_CHAR = 0.61 * 11  # a character of a label is so wide
Point = tuple[float, float]
Ends = tuple[str, str]


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


def loop_room(label: str, downward: bool) -> float:
    """How much room beside its box an arrow to itself takes."""
    return 44.0 + len(label) * LABEL_CHAR if downward else 48.0


def loop(box: Box, label: str, edges: tuple[Ends, ...], downward: bool) -> Arrow:
    """An arrow from a box to itself, on a side that no other arrow meets."""
    right, top = box.x + box.width / 2, box.y - box.height / 2
    if downward:
        points = ((right, box.y + 8), (right + 38, box.y + 8), (right + 38, box.y - 8), (right + 5, box.y - 8))
        return Arrow(box.name, box.name, label, edges, points, (right + 36 + len(label) * LABEL_CHAR / 2, box.y))
    points = ((box.x + 22, top), (box.x + 22, top - 32), (box.x - 22, top - 32), (box.x - 22, top - 5))
    return Arrow(box.name, box.name, label, edges, points, (box.x, top - 32))
