"""A graph as PNG, by matplotlib."""

import io
from typing import Any

from jaxgrad._errors import InputError
from jaxgrad._graph.draw.layout import layout
from jaxgrad._graph.draw.picture import Arrow, Box
from jaxgrad._graph.graph import Graph
from jaxgrad._graph.numbers import printable


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
        _arrow(axes, arrow)
    for box in placed.boxes:
        _box(axes, box, is_output=graph.output in (box.folded or (box.name,)))
    for arrow in placed.arrows:
        halo = {"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.9}
        _text(axes, *arrow.at, arrow.label, size=10, bbox=halo)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _arrow(axes: Any, arrow: Arrow) -> None:
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


def _box(axes: Any, box: Box, *, is_output: bool) -> None:
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
    for kind, text, below in box.lines:
        look = {"style": "italic", "color": "#0b4fb3"} if kind == "grad" else {}
        _text(axes, box.x, box.y + below, text, size=12, **look)


def _text(axes: Any, x: float, y: float, text: str, **options: Any) -> None:
    options = {"ha": "center", "va": "center", "family": "DejaVu Sans Mono", "parse_math": False, **options}
    axes.text(x, y, printable(text), **options)
