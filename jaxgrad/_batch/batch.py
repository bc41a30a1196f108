"""A function of one row over as many rows as there are: `jit(vmap(fun))`, and memory that is used again."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxgrad._batch import threads
from jaxgrad._batch.memory import LARGE, Memory, give_back, kind_of, write
from jaxgrad._batch.out import check_donated, check_kind, check_structure, check_written
from jaxgrad._batch.program import Program
from jaxgrad._batch.rows import read
from jaxgrad._batch.split import Split
from jaxgrad._errors import InputError
from jaxgrad._types import Leaf, PyTree

MOST_PROGRAMS = 64  # compiled ones that are kept, each for a number of rows
BLOCK = 8 << 20  # bytes of results that are computed at a time for NumPy's memory: they stay in a cache


def batch(
    fun: Callable[..., Any],
    in_axes: PyTree = 0,
    *,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    packed: bool = False,
) -> "Batched":
    r"""Transforms `fun`, of one row, into a function of many: `jit(vmap(fun))`, and its memory used again.

    | call | what runs |
    |---|---|
    | `batched(*args)` | `jit(vmap(fun))`; large results on a CPU are put where earlier ones were that are gone |
    | `batched(*args, out=last)` | the same into the memory of `last`, which is gone afterwards: donation |
    | `batched(*args, out=numpy_arrays)` | blocks of rows, written into place: memory maps larger than memory too |
    | with a `mesh` | the same program on each device, for its share of the rows |

    `fun` is traced once for rows of one shape and dtype; XLA compiles once for each number of rows, as under `jit`,
    and the last 64 programs are kept. For numbers of rows that never repeat, pad them to a few sizes.

    On a CPU new memory costs more than the arithmetic. Arrays of a megabyte and more are therefore kept when nothing
    refers to them any more (no array, view or computation), at most one call's for each of the last two numbers of
    rows, and hold the next call's results. Delete the `Batched` to give that memory back.

    Args:
      fun: pure function of one row that `vmap` takes; its result is any pytree of arrays, a `Record` for one.
      in_axes: which axis of each argument holds the rows, as `vmap` has it: an integer, None for an argument that
        every row shares, or a tuple with an entry (or a tree of them) for each argument.
      batch_size: rows that are computed at a time, which bounds the memory of intermediates; all if None. XLA runs
        such a loop on one core of a CPU: for rows whose intermediates do not fit in memory.
      mesh: devices over whose axes the rows are split. Rows that do not divide evenly come back on every device. On
        a mesh of several processes, NumPy arguments are that process's rows, as many in each.
      packed: for few rows: one array for each dtype leaves the device, and the results are NumPy arrays, views of it;
        each JAX array that a call returns costs microseconds. Without `out` and mesh.

    Returns:
      A `Batched`: `batched(*args, out=None)` gives `fun`'s result with the rows as leading axis of each array, and
      `batched.stream(calls)` does so for rows that do not fit in memory.

    Raises:
      InputError: batch_size is no positive integer, packed results are asked for on a mesh; and when called: an
        argument has no such axis, the numbers of rows differ, `out` is no result of this shape.

    Example:
      >>> from jaxgrad import neuron
      >>> batched = batch(neuron.backprop, in_axes=(0, None))
      >>> x, w = np.array([[1, 2], [3, -1], [0, 0]], np.float32), np.array([0.5, -0.3, 0.1], np.float32)
      >>> record = batched(x, w)
      >>> print(record.values["f"], record.arg_grads[1].shape)
      [0.5        0.8698915  0.5249792] (3, 3)
      >>> record = batched(x + 1, w, out=record)  # into the memory of the last result
    """
    whole = isinstance(batch_size, (int, np.integer)) and not isinstance(batch_size, bool)
    if batch_size is not None and (not whole or batch_size < 1):
        raise InputError(f"batch_size is {batch_size!r}; expected a positive number of rows, or None.")
    if packed and mesh is not None:
        raise InputError("packed results are one process's, for few rows, and there is a mesh; leave one of them out.")
    return Batched(fun, in_axes, batch_size if batch_size is None else int(batch_size), mesh, packed)


class Batched:
    """What `batch` returns: call it with rows, or let it `stream`."""

    def __init__(
        self, fun: Callable[..., Any], in_axes: PyTree, batch_size: int | None, mesh: Mesh | None, packed: bool
    ):
        self._options = fun, in_axes, batch_size, mesh, packed
        axes = tuple(in_axes) if isinstance(in_axes, list) else in_axes
        self._in_axes = jax.tree.map(lambda axis: int(axis) if isinstance(axis, np.integer) else axis, axes)
        self._memory = Memory()
        self._kinds: set[type[Any]] | None = None  # of JAX's arrays, once an `out` had them
        self._compile()

    def _compile(self) -> None:
        """Begins with no program; the old ones are gone."""
        fun, _, batch_size, mesh, packed = self._options
        self._program = Program(fun, self._in_axes, batch_size)
        self._new = jax.jit(self._program.new)
        self._over = jax.jit(self._program.over, donate_argnums=0, keep_unused=True)
        self._packed = jax.jit(self._program.packed) if packed else None
        self._split = None if mesh is None else Split(self._program.new, self._in_axes, mesh)

    def __reduce__(self) -> tuple[Any, ...]:
        return Batched, self._options  # what is compiled and kept stays here

    def __call__(self, *args: Any, out: Any = None) -> Any:
        """`fun`'s results for every row, stacked along a leading axis.

        Args:
          *args: as `in_axes` says; JAX or NumPy arrays, memory maps too.
          out: the last call's result for as many rows, whose memory is used again; it is deleted. Or NumPy arrays
            in the same structure, memory maps too, which are written to and returned.
        """
        if self._program.traces > MOST_PROGRAMS:
            self._compile()
        try:
            if out is not None:
                return self._into(out, args)
            if self._packed is not None:
                arrays, layout = self._packed(*args)
                return layout.unpack(arrays)
            if self._split is not None:
                return self._split(None, args)
            if self._program.largest >= LARGE:
                return self._lent(args)
            return self._new(*args)
        except TypeError:
            read(args, self._in_axes)  # an argument that is no array has an error of its own
            raise

    def stream(self, calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """The results of many calls in their order, the next one computed while the last one is used.

        Memory of results that are gone holds later ones: keep what you need of each, not all.

        Args:
          calls: the arguments of each call, a tuple; any number of rows in each. It is read one call ahead, in another
            thread once reading and computing take more than a millisecond.

        Example:
          >>> import jax.numpy as jnp
          >>> rows = np.arange(10.0, dtype=np.float32)  # or np.load(path, mmap_mode="r")
          >>> calls = ((rows[start : start + 4],) for start in range(0, 10, 4))
          >>> [squares.sum().item() for squares in batch(jnp.square).stream(calls)]
          [14.0, 126.0, 145.0]
        """
        return threads.ahead(self(*args) for args in calls)

    def _lent(self, args: tuple[Any, ...]) -> PyTree:
        """Results in the memory of earlier ones that are gone, if there is any."""
        if _is_traced(args) or jax.config.jax_debug_nans or jax.config.jax_debug_infs:  # type: ignore[attr-defined]
            return self._new(*args)
        kind = kind_of(args)
        free = self._memory.take(kind)
        results = self._new(*args) if free is None else self._over(free, *args)
        return self._memory.lend(kind, results, args)

    def _into(self, out: PyTree, args: tuple[Any, ...]) -> PyTree:
        kinds = {*map(type, jax.tree.leaves(out))}
        if kinds != self._kinds or self._memory:  # a small call is as long as what is done here
            return self._into_any(out, kinds, args)
        try:
            return self._over(out, *args)
        except (RuntimeError, ValueError):  # JAX refuses what was used before or is used twice: it costs no call
            check_donated(jax.tree.leaves(out), jax.tree.leaves(args))
            raise

    def _into_any(self, out: PyTree, kinds: set[type[Any]], args: tuple[Any, ...]) -> PyTree:
        """Into what is not yet known to be memory of JAX's, and of its own."""
        if self._packed is not None:
            raise InputError("packed results are views of one array, and there is an out; leave one of them out.")
        leaves, own = jax.tree.leaves(out), jax.tree.leaves(args)
        if leaves and isinstance(leaves[0], np.ndarray):
            return self._into_numpy(out, leaves, args)
        if any(map(_is_tracer, leaves)) or _is_traced(args):
            return self._new(*args)
        check_kind(kinds, jax.Array)
        check_donated(leaves, own)
        if self._split is not None:
            return self._split(out, args)
        check_structure(out, jax.eval_shape(self._new, *args))
        self._kinds = kinds
        if not self._memory:
            return self._over(out, *args)
        give_back(leaves)
        return self._lent(args)

    def _into_numpy(self, out: PyTree, leaves: Sequence[np.ndarray[Any, Any]], args: tuple[Any, ...]) -> PyTree:
        if _is_traced(args):
            raise InputError("out is NumPy's and what it is for is traced, it has no values yet; leave it out.")
        rows = read(args, self._in_axes)
        shapes = jax.eval_shape(self._new, *args)
        check_structure(out, shapes)
        check_written(leaves, rows)
        if self._split is not None:
            write(leaves, 0, self._split(None, args))
            return out
        row = sum(leaf.dtype.itemsize * leaf.size for leaf in jax.tree.leaves(shapes)) // max(1, rows.count)
        size, block = max(1, BLOCK // max(1, row)), None
        for start in range(0, rows.count, size):
            part = rows.part(start, min(size, rows.count - start))
            block = jax.tree.leaves(
                self._over(block, *part) if block is not None and start + size <= rows.count else self._new(*part)
            )
            write(leaves, start, block)
        return out


def _is_traced(args: PyTree) -> bool:
    """Whether what is computed now is a part of what JAX traces, whatever the arguments are."""
    return any(map(_is_tracer, (*jax.tree.leaves(args), jnp.zeros(()))))


def _is_tracer(leaf: Leaf) -> bool:
    return isinstance(leaf, jax.core.Tracer)
