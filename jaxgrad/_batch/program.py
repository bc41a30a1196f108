"""What a batched call computes, for tracing: `fun` over all rows at once, or in a loop over blocks of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxgrad._batch.out import check_structure
from jaxgrad._batch.packed import Layout, pack
from jaxgrad._batch.rows import Rows, read
from jaxgrad._types import PyTree


class Program:
    """`fun` over rows. Python runs here once for each shape: whatever is checked here costs a later call nothing.

    Attributes:
      traces: how often it was traced.
      largest: bytes of the mean array of the largest result so far.
    """

    def __init__(self, fun: Callable[..., Any], in_axes: PyTree, batch_size: int | None):
        # vmap goes into a jitted function without tracing it again, however many rows there are.
        self._fun = jax.jit(fun)
        self._in_axes = in_axes
        self._batch_size = batch_size
        self.traces = 0
        self.largest = 0

    def new(self, *args: Any) -> PyTree:
        """The results of every row."""
        return self._run(None, args)

    def over(self, out: PyTree, *args: Any) -> PyTree:
        """The same, for `out` to be donated.

        Raises:
          InputError: `out` is not what a result of these arguments is.
        """
        return self._run(out, args)

    def packed(self, *args: Any) -> tuple[tuple[jax.Array, ...], Layout]:
        """The same, in one array."""
        return pack(self._run(None, args))

    def _run(self, out: PyTree, args: tuple[Any, ...]) -> PyTree:
        rows = read(args, self._in_axes)
        size = self._batch_size
        if size is None or rows.count <= size:
            results = self._vmapped(*args)
            check_structure(out, results)
        else:
            results = _in_blocks(self._vmapped, rows, size, out)
        self._note(results)
        return results

    def _vmapped(self, *args: Any) -> PyTree:
        return jax.vmap(self._fun, self._in_axes)(*args)

    def _note(self, results: PyTree) -> None:
        leaves = jax.tree.leaves(results)
        self.traces += 1
        self.largest = max(self.largest, sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) // max(1, len(leaves)))


def _in_blocks(fun: Callable[..., PyTree], rows: Rows, size: int, out: PyTree) -> PyTree:
    """`fun` over `size` rows at a time, each block's results written in place.

    The last block starts early enough to be whole, so that some of its rows are computed twice.
    """
    block = jax.eval_shape(lambda: fun(*rows.part(0, size)))
    whole = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows.count, *leaf.shape[1:]), leaf.dtype), block)
    check_structure(out, whole)

    def step(i: Any, results: PyTree) -> PyTree:
        start = jnp.minimum(i * size, rows.count - size)
        # The barrier keeps the arithmetic out of the writing, or XLA does it once for each result.
        found = lax.optimization_barrier(fun(*rows.part(start, size)))
        return jax.tree.map(lambda o, r: lax.dynamic_update_slice_in_dim(o, r, start, 0), results, found)

    if out is None:
        out = jax.tree.map(lambda leaf: lax.empty(leaf.shape, leaf.dtype), whole)
    return lax.fori_loop(0, -(-rows.count // size), step, out)
