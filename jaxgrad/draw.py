"""Pictures of a graph: pure functions to DOT, Mermaid, JSON, SVG, PNG and HTML, and one that writes them to a file."""

import io
import json
import os
from collections.abc import Callable
from contextlib import suppress
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from jaxgrad.errors import InputError
from jaxgrad.explain import explain, number
from jaxgrad.graph import Graph
from jaxgrad.layout import LABEL_CHAR, Arrow, Box, Layout, layout

_STYLE = """
.graph { --bg: #ffffff; --fg: #111111; --soft: #555555; --accent: #0b4fb3; --fill: #f3f3f3; }
@media (prefers-color-scheme: dark) {
  .graph { --bg: #15171a; --fg: #eeeeee; --soft: #b4b9c0; --accent: #8ab8ff; --fill: #23272d; }
}
.graph text { font: 13px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: var(--fg);
  text-anchor: middle; }
.graph .page { fill: var(--bg); }
.graph .box { fill: var(--fill); stroke: var(--fg); stroke-width: 1.3; }
.graph .output .box { stroke-width: 3; }
.graph .folded .box { stroke-dasharray: 6 4; }
.graph .grad { fill: var(--accent); font-style: italic; }
.graph .line { fill: none; stroke: var(--soft); stroke-width: 1.4; }
.graph .head { fill: var(--soft); }
.graph .hit { fill: none; stroke: transparent; stroke-width: 14; }
.graph .factor { font-size: 11px; pointer-events: none; }
.graph .behind { fill: var(--bg); opacity: .92; pointer-events: none; }
"""


def svg(graph: Graph) -> str:
    """The graph as SVG, in light or dark as its viewer is; each arrow carries its local derivative.

    Of more than 40 nodes, those in the middle are one dashed box that says how many they are.
    """
    return _svg(layout(graph), graph)


def _svg(placed: Layout, graph: Graph) -> str:
    width, height = round(placed.width), round(placed.height)
    arrows = "\n".join(_svg_arrow(i, arrow) for i, arrow in enumerate(placed.arrows))
    labels = "\n".join(_svg_label(i, arrow) for i, arrow in enumerate(placed.arrows))
    boxes = "\n".join(_svg_box(box, is_output=box.name == graph.output) for box in placed.boxes)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" class="graph" width="{width}" height="{height}" \
viewBox="0 0 {width} {height}" role="img" aria-label="{_attribute(_title(graph))}">
<style>{_STYLE}</style>
<defs><marker id="head" viewBox="0 0 10 10" refX="5" refY="5" markerWidth="9" markerHeight="9" \
markerUnits="userSpaceOnUse" orient="auto"><path class="head" d="M0 0 L10 5 L0 10 z"/></marker></defs>
<rect class="page" width="100%" height="100%"/>
{arrows}
{boxes}
{labels}
</svg>
"""


def _title(graph: Graph) -> str:
    return f"The chain rule of {graph.output}, {len(graph.nodes)} nodes"


def _attribute(text: str) -> str:
    return escape(_printable(text), quote=True)


def _printable(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _svg_box(box: Box, *, is_output: bool) -> str:
    left, top = box.x - box.width / 2, box.y - box.height / 2
    radius = box.height / 2 if box.kind == "argument" else 4
    classes = " ".join(["node", box.kind, *["output"] * is_output, *["folded"] * bool(box.folded)])
    lines = [
        f'<text class="value" x="{box.x:.1f}" y="{box.y - (5 if box.grad else -4):.1f}">{_attribute(box.value)}</text>'
    ]
    if box.grad:
        lines.append(f'<text class="grad" x="{box.x:.1f}" y="{box.y + 14:.1f}">{_attribute(box.grad)}</text>')
    return (
        f'<g class="{classes}" data-name="{_attribute(box.name)}"><title>{_attribute(box.name)}</title>'
        f'<rect class="box" x="{left:.1f}" y="{top:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" '
        f'rx="{radius:.1f}"/>{"".join(lines)}</g>'
    )


def _svg_arrow(i: int, arrow: Arrow) -> str:
    (x, y), *rest = arrow.points
    curve = f"M{x:.1f} {y:.1f} C" + " ".join(f"{x:.1f} {y:.1f}" for x, y in rest)
    name = f"from {arrow.source} to {arrow.target}: {arrow.label}"
    return (
        f'<g class="edge" tabindex="0" role="img" aria-label="{_attribute(name)}" data-i="{i}" '
        f'data-source="{_attribute(arrow.source)}" data-target="{_attribute(arrow.target)}">'
        f'<path class="line" d="{curve}" marker-end="url(#head)"/><path class="hit" d="{curve}"/></g>'
    )


def _svg_label(i: int, arrow: Arrow) -> str:
    """An arrow's factor, apart from the arrow: over every other arrow."""
    (x, y), width = arrow.at, len(arrow.label) * LABEL_CHAR + 4
    return (
        f'<g class="label" data-i="{i}"><rect class="behind" x="{x - width / 2:.1f}" y="{y - 7:.1f}" '
        f'width="{width:.1f}" height="14"/><text class="factor" x="{x:.1f}" y="{y + 4:.1f}">'
        f"{_attribute(arrow.label)}</text></g>"
    )


def png(graph: Graph) -> bytes:
    """The graph as PNG, in black on white, by matplotlib.

    Raises:
      InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise InputError(
            "a .png is drawn by matplotlib, which is not installed: pip install 'jaxgrad[draw]'. A .svg needs nothing."
        ) from None
    placed = layout(graph)
    dpi = 144 if placed.width * placed.height < 4e6 else 72
    figure = Figure(figsize=(placed.width / 72, placed.height / 72), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, placed.width), ylim=(placed.height, 0))
    axes.axis("off")
    for arrow in placed.arrows:
        _png_arrow(axes, arrow)
    for box in placed.boxes:
        _png_box(axes, box, is_output=box.name == graph.output)
    for arrow in placed.arrows:
        halo = {"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.9}
        _png_text(axes, *arrow.at, arrow.label, size=10, bbox=halo)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _png_arrow(axes: Any, arrow: Arrow) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Curve

    codes = [Curve.MOVETO] + [Curve.CURVE4] * (len(arrow.points) - 1)
    axes.add_patch(
        FancyArrowPatch(
            path=Curve(arrow.points, codes),
            arrowstyle="-|>",
            mutation_scale=10,
            color="#555555",
            linewidth=1.2,
            shrinkA=0,
            shrinkB=0,
        )
    )


def _png_box(axes: Any, box: Box, *, is_output: bool) -> None:
    from matplotlib.patches import FancyBboxPatch

    radius = box.height / 2 if box.kind == "argument" else 4
    axes.add_patch(
        FancyBboxPatch(
            (box.x - box.width / 2, box.y - box.height / 2),
            box.width,
            box.height,
            boxstyle=f"round,pad=0,rounding_size={radius}",
            facecolor="#f3f3f3",
            edgecolor="#111111",
            linewidth=2.6 if is_output else 1.2,
            linestyle="--" if box.folded else "-",
        )
    )
    _png_text(axes, box.x, box.y - (_HALF_LINE if box.grad else 0), box.value, size=12)
    if box.grad:
        _png_text(axes, box.x, box.y + _HALF_LINE, box.grad, size=12, style="italic", color="#0b4fb3")


_HALF_LINE = 9.5


def _png_text(axes: Any, x: float, y: float, text: str, **options: Any) -> None:
    options = {"ha": "center", "va": "center", "family": "DejaVu Sans Mono", "parse_math": False, **options}
    axes.text(x, y, _printable(text), **options)


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
        f'  {ids[edge.source]} -> {ids[edge.target]} [label="{_quoted(_factor(edge.local))}"];'
        for edge in graph.edges.values()
    ]
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    return _printable(text).replace("\\", "\\\\").replace('"', '\\"')


def _factor(local: Any) -> str:
    return "not kept" if local is None else number(local)


def mermaid(graph: Graph) -> str:
    """The graph as a Mermaid flowchart, every node and edge of it."""
    ids = {name: f"n{i}" for i, name in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    for name, node in graph.nodes.items():
        grad = "no gradient" if node.grad is None else f"d{graph.output}/d{name} = {number(node.grad)}"
        text = f"{_entities(f'{name} = {number(node.value)}')}<br/>{_entities(grad)}"
        lines.append(f'  {ids[name]}(["{text}"])' if node.kind == "argument" else f'  {ids[name]}["{text}"]')
    lines += [
        f'  {ids[edge.source]} -->|"{_entities(_factor(edge.local))}"| {ids[edge.target]}'
        for edge in graph.edges.values()
    ]
    return "\n".join([*lines, ""])


def _entities(text: str) -> str:
    """Everything that Mermaid might read as its own, as a code of its own."""
    return "".join(c if c.isalnum() or c in " =/.-+" else f"#{ord(c)};" for c in _printable(text))


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


def html(graph: Graph) -> str:
    """The graph as one page that needs nothing else: step through it, point at an arrow to see its factor."""
    placed = layout(graph)
    data = {
        "whole": f"Every value and gradient of {graph.output}. Press Next to go through them one by one.",
        "boxes": [
            {"name": box.name, "forward": _forward(graph, box), "backward": _backward(graph, box)}
            for box in placed.boxes
        ],
        "edges": [_arrow_words(graph, arrow) for arrow in placed.arrows],
    }
    page = (files("jaxgrad") / "page.html").read_text(encoding="utf-8")
    text = json.dumps(data).replace("<", "\\u003c")  # no text in it can end the script
    parts = {"@TITLE@": _attribute(_title(graph)), "@SVG@": _svg(placed, graph), "@DATA@": text}
    before, *rest = page.split("@SVG@")
    after = "@SVG@".join(rest)
    for mark in ("@TITLE@", "@DATA@"):
        before, after = before.replace(mark, parts[mark]), after.replace(mark, parts[mark])
    return before + parts["@SVG@"] + after


def _forward(graph: Graph, box: Box) -> str:
    if box.folded:
        return f"{box.value}: {len(box.folded)} values."
    sources = ", ".join(edge.source for edge in graph.into[box.name])
    return box.value + (f"\ncomputed from {sources}" if sources else "\nan argument" * (box.kind == "argument"))


def _backward(graph: Graph, box: Box) -> str:
    return f"{box.value}: {len(box.folded)} gradients." if box.folded else explain(graph, box.name)


def _arrow_words(graph: Graph, arrow: Arrow) -> str:
    if len(arrow.edges) > 1:
        return "\n".join(
            [f"{len(arrow.edges)} edges, drawn as one:", *(_edge_words(graph, e) for e in arrow.edges[:6])]
        )
    return _edge_words(graph, arrow.edges[0])


def _edge_words(graph: Graph, ends: tuple[str, str]) -> str:
    edge = graph.edges[ends]
    upstream, output = graph.nodes[edge.target].grad, graph.output
    times = " @ " if np.ndim(upstream) else " * "
    return (
        f"d{edge.target}/d{edge.source} = {_factor(edge.local)}   {edge.note}\n"
        f"its share of d{output}/d{edge.source}: d{output}/d{edge.target}{times}d{edge.target}/d{edge.source} = "
        f"{number(upstream)}{times}{_factor(edge.local)} = {number(edge.contribution)}"
    )


WRITERS: dict[str, Callable[[Graph], str | bytes]] = {
    ".svg": svg,
    ".png": png,
    ".dot": dot,
    ".mmd": mermaid,
    ".html": html,
    ".json": to_json,
}


def save(graph: Graph, path: str | os.PathLike[str]) -> None:
    """Writes a picture in the format of the path's ending, whole or not at all.

    Args:
      graph: what to draw.
      path: a file that ends in .svg, .png, .dot, .mmd, .html or .json; one that is there is replaced.

    Raises:
      InputError: any other ending, the file cannot be written, or what draws it is not installed.
    """
    file = Path(path)
    writer = WRITERS.get(file.suffix.lower())
    if writer is None:
        found = f'ends in "{file.suffix}"' if file.suffix else "has no ending"
        raise InputError(f"{file} {found}; expected a path that ends in {', '.join(WRITERS)}.")
    drawn = writer(graph)
    data = drawn if isinstance(drawn, bytes) else drawn.encode()
    beside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with beside.open("xb") as out:
            out.write(data)
        os.replace(beside, file)
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}. Nothing is left of it.") from error
    finally:
        with suppress(OSError):
            beside.unlink()
