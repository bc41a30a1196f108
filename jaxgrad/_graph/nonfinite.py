"""Where NaN or infinity begins in a graph, forward and backward."""

from typing import Any, NamedTuple

import numpy as np

from jaxgrad._graph.graph import Graph


class Nonfinite(NamedTuple):
    """The first number of a computation that is NaN or infinite.

    Attributes:
      label: "log" for the value of a node, "log.grad" for its gradient.
      operation: the node whose operation makes it: of a gradient, the node that it comes back through.
      where: file and line of that operation, "model.py:12"; "" where it is not known.
    """

    label: str
    operation: str
    where: str

    def __str__(self) -> str:
        by = "" if self.label == self.operation else f", by {self.operation}"
        return f"{self.label}{by}" + (f" ({self.where})" if self.where else "")


def first_nonfinite(graph: Graph) -> Nonfinite | None:
    """The first value in program order, or else the first gradient from the output back; None if all are finite."""
    for name, node in graph.nodes.items():
        if not _finite(node.value):
            return Nonfinite(name, name, node.where)
    for name, node in reversed(list(graph.nodes.items())):
        if node.grad is not None and not _finite(node.grad):
            edges = graph.out_of[name]
            wrong = [edge.target for edge in edges if not _finite(edge.local) or not _finite(edge.contribution)]
            by = (*wrong, *(edge.target for edge in edges), name)[0]
            return Nonfinite(f"{name}.grad", by, graph.nodes[by].where)
    return None


def _finite(value: Any) -> bool:
    array = np.asarray(0 if value is None else value)
    return not np.issubdtype(array.dtype, np.inexact) or bool(np.isfinite(array).all())
