"""A program that is rebuilt with probes in it is the user's own: lengths, branches, dtypes, depth, and leading axes."""

import jax
import jax.extend
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


@pytest.mark.parametrize("around", [lambda f: f, jax.jit], ids=["", "in a jit"])
def test_a_derivative_rule_in_an_inner_x64_has_its_dtypes(around):
    @around
    def wide_relu(x):  # the rule of relu makes a float64 zero, which JAX narrows, with a warning, where x64 is off
        return jax.nn.relu(x.astype(jnp.float64)).astype(jnp.float32)

    def fun(x):
        with jax.enable_x64(True):
            return jnp.sum(wide_relu(tag(x, "h")))

    np.testing.assert_array_equal(retain_grads(fun)(X).grads["h"], np.float32(X > 0))


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


def branches_of_platforms(x):
    return jnp.sum(
        lax.platform_dependent(
            x,
            cpu=lambda x: tag(jnp.sin(x), "cpu"),
            tpu=lambda x: only_on_tpu(tag(jnp.cos(x), "tpu")),
            default=lambda x: tag(2 * x, "other"),
        )
    )


def only_on_tpu(x):
    primitive = jax.extend.core.Primitive("only_on_tpu")
    primitive.def_abstract_eval(lambda aval: aval)
    jax.interpreters.mlir.register_lowering(primitive, lambda ctx, value: [value], platform="tpu")
    jax.interpreters.ad.deflinear2(primitive, lambda bar, _: [bar])
    return primitive.bind(x)


def test_a_branch_for_another_platform_stays_one_and_is_never_lowered_here():
    record = jax.jit(retain_grads(branches_of_platforms))(X)
    assert record.names == ("cpu", "tpu", "other")
    np.testing.assert_allclose(record.values["cpu"], jnp.sin(X), rtol=1e-6)  # float32, one sine
    np.testing.assert_array_equal(record.grads["cpu"], jnp.ones(3))
    np.testing.assert_array_equal(record.grads["tpu"], jnp.zeros(3))
    assert {name: bool(taken) for name, taken in record.reached.items()} == {"cpu": True, "tpu": False, "other": False}


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_float64_that_a_function_switches_on_stays_on(transform):
    def fun(x):
        with jax.enable_x64(True):
            wide = x.astype(jnp.float64) / 3
            total, _ = lax.scan(lambda c, a: (tag(c + a**2, "scanned"), None), jnp.float64(0), wide)
            total = lax.cond(total > 0, lambda c: tag(2 * c, "taken"), lambda c: tag(c, "not"), total)
            total = jax.jit(lambda c: tag(3 * c, "jitted"))(total)
        return total.astype(jnp.float32)

    record = transform(retain_grads(fun))(X)
    wide = np.asarray(X, np.float64) / 3
    assert {name: str(value.dtype) for name, value in record.values.items()} == dict.fromkeys(record.names, "float64")
    np.testing.assert_allclose(record.values["scanned"], np.cumsum(wide**2), rtol=1e-14)  # float64, three sums
    np.testing.assert_array_equal(record.grads["scanned"], [6.0, 6.0, 6.0])
    assert [float(record.grads[name]) for name in ("taken", "not", "jitted")] == [3.0, 0.0, 1.0]
    np.testing.assert_allclose(record.arg_grads[0], 6 * 2 * wide / 3, rtol=1e-6)  # cast to float32 and back


def nested(depth):
    fun = lambda x: tag(jnp.sin(x), "s")  # noqa: E731
    for _ in range(depth):
        fun = jax.jit(lambda x, fun=fun: fun(x))
    return lambda x: jnp.sum(fun(x))


def deepest(run):
    """How deep jits can be nested until Python's stack ends, to 20."""
    for depth in range(40, 400, 20):
        try:
            run(nested(depth))
        except RecursionError:
            return depth - 20
    return 400


# Python 3.13 tells of a stack that ends in an audit hook, where nothing can catch it
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_jits_can_be_nested_as_deep_as_plain_grad_has_them():
    depth = deepest(lambda fun: jax.grad(fun)(X))
    np.testing.assert_array_equal(retain_grads(nested(depth))(X).grads["s"], jnp.ones(3))


def test_a_jit_with_shardings_in_a_jit_keeps_them():
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.P("rows"))
    sharded = jax.jit(lambda x: tag(x, "s"), in_shardings=rows, out_shardings=rows)
    outer = jax.jit(lambda x: jnp.sum(sharded(2 * x)))
    assert "NamedSharding(mesh" in str(jax.make_jaxpr(lambda x: retain_grads(outer)(x).output)(X))


def test_an_invariant_that_jax_moves_out_of_its_scan_has_a_note_and_the_gradient_of_all_steps():
    def energy(x, y):
        return lax.scan(lambda c, a: (c + jnp.sum(tag(jnp.sin(x), "s") * y**2) * a, None), 0.0, y)[0]

    fun = lambda x: jnp.sum(jax.grad(energy, argnums=1)(x, x))  # noqa: E731
    record = retain_grads(fun)(X)
    assert record.notes == {
        "s": "the same in each step of a scan: JAX has moved it out of the scan, and its gradient is of all steps"
    }
    assert record.values["s"].shape == (3,)
    cut_open = lambda s: jnp.sum(jax.grad(lambda y: jnp.sum(jnp.sum(s * y**2) * y))(X))  # noqa: E731
    np.testing.assert_allclose(record.grads["s"], jax.grad(cut_open)(jnp.sin(X)), rtol=1e-5)  # float32, sums of 9


HOISTED = {
    "in a jit": jax.jit,
    "in a scan of scans": lambda f: lambda x: lax.scan(lambda c, a: (c + f(a * x), None), 0.0, x)[0],
    "in a branch": lambda f: lambda x: lax.cond(x[0] > 0, f, lambda x: 0.0, x),
}


@pytest.mark.parametrize("around", HOISTED)
def test_an_invariant_that_is_moved_out_of_an_inner_scan_has_the_note_too(around):
    def energy(x, y):
        return lax.scan(lambda c, a: (c + jnp.sum(tag(jnp.sin(x), "s") * y**2) * a, None), 0.0, y)[0]

    def force(x):
        return jnp.sum(jax.grad(energy, argnums=1)(x, x))

    assert "JAX has moved it out of the scan" in retain_grads(HOISTED[around](force))(X).notes["s"]


def test_a_tag_outside_of_a_scan_and_one_that_lax_map_takes_in_batches_are_not_called_moved():
    jitted = jax.jit(lambda a: tag(jnp.sin(a), "s"))
    both = lambda x: jnp.sum(lax.map(jitted, x) * jitted(x))  # noqa: E731  # traced in the map, and found outside too
    assert retain_grads(both)(X).notes == {}
    in_batches = retain_grads(lambda x: jnp.sum(lax.map(lambda a: tag(a * a, "s"), x, batch_size=2)))(X)
    assert in_batches.names == ("s[0]", "s[1]")  # the batches, and the rest
    assert in_batches.notes == {}


LINEAR = {
    "plain": lambda f: f,
    "in a jit": jax.jit,
    "in a scan": lambda f: lambda y: lax.scan(lambda c, _: (c, f(y)), 0.0, None, length=1)[1][0],
}


@pytest.mark.parametrize("around", LINEAR)
def test_a_linear_branch_under_an_inner_gradient_needs_no_value_and_is_not_called_bypassed(around):
    def fun(x):
        inner = LINEAR[around](lambda y: 3 * tag(y, "l") + jnp.sin(y))
        return jnp.sum(jax.grad(lambda y: jnp.sum(inner(y)))(x) ** 2)

    record = retain_grads(fun)(X)
    assert record.notes == {"l": "does not reach the output"}
    np.testing.assert_allclose(record.arg_grads[0], -2 * (3 + jnp.cos(X)) * jnp.sin(X), rtol=1e-6)  # float32


def steps(row):
    def step(c, i):
        return lax.cond(i > 0, lambda c: tag(c * row, "q"), lambda c: c, c), None

    return lax.scan(step, row, jnp.arange(3))[0]


def inner_scan(row):
    return lax.cond(True, lambda r: lax.scan(lambda c, a: (tag(c * a, "q"), None), r, jnp.ones(3))[0], lambda r: r, row)


REACHED = {
    "vmap of scan of cond": (lambda x: jax.vmap(steps)(x[:2]), [[False, True, True]] * 2),
    "scan of vmap of cond": (
        lambda x: lax.scan(
            lambda c, i: (lax.cond(i > 0, lambda c: jax.vmap(lambda a: tag(a * a, "q"))(c), lambda c: c, c), None),
            x[:2],
            jnp.arange(3),
        )[0],
        [[False] * 2, [True] * 2, [True] * 2],
    ),
    "cond of scan": (lambda x: inner_scan(x[0]), [True] * 3),
    "vmap of cond of scan": (lambda x: jax.vmap(inner_scan)(x[:2]), [[True] * 3] * 2),
}


@pytest.mark.parametrize("program", REACHED)
def test_reached_has_the_leading_axes_of_its_value(program):
    fun, want = REACHED[program]
    record = retain_grads(lambda x: jnp.sum(fun(x)))(X)
    np.testing.assert_array_equal(record.reached["q"], want)
    assert record.reached["q"].shape == record.values["q"].shape
