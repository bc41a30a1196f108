"""From the host: any number of rows through one compiled program, on every core, into host memory."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxgrad.blocks import Block
from jaxgrad.rows import Rows

CALL = 12 << 20  # bytes that a call from the host computes: milliseconds, of which its overhead is 0.1
ALIGNMENT = 64  # bytes: JAX takes over host memory that is aligned so without a copy

Program = Callable[..., list[jax.Array]]


def rows_in_call(block: Block, batch_size: int | None) -> int:
    """Rows that one call computes: some blocks."""
    return batch_size or block.size * max(1, CALL // (block.size * max(1, block.bytes_a_row)))


def compiled(block: Block, rows: Rows, size: int) -> Program:
    """The one program: memory to write over, a number of rows, the leaves of `size` rows -> their results."""

    def run(out: list[jax.Array], count: jax.Array, *leaves: Any) -> list[jax.Array]:
        typed = [lax.bitcast_convert_type(o, row.dtype) for o, row in zip(out, block.row, strict=True)]
        results = block.over(size, count, typed, *leaves)
        return [lax.bitcast_convert_type(result, o.dtype) for result, o in zip(results, out, strict=True)]

    count = jax.ShapeDtypeStruct((), jnp.int32)
    program = jax.jit(run, donate_argnums=0, keep_unused=True)
    found: Program = program.lower(jax.eval_shape(lambda: _memory(block, size)), count, *rows.shapes(size)).compile()
    return found


def into(results: Sequence[np.ndarray[Any, Any]], program: Program, block: Block, rows: Rows, size: int) -> None:
    """Writes the results of each row into its place."""
    rows = Rows(tuple(map(np.asarray, rows.leaves)), rows.axes, rows.tree, rows.count)
    memory = threading.local()  # of a core: the results of a call, which the next one writes over

    def work(start: int) -> None:
        count = min(size, rows.count - start)
        out = getattr(memory, "out", None) or _memory(block, size)
        memory.out = program(out, np.int32(count), *rows.block(start, size))
        for result, leaf in zip(results, memory.out, strict=True):
            # A view by this protocol ends with it; np.asarray's would stay, and the memory not be written again.
            result[start : start + count] = np.from_dlpack(leaf)[:count].view(result.dtype)

    _on_every_core(work, range(0, rows.count, size))


def _memory(block: Block, size: int) -> list[jax.Array]:
    # NumPy views no bfloat16 of JAX's: its bits are handed over.
    return [
        jnp.zeros((size, *row.shape), row.dtype if np.dtype(row.dtype).isbuiltin == 1 else jnp.uint16)
        for row in block.row
    ]


def takes(dtype: Any) -> bool:
    """Whether NumPy can view results of this dtype in JAX's memory."""
    return dtype == jnp.bfloat16 or (not jnp.issubdtype(dtype, jax.dtypes.extended) and np.dtype(dtype).isbuiltin == 1)


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
