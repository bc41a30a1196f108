"""From the host: any number of rows through one compiled program, on every core, into host memory."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxgrad._batch.blocks import Block
from jaxgrad._batch.rows import Rows
from jaxgrad._batch.threads import on_every_core
from jaxgrad._types import DType

CALL = 12 << 20  # bytes that a call from the host computes: milliseconds, of which its overhead is 0.1


class HostProgram:
    """A block's function for any number of rows, compiled once for `size` of them."""

    def __init__(self, block: Block, rows: Rows, batch_size: int | None):
        self._block = block
        self._size = batch_size or block.size * max(1, CALL // (block.size * max(1, block.bytes_a_row)))
        self._free: list[list[jax.Array]] = []  # memory for the results of a call, for each core that is idle
        self._compiled = self._compile(rows)

    def _compile(self, rows: Rows) -> Callable[..., list[jax.Array]]:
        block = self._block

        def run(out: list[jax.Array], count: jax.Array, *leaves: Any) -> list[jax.Array]:
            typed = [lax.bitcast_convert_type(o, row.dtype) for o, row in zip(out, block.row, strict=True)]
            results = block.over(self._size, count, typed, *leaves)
            return [lax.bitcast_convert_type(result, o.dtype) for result, o in zip(results, out, strict=True)]

        shapes = jax.eval_shape(self._memory), jax.ShapeDtypeStruct((), jnp.int32), *rows.shapes(self._size)
        program = jax.jit(run, donate_argnums=0, keep_unused=True).lower(*shapes).compile()
        return program

    def __call__(self, results: Sequence[np.ndarray[Any, Any]], rows: Rows) -> None:
        """Writes the results of each row into its place."""
        rows = Rows(tuple(map(np.asarray, rows.leaves)), rows.axes, rows.tree, rows.count)
        size = self._size

        def work(start: int) -> None:
            count = min(size, rows.count - start)
            try:
                memory = self._free.pop()
            except IndexError:
                memory = self._memory()
            memory = self._compiled(memory, np.int32(count), *rows.block(start, size, self._block.size))
            for result, leaf in zip(results, memory, strict=True):
                # A view by this protocol ends with it; np.asarray's would stay, and keep the memory from its next use.
                part = np.from_dlpack(leaf)[:count]  # type: ignore[arg-type]
                result[start : start + count] = part if part.dtype == result.dtype else part.view(result.dtype)
            self._free.append(memory)

        on_every_core(work, range(0, rows.count, size))

    def _memory(self) -> list[jax.Array]:
        # NumPy views no bfloat16 of JAX's: its bits are handed over.
        dtypes = [row.dtype if np.dtype(row.dtype).isbuiltin == 1 else jnp.uint16 for row in self._block.row]
        return [jnp.zeros((self._size, *row.shape), dtype) for row, dtype in zip(self._block.row, dtypes, strict=True)]


def takes(dtype: DType) -> bool:
    """Whether NumPy can view results of this dtype in JAX's memory."""
    return dtype == jnp.bfloat16 or (not jnp.issubdtype(dtype, jax.dtypes.extended) and np.dtype(dtype).isbuiltin == 1)
