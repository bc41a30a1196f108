"""A layered drawing of boxes and arrows: in which layer each box stands, and where in it.

Layers, dummy boxes where an arrow passes a layer, and barycentres to order each layer: Sugiyama, Tagawa and Toda,
Methods for visual understanding of hierarchical system structures, 1981.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise


def layers(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
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
    alone = [name for name in names if not into[name] and not out[name]]
    last = max((layer[name] for name in names if name not in alone), default=0)
    layer |= dict.fromkeys(alone, last)  # what leads nowhere stands aside, beside the output
    lowest = min(layer.values(), default=0)
    return {name: depth - lowest for name, depth in layer.items()}


def with_dummies(
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


Rows = list[list[str]]


def order(rows: Rows, chains: Mapping[tuple[str, str], Sequence[str]]) -> None:
    """Sorts each layer so that few arrows cross: barycentres there and back, neighbours swapped, the best of all kept.

    Gansner, Koutsofios, North and Vo, A technique for drawing directed graphs, 1993.
    """
    before, after = _sides(chains)
    best, fewest = [list(row) for row in rows], crossings(rows, after)
    shuffled = random.Random(0)
    starts = [rows, [row[::-1] for row in rows]]
    starts += [[shuffled.sample(row, len(row)) for row in rows] for _ in range(_STARTS)]
    for start in starts:
        tried = [list(row) for row in start]
        for sweep in range(_SWEEPS):
            if not fewest:
                break
            near = before if sweep % 2 == 0 else after
            for row, beside in _in_order(tried, sweep % 2 == 0):
                place = {name: i for i, name in enumerate(beside)}
                _by_barycentre(row, {name: [place[n] for n in near.get(name, []) if n in place] for name in row})
            _swap(tried, before, after)
            count = crossings(tried, after)
            if count < fewest:
                best, fewest = [list(row) for row in tried], count
    rows[:] = best


_SWEEPS, _STARTS = 12, 8
Sides = Mapping[str, Sequence[str]]  # a box -> those beside it in the next layer, or the one before


def _sides(chains: Mapping[tuple[str, str], Sequence[str]]) -> tuple[Sides, Sides]:
    """For each box those that arrows lead from, and to, in the layers beside its own."""
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    for (source, target), chain in chains.items():
        for a, b in pairwise(chain):
            if source != target:
                after.setdefault(a, []).append(b)
                before.setdefault(b, []).append(a)
    return before, after


def _in_order(rows: Rows, forward: bool) -> list[tuple[list[str], list[str]]]:
    """Each layer with the one that it is sorted by."""
    return list(zip(rows[1:], rows, strict=False)) if forward else list(zip(rows[-2::-1], rows[:0:-1], strict=True))


def _by_barycentre(row: list[str], places: Mapping[str, Sequence[int]]) -> None:
    """Sorts those that have neighbours by their mean place; the others stay where they are."""
    movable = sorted((name for name in row if places[name]), key=lambda name: sum(places[name]) / len(places[name]))
    at = iter(movable)
    row[:] = [next(at) if places[name] else name for name in row]


def crossings(rows: Rows, after: Sides) -> int:
    """How many arrows cross between layers in this order."""
    total = 0
    for row, beside in pairwise(rows):
        place = {name: i for i, name in enumerate(beside)}
        ends = [
            place[n] for name in row for n in sorted(after.get(name, []), key=lambda n: place.get(n, 0)) if n in place
        ]
        total += sum(a > b for i, a in enumerate(ends) for b in ends[i + 1 :])
    # Arrows back, from a later step of a loop, lead from a row to the one before.
    return total


def _swap(rows: Rows, before: Sides, after: Sides) -> None:
    """Swaps neighbours in a layer as long as fewer arrows cross."""
    place = {name: i for row in rows for i, name in enumerate(row)}

    def cross(a: str, b: str) -> int:
        """How many arrows of `a` and `b` cross where `a` stands before `b`."""
        return sum(place[m] > place[n] for side in (before, after) for m in side.get(a, []) for n in side.get(b, []))

    for _ in range(4):
        swapped = False
        for row in rows:
            for i in range(len(row) - 1):
                a, b = row[i], row[i + 1]
                if cross(a, b) > cross(b, a):
                    row[i], row[i + 1], swapped = b, a, True
                    place[a], place[b] = i + 1, i
        if not swapped:
            return


def across(
    rows: Sequence[Sequence[str]],
    chains: Mapping[tuple[str, str], Sequence[str]],
    measure: Callable[[str], float],
    gap: float,
) -> dict[str, float]:
    """A coordinate for each box in its layer: near its neighbours, never on another."""
    near = _neighbours(chains)
    # What has one neighbour follows it, and pulls little: weights on one side would bend the chain of layers else.
    pull = {name: 1.0 if len(beside) > 1 else 0.02 for name, beside in near.items()}
    place: dict[str, float] = {}
    for row in rows:
        total = sum(measure(name) + gap for name in row)
        at = -total / 2
        for name in row:
            place[name] = at + (measure(name) + gap) / 2
            at += measure(name) + gap
    for sweep in range(12):
        for row in rows if sweep % 2 == 0 else list(reversed(rows)):
            wish = [_mean(place, pull, near[name]) if name in near else place[name] for name in row]
            pulls = [pull.get(name, 1.0) for name in row]
            place.update(zip(row, _apart(wish, [measure(name) + gap for name in row], pulls), strict=True))
    return place


def _mean(place: Mapping[str, float], pull: Mapping[str, float], names: Sequence[str]) -> float:
    return sum(pull[name] * place[name] for name in names) / sum(pull[name] for name in names)


def _neighbours(chains: Mapping[tuple[str, str], Sequence[str]]) -> dict[str, list[str]]:
    near: dict[str, list[str]] = {}
    for chain in chains.values():
        for a, b in pairwise(chain):
            near.setdefault(a, []).append(b)
            near.setdefault(b, []).append(a)
    return near


def _apart(wishes: Sequence[float], sizes: Sequence[float], pulls: Sequence[float]) -> list[float]:
    """The places nearest to those wished for, in order, at which no two overlap: pool the neighbours that do."""
    blocks: list[tuple[float, float, float, int]] = []  # sum of wished starts, of pulls, total size, how many
    for wish, size, pull in zip(wishes, sizes, pulls, strict=True):
        block = (pull * (wish - size / 2), pull, size, 1)
        while blocks and blocks[-1][0] / blocks[-1][1] + blocks[-1][2] > block[0] / block[1]:
            total, weight, length, n = blocks.pop()
            block = (total + block[0] - block[1] * length, weight + block[1], length + block[2], n + block[3])
        blocks.append(block)
    places, i = [], 0
    for total, weight, _, n in blocks:
        at = total / weight
        for size in sizes[i : i + n]:
            places.append(at + size / 2)
            at += size
        i += n
    return places
