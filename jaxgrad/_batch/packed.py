"""Few rows: every result in one array, for each array that leaves a device costs microseconds."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad._types import PyTree

Place = tuple[int, int, int, tuple[int, ...] | None]  # of a leaf: which array, start, stop, its shape if not flat
Static = tuple[Any, tuple[Place, ...]]


@jax.tree_util.register_pytree_node_class
@dataclass
class Packed:
    """Results laid one after another: an array for each dtype, and where in them each leaf of the results is."""

    arrays: tuple[jax.Array, ...]
    tree: Any
    places: tuple[Place, ...]

    def tree_flatten(self) -> tuple[tuple[jax.Array, ...], Static]:
        return self.arrays, (self.tree, self.places)

    @classmethod
    def tree_unflatten(cls, static: Static, arrays: Any) -> "Packed":
        return cls(tuple(arrays), *static)


def pack(results: PyTree) -> Packed:
    leaves, tree = jax.tree.flatten(results)
    dtypes = list(dict.fromkeys(leaf.dtype for leaf in leaves))
    parts: list[list[jax.Array]] = [[] for _ in dtypes]
    places: list[Place] = []
    for leaf in leaves:
        number = dtypes.index(leaf.dtype)
        start = sum(part.size for part in parts[number])
        parts[number].append(leaf.ravel())
        places.append((number, start, start + leaf.size, None if leaf.ndim == 1 else leaf.shape))
    return Packed(tuple(map(jnp.concatenate, parts)), tree, tuple(places))


def unpack(packed: Packed) -> PyTree:
    """The results as NumPy arrays, views of the packed ones."""
    arrays = [np.asarray(array) for array in packed.arrays]
    leaves = [
        arrays[i][start:stop] if shape is None else arrays[i][start:stop].reshape(shape)
        for i, start, stop, shape in packed.places
    ]
    return jax.tree.unflatten(packed.tree, leaves)
