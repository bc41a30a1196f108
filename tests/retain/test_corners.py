"""Corners that programs in the wild reach: odd arguments, transformations that few use, loops that end unevenly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxgrad import (
    InputError,
    TagError,
    complex_step,
    finite_difference,
    in_float64,
    ledger,
    retain_grads,
    tag,
    with_rounding,
)

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


ROWS = jnp.arange(1.0, 5.0)


@pytest.fixture
def mesh():
    return jax.make_mesh((2,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))


def test_the_cotangent_is_not_committed_to_the_devices_of_the_output(mesh):
    # as jax.grad does it; a jit with out_shardings inside would refuse a cotangent that is committed elsewhere
    rows = jax.sharding.NamedSharding(mesh, jax.P("rows"))
    sine = jax.jit(lambda x: tag(jnp.sin(x), "s"), in_shardings=rows, out_shardings=rows)
    record = retain_grads(lambda x: jnp.sum(sine(x)))(ROWS)
    np.testing.assert_array_equal(record.grads["s"], jnp.ones(4))
    np.testing.assert_allclose(record.arg_grads[0], jnp.cos(ROWS), rtol=1e-6)  # float32, one cosine


SHARD_LOSSES = {
    "its own loss": lambda s: jnp.sum(s**2),
    "the sum of all": lambda s: lax.psum(jnp.sum(s**2), "rows"),
    "in a scan": lambda s: lax.scan(lambda c, a: (c + tag(a, "a") ** 2, None), s[0] * 0, s)[0],
    "in a cond": lambda s: lax.cond(
        s[0] > 0, lambda s: jnp.sum(tag(s, "a") ** 2), lambda s: jnp.sum(tag(s, "b") ** 2), s
    ),
}


EAGERLY = ("its own loss", "the sum of all")  # a loop and a branch, operation by operation, are deep


@pytest.mark.parametrize(
    ("loss", "transform"),
    [
        *(pytest.param(loss, jax.jit, id=f"{loss}-jit") for loss in SHARD_LOSSES),
        *(
            pytest.param(loss, lambda f: f, id=f"{loss}-eager", marks=[] if loss in EAGERLY else pytest.mark.deep)
            for loss in SHARD_LOSSES
        ),
    ],
)
def test_each_shard_that_retains_gradients_has_its_own(loss, transform, mesh):
    def s_bar(x):
        return retain_grads(lambda x: SHARD_LOSSES[loss](tag(jnp.sin(x), "s")))(x).grads["s"]

    sharded = transform(jax.shard_map(s_bar, mesh=mesh, in_specs=jax.P("rows"), out_specs=jax.P("rows")))
    np.testing.assert_allclose(sharded(ROWS), 2 * jnp.sin(ROWS), rtol=1e-6)  # float32, one sine


def test_a_shard_reports_its_own_branch_and_its_own_last_value(mesh):
    def record(x):
        taken = lambda x: lax.cond(x[0] > 2, lambda x: tag(x * x, "q"), lambda x: 3 * tag(x, "r"), x)  # noqa: E731
        counted = lambda x: lax.fori_loop(0, jnp.int32(2), lambda _, x: tag(2 * x, "w"), lax.stop_gradient(x))  # noqa: E731
        record = retain_grads(lambda x: jnp.sum(taken(x) + counted(x)))(x)
        return record.values["q"], record.grads["r"], record.reached["q"][None], record.values["w"]

    parts = jax.shard_map(record, mesh=mesh, in_specs=jax.P("rows"), out_specs=jax.P("rows"))(ROWS)
    for got, want in zip(parts, ([0, 0, 9, 16], [3, 3, 0, 0], [False, True], 4 * ROWS), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_numbers_come_back_as_arrays(transform):
    record = transform(retain_grads(lambda x: (tag(x, "x") * tag(2, "two"), 1.0)[1]))(3.0)
    for value in (record.output, *record.values.values(), *record.arg_grads):
        assert isinstance(value, jax.Array)


def test_derivatives_of_a_retained_gradient_are_right_to_the_fourth_order():
    def z_bar(x):  # cos(x**2), the gradient of sin(z) at z = x**2
        return retain_grads(lambda x: jnp.sin(tag(x * x, "z")))(x).grads["z"]

    with jax.enable_x64(True):
        x = jnp.float64(0.7)
        s, c = jnp.sin(x * x), jnp.cos(x * x)
        wanted = [-2 * x * s, -2 * s - 4 * x**2 * c, -12 * x * c + 8 * x**3 * s]
        reverse = forward = z_bar
        for want in wanted:
            reverse, forward = jax.grad(reverse), jax.jacfwd(forward)
            np.testing.assert_allclose([reverse(x), forward(x)], [want, want], rtol=1e-13)  # a few float64 roundings


@pytest.mark.parametrize("way", ["constant", "slice"])
def test_a_tag_dropped_in_a_scan_whose_operand_is_used_outside_is_bypassed(way):
    def fun(z):
        def step(carry, row):
            tag(z if way == "constant" else row, "z")
            return 2 * carry, None

        return jnp.sum(jnp.sin(z)) + lax.scan(step, 1.0, z)[0]

    with pytest.raises(TagError, match="is bypassed"):
        retain_grads(fun)(X)


def test_a_tag_dropped_in_a_scan_that_nothing_else_uses_has_a_note():
    def fun(z):
        def step(carry, _):
            tag(jnp.cos(z), "z")
            return 2 * carry, None

        return jnp.sum(jnp.sin(z)) + lax.scan(step, 1.0, None, length=2)[0]

    record = retain_grads(fun)(X)
    assert record.grads["z"] is None
    assert record.notes["z"] == "does not reach the output"


@pytest.mark.skipif(not hasattr(jax.custom_vjp, "defvjp_with_logs"), reason="JAX has with_logs from 0.11.1 on")
def test_the_gradients_are_those_that_jax_logs_on_the_way_back():
    def logged(value, name):
        identity = jax.custom_vjp(lambda value: value)
        identity.defvjp_with_logs(lambda value: (value, None), lambda _, bar: ((bar,), {name: bar}))
        return identity(value)

    def fun(x, name):
        z = name(jnp.sin(x), "z")

        def step(carry, a):
            carry = name(carry * a, "c")
            return jnp.tanh(carry), jax.vmap(lambda u: name(u * u * a, "v"))(z)

        carry, ys = lax.scan(step, x[0], x, reverse=True)
        return jnp.sin(name(carry * jnp.sum(ys), "k"))  # no cond: JAX logs a sum type there, not an array

    _, pullback = jax.vjp(lambda x: fun(x, logged), X)
    _, logs = pullback.with_logs(jnp.float32(1))
    grads = retain_grads(lambda x: fun(x, tag))(X).grads
    assert grads.keys() == logs.keys()
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, logs[name], rtol=1e-6, err_msg=name)  # float32, the same operations


@pytest.mark.parametrize(
    "way",
    [
        retain_grads,
        in_float64,
        complex_step,
        finite_difference,
        with_rounding,
        lambda fun: jax.vmap(retain_grads(fun), axis_size=2, in_axes=None),
    ],
)
def test_a_gradient_that_fun_retains_is_followed_by_each_route(way):
    def inside(x):
        return jnp.sum(jnp.sin(tag(x * x, "z")) ** 2)

    def fun(x):
        return jnp.sum(jnp.cos(retain_grads(inside)(x).grads["z"]))

    x = jnp.float32([0.3, 0.7, -1.1])
    want = jax.grad(lambda x: jnp.sum(jnp.cos(2 * jnp.sin(x * x) * jnp.cos(x * x))))(x)
    record = way(fun)(x)
    assert record.names == ("z",)
    got = record.arg_grads[0]
    np.testing.assert_allclose(got, np.broadcast_to(want, got.shape), rtol=1e-6)  # eight units of the last place
    assert ledger(fun)(x).nodes["z"].grad.shape == (3,)
