"""A whole graph as text for other tools: DOT, Mermaid, JSON."""

import json
from typing import Any

import numpy as np

from jaxgrad._graph.graph import Edge, Graph
from jaxgrad._graph.numbers import factor, number, printable


def dot(graph: Graph) -> str:
    """The graph as Graphviz DOT, every node and edge of it."""
    ids = {name: f"n{i}" for i, name in enumerate(graph.nodes)}
    lines = [
        "digraph {",
        "  rankdir=LR;",
        '  node [shape=box, fontname="monospace"];',
        '  edge [fontname="monospace"];',
    ]
    for name, node in graph.nodes.items():
        grad = "no gradient" if node.grad is None else f"d{graph.output}/d{name} = {number(node.grad)}"
        style = ", style=rounded" if node.kind == "argument" else ", penwidth=2" if name == graph.output else ""
        lines.append(f'  {ids[name]} [label="{_quoted(f"{name} = {number(node.value)}")}\\n{_quoted(grad)}"{style}];')
    lines += [
        f'  {ids[edge.source]} -> {ids[edge.target]} [label="{_quoted(_factor(graph, edge))}"];'
        for edge in graph.edges.values()
    ]
    return "\n".join([*lines, "}", ""])


def _factor(graph: Graph, edge: Edge) -> str:
    return factor(edge.local, np.ndim(graph.nodes[edge.source].value))


def _quoted(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace('"', '\\"')


def mermaid(graph: Graph) -> str:
    """The graph as a Mermaid flowchart, every node and edge of it."""
    ids = {name: f"n{i}" for i, name in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    for name, node in graph.nodes.items():
        grad = "no gradient" if node.grad is None else f"d{graph.output}/d{name} = {number(node.grad)}"
        text = f"{_entities(f'{name} = {number(node.value)}')}<br/>{_entities(grad)}"
        lines.append(f'  {ids[name]}(["{text}"])' if node.kind == "argument" else f'  {ids[name]}["{text}"]')
    lines += [
        f'  {ids[edge.source]} -->|"{_entities(_factor(graph, edge))}"| {ids[edge.target]}'
        for edge in graph.edges.values()
    ]
    return "\n".join([*lines, ""])


def _entities(text: str) -> str:
    """Everything that Mermaid might read as its own, as a code of its own."""
    return "".join(c if c.isalnum() or c in " =/.-+" else f"#{ord(c)};" for c in printable(text))


def to_json(graph: Graph) -> str:
    """The graph as JSON: output, nodes, edges, with every number in full; "nan" and "inf" are strings."""
    data = {
        "output": graph.output,
        "nodes": [
            {"name": n.name, "kind": n.kind, "value": _plain(n.value), "grad": _plain(n.grad), "note": n.note}
            for n in graph.nodes.values()
        ],
        "edges": [
            {
                "source": e.source,
                "target": e.target,
                "local": _plain(e.local),
                "contribution": _plain(e.contribution),
                "note": e.note,
            }
            for e in graph.edges.values()
        ],
    }
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if value is None:
        return None
    array = np.asarray(value)
    if array.ndim:
        return [_plain(part) for part in array]
    if array.dtype.kind in "biu":
        return array.item()
    if array.dtype.kind == "c":
        return [_plain(array.real), _plain(array.imag)]
    if array.dtype.kind not in "fV":
        return str(array)
    plain = float(array)
    return plain if np.isfinite(plain) else repr(plain)
