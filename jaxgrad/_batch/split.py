"""Rows split over the devices of a mesh, each of which runs the program on its own."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgrad._batch.out import check_structure
from jaxgrad._batch.rows import Rows, read
from jaxgrad._errors import InputError
from jaxgrad._types import PyTree


class Split:
    """A program over a mesh; compiled for each number of rows."""

    def __init__(self, program: Callable[..., PyTree], in_axes: PyTree, mesh: Mesh):
        self._program = program
        self._in_axes = in_axes
        self._mesh = mesh
        self._compiled: dict[Any, Callable[..., PyTree]] = {}

    def __call__(self, out: PyTree, args: tuple[Any, ...]) -> PyTree:
        """The results of all rows, in the memory of `out` if there is one.

        Raises:
          InputError: there are several processes, and the rows of this one do not divide over its devices, or another
            has more or fewer.
        """
        rows = read(args, self._in_axes)
        missing = -rows.count % self._devices(rows)
        self._check_processes(rows, missing)
        leaves = [_repeated(leaf, axis, missing) for leaf, axis in zip(rows.leaves, rows.axes, strict=True)]
        placed = [self._place(leaf, axis) for leaf, axis in zip(leaves, rows.axes, strict=True)]
        program = self._program_for(rows)
        if not missing:
            return program(out, *placed)
        everywhere = NamedSharding(self._mesh, PartitionSpec())
        results = jax.tree.map(lambda result: jax.device_put(result, everywhere)[: rows.count], program(None, *placed))
        check_structure(out, results)
        jax.tree.map(lambda leaf: leaf.delete(), out)
        return results

    def _program_for(self, rows: Rows) -> Callable[..., PyTree]:
        key = rows.tree, rows.axes
        if key not in self._compiled:
            split = jax.shard_map(
                lambda *leaves: self._program(*jax.tree.unflatten(rows.tree, leaves)),
                mesh=self._mesh,
                in_specs=tuple(self._spec(axis) for axis in rows.axes),
                out_specs=self._spec(0),
                check_vma=False,  # each device has rows of its own: nothing is summed over them
            )

            def run(out: PyTree, *leaves: Any) -> PyTree:
                # An empty array that is split cannot be read: JAX takes each of its shards for the whole.
                results = jax.tree.map(lambda a: a if a.size else jnp.zeros(a.shape, a.dtype), split(*leaves))
                check_structure(out, results)
                return results

            self._compiled[key] = jax.jit(run, donate_argnums=0, keep_unused=True)
        return self._compiled[key]

    def _devices(self, rows: Rows) -> int:
        """Devices that the rows of this call are split over: NumPy rows are one process's."""
        return len(self._mesh.local_devices) if self._is_of_one_process(rows) else self._mesh.size

    def _is_of_one_process(self, rows: Rows) -> bool:
        return self._mesh.is_multi_process and not any(
            isinstance(leaf, jax.Array) and not leaf.is_fully_addressable for leaf in rows.leaves
        )

    def _check_processes(self, rows: Rows, missing: int) -> None:
        if not self._mesh.is_multi_process:
            return
        if self._is_of_one_process(rows):
            counts = self._counts(rows.count)
            if len(set(counts)) > 1:
                raise InputError(
                    f"the processes have {', '.join(map(str, counts))} rows, device by device; expected as many in "
                    "each. Share them out evenly, or add rows and drop their results."
                )
        if missing:
            raise InputError(
                f"this process has {rows.count} rows and {len(self._mesh.local_devices)} devices of the mesh; over "
                f"several processes each device must have as many rows. Add {missing} rows and drop their results."
            )

    def _counts(self, count: int) -> list[int]:
        """The number of rows that the process of each device has."""
        sharding = NamedSharding(self._mesh, self._spec(0))
        own = [jax.device_put(np.full(1, count, np.int32), device) for device in self._mesh.local_devices]
        each = jax.make_array_from_single_device_arrays((self._mesh.size,), sharding, own)
        everywhere = NamedSharding(self._mesh, PartitionSpec())
        found: list[int] = np.asarray(jax.jit(jnp.copy, out_shardings=everywhere)(each)).tolist()
        return found

    def _place(self, leaf: Any, axis: int | None) -> Any:
        sharding = NamedSharding(self._mesh, self._spec(axis))
        if sharding.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return leaf
        return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))

    def _spec(self, axis: int | None) -> PartitionSpec:
        return PartitionSpec() if axis is None else PartitionSpec(*(None,) * axis, self._mesh.axis_names)


def _repeated(leaf: Any, axis: int | None, missing: int) -> Any:
    """The rows, and the last one again `missing` times: padding adds no value that the data lacks."""
    if axis is None or not missing:
        return leaf
    last = leaf[(slice(None),) * axis + (np.full(missing, -1),)]
    return (np if isinstance(leaf, np.ndarray) else jnp).concatenate([leaf, last], axis)
