"""Rows split over the devices of several processes: run by a test, one process each.

    python on_processes.py ADDRESS PROCESSES PROCESS FOLDER

Each leaves the results of its own rows in FOLDER.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import AxisType

from jaxgrad import InputError, batch, neuron
from jaxgrad._evaluate.processes.processes import check_agreement
from jaxgrad._evaluate.task import plan_task

W = np.array([0.5, -0.3, 0.1], np.float32)
ROWS = 10_000


def rows(process):
    return np.random.default_rng(process).standard_normal((ROWS, 2), dtype=np.float32)


def of_this_process(array):
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([shard.data for shard in shards])


def main():
    address, processes, process, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    jax.distributed.initialize(address, processes, process)
    assert jax.device_count() == 2 * processes
    mesh = jax.make_mesh((jax.device_count(),), ("rows",), axis_types=(AxisType.Auto,))
    batched = batch(neuron.backprop, (0, None), mesh=mesh)
    record = batched(rows(process), W)
    record = batched(rows(process), W, out=record)
    assert record.output.shape == (processes * ROWS,)
    columns = {name: of_this_process(array) for name, array in neuron.quantities(record).items()}
    np.savez(folder / f"{process}.npz", **columns)
    for name, part in (("uneven", rows(process)[:-1]), ("different", rows(process)[2 * process :])):
        try:
            batched(part, W)
        except InputError as error:
            (folder / f"{name}{process}.txt").write_text(str(error))
    np.save(folder / f"rows{process}.npy", rows(0))
    try:
        check_agreement(plan_task(folder / f"rows{process}.npy", f"0.5,-0.3,0.{process}"), "out.npy")
    except InputError as error:
        (folder / f"task{process}.txt").write_text(str(error))


if __name__ == "__main__":
    main()
