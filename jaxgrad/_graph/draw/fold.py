"""Which nodes of a graph are drawn as one box, where there are too many to read: those that repeat."""

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxgrad._graph.graph import Graph, Node

MOST_BOXES = 40
_FEWEST = 3  # times that something comes for it to be a repetition
_LONGEST = 64  # nodes that may make up one repetition
_MOST_KEPT = 5  # nodes of a repetition whose first and last time are drawn in full
_ENDS = 8  # groups that stay at either end, where nothing repeats
_ARGUMENT_ENDS = 6
_MOST_LOOSE = 8  # arguments that are drawn one by one
_FEW_OF_LAYER = 3  # of one layer's


class Group(NamedTuple):
    """Nodes that become one box.

    Attributes:
      members: their names, in program order; mostly one.
      says: what they are, as "12 x (z, h)"; "" for one.
    """

    members: tuple[str, ...]
    says: str = ""


class _Run(NamedTuple):
    """The same `period` tokens again and again, `length` of them in all."""

    start: int
    period: int
    length: int

    @property
    def times(self) -> int:
        return self.length // self.period


def fold(graph: Graph) -> list[Group]:
    """The graph's nodes in program order, in groups that become one box each; mostly of one node.

    Of more than 40 nodes a run of nodes that repeats by name, shape and edges becomes one group, or all of it but
    its first and last time. Where that leaves more than 40 groups, names and shapes alone have to repeat; and where
    that still does, the groups in the middle become one. A group is a run in program order, so that no arrow leads
    from what comes after it to what comes before.
    """
    nodes = list(graph.nodes.values())
    if len(nodes) <= MOST_BOXES:
        return [Group((node.name,)) for node in nodes]
    names = [node.name for node in nodes if node.kind == "argument"]
    arguments = _arguments(names)
    rest = [node for node in nodes if node.kind != "argument"]
    by_edges, by_name = _tokens(graph, rest), [token[:3] for token in _tokens(graph, rest)]
    for tokens in (by_edges, by_name):
        for keep in (_MOST_KEPT, 0):
            groups = _repeated([node.name for node in rest], tokens, keep)
            of_layers = _by_layer(graph, names, groups) if len(names) > _MOST_LOOSE else arguments
            for grouped in (of_layers, arguments):
                if len(grouped) + len(groups) <= MOST_BOXES:
                    return grouped + groups
    return _fold_middle(arguments, _ARGUMENT_ENDS) + _fold_middle(groups, _ENDS)


def stem(name: str) -> str:
    """A name without its counters: "h#" of h12, "layer#.act" of layer3.act, "w[#,#]" of w[0,1]."""
    return re.sub(r"\d+", "#", name)


def _tokens(graph: Graph, nodes: Sequence[Node]) -> list[tuple[Hashable, ...]]:
    """What each node has in common with those that it could be a repetition of; last, where its edges come from."""
    place = {node.name: i for i, node in enumerate(nodes)}
    found: list[tuple[Hashable, ...]] = []
    for i, node in enumerate(nodes):
        sources = [edge.source for edge in graph.into[node.name]]
        edges = frozenset(i - place[source] if source in place else stem(source) for source in sources)
        found.append((stem(node.name), np.shape(node.value), node.steps, edges))
    return found


def _repeated(names: Sequence[str], tokens: Sequence[Hashable], keep: int) -> list[Group]:
    """Groups of what repeats; a repetition of up to `keep` nodes has its first and last time left out of it."""
    groups, at = [], 0
    for run in (_aligned(run, names) for run in _runs(tokens)):
        start, period, count = run.start, run.period, run.times
        kept = period if period <= keep and count >= _FEWEST + 2 else 0
        first, last = start + kept, start + period * count - kept
        groups += [Group((name,)) for name in names[at:first]]
        groups.append(Group(tuple(names[first:last]), _says(names[first : first + period], (last - first) // period)))
        at = last
    return groups + [Group((name,)) for name in names[at:]]


def _runs(tokens: Sequence[Hashable]) -> list[_Run]:
    """Tokens that repeat, from left to right; of those that start at one place the run that covers the most."""
    n = len(tokens)
    alike = {}  # period -> for each place, how many tokens from there on are those one period later
    for period in range(1, min(_LONGEST, n // _FEWEST) + 1):
        lengths = [0] * (n + 1)
        for i in reversed(range(n - period)):
            lengths[i] = lengths[i + 1] + 1 if tokens[i] == tokens[i + period] else 0
        alike[period] = lengths
    runs, at = [], 0
    while at < n:
        here = [_Run(at, period, lengths[at] + period) for period, lengths in alike.items()]
        best = max(here, key=lambda run: (run.times >= _FEWEST, run.length, -run.period), default=None)
        if best is None or best.times < _FEWEST:
            at += 1
            continue
        runs.append(best)
        at += best.length
    return runs


def _aligned(run: _Run, names: Sequence[str]) -> _Run:
    """A run that starts where a counter does: layer1.z, layer1.h, not layer0.h, layer1.z."""
    start, period, length = run
    for shift in range(period):
        unit = names[start + shift : start + shift + period]
        if len({tuple(re.findall(r"\d+", name)) for name in unit}) == 1:
            return _Run(start + shift, period, length - shift)
    return run


def _says(unit: Sequence[str], count: int) -> str:
    names = [re.sub(r"\[#(,#)*\]|#", "", stem(name)).strip("._") or name for name in unit]
    if len(set(names)) == 1:
        return f"{count * len(unit)} x {names[0]}"
    return f"{count} x ({', '.join(names if len(names) <= 4 else [*names[:2], '...', names[-1]])})"


def _arguments(names: Sequence[str]) -> list[Group]:
    """One by one if they are few; else those that differ in their counters together: w0, w1, ... or w[0,0], ..."""
    if len(names) <= _MOST_LOOSE:
        return [Group((name,)) for name in names]
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(stem(name), []).append(name)
    return [_group(family, "arguments") for family in families.values()]


def _by_layer(graph: Graph, names: Sequence[str], groups: Sequence[Group]) -> list[Group]:
    """Weights by their layer: those that are used first in one box are one box, or stand one by one if they are few."""
    home = {member: i for i, group in enumerate(groups) for member in group.members}
    layers: dict[int, list[str]] = {}
    for name in names:
        first = min((home[edge.target] for edge in graph.out_of[name]), default=-1)
        layers.setdefault(first, []).append(name)
    return [
        group
        for members in layers.values()
        for group in (
            [_group(members, "arguments")] if len(members) > _FEW_OF_LAYER else [Group((name,)) for name in members]
        )
    ]


def _fold_middle(groups: list[Group], ends: int) -> list[Group]:
    """By position: those in the middle as one."""
    if len(groups) <= 2 * ends + 1:
        return groups
    middle = [name for group in groups[ends:-ends] for name in group.members]
    return [*groups[:ends], _group(middle, "nodes"), *groups[-ends:]]


def _group(members: Iterable[str], what: str) -> Group:
    members = tuple(members)
    return Group(members, f"{len(members)} {what}" if len(members) > 1 else "")
