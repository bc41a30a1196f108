"""Memory that is handed in for results: checked before anything is written to it."""

from itertools import combinations
from typing import Any

import jax
import numpy as np

from jaxgrad._batch.blocks import Block
from jaxgrad._batch.rows import Rows
from jaxgrad._errors import InputError
from jaxgrad._types import DType, Leaf, PyTree, Value


def checked(out: PyTree, block: Block, rows: Rows, count: int, kind: type[Any]) -> list[Any]:
    """The arrays of `out`, which have the structure, shapes and dtypes of the results of `count` rows.

    Raises:
      InputError: they have not, are of another kind, were used before, cannot be written to, or share memory with
        one another or with the arguments.
    """
    leaves, tree = jax.tree.flatten(out)
    if tree != block.tree:
        raise InputError(f"out is {tree}; expected a result of this function, {block.tree}.")
    for leaf, row in zip(leaves, block.row, strict=True):
        _check(leaf, (count, *row.shape), row.dtype, kind)
    if any(_overlap(*pair) for pair in combinations(leaves, 2)):
        raise InputError("out holds one array twice; expected an array with memory of its own for each result.")
    for leaf, axis in zip(rows.leaves, rows.axes, strict=True):
        row_by_row = isinstance(leaf, np.ndarray) and axis == 0  # read before it is written over
        if any(_overlap(result, leaf) and not (result is leaf and row_by_row) for result in leaves):
            raise InputError("out shares memory with an argument; expected memory that is not read in the same call.")
    return leaves


def _overlap(a: Value, b: Value) -> bool:
    both_numpy = isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
    return a is b or (both_numpy and bool(np.shares_memory(a, b)))


def _check(leaf: Leaf, shape: tuple[int, ...], dtype: DType, kind: type[Any]) -> None:
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
