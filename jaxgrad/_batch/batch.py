"""A function of one row over as many rows as there are.

Two roads lead over the rows. From the host, blocks go through one compiled program, on every core, and their results
are put into place in host memory: one compilation whatever the number of rows. On the devices, one program for that
number of rows writes into memory that is handed to it: nothing is moved twice.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxgrad._batch import blocks, devices, host, threads
from jaxgrad._batch.out import checked
from jaxgrad._batch.rows import Rows, empty, read
from jaxgrad._errors import InputError
from jaxgrad._types import PyTree


def batch(
    fun: Callable[..., Any], in_axes: PyTree = 0, *, batch_size: int | None = None, mesh: Mesh | None = None
) -> "Batched":
    r"""Transforms `fun`, of one row, into a function of many: `jit(vmap(fun))`, in blocks.

    | call | what runs |
    |---|---|
    | `batched(*args)` on a CPU | blocks of rows, on every core; compiled once, whatever the number of rows |
    | `batched(*args, out=last)` | into the memory of `last`, which is gone afterwards; compiled for that number |
    | with a `mesh`, or on a GPU or TPU | one program over the devices; compiled for that number of rows |

    `fun` is traced once for rows of one shape and dtype (once more on a mesh). On a CPU, rows are computed in blocks
    whose arguments and results stay in a core's cache; of fewer rows than a block the last one is repeated.

    A call takes a tenth of a millisecond for each array of the result: for few rows, and always as many, plain
    `jit(vmap(fun))` is quicker.

    JAX runs a loop on one core of a CPU device. For all cores with `out=`, make a device of each core before the
    first computation, and split the rows over them:

        jax.config.update("jax_num_cpu_devices", os.cpu_count())
        mesh = jax.make_mesh((os.cpu_count(),), ("rows",))

    Args:
      fun: pure function of one row that `vmap` takes; its result is any pytree of arrays, a `Record` for one.
      in_axes: which axis of each argument holds the rows, as `vmap` has it: an integer, None for an argument that
        every row shares, or a tuple with an entry (or a tree of them) for each argument.
      batch_size: rows that are computed at a time, which bounds the memory of intermediates. Chosen for the cache if
        None; on a GPU or TPU all rows then.
      mesh: devices over whose axes the rows are split. Rows that do not divide evenly come back on every device. On
        a mesh of several processes, NumPy arguments are that process's rows.

    Returns:
      A `Batched`: `batched(*args, out=None)` gives `fun`'s result with the rows as leading axis of each array, and
      `batched.stream(calls)` does so for rows that do not fit in memory.

    Raises:
      InputError: batch_size is no positive integer; and when called: an argument has no such axis, the numbers of
        rows differ, `out` is no result of this shape.

    Example:
      >>> from jaxgrad import neuron
      >>> batched = batch(neuron.backprop, in_axes=(0, None))
      >>> x, w = np.array([[1, 2], [3, -1], [0, 0]], np.float32), np.array([0.5, -0.3, 0.1], np.float32)
      >>> record = batched(x, w)
      >>> print(record.values["f"], record.arg_grads[1].shape)
      [0.5        0.8698915  0.5249792] (3, 3)
      >>> record = batched(x + 1, w, out=record)  # into the memory of the last result
    """
    whole = isinstance(batch_size, int) and not isinstance(batch_size, bool)
    if batch_size is not None and (not whole or batch_size < 1):
        raise InputError(f"batch_size is {batch_size!r}; expected a positive number of rows, or None.")
    return Batched(fun, in_axes, batch_size, mesh)


class Batched:
    """What `batch` returns: call it with rows, or let it `stream`."""

    def __init__(self, fun: Callable[..., Any], in_axes: PyTree, batch_size: int | None, mesh: Mesh | None):
        # vmap goes into a jitted function without tracing it again, however many rows there are.
        self._fun = jax.jit(fun)
        self._in_axes = tuple(in_axes) if isinstance(in_axes, list) else in_axes
        self._batch_size = batch_size
        self._mesh = mesh
        self._plans: dict[Any, _Plan] = {}

    def __call__(self, *args: Any, out: PyTree = None) -> Any:
        """`fun`'s results for every row, stacked along a leading axis.

        Args:
          *args: as `in_axes` says; JAX or NumPy arrays, memory maps too.
          out: the last call's result for as many rows, whose memory is used again; it is deleted. Or NumPy arrays
            in the same structure, memory maps too, which are written to and returned.
        """
        rows = read(args, self._in_axes)
        into_numpy = isinstance(next(iter(jax.tree.leaves(out)), None), np.ndarray)
        plan = None if any(isinstance(leaf, jax.core.Tracer) for leaf in rows.leaves) else self._plan(rows)
        if plan is None or plan.block.traced:
            if into_numpy:
                raise InputError("out is NumPy's and what it is for is traced, it has no values yet; leave it out.")
            return jax.vmap(self._fun, self._in_axes)(*args)
        if into_numpy:
            plan.into(checked(out, plan.block, rows, rows.count, np.ndarray), rows)
            return out
        return jax.tree.unflatten(plan.block.tree, plan.results(rows, out))

    def stream(self, calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """The results of many calls in their order, the next one computed while the last one is used.

        Args:
          calls: the arguments of each call, a tuple; any number of rows in each. Another thread reads it, one call
            ahead.

        Example:
          >>> import jax.numpy as jnp
          >>> rows = np.arange(10.0, dtype=np.float32)  # or np.load(path, mmap_mode="r")
          >>> calls = ((rows[start : start + 4],) for start in range(0, 10, 4))
          >>> [squares.sum().item() for squares in batch(jnp.square).stream(calls)]
          [14.0, 126.0, 145.0]
        """
        return threads.ahead(self(*args) for args in calls)

    def _plan(self, rows: Rows) -> "_Plan":
        shapes = tuple((leaf.shape, leaf.dtype, leaf.weak_type) for leaf in rows.shapes(1))
        settings = jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
        key = (rows.tree, rows.axes, shapes, settings)
        if key not in self._plans:
            block = blocks.plan(self._fun, self._in_axes, rows, self._batch_size)
            plan = _Plan(block, self._batch_size, self._mesh)
            if block.traced:  # for this call only
                return plan
            self._plans[key] = plan
        return self._plans[key]


class _Plan:
    """How rows of one shape and dtype are computed; its programs are compiled when they are first used."""

    def __init__(self, block: blocks.Block, batch_size: int | None, mesh: Mesh | None):
        self.block = block
        self._batch_size = batch_size
        self._from_host: host.HostProgram | None = None
        self._on_devices = devices.compiled(block, mesh, all_at_once=batch_size is None)
        self._mesh = mesh

    def results(self, rows: Rows, out: PyTree) -> list[Any]:
        """The results of every row, in new memory or in that of `out`."""
        if out is not None:
            return self._run(rows, checked(out, self.block, rows, devices.total(rows, self._mesh), jax.Array))
        if not self._is_on_host(rows):
            return self._run(rows, None)
        results = [empty((rows.count, *row.shape), row.dtype) for row in self.block.row]
        self.into(results, rows)
        device = next(iter(_chosen_devices(rows)), None)
        found: list[Any] = jax.device_put(results, device, may_alias=True)
        return found

    def into(self, results: Sequence[np.ndarray[Any, Any]], rows: Rows) -> None:
        """Writes the results of every row into NumPy arrays."""
        if not rows.count:
            return
        if not self._is_on_host(rows):
            for result, leaf in zip(results, self._run(rows, None), strict=True):
                result[...] = leaf
            return
        if self._from_host is None:
            self._from_host = host.HostProgram(self.block, rows, self._batch_size)
        self._from_host(results, rows)

    def _run(self, rows: Rows, out: list[jax.Array] | None) -> list[Any]:
        return devices.run(self._on_devices, self._mesh, rows, out)

    def _is_on_host(self, rows: Rows) -> bool:
        """Whether host memory is all that rows and results take."""
        arrays = [leaf for leaf in rows.leaves if isinstance(leaf, jax.Array)]
        dtypes = [leaf.dtype for leaf in arrays] + [leaf.dtype for leaf in self.block.row]
        platforms = {device.platform for leaf in arrays for device in leaf.devices()} or {jax.default_backend()}
        return (
            self._mesh is None
            and platforms == {"cpu"}
            and len(_chosen_devices(rows)) <= 1
            and all(map(host.takes, dtypes))
        )


def _chosen_devices(rows: Rows) -> set[jax.Device]:
    """Devices that arguments were put on, where JAX's default was not left to stand."""
    arrays = (leaf for leaf in rows.leaves if isinstance(leaf, jax.Array) and leaf.committed)
    return {device for leaf in arrays for device in leaf.devices()}
