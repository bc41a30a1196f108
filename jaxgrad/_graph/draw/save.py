"""A picture of a graph, written to a file in the format of its ending."""

import os
from collections.abc import Callable
from pathlib import Path

from jaxgrad._errors import InputError
from jaxgrad._files import write_whole
from jaxgrad._graph.draw.html import html
from jaxgrad._graph.draw.png import png
from jaxgrad._graph.draw.svg import svg
from jaxgrad._graph.draw.text import dot, mermaid, to_json
from jaxgrad._graph.graph import Graph

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
    try:
        write_whole({file: data})
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}. Nothing is left of it.") from error
