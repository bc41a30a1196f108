"""Numbers as text."""

import numpy as np

from jaxgrad._types import Value

MOST_ELEMENTS = 6
_NOTHING = 2e-6  # of the largest number beside it: what float32 rounds off


def printable(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def number(value: Value, beside: float = 0.0) -> str:
    """A number to four digits; a small array's elements; of a large one its shape, norm and extremes.

    Args:
      value: a number or an array; None is "(none)".
      beside: the size of what it is added to; what is nothing beside that is 0.
    """
    if value is None:
        return "(none)"
    array = np.asarray(value)
    if array.ndim == 0:
        return _digits(array[()], beside)
    if array.size <= MOST_ELEMENTS and array.size:
        return _nested(array, max(beside, _size(array)))
    shape = "x".join(map(str, array.shape)) + ("" if array.ndim > 1 else " values")
    if not array.size or np.iscomplexobj(array):
        return f"({shape})"
    norm = _digits(np.sqrt(np.sum(np.square(array, dtype=float))))
    return f"({shape}, norm {norm}, {_digits(array.min())} to {_digits(array.max())})"


def factor(local: Value, n_axes: int = 0) -> str:
    """A local derivative: an identity, a diagonal or a mask is called so.

    Args:
      local: of the target's shape followed by the source's; None where it is not kept.
      n_axes: how many axes the source has.
    """
    if local is None:
        return "not kept"
    return _pattern(np.asarray(local), n_axes) or number(local)


def _pattern(local: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]", n_axes: int) -> str:
    """What a square local derivative is that has elements on its diagonal only; "" for any other."""
    shape = local.shape[local.ndim - n_axes :]
    if not n_axes or local.shape != shape + shape or local.size < 4 or local.dtype.kind not in "fV":
        return ""
    n = int(np.prod(shape))
    square = np.asarray(local, float).reshape(n, n)
    diagonal = np.diagonal(square)
    if not np.array_equal(square, np.diag(diagonal)):
        return ""
    if np.all(diagonal == 1):
        return "identity"
    if np.all(diagonal == diagonal[0]) and diagonal[0] != 0:
        return f"{_digits(diagonal[0])} * identity"
    if np.all((diagonal == 0) | (diagonal == 1)) and np.any(diagonal == 1):
        return f"mask, {np.count_nonzero(diagonal)} of {n} pass"
    return f"diag({number(diagonal)})"


def _size(array: Value) -> float:
    finite = np.abs(np.asarray(array))
    return float(np.max(finite, initial=0.0, where=np.isfinite(finite)))


def _digits(value: Value, beside: float = 0.0) -> str:
    if np.iscomplexobj(value):
        return f"{complex(value):.4g}"
    plain = float(value)
    return "0" if abs(plain) <= _NOTHING * beside or plain == 0 else f"{plain:.4g}"


def _nested(array: Value, beside: float) -> str:
    if array.ndim == 0:
        return _digits(array[()], beside)
    return "[" + " ".join(_nested(part, beside) for part in array) + "]"
