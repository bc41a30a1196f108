"""Layouts: the orders of axes in which JAX and PyTorch keep the same array.

PyTorch has images as N C H W, convolution weights as O I H W and a linear layer's as (out, in); Flax and Haiku have
N H W C, H W I O and (in, out). A recurrent network has time first in one and the batch in the other.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Order = tuple[int, ...]  # result's axis i is the axis order[i] of the array, as in np.transpose

_KERNELS: dict[int, tuple[Order, ...]] = {2: ((1, 0),), 3: ((2, 1, 0),), 4: ((2, 3, 1, 0),), 5: ((2, 3, 4, 1, 0),)}
_ACTIVATIONS: dict[int, tuple[Order, ...]] = {
    2: ((1, 0),),
    3: ((0, 2, 1), (1, 0, 2), (1, 2, 0)),
    4: ((0, 2, 3, 1),),
    5: ((0, 2, 3, 4, 1),),
}


def orders(got: Shape, want: Shape, *, kernel: bool = False) -> list[Order]:
    """The orders of `want`'s axes that give it the shape of `got` and are in use, likeliest first; [] if there is none.

    Args:
      kernel: is it a weight that is called a kernel in JAX and a weight in PyTorch, and so another way round?
    """
    if len(got) != len(want):
        return []
    rank = len(got)
    same = tuple(range(rank))
    kernels = (*_KERNELS.get(rank, ()),)
    activations = (*_ACTIVATIONS.get(rank, ()),)
    if kernel:
        tried = (*kernels, same)
    elif got == want:
        # The same shape is the same layout, but for an image as wide and as high as it has channels.
        tried = (same, *(activations if rank >= 4 else ()))
    else:
        tried = (*activations, *kernels)
    return [order for order in dict.fromkeys(tried) if tuple(want[axis] for axis in order) == got]


def closest(got: Array, want: Array, candidates: Sequence[Order]) -> Order:
    """Of several orders, the one in which the numbers are nearest; the first of those that are equally near."""
    if len(candidates) == 1:
        return candidates[0]
    with np.errstate(all="ignore"):
        wide = [np.asarray(a).astype(np.complex128 if np.iscomplexobj(a) else np.float64) for a in (got, want)]
        off = [float(np.linalg.norm(np.ravel(wide[0] - wide[1].transpose(order)))) for order in candidates]
    return candidates[int(np.argmin(np.where(np.isnan(off), np.inf, off)))]


def settled(shapes: Sequence[tuple[Shape, Shape]]) -> list[Order | None]:
    """An order for each pair of shapes where no numbers are known; None where none fits, or several do.

    An image with as many channels as rows and columns is in the order of the images whose shape tells.
    """
    candidates = [orders(got, want) for got, want in shapes]
    sure = Counter(found[0] for found in candidates if len(found) == 1 and len(found[0]) >= 4)
    chosen: list[Order | None] = []
    for (got, want), found in zip(shapes, candidates, strict=True):
        voted = [order for order, _ in sure.most_common() if order in found]
        chosen.append(voted[0] if voted else found[0] if found and (got == want or len(found) == 1) else None)
    return chosen
