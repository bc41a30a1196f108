"""A graph as a table of its nodes."""

import textwrap

from jaxgrad._graph.explain import explain
from jaxgrad._graph.graph import Graph, Node
from jaxgrad._graph.numbers import number
from jaxgrad._graph.style import WIDTH
from jaxgrad._graph.writer import MOST_FACTORS, definition, local_rule

_MOST_NODES = 200
_MOST_NAME = 30


def summary(graph: Graph, *, width: int = WIDTH, style: str = "unicode") -> str:
    """A graph as a table of its nodes, and the chain rule of its arguments, to print.

    Args:
      graph: values, gradients and local derivatives.
      width: columns that it may take; only a name or number that is longer goes past them.
      style: "unicode" or "plain" (ASCII, but for the nodes' own names).

    Returns:
      Text of several lines.
    """
    shown = list(graph.nodes.values())[:_MOST_NODES]
    rows = [(_what(node), number(node.value), "none" if node.grad is None else number(node.grad)) for node in shown]
    heads = ("node", "value", f"d{graph.output}/dnode")
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(3)]
    start = sum(widths) + 6
    parts = [_locals(graph, node, style) for node in shown]
    beside = start + max([24, *(len(part) for words in parts for part in words)]) <= width  # else below their node
    indent = start if beside else 4
    lines = [
        "  ".join(
            [*(f"{head:<{w}}" for head, w in zip(heads, widths, strict=True)), *["local derivatives"] * beside]
        ).rstrip()
    ]
    for node, row, own in zip(shown, rows, parts, strict=True):
        cells = "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True))
        words = _wrapped(" ".join([*(part.replace(" ", "\0") for part in own), node.note]).strip(), width - indent)
        first = words.pop(0) if beside and words else ""
        lines += [f"{cells}  {first}".rstrip(), *(" " * indent + line for line in words)]
    if len(graph.nodes) > len(shown):
        lines.append(f"... and {len(graph.nodes) - len(shown)} more nodes.")
    arguments = [node.name for node in graph.nodes.values() if node.kind == "argument"]
    lines += ["", "The chain rule"]
    for name in arguments[:MOST_FACTORS]:
        lines += explain(graph, name, style=style, formulas=False, width=width).splitlines()
    if len(arguments) > MOST_FACTORS:
        lines.append(f"... and {len(arguments) - MOST_FACTORS} more arguments.")
    return "\n".join(lines)


def _what(node: Node) -> str:
    """A node's name, with what it is computed by if that is short."""
    words = definition(node)
    return words if len(words) <= _MOST_NAME else node.name


def _locals(graph: Graph, node: Node, style: str) -> list[str]:
    """The local derivatives into a node, in symbols and in numbers; before them what its own cell has no place for."""
    parts = [definition(node)] if len(definition(node)) > _MOST_NAME else []
    parts += filter(None, (local_rule(graph, edge, style) for edge in graph.into[node.name]))
    shown = [*parts[:MOST_FACTORS], f"... ({len(parts)} in all)"] if len(parts) > MOST_FACTORS else parts
    return [f"{part}," for part in shown[:-1]] + shown[-1:]


def _wrapped(text: str, width: int) -> list[str]:
    lines = textwrap.wrap(text, max(24, width), break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines]
