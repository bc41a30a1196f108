"""Numbers as text."""

import numpy as np

from jaxgrad._types import Value


def printable(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


MOST_ELEMENTS = 6


def number(value: Value) -> str:
    """A number to four digits; a small array's elements, a large one's shape and extent."""
    if value is None:
        return "(none)"
    array = np.asarray(value)
    if array.ndim == 0:
        return _digits(array[()])
    if array.size <= MOST_ELEMENTS and array.size:
        return _nested(array)
    shape = "x".join(map(str, array.shape)) + ("" if array.ndim > 1 else " values")
    if not array.size or np.iscomplexobj(array):
        return f"({shape})"
    return f"({shape}, {_digits(array.min())} to {_digits(array.max())})"


def _digits(value: Value) -> str:
    return f"{complex(value):.4g}" if np.iscomplexobj(value) else f"{float(value):.4g}"


def _nested(array: Value) -> str:
    return _digits(array[()]) if array.ndim == 0 else "[" + " ".join(_nested(part) for part in array) + "]"


def factor(local: Value) -> str:
    return "not kept" if local is None else number(local)
