"""Folding: what repeats is one box that says what it holds, and nothing is lost in it."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgrad._graph.draw.fold import MOST_BOXES, fold
from jaxgrad._graph.graph import Edge, Graph, Node


def made(arguments, names, ends):
    """A graph of scalars."""
    kinds = dict.fromkeys(arguments, "argument") | dict.fromkeys(names, "tag")
    nodes = {name: Node(name, kind, np.float32(1), np.float32(2)) for name, kind in kinds.items()}
    return Graph(nodes, {e: Edge(*e, np.float32(0.5), np.float32(1)) for e in ends}, names[-1])


def network(n, parts, name="layer{}.{}"):
    """n layers of the same parts, each with weights of its own, the first part skipped to the last."""
    names = [name.format(i, part) for i in range(n) for part in parts]
    k = len(parts)
    ends = [("x", names[0]), *pairwise(names), (names[-1], "loss")]
    ends += [(f"W{i}", names[k * i]) for i in range(n)]
    ends += [(names[k * i], names[k * i + k - 1]) for i in range(n) if k > 2]
    return made(["x", *(f"W{i}" for i in range(n))], [*names, "loss"], ends)


def says(graph):
    return [f"{group.says}: {group.members[0]} .. {group.members[-1]}" for group in fold(graph) if group.says]


def assert_sound(graph):
    """Each node is in one group; no arrow leads from a later group to an earlier one, as it does between no nodes."""
    groups = fold(graph)
    assert sorted(name for group in groups for name in group.members) == sorted(graph.nodes)
    assert all(bool(group.says) == (len(group.members) > 1) for group in groups)
    home = {name: i for i, group in enumerate(groups) for name in group.members}
    for source, target in graph.edges:
        assert graph.nodes[source].kind == "argument" or home[source] <= home[target]
    return groups


@pytest.mark.parametrize(
    ("graph", "want"),
    [
        (
            network(12, ["z", "k", "h", "g", "f"]),
            ["9 arguments: W2 .. W10", "9 x (layer.z, layer.k, ..., layer.f): layer2.z .. layer10.f"],
        ),
        (
            network(50, ["z", "h"], "{1}{0}"),
            ["47 arguments: W2 .. W48", "47 x (z, h): z2 .. h48"],
        ),
        (
            network(70, ["h"], "{1}[{0}]"),
            ["67 arguments: W2 .. W68", "67 x h: h[2] .. h[68]"],
        ),
        (
            network(9, [f"p_{c}" for c in "abcdefg"]),
            ["8 arguments: W1 .. W8", "8 x (layer.p_a, layer.p_b, ..., layer.p_g): layer1.p_a .. layer8.p_g"],
        ),
    ],
)
def test_equal_layers_are_one_box_with_the_first_and_last_drawn_where_they_are_short(graph, want):
    assert says(graph) == want
    assert len(assert_sound(graph)) <= MOST_BOXES


def test_up_to_40_nodes_are_all_drawn():
    graph = network(19, ["z"])
    assert len(graph.nodes) == MOST_BOXES
    assert says(graph) == []
    assert len(fold(graph)) == len(graph.nodes)


def test_a_layer_with_another_edge_is_not_folded_with_its_like():
    graph = network(20, ["z", "h"])
    odd = Edge("layer3.z", "layer9.z", np.float32(1), np.float32(1))
    other = Graph(graph.nodes, {**graph.edges, ("layer3.z", "layer9.z"): odd}, graph.output)
    assert says(graph)[1:] == ["17 x (layer.z, layer.h): layer2.z .. layer18.h"]
    folded = {name for group in assert_sound(other) if group.says for name in group.members}
    assert "layer7.z" in folded
    assert "layer9.z" not in folded


def test_names_alone_repeat_where_the_edges_do_not():
    names = [f"h{i}" for i in range(200)]
    ends = [(names[(i * i) % i], names[i]) for i in range(1, 200)] + [
        (names[i * 7919 % i], names[i]) for i in range(2, 200)
    ]
    graph = made([], names, dict.fromkeys(ends))
    assert says(graph) == ["198 x h: h1 .. h198"]


def test_what_does_not_repeat_is_folded_by_position():
    names = ["".join(chr(97 + int(d)) for d in str(i * i + 1000)) for i in range(200)]
    graph = made(["x"], names, [("x", names[0]), *pairwise(names)])
    assert says(graph) == [f"184 nodes: {names[8]} .. {names[191]}"]
    assert_sound(graph)


@settings(max_examples=50)
@given(
    words=st.lists(st.sampled_from(["a#", "b#", "c", "d"]), min_size=1, max_size=120),
    seed=st.integers(0, 99),
    n_arguments=st.integers(0, 60),
)
def test_nothing_is_lost_in_any_graph(words, seed, n_arguments):
    rng = np.random.default_rng(seed)
    names = [word.replace("#", str(i)) if "#" in word else f"{word}[{i}]" for i, word in enumerate(words)]
    arguments = [f"w{i}" for i in range(n_arguments)]
    ends = [(names[rng.integers(i)], names[i]) for i in range(1, len(names))]
    ends += [(arguments[i], names[rng.integers(len(names))]) for i in range(n_arguments)]
    groups = assert_sound(made(arguments, names, dict.fromkeys(ends)))
    assert len(groups) <= MOST_BOXES


def test_a_node_that_is_left_out_is_noticed(monkeypatch):
    whole = network(12, ["z", "k", "h", "g", "f"])
    groups = fold(whole)
    monkeypatch.setitem(globals(), "fold", lambda graph: groups[1:])
    with pytest.raises(AssertionError):
        assert_sound(whole)


def test_the_weights_of_a_layer_that_is_drawn_stand_beside_it_and_those_of_the_folded_are_one():
    groups = fold(network(12, ["z", "k", "h", "g", "f"]))
    assert [group.members[0] for group in groups if group.members[0].startswith("W")] == ["W0", "W1", "W2", "W11"]
