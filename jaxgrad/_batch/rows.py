"""The arguments of a batched call: which of their axes hold the rows, and how many rows there are."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.tree_util import keystr, tree_flatten_with_path

from jaxgrad._errors import InputError
from jaxgrad._types import Leaf, PyTree, Value


@dataclass(frozen=True)
class Rows:
    """Arguments as leaves, each with the axis that holds its rows: None for one that every row shares."""

    leaves: tuple[Any, ...]
    axes: tuple[int | None, ...]
    tree: Any
    count: int

    def part(self, start: Value, size: int) -> tuple[Any, ...]:
        """The arguments of `size` rows from `start`, which may be traced."""
        pairs = zip(self.leaves, self.axes, strict=True)
        args: tuple[Any, ...] = self.tree.unflatten(_part(leaf, axis, start, size) for leaf, axis in pairs)
        return args


def _part(leaf: Any, axis: int | None, start: Value, size: int) -> Any:
    if axis is None:
        return leaf
    if isinstance(leaf, np.ndarray) and not isinstance(start, jax.core.Tracer):
        return leaf[(slice(None),) * axis + (slice(start, start + size),)]
    return lax.dynamic_slice_in_dim(leaf, start, size, axis)


def read(args: tuple[Any, ...], in_axes: PyTree) -> Rows:
    """The rows of `args`, checked: as many in each argument, at least one argument that has any.

    Raises:
      InputError: it says which argument, its shape, and what was expected.
    """
    if isinstance(in_axes, tuple) and len(in_axes) != len(args):
        raise InputError(
            f"there are {len(args)} arguments and in_axes={in_axes} is for {len(in_axes)}; expected one entry for "
            "each argument, or a single number for all."
        )
    with_paths, tree = tree_flatten_with_path(args)
    names = [f"args{keystr(path)}" for path, _ in with_paths]
    leaves = tuple(leaf for _, leaf in with_paths)
    found = tuple(_axis(*triple) for triple in zip(names, leaves, _for_each_leaf(in_axes, args), strict=True))
    return Rows(leaves, found, tree, _count(names, leaves, found))


def _for_each_leaf(axes: PyTree, args: tuple[Any, ...]) -> list[Any]:
    """The axes of a tree that is a prefix of the arguments', one for each leaf."""
    boxes = jax.tree.map(lambda axis: lambda: axis, axes, is_leaf=lambda axis: axis is None)  # for None is no leaf
    try:
        return [box() for box in jax.tree.leaves(jax.tree.broadcast(boxes, args))]
    except ValueError as error:
        raise InputError(f"in_axes={axes} does not fit the arguments: {error}") from None


def _axis(name: str, leaf: Leaf, axis: Any) -> int | None:
    """The axis counted from the front; None where every row shares the array."""
    if not hasattr(leaf, "shape") and not isinstance(leaf, (bool, int, float, complex)):
        raise InputError(
            f"{name} is a {type(leaf).__name__}; expected an array or a number. Write jnp.asarray for a list."
        )
    if axis is None:
        return None
    if not isinstance(axis, int) or isinstance(axis, bool):
        raise InputError(f"in_axes has {axis!r} for {name}; expected the number of an axis, or None.")
    rank = np.ndim(leaf)
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
