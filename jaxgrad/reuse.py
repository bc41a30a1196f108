"""Memory that is handed in for results: checked before anything is written to it."""

from typing import Any

import jax
import numpy as np

from jaxgrad.blocks import Block
from jaxgrad.errors import InputError


def checked(out: Any, block: Block, count: int, kind: type[Any]) -> list[Any]:
    """The arrays of `out`, which have the structure, shapes and dtypes of the results of `count` rows.

    Raises:
      InputError: they have not, are of another kind, were used before, or share memory or cannot be written to.
    """
    leaves, tree = jax.tree.flatten(out)
    if tree != block.tree:
        raise InputError(f"out is {tree}; expected a result of this function, {block.tree}.")
    for leaf, row in zip(leaves, block.row, strict=True):
        _check(leaf, (count, *row.shape), row.dtype, kind)
    if len({id(leaf) for leaf in leaves}) < len(leaves):
        raise InputError("out holds one array twice; expected an array with memory of its own for each result.")
    return leaves


def _check(leaf: Any, shape: tuple[int, ...], dtype: Any, kind: type[Any]) -> None:
    if not isinstance(leaf, kind):
        raise InputError(
            f"out holds a {type(leaf).__name__}; expected the arrays of the last result, or NumPy arrays, and not both."
        )
    if isinstance(leaf, jax.Array) and leaf.is_deleted():
        raise InputError("out was used before; expected the last result, which one call can use.")
    if isinstance(leaf, np.ndarray) and not leaf.flags.writeable:
        raise InputError("out holds a NumPy array that is read-only; expected one that can be written to.")
    if (leaf.shape, leaf.dtype) != (shape, dtype):
        raise InputError(
            f"out holds {leaf.dtype}{list(leaf.shape)} where this result is {dtype}{list(shape)}; expected the result "
            "of a call with as many rows. Leave it out for new memory."
        )
