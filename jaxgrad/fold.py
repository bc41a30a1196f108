"""fold: which nodes of a graph are drawn as one box, where there are too many to read."""

from collections.abc import Iterable

from jaxgrad.graph import Graph

MOST_BOXES = 40
_ENDS = 8  # intermediates that stay at either end where the rest is folded


def fold(graph: Graph) -> list[tuple[str, ...]]:
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
