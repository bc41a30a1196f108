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

LARGE = 1 << 20  # bytes of an array whose page faults cost more than lending it
MOST = 2  # shapes whose memory is kept: that of a stream's blocks, and of its last one


class Memory:
    """The memory of results of one shape; at most one call's is kept free.

    The user's arrays are views of NumPy's views of ours, without a copy. JAX holds such a view for as long as anything
    refers to the memory: an array, a shard of it, a NumPy view, another library's, a computation that is under way.
    """

    def __init__(self) -> None:
        self._tree: Any = None
        self._shapes: list[jax.ShapeDtypeStruct] = []
        self._free: dict[int, jax.Array] = {}  # the number of the array in the results -> its memory
        self._lent: dict[int, jax.Array] = {}  # address -> memory

    def take(self) -> PyTree:
        """Memory for results, to be donated; None where nothing is free."""
        if not self._free:
            return None
        free, self._free = self._free, {}
        leaves = [free[i] if i in free else jnp.zeros(s.shape, s.dtype) for i, s in enumerate(self._shapes)]
        return jax.tree.unflatten(self._tree, leaves)

    def lend(self, results: PyTree, args: PyTree) -> PyTree:
        """The same results, in arrays whose memory comes back; as they are where it cannot."""
        leaves, self._tree = jax.tree.flatten(results)
        if not _can_be_lent(leaves, jax.tree.leaves(args)):
            return results
        self._shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
        jax.block_until_ready(leaves)
        views = [np.from_dlpack(leaf) for leaf in leaves]
        for number, (view, leaf) in enumerate(zip(views, leaves, strict=True)):
            self._lent[leaf.unsafe_buffer_pointer()] = leaf
            weakref.finalize(view, self._come_back, number, leaf).atexit = False
        device = next(iter(leaves[0].devices())) if leaves[0].committed else None
        return jax.tree.unflatten(self._tree, jax.device_put(views, device, may_alias=True))

    def reclaim(self, out: PyTree) -> PyTree:
        """Memory to donate in place of results that the user hands back; of those that were lent nothing is left."""
        leaves, tree = jax.tree.flatten(out)
        shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
        if not self._lent or tree != self._tree or shapes != self._shapes:
            return out
        owned = [self._lent.get(leaf.unsafe_buffer_pointer()) for leaf in leaves]
        for leaf, memory in zip(leaves, owned, strict=True):
            if memory is not None:
                leaf.delete()
        jnp.zeros(()).block_until_ready()  # when it is called next, JAX lets go of the views
        return jax.tree.unflatten(tree, [self._free_or_new(*pair) for pair in zip(leaves, owned, strict=True)])

    def _free_or_new(self, leaf: jax.Array, memory: jax.Array | None) -> jax.Array:
        if memory is None:
            return leaf
        for number, free in list(self._free.items()):
            if free is memory:
                return self._free.pop(number)
        return jnp.zeros(leaf.shape, leaf.dtype)  # something reads the old memory still

    def _come_back(self, number: int, memory: jax.Array) -> None:
        self._lent.pop(memory.unsafe_buffer_pointer(), None)
        self._free[number] = memory


class Memories:
    """The memory of the shapes that were last used."""

    def __init__(self) -> None:
        self._of: dict[Any, Memory] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    def of(self, args: PyTree) -> Memory:
        """The memory for the results of such arguments."""
        leaves, tree = jax.tree.flatten(args)
        x64 = jax.dtypes.canonicalize_dtype(np.float64)
        key = tree, x64, tuple(map(_kind, leaves))
        found = self._of.pop(key) if key in self._of else Memory()
        self._of[key] = found  # the last used is the last
        while len(self._of) > MOST:
            del self._of[next(iter(self._of))]
        return found


def write(out: Sequence[np.ndarray[Any, Any]], start: int, results: PyTree) -> None:
    """Copies results to rows `start` and on; NumPy's views of them are gone afterwards, so that they can be donated."""
    for array, result in zip(out, jax.tree.leaves(results), strict=True):
        array[start : start + len(result)] = np.from_dlpack(result) if _is_plain(result) else result


def _kind(leaf: Leaf) -> Any:
    return np.shape(leaf), getattr(leaf, "dtype", type(leaf)), getattr(leaf, "sharding", None)


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
    is_numpys = not jnp.issubdtype(array.dtype, jax.dtypes.extended) and np.dtype(array.dtype).isbuiltin == 1
    return is_numpys and next(iter(array.devices())).platform == "cpu"
