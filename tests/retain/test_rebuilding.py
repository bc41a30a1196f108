"""A program that is rebuilt with probes in it is the user's own: lengths, branches, dtypes, depth, and leading axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax
from jax.experimental import jet

from jaxgrad import TagError, retain_grads, tag

X = jnp.array([0.3, -0.7, 1.1])


def test_whether_a_branch_was_reached_has_the_leading_axes_of_its_value():
    flags = jnp.array([True, False, True])

    def row(r):
        def step(c, scanned):
            flag, v = scanned
            return lax.cond(flag, lambda c: tag(c * v, "a"), lambda c: c, c), None

        return lax.scan(step, 1.0, (flags, r))[0]

    rows = jnp.array([[1.0, -2.0, 3.0], [-1.0, 2.0, 3.0]])
    record = retain_grads(lambda x: jnp.sum(jax.vmap(row)(x)))(rows)
    assert record.values["a"].shape == record.reached["a"].shape == (2, 3)
    np.testing.assert_array_equal(record.reached["a"], [[True, False, True]] * 2)
    np.testing.assert_array_equal(np.where(record.reached["a"], record.values["a"], 9), [[1, 9, 3], [-1, 9, -3]])


def test_whether_it_was_reached_is_spread_over_a_scan_inside_the_branch():
    def fun(x):
        def branch(x):
            return lax.scan(lambda c, u: (tag(c * u, "a"), None), 1.0, x)[0]

        return lax.cond(x[0] > 0, branch, lambda x: x[1], x)

    np.testing.assert_array_equal(retain_grads(fun)(X).reached["a"], [True] * 3)
    np.testing.assert_array_equal(retain_grads(fun)(-X).reached["a"], [False] * 3)


def running_product(x):
    return lax.scan(lambda c, u: (tag(c * u, "c"), None), jnp.float32(1), x)[0]


def test_a_scan_of_symbolic_length_keeps_its_symbol():
    (n,) = export.symbolic_shape("n")
    exported = export.export(jax.jit(retain_grads(running_product)))(jax.ShapeDtypeStruct((n,), jnp.float32))
    record = exported.call(X)
    want = retain_grads(running_product)(X)
    np.testing.assert_array_equal(record.values["c"], want.values["c"])
    np.testing.assert_array_equal(record.grads["c"], want.grads["c"])


def test_a_scan_without_arrays_to_scan_keeps_its_length():
    def fun(x):
        def step(c, _):
            tag(jnp.int32(3), "n")
            return 2 * c, None

        return jnp.sum(lax.scan(step, x, length=4)[0]) + 0 * jnp.sum(tag(x, "x"))

    np.testing.assert_array_equal(retain_grads(fun, names="x")(X).output, jnp.sum(16 * X))


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_a_branch_by_platform_is_kept_as_it_is(platform):
    def fun(x):
        branches = {platform: lambda v: tag(v * v, "square"), "default": lambda v: tag(3 * v, "triple")}
        return jnp.sum(lax.platform_dependent(x, **branches))

    record = retain_grads(fun)(X)
    np.testing.assert_array_equal(record.arg_grads[0], jax.grad(fun)(X))
    assert (record.reached["square"], record.reached["triple"]) == (platform == "cpu", platform != "cpu")


def test_an_inner_x64_keeps_its_dtypes():
    def fun(x):
        h = tag(2 * x, "h")
        with jax.enable_x64(True):
            wide = tag(h.astype(jnp.float64) ** 2, "wide")
            return jnp.sum(wide).astype(jnp.float32)

    record = retain_grads(fun)(X)
    assert (record.values["h"].dtype, record.values["wide"].dtype) == (jnp.float32, np.float64)
    np.testing.assert_allclose(record.grads["h"], 4 * X, rtol=1e-6)  # float32


def test_a_tag_has_a_rule_for_jet():
    terms = ((1.0, 0.0),)
    assert jet.jet(lambda x: jnp.sin(tag(x, "h")), (1.0,), terms) == jet.jet(jnp.sin, (1.0,), terms)


def test_a_branch_that_an_inner_gradient_makes_linear_does_not_reach_the_output():
    def fun(x):
        def inner(y):
            return lax.cond(y > 0, lambda y: tag(2 * y, "a"), lambda y: y * y, y)

        return jax.grad(inner)(x[0]) * x[1]

    record = retain_grads(fun)(X)
    assert (record.grads["a"], record.notes["a"]) == (None, "does not reach the output")


def test_a_tag_in_a_pmap_is_an_error_that_says_what_to_write():
    def fun(x):
        return jnp.sum(jax.pmap(lambda r: tag(2 * r, "h"))(x))

    said = (
        r"check_vma=False \(jax.pmap is one too\), where sums over shards are unknown. Use jax.shard_map with check_vma"
    )
    with pytest.raises(TagError, match=said):
        retain_grads(fun)(jnp.ones((1, 3)))
