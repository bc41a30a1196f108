"""A whole graph as text for other tools: DOT, Mermaid, JSON."""

import json
from typing import Any

import numpy as np

from jaxgrad._graph.draw.layout import layout
from jaxgrad._graph.graph import Graph
from jaxgrad._graph.numbers import printable


def dot(graph: Graph) -> str:
    """The graph as Graphviz DOT; of more than 40 nodes, those that repeat are one."""
    placed = layout(graph)
    ids = {box.name: f"n{i}" for i, box in enumerate(placed.boxes)}
    lines = [
        "digraph {",
        f"  rankdir={'TB' if placed.downward else 'LR'};",
        '  node [shape=box, fontname="monospace"];',
        '  edge [fontname="monospace"];',
    ]
    for box in placed.boxes:
        looks = ["rounded"] * (box.kind == "argument") + ["dashed"] * bool(box.folded)
        style = f', style="{",".join(looks)}"' if looks else ""
        style += ", penwidth=2" if graph.output in (box.folded or (box.name,)) else ""
        label = "\\n".join(_quoted(text) for _, text, _ in box.lines)
        lines.append(f'  {ids[box.name]} [label="{label}"{style}];')
    lines += [f'  {ids[a.source]} -> {ids[a.target]} [label="{_quoted(a.label)}"];' for a in placed.arrows]
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace('"', '\\"')


def mermaid(graph: Graph) -> str:
    """The graph as a Mermaid flowchart; of more than 40 nodes, those that repeat are one."""
    placed = layout(graph)
    ids = {box.name: f"n{i}" for i, box in enumerate(placed.boxes)}
    lines = [f"flowchart {'TB' if placed.downward else 'LR'}"]
    for box in placed.boxes:
        text = "<br/>".join(_entities(text) for _, text, _ in box.lines)
        lines.append(f'  {ids[box.name]}(["{text}"])' if box.kind == "argument" else f'  {ids[box.name]}["{text}"]')
    lines += [f'  {ids[a.source]} -->|"{_entities(a.label)}"| {ids[a.target]}' for a in placed.arrows]
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
