"""The arguments of a batched call: which of their axes hold the rows, and how many rows there are."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from jaxgrad._errors import InputError
from jaxgrad._types import DType, Leaf, PyTree

ALIGNMENT = 64  # bytes: JAX takes over host memory that is aligned so without a copy


@dataclass(frozen=True)
class Rows:
    """Arguments as leaves, each with the axis that holds its rows: None for one that every row shares."""

    leaves: tuple[Any, ...]
    axes: tuple[int | None, ...]
    tree: Any
    count: int

    def block(self, start: int, size: int, step: int = 0) -> Iterator[Any]:
        """The leaves of rows start to start + size; past the last row it stands again, up to a multiple of `step`.

        What comes after that is unset, for a program that does not read it.
        """
        stop = min(start + size, self.count)
        upto = min(size, -(-(stop - start) // step) * step) if step else size
        for leaf, axis in zip(self.leaves, self.axes, strict=True):
            if axis is None:
                yield leaf
            else:
                rows = leaf[(slice(None),) * axis + (slice(start, stop),)]
                yield rows if stop - start == size else _padded(np.asarray(rows), axis, upto, size)

    def shapes(self, size: int) -> list[jax.ShapeDtypeStruct]:
        """What `block` yields, by shape and dtype."""
        found = []
        for leaf, axis in zip(self.leaves, self.axes, strict=True):
            aval = jax.typeof(leaf)
            shape = aval.shape if axis is None else (*aval.shape[:axis], size, *aval.shape[axis + 1 :])
            found.append(jax.ShapeDtypeStruct(shape, aval.dtype, weak_type=aval.weak_type))
        return found


def read(args: tuple[Any, ...], in_axes: PyTree) -> Rows:
    """The rows of `args`, checked: as many in each argument, at least one argument that has any.

    Raises:
      InputError: it says which argument, its shape, and what was expected.
    """
    axes = tuple(in_axes) if isinstance(in_axes, list) else in_axes
    if isinstance(axes, tuple) and len(axes) != len(args):
        raise InputError(
            f"there are {len(args)} arguments and in_axes={in_axes} is for {len(axes)}; expected one entry for each "
            "argument, or a single number for all."
        )
    with_paths, tree = tree_flatten_with_path(args)
    names = [f"args{keystr(path)}" for path, _ in with_paths]
    leaves = tuple(_array(name, leaf) for name, (_, leaf) in zip(names, with_paths, strict=True))
    found = tuple(_axis(*triple) for triple in zip(names, leaves, _for_each_leaf(axes, args), strict=True))
    return Rows(leaves, found, tree, _count(names, leaves, found))


def _for_each_leaf(axes: PyTree, args: tuple[Any, ...]) -> list[Any]:
    """The axes of a tree that is a prefix of the arguments', one for each leaf."""
    found: list[Any] = []
    try:
        jax.tree.map(
            lambda axis, part: found.extend(axis for _ in jax.tree.leaves(part)),
            axes if isinstance(axes, tuple) else (axes,) * len(args),
            args,
            is_leaf=lambda axis: axis is None,
        )
    except ValueError as error:
        raise InputError(f"in_axes={axes} does not fit the arguments: {error}") from None
    return found


def _array(name: str, leaf: Leaf) -> Any:
    if not hasattr(leaf, "shape") and not isinstance(leaf, (bool, int, float, complex)):
        raise InputError(
            f"{name} is a {type(leaf).__name__}; expected an array or a number. Write jnp.asarray for a list."
        )
    return leaf


def _axis(name: str, leaf: Leaf, axis: Any) -> int | None:
    """The axis counted from the front."""
    if axis is None:
        return None
    if not isinstance(axis, int) or isinstance(axis, bool):
        raise InputError(f"in_axes has {axis!r} for {name}; expected the number of an axis, or None.")
    rank = np.ndim(leaf) if not hasattr(leaf, "ndim") else leaf.ndim
    if not -rank <= axis < rank:
        raise InputError(
            f"{name} has shape {np.shape(leaf)}, no axis {axis} for its rows; where every row shares it, write None "
            "for it in in_axes."
        )
    return int(axis % rank)


def _count(names: list[str], leaves: tuple[Any, ...], axes: tuple[int | None, ...]) -> int:
    counts = {name: leaf.shape[axis] for name, leaf, axis in zip(names, leaves, axes, strict=True) if axis is not None}
    if not counts:
        raise InputError("no argument has rows: in_axes is None for all of them. Write 0 for the one that has.")
    first, count = next(iter(counts.items()))
    for name, other in counts.items():
        if other != count:
            raise InputError(
                f"{first} has {count} rows and {name} has {other}; expected as many in each. Where every row shares "
                f"{name}, write None for it in in_axes."
            )
    return int(count)


def empty(shape: tuple[int, ...], dtype: DType) -> np.ndarray[Any, Any]:
    """An array of unset values that JAX can take over without a copy."""
    nbytes = prod(shape) * np.dtype(dtype).itemsize
    memory: np.ndarray[Any, Any] = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    aligned: np.ndarray[Any, Any] = memory[start : start + nbytes].view(dtype).reshape(shape)
    return aligned


def _padded(rows: np.ndarray[Any, Any], axis: int, upto: int, size: int) -> np.ndarray[Any, Any]:
    before, count = (slice(None),) * axis, rows.shape[axis]
    found = empty((*rows.shape[:axis], size, *rows.shape[axis + 1 :]), rows.dtype)
    found[(*before, slice(count))] = rows
    # The last row again, not zeros: no number comes in that the data has not.
    found[(*before, slice(count, upto))] = rows[(*before, slice(-1, None))]
    return found
