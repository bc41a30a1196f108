"""Each public program is lowered for every accelerator; lowering needs no device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from jaxgrad import batch, neuron, retain_grads, watch

ONE = jax.ShapeDtypeStruct((2,), np.float32), jax.ShapeDtypeStruct((3,), np.float32)
MANY = jax.ShapeDtypeStruct((1000, 2), np.float32), jax.ShapeDtypeStruct((3,), np.float32)


def by_variables(x, w):
    z = jnp.dot(w[:-1], x) + w[-1]
    k = jnp.exp(-z)
    return 1 / (1 + k)


PROGRAMS = {
    "the neuron": (neuron.backprop, ONE),
    "its sigmoid's gradient": (jax.grad(neuron.sigmoid), (jax.ShapeDtypeStruct((), np.float32),)),
    "retain_grads": (retain_grads(neuron.forward), ONE),
    "watch": (retain_grads(watch(by_variables)), ONE),
    "batch": (batch(neuron.backprop, (0, None)), MANY),
}


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_public_program_lowers_for_an_accelerator(name, platform):
    program, arguments = PROGRAMS[name]
    assert jax.export.export(jax.jit(program), platforms=[platform])(*arguments).platforms == (platform,)


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_a_batch_over_a_mesh_lowers_for_an_accelerator(platform):
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    batched = batch(neuron.backprop, (0, None), mesh=mesh)
    exported = jax.export.export(jax.jit(batched), platforms=[platform])(*MANY)
    assert exported.platforms == (platform,)
