"""The line of the user's code that an operation was written in."""

import os
import sys

from jaxgrad._types import Eqn

_LIBRARIES = ("jax", "jaxlib", "jaxgrad")


def line(eqn: Eqn) -> str:
    """File and line of the innermost call that is not of JAX's own code, "model.py:12"; "" if it is not known."""
    traceback = eqn.source_info.traceback
    for frame in traceback.frames if traceback is not None else ():
        if not frame.file_name.startswith(_folders()):
            return f"{os.path.basename(frame.file_name)}:{frame.line_num}"
    return ""


def _folders() -> tuple[str, ...]:
    """Where the code of the libraries stands."""
    files = (getattr(sys.modules.get(name), "__file__", None) for name in _LIBRARIES)
    return tuple(os.path.dirname(file) + os.sep for file in files if file)
