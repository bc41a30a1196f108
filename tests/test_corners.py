"""Corners that programs in the wild reach: odd arguments, transformations that few use, loops that end unevenly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxgrad import InputError, TagError, retain_grads, tag

X = jnp.array([1.0, 2.0, 3.0])


def test_a_linear_function_with_a_tag_is_transposed():
    (bar,) = jax.linear_transpose(lambda x: 3 * tag(2 * x, "y"), X)(X)
    np.testing.assert_array_equal(bar, 6 * X)


@pytest.mark.parametrize("names", [[3], b"z", ["z", None]])
def test_a_name_asked_for_that_is_no_string_is_an_error(names):
    with pytest.raises(TagError, match="expected names or globs, as strings"):
        retain_grads(lambda x: jnp.sum(tag(x, "z")), names=names)(X)


@pytest.mark.parametrize("argnums", [np.int64(1), [np.int32(1)], (-1,), range(1, 2)])
def test_argnums_are_anything_that_is_an_index(argnums):
    record = retain_grads(lambda x, y: jnp.sum(tag(x * y, "z")), argnums=argnums)(X, 2 * X)
    assert record.arg_grads[0] is None
    np.testing.assert_array_equal(record.arg_grads[1], X)


@pytest.mark.parametrize("argnums", ["x", 1.0, [None], 2, -3])
def test_argnums_that_are_no_index_are_an_error(argnums):
    with pytest.raises(InputError, match="`argnums` has"):
        retain_grads(lambda x, y: jnp.sum(tag(x * y, "z")), argnums=argnums)(X, X)


def test_a_tag_in_a_while_loop_whose_rows_end_unevenly_is_an_error_inside_the_vmap_and_right_outside():
    def grown(a):
        return a + lax.while_loop(lambda s: s < 3, lambda s: tag(s + 1, "s"), lax.stop_gradient(a))

    with pytest.raises(TagError, match=r"a while_loop in a vmap that ends at its own step for each row"):
        retain_grads(lambda x: jnp.sum(jax.vmap(grown)(x)))(X)
    record = jax.vmap(retain_grads(grown))(X)
    np.testing.assert_array_equal(record.values["s"], [3.0, 3.0, 0.0])
    np.testing.assert_array_equal(record.reached["s"], [True, True, False])


def test_the_cotangent_is_not_committed_to_the_devices_of_the_output():
    # as jax.grad does it; a jit with out_shardings inside would refuse a cotangent that is committed elsewhere
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
    sine = jax.jit(lambda x: tag(jnp.sin(x), "s"), in_shardings=rows, out_shardings=rows)
    record = retain_grads(lambda x: jnp.sum(sine(x)))(X)
    np.testing.assert_array_equal(record.grads["s"], jnp.ones(3))
    np.testing.assert_allclose(record.arg_grads[0], jnp.cos(X), rtol=1e-6)  # float32, one cosine
