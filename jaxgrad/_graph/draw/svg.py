"""A placed graph as SVG, in light or dark as its viewer is."""

from html import escape

from jaxgrad._graph.draw.layout import layout
from jaxgrad._graph.draw.picture import LABEL_CHAR, Arrow, Box, Layout
from jaxgrad._graph.graph import Graph
from jaxgrad._graph.numbers import printable

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

# JupyterLab, Notebook and VS Code tell a cell's output their colours; anywhere else it is the page's own.
_NOTEBOOK = (
    ".graph { --bg: var(--jp-layout-color0, var(--vscode-editor-background, Canvas));\n"
    "  --fg: var(--jp-content-font-color1, var(--vscode-editor-foreground, CanvasText));\n"
    "  --soft: var(--jp-content-font-color2, var(--vscode-descriptionForeground, currentColor));\n"
    "  --accent: var(--jp-content-link-color, var(--vscode-textLink-foreground, LinkText));\n"
    "  --fill: var(--jp-layout-color2, var(--vscode-editorWidget-background, Canvas)); max-width: none; }\n"
    + _STYLE[_STYLE.index(".graph text") :]
)


def svg(graph: Graph) -> str:
    """The graph as SVG, in light or dark as its viewer is; each arrow carries its local derivative.

    Of more than 40 nodes, those that repeat are one dashed box that says what it holds.
    """
    return svg_of(layout(graph), graph)


def inline(graph: Graph) -> str:
    """The graph as SVG to stand in a notebook: in the notebook's theme, which need not be the system's."""
    return (
        svg(graph)
        .replace(_STYLE, _NOTEBOOK, 1)
        .replace('id="head"', f'id="{_HEAD_ID}"', 1)
        .replace("url(#head)", f"url(#{_HEAD_ID})")
    )


_HEAD_ID = "jaxgrad-head"


def svg_of(placed: Layout, graph: Graph) -> str:
    width, height = round(placed.width), round(placed.height)
    arrows = "\n".join(_svg_arrow(i, arrow) for i, arrow in enumerate(placed.arrows))
    labels = "\n".join(_svg_label(i, arrow) for i, arrow in enumerate(placed.arrows))
    boxes = "\n".join(_svg_box(box, is_output=graph.output in (box.folded or (box.name,))) for box in placed.boxes)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" class="graph" width="{width}" height="{height}" \
viewBox="0 0 {width} {height}" role="group" aria-label="{attribute(title_of(graph))}">
<style>{_STYLE}</style>
<defs><marker id="head" viewBox="0 0 10 10" refX="5" refY="5" markerWidth="9" markerHeight="9" \
markerUnits="userSpaceOnUse" orient="auto"><path class="head" d="M0 0 L10 5 L0 10 z"/></marker></defs>
<rect class="page" width="100%" height="100%"/>
{arrows}
{boxes}
{labels}
</svg>
"""


def title_of(graph: Graph) -> str:
    return f"The chain rule of {graph.output}, {len(graph.nodes)} nodes"


def attribute(text: str) -> str:
    return escape(printable(text), quote=True)


def _svg_box(box: Box, *, is_output: bool) -> str:
    left, top = box.x - box.width / 2, box.y - box.height / 2
    radius = box.height / 2 if box.kind == "argument" else 4
    classes = " ".join(["node", box.kind, *["output"] * is_output, *["folded"] * bool(box.folded)])
    lines = [
        f'<text class="{kind}" x="{box.x:.1f}" y="{box.y + below + 4.5:.1f}">{attribute(text)}</text>'
        for kind, text, below in box.lines
    ]
    title = attribute(", ".join(box.folded or (box.name,)))
    return (
        f'<g class="{classes}" data-name="{attribute(box.name)}"><title>{title}</title>'
        f'<rect class="box" x="{left:.1f}" y="{top:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" '
        f'rx="{radius:.1f}"/>{"".join(lines)}</g>'
    )


def _svg_arrow(i: int, arrow: Arrow) -> str:
    (x, y), *rest = arrow.points
    curve = f"M{x:.1f} {y:.1f} C" + " ".join(f"{x:.1f} {y:.1f}" for x, y in rest)
    name = f"from {arrow.source} to {arrow.target}: {arrow.label}"
    return (
        f'<g class="edge" tabindex="0" role="img" aria-label="{attribute(name)}" data-i="{i}" '
        f'data-source="{attribute(arrow.source)}" data-target="{attribute(arrow.target)}">'
        f'<path class="line" d="{curve}" marker-end="url(#head)"/><path class="hit" d="{curve}"/></g>'
    )


def _svg_label(i: int, arrow: Arrow) -> str:
    """An arrow's factor, apart from the arrow: over every other arrow."""
    (x, y), width = arrow.at, len(arrow.label) * LABEL_CHAR + 4
    return (
        f'<g class="label" data-i="{i}"><rect class="behind" x="{x - width / 2:.1f}" y="{y - 7:.1f}" '
        f'width="{width:.1f}" height="14"/><text class="factor" x="{x:.1f}" y="{y + 4:.1f}">'
        f"{attribute(arrow.label)}</text></g>"
    )
