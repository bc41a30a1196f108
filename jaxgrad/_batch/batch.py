"""A function of one row over as many rows as there are: `jit(vmap(fun))`, and memory that is used again."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxgrad._batch.memory import Memory, kind_of
from jaxgrad._batch.out import check_donated, check_kind, check_structure, check_written
from jaxgrad._batch.program import Program
from jaxgrad._batch.rows import read
from jaxgrad._batch.split import Split
from jaxgrad._errors import InputError
from jaxgrad._types import PyTree

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

    On a CPU new memory costs more than the arithmetic. Arrays of 8 MiB and more (2 MiB in a `stream`) are therefore
    kept when nothing refers to them any more (no array, view or computation), at most one call's for each of the last
    two numbers of rows, and hold the next call's results. Delete the `Batched` to give that memory back.

    Args:
      fun: pure function of one row that `vmap` takes; its result is any pytree of arrays, a `Record` for one.
      in_axes: which axis of each argument holds the rows, as `vmap` has it: an integer, None for an argument that
        every row shares, or a tuple with an entry (or a tree of them) for each argument.
      batch_size: rows that are computed at a time, which bounds the memory of intermediates; all if None. Where
        intermediates do not fit in a cache, as of a few million rows, some 2**18 of them at a time can be faster.
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
        self._compile()

    def _compile(self) -> None:
        """Begins with no program and no memory; the old ones are gone."""
        fun, _, batch_size, mesh, packed = self._options
        self._program = Program(fun, self._in_axes, batch_size)
        self._new = jax.jit(partial(self._program, None))
        self._over = jax.jit(self._program, donate_argnums=0, keep_unused=True)
        self._packed = jax.jit(self._program.packed)
        self._split = None if mesh is None else Split(partial(self._program, None), self._in_axes, mesh)
        self._run = self._unpacked if packed else self._split or self._new
        self._memory = Memory()
        self._array: type[Any] | None = None  # JAX's, once an `out` had them and as long as nothing is lent

    def __reduce__(self) -> tuple[Any, ...]:
        return Batched, self._options  # what is compiled and kept stays here

    def __call__(self, *args: Any, out: Any = None) -> Any:
        """`fun`'s results for every row, stacked along a leading axis.

        Args:
          *args: as `in_axes` says; JAX or NumPy arrays, memory maps too, which are read until the result is ready.
          out: the last call's result for as many rows, whose memory is used again; it is deleted. Or NumPy arrays
            in the same structure, memory maps too, which are written to and returned.
        """
        try:
            if out is None:
                return self._run(*args) if self._program.is_light else self._memory.lend(*self._begin(args))
            for leaf in jax.tree.leaves(out):  # a small call is as long as what is done here
                if type(leaf) is not self._array:
                    return self._into(out, args)
            try:
                return self._over(out, *args)
            except (RuntimeError, ValueError):  # JAX refuses what was used before or is used twice: it costs no call
                check_donated(jax.tree.leaves(out), jax.tree.leaves(args))
                raise
        except TypeError:
            read(args, self._in_axes)  # an argument that is no array has an error of its own
            raise

    def stream(self, calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """The results of many calls in their order, the next one computed while the last one is used.

        Memory of results that are gone holds later ones: keep what you need of each, not all.

        Args:
          calls: the arguments of each call, a tuple; any number of rows in each. It is read one call ahead, once the
            last call's arguments are done with: memory that they were read into may be used again.

        Example:
          >>> import jax.numpy as jnp
          >>> rows = np.arange(10.0, dtype=np.float32)  # or np.load(path, mmap_mode="r")
          >>> calls = ((rows[start : start + 4],) for start in range(0, 10, 4))
          >>> [squares.sum().item() for squares in batch(jnp.square).stream(calls)]
          [14.0, 126.0, 145.0]
        """
        waiting = iter(calls)
        finish = self._begin_next(waiting)
        while finish is not None:
            result = jax.block_until_ready(finish())
            finish = self._begin_next(waiting)  # JAX computes it in threads of its own
            yield result

    def _begin_next(self, calls: Iterator[tuple[Any, ...]]) -> Callable[[], PyTree] | None:
        """What returns the next call's result, or raises its error; None where there is no call."""
        try:
            args = next(calls)
        except StopIteration:
            return None
        except Exception as error:
            return partial(_fail, error)
        try:
            return partial(self._memory.lend, *self._begin(args))
        except Exception:
            return partial(self, *args)  # which fails again, when its result is asked for

    def _begin(self, args: tuple[Any, ...]) -> tuple[Any, PyTree, tuple[Any, ...]]:
        """What kind of results they are, None where their memory stays theirs; what JAX may yet be computing."""
        if self._program.is_full:
            self._compile()
        debugs = jax.config.jax_debug_nans or jax.config.jax_debug_infs  # type: ignore[attr-defined]
        if self._program.is_light_in_stream or self._run is not self._new or debugs or _is_traced(args):
            return None, self._run(*args), args
        self._array = None
        kind = kind_of(args)
        free = self._memory.take(kind)
        return kind, self._new(*args) if free is None else self._over(free, *args), args

    def _unpacked(self, *args: Any) -> PyTree:
        [(layout, arrays)] = self._packed(*args).items()
        return self._program.layouts[layout](arrays)

    def _into(self, out: PyTree, args: tuple[Any, ...]) -> PyTree:
        """Into what is not yet known to be memory of JAX's, and of its own."""
        if self._options[-1]:
            raise InputError("packed results are views of one array, and there is an out; leave one of them out.")
        leaves = jax.tree.leaves(out)
        if isinstance(leaves[0], np.ndarray):
            return self._into_numpy(out, args)
        if _is_traced((out, args)):
            return self._new(*args)
        check_kind(leaves, jax.Array)
        check_donated(leaves, jax.tree.leaves(args))
        if self._split is not None:
            return self._split(*args, out=out)
        check_structure(out, jax.eval_shape(self._new, *args))
        if self._memory:
            for leaf in leaves:  # so that their memory comes back if nothing else reads it
                leaf.delete()
            _nothing().block_until_ready()  # when it is called next, JAX lets go of the views
            return self._memory.lend(*self._begin(args))
        self._array = type(leaves[0])
        return self._over(out, *args)

    def _into_numpy(self, out: PyTree, args: tuple[Any, ...]) -> PyTree:
        """Block by block: neither the rows nor `out` need fit in memory."""
        if _is_traced(args):
            raise InputError("out is NumPy's and what it is for is traced, it has no values yet; leave it out.")
        rows = read(args, self._in_axes)
        check_structure(out, jax.eval_shape(self._new, *args))
        leaves = jax.tree.leaves(out)
        check_written(leaves, rows)
        size = max(1, rows.count * BLOCK // max(1, sum(leaf.nbytes for leaf in leaves)))
        starts = range(0, rows.count, size)
        parts = (rows.part(start, min(size, rows.count - start)) for start in starts)
        for start, block in zip(starts, self.stream(parts), strict=True):
            for array, result in zip(leaves, jax.tree.leaves(block), strict=True):
                array[start : start + size] = result
        return out


def _fail(error: Exception) -> PyTree:
    raise error


def _is_traced(args: PyTree) -> bool:
    """Whether what is computed now is a part of what JAX traces, whatever the arguments are."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in [*jax.tree.leaves(args), _nothing()])


_nothing = jax.jit(lambda: jnp.zeros(()))
