"""Memory of results on a CPU, lent to the user and used again when nothing refers to it any more.

New memory costs more than the arithmetic: each of its pages is a fault. Memory that a result has left has its pages.
"""

import weakref
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad._types import Leaf, PyTree

MOST = 2  # shapes whose memory is kept: that of a stream's blocks, and of its last one


class Memory:
    """At most one call's memory for each of the last two kinds of arguments.

    The user's arrays are views of NumPy's views of ours, without a copy. JAX holds such a view for as long as anything
    refers to the memory: an array, a shard of it, a NumPy view, another library's, a computation that is under way.
    """

    def __init__(self) -> None:
        # Kind of arguments -> the results' shapes, and which arrays of theirs are free, by their number.
        self._kept: dict[Any, tuple[PyTree, dict[int, jax.Array]]] = {}

    def __bool__(self) -> bool:
        """Whether any was lent."""
        return bool(self._kept)

    def take(self, kind: Any) -> PyTree:
        """Memory for results, to be donated; None where nothing is free."""
        shapes, free = self._kept.get(kind, (None, {}))
        if not free:
            return None
        leaves, tree = jax.tree.flatten(shapes)
        taken = [free.pop(i) if i in free else jnp.zeros(leaf.shape, leaf.dtype) for i, leaf in enumerate(leaves)]
        return jax.tree.unflatten(tree, taken)

    def lend(self, kind: Any, results: PyTree, args: PyTree) -> PyTree:
        """The same results, in arrays whose memory comes back; as they are where it cannot, or where `kind` is None."""
        leaves, tree = jax.tree.flatten(results)
        if kind is None or not _can_be_lent(leaves, jax.tree.leaves(args)):
            return results
        jax.block_until_ready(leaves)
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), results)
        self._kept[kind] = self._kept.pop(kind, (shapes, {}))
        if len(self._kept) > MOST:
            del self._kept[next(iter(self._kept))]
        views = [np.from_dlpack(leaf) for leaf in leaves]
        for number, (view, leaf) in enumerate(zip(views, leaves, strict=True)):
            weakref.finalize(view, self._come_back, kind, number, leaf).atexit = False
        device = next(iter(leaves[0].devices())) if leaves[0].committed else None
        return jax.tree.unflatten(tree, jax.device_put(views, device, may_alias=True))

    def _come_back(self, kind: Any, number: int, leaf: jax.Array) -> None:
        if kind in self._kept:
            self._kept[kind][1][number] = leaf


def kind_of(args: PyTree) -> Any:
    """What decides the shapes of results, and where they are."""
    leaves, tree = jax.tree.flatten(args)
    x64 = jax.dtypes.canonicalize_dtype(np.float64)
    return tree, x64, *((np.shape(a), getattr(a, "dtype", type(a)), getattr(a, "sharding", None)) for a in leaves)


def _can_be_lent(results: Sequence[Leaf], args: Sequence[Leaf]) -> bool:
    """Whether each result has memory of its own, on one CPU device, of a dtype that NumPy has too."""
    if not results or not all(_is_plain(result) and result.size for result in results):
        return False
    addresses = [result.unsafe_buffer_pointer() for result in results]
    read = {arg.unsafe_buffer_pointer() for arg in args if _is_plain(arg)}
    return len(set(addresses)) == len(addresses) and read.isdisjoint(addresses)


def _is_plain(array: Leaf) -> bool:
    """Whether NumPy can view it where it is."""
    if not isinstance(array, jax.Array) or isinstance(array, jax.core.Tracer) or len(array.devices()) != 1:
        return False
    is_numpys = getattr(array.dtype, "isbuiltin", 0) == 1  # JAX's own dtypes have no such thing, bfloat16 has 2
    return is_numpys and next(iter(array.devices())).platform == "cpu"
