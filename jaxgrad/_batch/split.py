"""Rows split over the devices of a mesh, each of which runs the program on its own."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgrad._batch.out import check_structure
from jaxgrad._batch.rows import read
from jaxgrad._errors import InputError
from jaxgrad._types import PyTree


class Split:
    """A program over a mesh; compiled for each number of rows."""

    def __init__(self, program: Callable[..., PyTree], in_axes: PyTree, mesh: Mesh):
        self._program = program
        self._in_axes = in_axes
        self._mesh = mesh
        self._over = jax.jit(self._on_each, donate_argnums=0, keep_unused=True)

    def __call__(self, *args: Any, out: PyTree = None) -> PyTree:
        """The results of all rows, in the memory of `out` if there is one.

        Raises:
          InputError: there are several processes, and the rows of this one do not divide over its devices, or another
            has more or fewer.
        """
        rows = read(args, self._in_axes)
        own = self._mesh.is_multi_process and all(map(_is_addressable, rows.leaves))  # rows, of this process alone
        missing = -rows.count % (len(self._mesh.local_devices) if own else self._mesh.size)
        if own and len(set(counts := self._counts(rows.count))) > 1:
            raise InputError(
                f"the processes have {', '.join(map(str, counts))} rows, device by device; expected as many in each. "
                "Share them out evenly, or add rows and drop their results."
            )
        if missing and self._mesh.is_multi_process:
            raise InputError(
                f"this process has {rows.count} rows and {len(self._mesh.local_devices)} devices of the mesh; over "
                f"several processes each device must have as many rows. Add {missing} rows and drop their results."
            )
        pairs = zip(rows.leaves, rows.axes, strict=True)
        placed = rows.tree.unflatten(self._place(_repeated(leaf, axis, missing), axis) for leaf, axis in pairs)
        if not missing:
            return self._over(out, *placed)
        results = jax.tree.map(lambda result: self._everywhere(result, rows.count), self._over(None, *placed))
        check_structure(out, results)
        jax.tree.map(lambda leaf: leaf.delete(), out)
        return results

    def _on_each(self, out: PyTree, *args: Any) -> PyTree:
        rows = read(args, self._in_axes)
        split = jax.shard_map(
            lambda *leaves: self._program(*rows.tree.unflatten(leaves)),
            mesh=self._mesh,
            in_specs=tuple(self._spec(axis) for axis in rows.axes),
            out_specs=self._spec(0),
            check_vma=False,  # each device has rows of its own: nothing is summed over them
        )
        # An empty array that is split cannot be read: JAX takes each of its shards for the whole.
        results = jax.tree.map(lambda a: a if a.size else jnp.zeros(a.shape, a.dtype), split(*rows.leaves))
        check_structure(out, results)
        return results

    def _everywhere(self, result: jax.Array, count: int) -> jax.Array:
        """The first `count` rows on every device."""
        everywhere = NamedSharding(self._mesh, PartitionSpec())
        if not result.size:  # JAX cannot slice it
            result = jnp.zeros((count, *result.shape[1:]), result.dtype)
        placed: jax.Array = jax.device_put(result, everywhere)
        return placed[:count]

    def _counts(self, count: int) -> list[int]:
        """The number of rows that the process of each device has."""
        sharding = NamedSharding(self._mesh, self._spec(0))
        own = [jax.device_put(np.full(1, count, np.int32), device) for device in self._mesh.local_devices]
        each = jax.make_array_from_single_device_arrays((self._mesh.size,), sharding, own)
        everywhere = NamedSharding(self._mesh, PartitionSpec())
        return list(map(int, np.asarray(jax.jit(jnp.copy, out_shardings=everywhere)(each))))

    def _place(self, leaf: Any, axis: int | None) -> Any:
        sharding = NamedSharding(self._mesh, self._spec(axis))
        if sharding.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        if not _is_addressable(leaf):
            return leaf
        return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))

    def _spec(self, axis: int | None) -> PartitionSpec:
        return PartitionSpec() if axis is None else PartitionSpec(*(None,) * axis, self._mesh.axis_names)


def _is_addressable(leaf: Any) -> bool:
    return not isinstance(leaf, jax.Array) or leaf.is_fully_addressable


def _repeated(leaf: Any, axis: int | None, missing: int) -> Any:
    """The rows, and the last one again `missing` times: padding adds no value that the data lacks."""
    if axis is None or not missing:
        return leaf
    last = leaf[(slice(None),) * axis + (np.full(missing, -1),)]
    return (np if isinstance(leaf, np.ndarray) else jnp).concatenate([leaf, last], axis)
