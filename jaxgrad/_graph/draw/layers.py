"""A layered drawing of boxes and arrows: in which layer each box stands, and where in it.

Layers, dummy boxes where an arrow passes a layer, and barycentres to order each layer: Sugiyama, Tagawa and Toda,
Methods for visual understanding of hierarchical system structures, 1981.
"""

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


def order(rows: list[list[str]], chains: Mapping[tuple[str, str], Sequence[str]]) -> None:
    """Sorts each layer by the mean place of its neighbours, there and back, so that few arrows cross."""
    near = _neighbours(chains)
    for sweep in range(8):
        place = {name: i / max(1, len(row) - 1) if len(row) > 1 else 0.5 for row in rows for i, name in enumerate(row)}
        for row in rows if sweep % 2 == 0 else reversed(rows):
            mean = {name: sum(place[n] for n in near.get(name, [name])) / len(near.get(name, [name])) for name in row}
            row.sort(key=lambda name, mean=mean: mean[name])  # type: ignore[misc]
            for i, name in enumerate(row):
                place[name] = i / (len(row) - 1) if len(row) > 1 else 0.5


def across(
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


def _neighbours(chains: Mapping[tuple[str, str], Sequence[str]]) -> dict[str, list[str]]:
    near: dict[str, list[str]] = {}
    for chain in chains.values():
        for a, b in pairwise(chain):
            near.setdefault(a, []).append(b)
            near.setdefault(b, []).append(a)
    return near


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
