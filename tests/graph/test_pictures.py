"""Fourteen graphs that people draw: what is wrong with their pictures is counted, and it is nothing."""

import pytest

from helpers.pictures import GRAPHS, count, faults, label_rect, overlap, rect
from jaxgrad._graph.draw.layout import layout

# What Graphviz 2.50's dot (pygraphviz 2.0.4) makes of the same boxes and labels.
GRAPHVIZ = {
    "neuron": 0, "mazur": 4, "mazur by vectors": 0, "micrograd": 3, "cs231n product": 0, "cs231n max": 0,
    "cs231n sigmoids": 1, "mlp of 8": 0, "attention": 1, "attention by elements": 87, "scan": 0, "rnn": 11,
    "residual": 0, "200 nodes": 6,
}  # fmt: skip
# Three inputs that two boxes share cross three times between two layers, here twice: dot turns one of them around.
MOST = {name: crossings * 1.2 for name, crossings in GRAPHVIZ.items()} | {"mazur": 6}


@pytest.fixture(scope="module", params=GRAPHS)
def placed(request):
    return request.param, layout(GRAPHS[request.param]())


def test_no_label_stands_on_a_box_or_a_label_and_no_arrow_goes_through_a_box(placed):
    assert list(faults(placed[1])) == []


def test_few_arrows_cross(placed):
    name, picture = placed
    assert count(picture)["crossings"] <= MOST[name]


def test_arrows_start_and_end_at_the_edges_of_their_boxes(placed):
    boxes = {box.name: box for box in placed[1].boxes}
    for arrow in placed[1].arrows:
        for name, (x, y) in ((arrow.source, arrow.points[0]), (arrow.target, arrow.points[-1])):
            left, top, right, bottom = rect(boxes[name], 6)
            assert left <= x <= right
            assert top <= y <= bottom
            left, top, right, bottom = rect(boxes[name], -1)
            assert not (left < x < right and top < y < bottom)


def test_faults_are_seen():
    picture = layout(GRAPHS["neuron"]())
    first, *rest = picture.boxes
    arrow = next(arrow for arrow in picture.arrows if arrow.source == first.name)
    moved = type(arrow)(**{**vars(arrow), "at": (rest[0].x, rest[0].y)})
    assert overlap(label_rect(moved), rect(rest[0]))
    wrong = type(picture)(picture.boxes, (moved, moved, *picture.arrows[1:]), picture.width, picture.height, False)
    assert {kind for kind, _ in faults(wrong)} == {"label on a box", "label on a label"}
