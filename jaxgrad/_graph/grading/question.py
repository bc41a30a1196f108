"""Which derivative an answer is for, and the true one."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._graph.graph import Graph

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Close = Callable[[Array, Array], Array]  # (got, want) -> whether each element is right


class Question(NamedTuple):
    """What was asked for.

    Attributes:
      source, target: of the derivative.
      want: the true one.
      total: is it along every path, not the local one?
    """

    source: str
    target: str
    want: Array
    total: bool

    @property
    def text(self) -> str:
        return f"d{self.target}/d{self.source}"


def question(graph: Graph, key: Any) -> Question:
    if isinstance(key, str):
        return _total(graph, key)
    if not isinstance(key, tuple) or len(key) != 2:
        raise InputError(
            f'an answer is for {key!r}; expected a pair (source, target), as ("z", "k") for dk/dz, or a node, as "z".'
        )
    source, target = key
    if source in graph.arrays and source not in graph.nodes:
        return Question(source, target, _whole(graph, source, target), total=False)
    graph.node(source), graph.node(target)
    edge = graph.edges[key]
    if edge.local is None:
        raise InputError(f"the edge from {source!r} to {target!r} cannot be graded: {edge.note}.")
    return Question(source, target, np.asarray(edge.local), total=False)


def _total(graph: Graph, name: str) -> Question:
    """The gradient of a node, or of an argument whose elements are nodes."""
    if name in graph.arrays and name not in graph.nodes:
        shape, names = graph.arrays[name]
        want = np.array([graph.nodes[element].grad for element in names]).reshape(shape)
        return Question(name, graph.output, want, total=True)
    if name not in graph.nodes and "/" in name:
        raise InputError(f'an answer is for {name!r}; expected a pair (source, target), or a node, as "z" for df/dz.')
    node = graph.node(name)
    if node.grad is None:
        raise InputError(f"the gradient of {name!r} cannot be graded: {node.note}.")
    return Question(name, graph.output, np.asarray(node.grad), total=True)


def _whole(graph: Graph, source: str, target: str) -> Array:
    """The local derivative with respect to an argument whose elements are nodes."""
    shape, names = graph.arrays[source]
    node = graph.node(target)
    edges = [graph.edges.get((name, target)) for name in names]
    if not any(edges):
        raise InputError(f"there is no edge from {source!r} to {target!r}.")
    zeros = np.zeros(np.shape(node.value), getattr(node.value, "dtype", float))
    columns = [zeros if edge is None else edge.local for edge in edges]
    if any(column is None for column in columns):
        raise InputError(f"the edges from {source!r} to {target!r} cannot be graded: they are not kept.")
    stacked = np.stack([np.asarray(column) for column in columns], axis=-1)
    return stacked.reshape(*zeros.shape, *shape)
