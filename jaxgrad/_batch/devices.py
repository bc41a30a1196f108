"""On the devices: one program for all the rows, split over a mesh, which writes into memory that it is given."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgrad._batch.blocks import Block
from jaxgrad._batch.rows import Rows
from jaxgrad._errors import InputError
from jaxgrad._types import Leaf

Program = Callable[..., list[jax.Array]]


def compiled(block: Block, mesh: Mesh | None, *, all_at_once: bool) -> Program:
    """The program, jitted: memory for the results or None, the arguments' leaves -> the results.

    A CPU computes its rows in blocks; another device, whose cache its many cores share, all at once if it may.
    """
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    all_at_once = all_at_once and platform != "cpu"

    def run(out: list[Any] | None, *leaves: Any) -> list[Any]:
        rows = next(leaf.shape[axis] for leaf, axis in zip(leaves, block.axes, strict=True) if axis is not None)
        return block.fun(*leaves) if all_at_once else block.over(rows, rows, out, *leaves)

    if mesh is not None:
        run = jax.shard_map(
            run,
            mesh=mesh,
            in_specs=(_spec(mesh, 0), *(_spec(mesh, axis) for axis in block.axes)),
            out_specs=_spec(mesh, 0),
            check_vma=False,  # each device has rows of its own: nothing is summed over them
        )
    # Where the results are not written over `out`, XLA still takes its memory for them.
    program: Program = jax.jit(run, donate_argnums=0, keep_unused=True)
    return program


def run(program: Program, mesh: Mesh | None, rows: Rows, out: list[jax.Array] | None) -> list[jax.Array]:
    """The results of all rows, in the memory of `out` if there is one.

    Raises:
      InputError: there are several processes, and the rows of this one do not divide over its devices.
    """
    if mesh is None:
        return program(out, *rows.leaves)
    missing = _missing(rows, mesh)
    leaves = list(rows.block(0, rows.count + missing)) if missing else rows.leaves
    placed = [
        _place(leaf, NamedSharding(mesh, _spec(mesh, axis))) for leaf, axis in zip(leaves, rows.axes, strict=True)
    ]
    if not missing:
        return program(out, *placed)
    for leaf in out or ():
        leaf.delete()
    everywhere = NamedSharding(mesh, PartitionSpec())
    return [jax.device_put(result, everywhere)[: rows.count] for result in program(None, *placed)]


def total(rows: Rows, mesh: Mesh | None) -> int:
    """Rows of all processes: NumPy rows are those of one."""
    whole = any(isinstance(leaf, jax.Array) and not leaf.is_fully_addressable for leaf in rows.leaves)
    return rows.count if mesh is None or whole else rows.count * mesh.size // len(mesh.local_devices)


def _missing(rows: Rows, mesh: Mesh) -> int:
    """Rows that are wanting for every device to have as many."""
    missing = -rows.count % (len(mesh.local_devices) if rows.count != total(rows, mesh) else mesh.size)
    if missing and mesh.is_multi_process:
        raise InputError(
            f"this process has {rows.count} rows and {len(mesh.local_devices)} devices of the mesh; over several "
            f"processes each device must have as many rows. Add {missing} rows and drop their results."
        )
    return missing


def _place(leaf: Leaf, sharding: NamedSharding) -> Any:
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return leaf
    return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))


def _spec(mesh: Mesh, axis: int | None) -> PartitionSpec:
    return PartitionSpec() if axis is None else PartitionSpec(*(None,) * axis, mesh.axis_names)
