"""From the host: any number of rows through one compiled program, on every core, into host memory."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad.blocks import Block
from jaxgrad.rows import Rows

CALL = 16 << 20  # bytes that a call from the host computes: some milliseconds, to its overhead of 0.1
ALIGNMENT = 64  # bytes: JAX takes over host memory that is aligned so without a copy

Program = Callable[..., list[jax.Array]]


def rows_in_call(block: Block, batch_size: int | None) -> int:
    """Rows that one call computes: some blocks."""
    return batch_size or block.size * max(1, CALL // (block.size * max(1, block.bytes_a_row)))


def compiled(block: Block, rows: Rows, size: int) -> Program:
    """The one program: the number of rows and the leaves of `size` rows -> the results of `size` rows."""
    program = jax.jit(lambda count, *leaves: block.over(size, count, None, *leaves))
    count = jax.ShapeDtypeStruct((), jnp.int32)
    found: Program = program.lower(count, *rows.shapes(size)).compile()
    return found


def into(results: Sequence[np.ndarray[Any, Any]], program: Program, rows: Rows, size: int) -> None:
    """Writes the results of each row into its place."""
    rows = Rows(tuple(map(np.asarray, rows.leaves)), rows.axes, rows.tree, rows.count)

    def work(start: int) -> None:
        count = min(size, rows.count - start)
        for result, leaf in zip(results, program(np.int32(count), *rows.block(start, size)), strict=True):
            result[start : start + count] = np.asarray(leaf)[:count]

    _on_every_core(work, range(0, rows.count, size))


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """An array of unset values that JAX can take over without a copy."""
    nbytes = prod(shape) * np.dtype(dtype).itemsize
    memory: np.ndarray[Any, Any] = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    aligned: np.ndarray[Any, Any] = memory[start : start + nbytes].view(dtype).reshape(shape)
    return aligned


def ahead(items: Iterable[Any]) -> Iterator[Any]:
    """The same items, the next one made while the last one is used."""
    waiting, last = _with_settings(iter(items).__next__), object()

    def coming() -> Any:
        try:
            return waiting()
        except StopIteration:  # which a future cannot hold
            return last

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(coming)
        while (item := future.result()) is not last:
            future = pool.submit(coming)
            yield item


def _on_every_core(work: Callable[[int], None], starts: range) -> None:
    """Runs `work` for each start; the first error stops the rest."""
    workers = min(len(starts), cores())
    if workers < 2:
        for start in starts:
            work(start)
        return
    with ThreadPoolExecutor(workers) as pool:
        try:
            for _ in pool.map(_with_settings(work), starts):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _with_settings(work: Callable[..., Any]) -> Callable[..., Any]:
    """`work` for another thread, where JAX would have its default for x64."""
    x64 = jax.dtypes.canonicalize_dtype(np.float64) == np.float64

    def run(*args: Any) -> Any:
        with jax.enable_x64(x64):
            return work(*args)

    return run


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
