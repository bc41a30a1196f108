"""Graph: a computation as named nodes, and edges that carry the local derivatives between them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jaxgrad._errors import InputError
from jaxgrad._text import did_you_mean


@dataclass(frozen=True, eq=False)
class Node:
    r"""One quantity of a computation $y = f(a)$.

    Attributes:
      name: its name, unique in its graph.
      kind: "argument", "tag", "operation" or "output".
      value: the quantity $v$, a NumPy scalar or array.
      grad: $\bar v = \partial y / \partial v$, of its shape and dtype; None where there is none.
      note: why there is no gradient, or what else there is to know; "" if nothing.
      steps: it stands in a loop or a vmap, and holds a value for each step along its first axis.
      formula: what it is computed by, as "exp(-z)"; "by matmul, tanh" where that is long; "" where it is not known.
      where: file and line of its tag or operation, as "model.py:12"; "" for an argument.
    """

    name: str
    kind: str
    value: Any
    grad: Any
    note: str = ""
    steps: bool = False
    formula: str = ""
    where: str = ""


@dataclass(frozen=True, eq=False)
class Edge:
    r"""One arrow of a computation, from the quantity $s$ to the quantity $t$ that is computed from it.

    Attributes:
      source, target: names of the nodes.
      local: $\partial t / \partial s$ with every other node held fixed, of shape `target.shape + source.shape`; None
        where it is too large to be kept, or is no array (complex numbers).
      contribution: $\bar t \, \partial t / \partial s$, what the edge adds to the source's gradient; of its shape.
      note: why there is no `local`; "" if there is one.
      formula: the local derivative in symbols, as "-exp(-z)", or the rule of a matrix product, as
        "df/dw = outer(x, df/dy)"; "" where there is no short one.
    """

    source: str
    target: str
    local: Any
    contribution: Any
    note: str = ""
    formula: str = ""


class _Nodes(dict[str, Node]):
    """Nodes by name; a name that is none is an error that names the nearest."""

    def __missing__(self, name: Any) -> Node:
        raise InputError(f"there is no node {name!r}. {did_you_mean(str(name), self)} There are: {listed(list(self))}.")


class _Edges(dict[tuple[str, str], Edge]):
    """Edges by their ends; ends without one are an error that names those that there are."""

    def __missing__(self, ends: Any) -> Edge:
        if not isinstance(ends, tuple) or len(ends) != 2:
            raise InputError(f'there is no edge {ends!r}; expected a pair (source, target), as ("z", "k") for dk/dz.')
        source, target = ends
        if (target, source) in self:
            raise InputError(f"there is no edge from {source!r} to {target!r}; write ({target!r}, {source!r}).")
        known = listed([f"({a!r}, {b!r})" for a, b in self if b == target])
        raise InputError(f"there is no edge from {source!r} to {target!r}. Edges to {target!r}: {known or 'none'}.")


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes and edges of one computation at one input.

    Attributes:
      nodes: name -> node, in program order: arguments, intermediates, the output.
      edges: (source, target) -> edge.
      output: name of the node that is the output.
      arrays: name of an argument whose elements are nodes -> its shape, and their names.
    """

    nodes: Mapping[str, Node]
    edges: Mapping[tuple[str, str], Edge]
    output: str
    arrays: Mapping[str, tuple[tuple[int, ...], tuple[str, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", _Nodes(self.nodes))
        object.__setattr__(self, "edges", _Edges(self.edges))

    def node(self, name: str) -> Node:
        """The node by that name.

        Raises:
          InputError: there is none; the text names the nearest.
        """
        return self.nodes[name if isinstance(name, str) else repr(name)]

    @cached_property
    def out_of(self) -> dict[str, list[Edge]]:
        """Name of a node -> edges that start there, the last target first: as a gradient meets them."""
        found: dict[str, list[Edge]] = {name: [] for name in self.nodes}
        for edge in self.edges.values():
            found[edge.source].append(edge)
        place = {name: i for i, name in enumerate(self.nodes)}
        return {name: sorted(edges, key=lambda edge: -place[edge.target]) for name, edges in found.items()}

    @cached_property
    def into(self) -> dict[str, list[Edge]]:
        """Name of a node -> edges that end there."""
        found: dict[str, list[Edge]] = {name: [] for name in self.nodes}
        for edge in self.edges.values():
            found[edge.target].append(edge)
        return found

    def n_paths(self, name: str) -> int | None:
        """How many paths lead from a node to the output; None if one of them can go in a circle."""
        counts: dict[str, int | None] = {}
        stack = [name]
        open_: set[str] = set()
        while stack:
            at = stack[-1]
            targets = [edge.target for edge in self.out_of[at]]
            if at not in open_ and at not in counts:
                open_.add(at)
                if at in targets or open_ & set(targets):
                    return None
                stack += [target for target in targets if target not in counts]
                continue
            stack.pop()
            if at in open_:
                open_.discard(at)
                counts[at] = sum(counts[target] or 0 for target in targets) + (at == self.output)
        return counts[name]

    def paths(self, name: str) -> list[list[Edge]]:
        """Every path from a node to the output, each from the output down to the node. None may go in a circle."""
        found = []
        growing: list[tuple[str, list[Edge]]] = [(name, [])]
        while growing:
            at, path = growing.pop()
            if at == self.output:
                found.append(path)
            growing += [(edge.target, [edge, *path]) for edge in reversed(self.out_of[at])]
        return found


def listed(names: list[str], most: int = 12) -> str:
    """Names for a message, cut off where there are many."""
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
