"""The right numbers in the wrong places: other axes first, axes that run backward, another order in each row."""

from collections.abc import Callable
from itertools import combinations, permutations
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Agree = Callable[[Array, Array], bool]
Found = tuple[str, str] | None

_MOST_AXES = 5  # an image, its batch and its depth
_MOST_ELEMENTS = 1 << 20  # that are sorted
_LETTERS: dict[tuple[int, ...], str] = {
    (0, 2, 3, 1): "N H W C for N C H W",
    (0, 3, 1, 2): "N C H W for N H W C",
    (2, 3, 1, 0): "a kernel H W I O for O I H W",
    (3, 2, 0, 1): "a kernel O I H W for H W I O",
}


def other_axes(got: Array, want: Array, agree: Agree) -> Found:
    """Is it what it should be with its axes in another order?"""
    if got.ndim != want.ndim or not 2 <= got.ndim <= _MOST_AXES or sorted(got.shape) != sorted(want.shape):
        return None
    for order in permutations(range(got.ndim)):
        moved = want.transpose(order)
        if order != tuple(range(got.ndim)) and moved.shape == got.shape and _alike(got, moved, agree):
            shapes = f"the shape is {list(got.shape)} and should be {list(want.shape)}"
            if got.ndim == 2:
                same = got.shape == want.shape
                return "transpose", "it is the transpose" + (" of what it should be" if same else f": {shapes}")
            known = _LETTERS.get(order)
            what = f"its axes are {order} of what it should be" + (f", as {known}" if known else "")
            return "layout", what if got.shape == want.shape else f"{what}: {shapes}"
    return None


def backward(got: Array, want: Array, agree: Agree) -> Found:
    """Does it run the other way along some axes?"""
    if not 1 <= got.ndim <= _MOST_AXES:
        return None
    for axes in (axes for n in range(1, got.ndim + 1) for axes in combinations(range(got.ndim), n)):
        if all(got.shape[axis] > 1 for axis in axes) and _alike(got, np.flip(want, axes), agree):
            which = f"axis {axes[0]}" if len(axes) == 1 else f"the axes {axes}"
            return "flipped", f"it runs backward along {which}, as a convolution does for a correlation"
    return None


def other_order(got: Array, want: Array, agree: Agree) -> Found:
    """Are its rows made of the right numbers in another order?"""
    if not got.ndim or got.shape[-1] < 3 or got.size > _MOST_ELEMENTS or np.iscomplexobj(got):
        return None
    wide = [np.sort(a.astype(np.float64), -1).astype(a.dtype) for a in (got, want)]
    if len(np.unique(wide[1])) < 3 or not agree(*wide):
        return None
    return "order", "each row has the right numbers in another order, as flattened from another layout"


def _alike(got: Array, moved: Array, agree: Agree) -> bool:
    corner = tuple(slice(0, 3) for _ in got.shape)  # tells nearly always, and costs little
    with np.errstate(all="ignore"):
        a, b = (array[corner].astype(np.complex128) for array in (got, moved))
        close = np.all(np.abs(a - b) <= np.max(np.abs(moved)) / 8)
    return bool(close) and agree(got, moved)
