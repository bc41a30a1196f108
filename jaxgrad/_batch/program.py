"""What a batched call computes, for tracing: `fun` over all rows at once, or in a loop over blocks of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxgrad._batch.out import check_structure
from jaxgrad._batch.rows import Rows, read
from jaxgrad._types import PyTree

LARGE = 8 << 20  # bytes of an array from which on new memory costs more than lending what is kept
LARGE_IN_STREAM = 2 << 20  # the same while the last call's results are still in use
MOST_PROGRAMS = 64  # compiled ones that are kept, each for a number of rows


class Program:
    """`fun` over rows. Python runs here once for each shape: whatever is checked here costs a later call nothing.

    Attributes:
      layouts: what takes packed results apart: NumPy arrays, views of the packed ones; parts of traced ones.
      is_full: more programs are kept than should be.
      is_light: a call has nothing to do but to run a program: there are few of them, of small results.
      is_light_in_stream: the same of a call whose last results are still in use.
    """

    def __init__(self, fun: Callable[..., Any], in_axes: PyTree, batch_size: int | None):
        # vmap goes into a jitted function without tracing it again, however many rows there are.
        self._fun = jax.jit(fun)
        self._in_axes = in_axes
        self._batch_size = batch_size
        self.layouts: list[Callable[[tuple[jax.Array, ...]], PyTree]] = []
        self._traces = 0
        self.is_full = False
        self.is_light = self.is_light_in_stream = True

    def __call__(self, out: PyTree, *args: Any) -> PyTree:
        """The results of every row; `out`, where it is not None, is to be donated for them.

        Raises:
          InputError: `out` is not what a result of these arguments is.
        """
        rows = read(args, self._in_axes)
        mapped, size = jax.vmap(self._fun, self._in_axes), self._batch_size
        if size is None or rows.count <= size:
            results = mapped(*args)
            check_structure(out, results)
        else:
            results = _in_blocks(mapped, rows, size, out)
        leaves = jax.tree.leaves(results)
        self._traces += 1
        self.is_full = self._traces > MOST_PROGRAMS
        mean = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) / max(1, len(leaves))
        self.is_light &= mean < LARGE and not self.is_full
        self.is_light_in_stream &= mean < LARGE_IN_STREAM and not self.is_full
        return results

    def packed(self, *args: Any) -> dict[int, tuple[jax.Array, ...]]:
        """Few rows' results in an array for each dtype, under the number of the layout that takes them apart."""
        leaves, tree = jax.tree.flatten(self(None, *args))
        parts: dict[Any, list[jax.Array]] = {leaf.dtype: [] for leaf in leaves}
        places, shapes = [], [(i, leaf.shape) for i, leaf in enumerate(leaves) if leaf.ndim != 1]
        for leaf in leaves:
            start = sum(before.size for before in parts[leaf.dtype])
            places.append((list(parts).index(leaf.dtype), slice(start, start + leaf.size)))
            parts[leaf.dtype].append(leaf.ravel())

        def layout(packed: tuple[jax.Array, ...]) -> PyTree:
            arrays: Any = [array if isinstance(array, jax.core.Tracer) else np.asarray(array) for array in packed]
            views = [arrays[i][place] for i, place in places]
            for i, shape in shapes:
                views[i] = views[i].reshape(shape)
            return jax.tree.unflatten(tree, views)

        self.layouts.append(layout)
        return {len(self.layouts) - 1: tuple(map(jnp.concatenate, parts.values()))}


def _in_blocks(fun: Callable[..., PyTree], rows: Rows, size: int, out: PyTree) -> PyTree:
    """`fun` over `size` rows at a time, each block's results written in place.

    JAX has a slice that would pass the end start early enough to be whole, so that some of the last block's rows are
    computed twice.
    """
    block = jax.eval_shape(lambda: fun(*rows.part(0, size)))
    whole = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows.count, *leaf.shape[1:]), leaf.dtype), block)
    check_structure(out, whole)

    def step(i: Any, results: PyTree) -> PyTree:
        start = i * size
        # The barrier keeps the arithmetic out of the writing, or XLA does it once for each result.
        found = lax.optimization_barrier(fun(*rows.part(start, size)))
        return jax.tree.map(lambda o, r: lax.dynamic_update_slice_in_dim(o, r, start, 0), results, found)

    if out is None:
        out = jax.tree.map(lambda leaf: lax.empty(leaf.shape, leaf.dtype), whole)
    return lax.fori_loop(0, -(-rows.count // size), step, out)
