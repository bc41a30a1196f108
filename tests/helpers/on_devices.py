"""Rows split over every device of this process, and over one: run by a test, which says how many devices there are."""

import sys

import jax
import numpy as np
from jax.sharding import AxisType

from jaxgrad import batch, neuron

COUNTS = {AxisType.Auto: (1, 7, 100_000), AxisType.Explicit: (7, 8)}
W = np.array([0.5, -0.3, 0.1], np.float32)


def equal(batched, mesh, count):
    x = np.random.default_rng(count).standard_normal((count, 2), dtype=np.float32)
    want = jax.tree.leaves(batched(x, W))
    split = batch(neuron.backprop, (0, None), mesh=mesh)
    first = split(x, W)
    spread = {leaf.sharding.num_devices for leaf in jax.tree.leaves(first)} == {mesh.size}
    again = split(x, W, out=split(x, W, out=first))
    return spread and all(np.array_equal(leaf, one) for leaf, one in zip(jax.tree.leaves(again), want, strict=True))


def shape_of_empty_results(mesh, count):
    return np.asarray(batch(lambda x: jax.numpy.zeros((0, 3)) * x, mesh=mesh)(np.ones(count, np.float32))).shape


def main():
    batched = batch(neuron.backprop, (0, None))
    for types in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((2, len(jax.devices()) // 2), ("a", "b"), axis_types=(types, types))
        assert [shape_of_empty_results(mesh, count) for count in (256, 257)] == [(256, 0, 3), (257, 0, 3)]
        for count in COUNTS[types]:
            verdict = "equal" if equal(batched, mesh, count) else "DIFFERENT"
            sys.stdout.write(f"{types.name} {count} {verdict}\n")


if __name__ == "__main__":
    main()
