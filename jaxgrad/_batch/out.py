"""Memory that is handed in for results, checked before anything is written to it."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import jax
import numpy as np

from jaxgrad._batch.rows import Rows
from jaxgrad._errors import InputError
from jaxgrad._types import Leaf, PyTree


def check_structure(out: PyTree, results: PyTree) -> None:
    """Whether `out`, if there is one, has the results' structure, shapes and dtypes; both may be traced or shapes."""
    if out is None:
        return
    tree: Any = jax.tree.structure(out)
    expected: Any = jax.tree.structure(results)
    if tree != expected:
        raise InputError(f"out is {tree}; expected a result of this function, {expected}.")
    for leaf, want in zip(jax.tree.leaves(out), jax.tree.leaves(results), strict=True):
        if (leaf.shape, leaf.dtype) != (want.shape, want.dtype):
            raise InputError(
                f"out holds {leaf.dtype}{list(leaf.shape)} where this result is {want.dtype}{list(want.shape)}; "
                "expected the result of a call with as many rows. Leave it out for new memory."
            )


def check_donated(leaves: Sequence[Leaf], args: Sequence[Leaf]) -> None:
    """Whether these arrays of JAX's can be written over."""
    if any(leaf.is_deleted() for leaf in leaves):
        raise InputError("out was used before; expected the last result, which one call can use.")
    own = set(map(id, leaves))
    if len(own) != len(leaves):
        raise InputError("out holds one array twice; expected an array with memory of its own for each result.")
    if not own.isdisjoint(map(id, args)):
        raise _shared()


def check_written(leaves: Sequence[Leaf], rows: Rows) -> None:
    """Whether these are arrays of NumPy's that can be written to, block by block, while `rows` are read."""
    check_kind(leaves, np.ndarray)
    if not all(leaf.flags.writeable for leaf in leaves):
        raise InputError("out holds a NumPy array that is read-only; expected one that can be written to.")
    if any(np.shares_memory(*pair) for pair in combinations(leaves, 2)):
        raise InputError("out holds one array twice; expected an array with memory of its own for each result.")
    for leaf, axis in zip(rows.leaves, rows.axes, strict=True):
        for result in leaves if isinstance(leaf, np.ndarray) else ():
            row_by_row = result is leaf and axis == 0  # read before it is written over
            if np.shares_memory(result, leaf) and not row_by_row:
                raise _shared()


def check_kind(leaves: Sequence[Leaf], kind: type[Any]) -> None:
    """Whether all are arrays of JAX's, or all of NumPy's."""
    for found in (type(leaf).__name__ for leaf in leaves if not isinstance(leaf, kind)):
        raise InputError(f"out holds a {found}; expected the arrays of the last result, or NumPy arrays, and not both.")


def _shared() -> InputError:
    return InputError("out shares memory with an argument; expected memory that is not read in the same call.")
