"""Blocks of rows that fit a processor's cache: how many rows that is, and a function run over all of them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxgrad._batch.rows import Rows
from jaxgrad._types import PyTree, Value

CACHE = 2 << 20  # bytes of a core's own cache, where it cannot be read
FEWEST, MOST = 256, 8192  # rows of a block: fewer starve matrix products, more gain nothing


@dataclass(frozen=True)
class Block:
    """A function over blocks of rows of one shape and dtype."""

    fun: Callable[..., list[Any]]  # the arguments' leaves, some rows of each -> the results' leaves
    axes: tuple[int | None, ...]  # of the arguments
    row: tuple[jax.ShapeDtypeStruct, ...]  # the results of one row
    tree: Any  # the results' structure
    bytes_a_row: int  # of arguments and results
    size: int  # rows in a block
    traced: bool  # the function closes over values that are traced

    def over(self, rows: int, count: Value, out: list[Any] | None, *leaves: Any) -> list[Any]:
        """The results for the first `count` of `rows`, written over `out`; for tracing.

        The last block starts early enough to be whole, so that some of its rows may be computed twice.
        """
        if rows <= self.size:
            return self.fun(*leaves)

        def step(i: Any, out: list[Any]) -> list[Any]:
            start = jnp.minimum(i * self.size, rows - self.size)
            cut = [
                leaf if axis is None else lax.dynamic_slice_in_dim(leaf, start, self.size, axis)
                for leaf, axis in zip(leaves, self.axes, strict=True)
            ]
            # The barrier keeps the arithmetic out of the writing, or XLA does it once for each result.
            results = lax.optimization_barrier(self.fun(*cut))
            return [lax.dynamic_update_slice_in_dim(o, r, start, 0) for o, r in zip(out, results, strict=True)]

        out = self.zeros(rows) if out is None else out
        found: list[Any] = lax.fori_loop(0, (count + self.size - 1) // self.size, step, out)
        return found

    def zeros(self, rows: int) -> list[Any]:
        return [jnp.zeros((rows, *row.shape), row.dtype) for row in self.row]


def plan(fun: Callable[..., Any], in_axes: PyTree, rows: Rows, size: int | None) -> Block:
    """Traces `fun` once, and chooses how many rows a block has."""

    def block(*leaves: Any) -> list[Any]:
        return jax.tree.leaves(jax.vmap(fun, in_axes)(*jax.tree.unflatten(rows.tree, leaves)))

    one_row = jax.tree.unflatten(rows.tree, rows.shapes(1))
    jaxpr, shapes = jax.make_jaxpr(jax.vmap(fun, in_axes), return_shape=True)(*one_row)
    results, tree = jax.tree.flatten(shapes)
    traced = any(isinstance(constant, jax.core.Tracer) for constant in jaxpr.consts)
    row = tuple(jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for leaf in results)
    arguments = [leaf for leaf, axis in zip(rows.shapes(1), rows.axes, strict=True) if axis is not None]
    bytes_a_row = sum(prod(leaf.shape) * leaf.dtype.itemsize for leaf in (*arguments, *row))
    return Block(block, rows.axes, row, tree, bytes_a_row, size or _in_cache(bytes_a_row), traced)


def _in_cache(bytes_a_row: int) -> int:
    """Rows whose arguments and results half fill a core's own cache, a power of two."""
    try:
        cache = os.sysconf("SC_LEVEL2_CACHE_SIZE")
    except (AttributeError, ValueError, OSError):
        cache = 0
    fitting = max(1, (cache if cache > 0 else CACHE) // 2 // max(1, bytes_a_row))
    return min(max(1 << (fitting.bit_length() - 1), FEWEST), MOST)
