"""Few rows: every result in one array, for each array that leaves a device costs microseconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad._types import PyTree


@jax.tree_util.register_static
@dataclass(frozen=True, eq=False)
class Layout:
    """Results laid one after another, in an array for each dtype.

    Attributes:
      tree: the structure of the results.
      places: of each leaf, which array, where in it, its shape if it is not flat.
    """

    tree: Any
    places: tuple[tuple[int, slice, tuple[int, ...] | None], ...]

    def unpack(self, packed: Sequence[jax.Array]) -> PyTree:
        """The results as NumPy arrays, views of the packed ones; as parts of traced ones."""
        is_traced = any(isinstance(array, jax.core.Tracer) for array in packed)
        arrays: Sequence[Any] = packed if is_traced else [np.asarray(array) for array in packed]
        leaves = [arrays[i][at] if shape is None else arrays[i][at].reshape(shape) for i, at, shape in self.places]
        return self.tree.unflatten(leaves)


def pack(results: PyTree) -> tuple[tuple[jax.Array, ...], Layout]:
    leaves, tree = jax.tree.flatten(results)
    parts: dict[Any, list[jax.Array]] = {leaf.dtype: [] for leaf in leaves}
    places = []
    for leaf in leaves:
        part = parts[leaf.dtype]
        start = sum(before.size for before in part)
        part.append(leaf.ravel())
        shape = None if leaf.ndim == 1 else leaf.shape
        places.append((list(parts).index(leaf.dtype), slice(start, start + leaf.size), shape))
    return tuple(map(jnp.concatenate, parts.values())), Layout(tree, tuple(places))
