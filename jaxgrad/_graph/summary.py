"""A graph as a table of its nodes."""

import textwrap

from jaxgrad._graph.explain import MOST_FACTORS, explain
from jaxgrad._graph.graph import Graph
from jaxgrad._graph.numbers import number
from jaxgrad._text import aligned

_MOST_NODES = 200


def summary(graph: Graph, *, width: int = 80) -> str:
    """A graph as a table of its nodes, and the chain rule of its arguments, to print.

    Args:
      graph: values, gradients and local derivatives.
      width: columns that it may take; only a name or number that is longer goes past them.

    Returns:
      Text of several lines, in ASCII but for the nodes' own names.
    """
    shown = list(graph.nodes.values())[:_MOST_NODES]
    rows = [(node.name, number(node.value), "none" if node.grad is None else number(node.grad)) for node in shown]
    heads = ("node", "value", f"d{graph.output}/dnode")
    head, *cells = aligned([heads, *rows])
    start = len(head) + 2
    lines = [f"{head}  local derivatives"]
    for node, cell in zip(shown, cells, strict=True):
        factors = [f"d{e.target}/d{e.source} = {number(e.local)}" for e in graph.into[node.name] if e.local is not None]
        words = ", ".join(factor.replace(" ", "\0") for factor in factors[:MOST_FACTORS])
        words += f", ... ({len(factors)} in all)" if len(factors) > MOST_FACTORS else ""
        first, *more = _wrapped(" ".join(filter(None, [words, node.note])), max(24, width - start)) or [""]
        lines += [f"{cell}  {first}".rstrip(), *(" " * start + line for line in more)]
    if len(graph.nodes) > len(shown):
        lines.append(f"... and {len(graph.nodes) - len(shown)} more nodes.")
    arguments = [node.name for node in graph.nodes.values() if node.kind == "argument"]
    lines += ["", "The chain rule"]
    for name in arguments[:MOST_FACTORS]:
        for line in explain(graph, name).splitlines():
            indent = " " * (len(line) - len(line.lstrip()))
            wrapped = _wrapped(line.strip(), width - len(indent) - 4)
            lines += [indent + part if i == 0 else f"{indent}    {part}" for i, part in enumerate(wrapped)]
    if len(arguments) > MOST_FACTORS:
        lines.append(f"... and {len(arguments) - MOST_FACTORS} more arguments.")
    return "\n".join(lines)


def _wrapped(text: str, width: int) -> list[str]:
    lines = textwrap.wrap(text.replace("= ", "=\0"), width, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines]
