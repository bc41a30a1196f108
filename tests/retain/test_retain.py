"""retain_grads and retain_vjp: every rule of meaning, each against a gradient taken another way.

The oracle is the program cut open: written again as a function of the intermediate, and given to `jax.grad`.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import jaxgrad
from jaxgrad import InputError, OutputError, Record, TagError, compare, neuron, retain_grads, retain_vjp, tag
from jaxgrad._program.quick_jit import quick_jit

X = np.float32([0.5, -1.5, 2.0])


# One and the same arithmetic in both, but for the order in which XLA sums: a few float32 roundings.
ROUNDED_OTHERWISE = {"rtol": 2e-6, "atol": 1e-7}


def assert_close(got, want):
    chex.assert_trees_all_close(got, want, **ROUNDED_OTHERWISE)


def assert_retained(fun, args, values, grads):
    """The record of `fun(*args)` has these values and gradients, eager and jitted; its output is that of `fun`."""
    output, arg_grads = quick_jit(jax.value_and_grad(fun, argnums=tuple(range(len(args)))))(*args)
    want = Record(output, tuple(values), values, grads, arg_grads)
    for transform in (lambda f: f, quick_jit):
        record = transform(retain_grads(fun))(*args)
        assert list(record.names) == list(values)
        compare(record, want, **ROUNDED_OTHERWISE).raise_if_different()  # shapes and dtypes too


# The neuron


def test_part_2_of_the_document_is_reproduced_to_the_bit():
    record = jax.jit(retain_grads(neuron.forward))(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1]))
    assert record.names == ("z", "k", "h", "f")
    comparison = compare(record, part_2(jaxgrad.reference.load()))
    assert len(comparison.rows) == 13
    comparison.raise_if_different()
    assert {row.ulp for row in comparison.rows} == {0}


def part_2(table):
    return jaxgrad.reference.Table(
        title=table.title,
        function=table.function,
        x=table.x,
        w=table.w,
        rounded=table.rounded,
        numbers=tuple(number for number in table.numbers if number.part == 2),
    )


# Straight-line programs


def test_an_intermediate_has_the_gradient_of_the_program_cut_open_there():
    def rest(h):
        return jnp.sum(jnp.sin(h) * h)

    h = np.exp(X)
    assert_retained(lambda x: rest(tag(jnp.exp(x), "h")), (X,), {"h": h}, {"h": np.cos(h) * h + np.sin(h)})


def test_names_are_in_program_order_and_never_sorted():
    def fun(x):
        return tag(jnp.sum(tag(tag(x * 2, "zebra") + 1, "ape")), "middle")

    assert retain_grads(fun)(X).names == ("zebra", "ape", "middle")
    assert jax.jit(retain_grads(fun))(X).names == ("zebra", "ape", "middle")
    assert list(jax.jit(retain_grads(fun))(X).values) == ["zebra", "ape", "middle"]


def test_a_name_used_twice_is_numbered_and_neither_summed_nor_overwritten():
    def fun(x):
        return jnp.sum(tag(2 * x, "a") + 3 * tag(5 * x, "a"))

    assert_retained(fun, (X,), {"a[0]": 2 * X, "a[1]": 5 * X}, {"a[0]": np.ones_like(X), "a[1]": np.full_like(X, 3)})


def test_a_helper_called_twice_yields_two_intermediates():
    @jax.jit
    def layer(x):
        return tag(jnp.tanh(x), "layer")

    h = np.tanh(X)
    assert_retained(
        lambda x: jnp.sum(layer(layer(x))),
        (X,),
        {"layer[0]": h, "layer[1]": np.tanh(h)},
        {"layer[0]": 1 - np.tanh(h) ** 2, "layer[1]": np.ones_like(h)},
    )


def test_a_pytree_gets_one_name_for_each_leaf():
    def fun(x):
        p = tag({"u": 2 * x, "v": (3 * x, x[0])}, "p")
        return jnp.sum(p["u"] * p["v"][0]) + p["v"][1]

    record = retain_grads(fun)(X)
    assert record.names == ("p['u']", "p['v'][0]", "p['v'][1]")
    assert_close(dict(record.grads), {"p['u']": 3 * X, "p['v'][0]": 2 * X, "p['v'][1]": jnp.float32(1)})


def test_arguments_and_outputs_may_be_pytrees():
    def fun(params, x):
        return jnp.sum(tag(params["w"] * x[0], "h")) + params["b"]

    params, x = {"w": X, "b": jnp.float32(1)}, [X, None]
    record = retain_grads(fun)(params, x)
    assert_close(record.arg_grads, ({"w": X, "b": jnp.float32(1)}, [X, None]))


def test_a_use_of_the_value_before_the_tag_does_not_count():
    def fun(x):
        z = x * x
        return jnp.sum(3 * tag(z, "z") + 5 * z)  # the tagged value has its own gradient, 3

    assert_retained(fun, (X,), {"z": X * X}, {"z": jnp.full(3, 3.0)})


def test_negative_zero_is_kept():
    record = retain_grads(lambda x: jnp.sum(tag(-x, "z") * 1.0))(jnp.zeros(2))
    assert np.signbit(record.values["z"]).all()
    assert np.signbit(retain_grads(lambda x: tag(-x, "z"))(jnp.float32(0)).output)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_a_gradient_has_the_dtype_of_its_value(dtype):
    def fun(x):
        return jnp.sum(jnp.abs(tag(x * x, "z")).astype(jnp.float32))

    x = np.array([1.5, -2.0]).astype(jnp.dtype(dtype)) * (np.complex64(1 + 1j) if dtype == "complex64" else 1)
    record = quick_jit(retain_grads(fun))(x)
    assert record.values["z"].dtype == record.grads["z"].dtype == record.arg_grads[0].dtype == dtype
    cut = quick_jit(jax.grad(lambda z: jnp.sum(jnp.abs(z).astype(jnp.float32))))
    chex.assert_trees_all_close(record.grads["z"], cut(x * x), rtol=1e-2 if "16" in dtype else 1e-6)  # eps of bfloat16


# Control flow


@pytest.mark.parametrize(
    ("unroll", "reverse"),
    [(1, False), (2, True), *(pytest.param(*pair, marks=pytest.mark.deep) for pair in [(1, True), (2, False)])],
)
def test_a_tag_in_scan_yields_one_gradient_for_each_step(reverse, unroll):
    def fun(start, xs, scale):
        def step(carry, x):
            carry = tag(jnp.sin(carry * x * scale), "s")
            return carry, carry * 2

        carry, ys = lax.scan(step, start, xs, reverse=reverse, unroll=unroll)
        return carry + jnp.sum(ys**2)

    def unrolled(start, xs, scale, eps):
        carry, total, steps = start, 0.0, [None] * 3
        for i in reversed(range(3)) if reverse else range(3):
            carry = jnp.sin(carry * xs[i] * scale) + eps[i]
            steps[i] = carry
            total += (carry * 2) ** 2
        return carry + total, jnp.stack(steps)

    args = np.float32(0.7), X, np.float32(1.1)
    grad, steps = quick_jit(jax.grad(unrolled, argnums=3, has_aux=True))(*args, np.zeros_like(X))
    assert_retained(fun, args, {"s": steps}, {"s": grad})


def test_nested_scans_stack_outermost_first():
    def fun(x):
        def outer(c, y):
            return lax.scan(lambda d, v: (tag(d * v, "inner"), None), c, x)[0] + tag(y * c, "outer"), None

        return lax.scan(outer, 1.0, x[:2])[0]

    def unrolled(x, eps):
        c, inner, outer = 1.0, [], []
        for i in range(2):
            outer.append(x[i] * c + eps["outer"][i])
            d = c
            inner.append([])
            for j in range(3):
                d = d * x[j] + eps["inner"][i, j]
                inner[i].append(d)
            c = d + outer[i]
        return c, {"inner": jnp.array(inner), "outer": jnp.array(outer)}

    eps = {"inner": np.zeros((2, 3), np.float32), "outer": np.zeros(2, np.float32)}
    grads, values = quick_jit(jax.grad(unrolled, argnums=1, has_aux=True))(X, eps)
    assert_retained(fun, (X,), values, grads)


def test_a_tag_in_fori_loop_is_stacked_too():
    assert_retained(
        lambda x: lax.fori_loop(0, 3, lambda i, c: tag(2 * c, "d"), x),
        (jnp.float32(1.5),),
        {"d": jnp.array([3.0, 6.0, 12.0])},
        {"d": jnp.array([4.0, 2.0, 1.0])},
    )


@pytest.mark.parametrize("x", [2.0, -2.0])
def test_each_branch_of_cond_is_reported_with_zeros_where_not_taken(x):
    def fun(x):
        return lax.cond(
            x > 0,
            lambda x: jnp.sum(tag(x * jnp.arange(3.0), "vector")),
            lambda x: tag(x * x, "scalar"),
            x,
        )

    vector, scalar = (x * np.arange(3.0), 0.0) if x > 0 else (np.zeros(3), x * x)
    for transform in (lambda f: f, jax.jit):
        record = transform(retain_grads(fun))(x)
        assert_close(dict(record.values), {"scalar": np.float32(scalar), "vector": np.float32(vector)})
        assert_close(dict(record.grads), {"scalar": np.float32(x < 0), "vector": np.full(3, x > 0, np.float32)})
        assert dict(record.reached) == {"scalar": x < 0, "vector": x > 0}


def test_one_name_in_three_branches_is_numbered_by_branch():
    def fun(i, x):
        return lax.switch(i, [lambda x: tag(2 * x, "b"), lambda x: tag(3 * x, "b"), lambda x: x], x)

    record = retain_grads(fun)(1, jnp.float32(1.0))
    assert_close(dict(record.values), {"b[0]": jnp.float32(0), "b[1]": jnp.float32(3)})
    assert dict(record.reached) == {"b[0]": False, "b[1]": True}
    assert dict(retain_grads(fun)(2, jnp.float32(1.0)).reached) == {"b[0]": False, "b[1]": False}


def test_a_branch_not_taken_has_zeros_of_every_dtype():
    def fun(x):
        def taken(x):
            tag(x > 0, "bool"), tag(jnp.int8(3), "int"), tag(jax.random.key(7), "key")
            return tag(x * 1j, "complex").imag

        return lax.cond(x > 0, taken, lambda x: x, x)

    record = retain_grads(fun)(jnp.float32(-1.0))
    assert [record.values[n].dtype.name for n in ("bool", "int", "complex")] == ["bool", "int8", "complex64"]
    assert not any(jnp.any(record.values[n]) for n in ("bool", "int", "complex"))
    assert not jnp.any(jax.random.key_data(record.values["key"]))
    assert not any(record.reached.values())


def test_a_cond_in_a_cond_is_reached_only_if_both_branches_are():
    def fun(x, y):
        def inner(x):
            return lax.cond(y > 0, lambda x: tag(2 * x, "deep"), lambda x: x, x)

        return lax.cond(x > 0, inner, lambda x: tag(3 * x, "else"), x)

    for x, y in [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0)]:
        record = retain_grads(fun)(x, y)
        assert record.reached["deep"] == (x > 0 and y > 0)
        assert record.reached["else"] == (x < 0)
        assert_close(record.grads["deep"], jnp.float32(x > 0 and y > 0))


def test_a_cond_in_a_scan_says_for_each_step_whether_it_was_reached():
    def fun(x):
        def step(c, y):
            return lax.cond(y > 0, lambda c: tag(c * y, "c"), lambda c: c, c), None

        return lax.scan(step, 2.0, x)[0]

    record = jax.jit(retain_grads(fun))(X)
    assert record.reached["c"].tolist() == [True, False, True]
    assert_close(record.values["c"], jnp.array([1.0, 0.0, 2.0]))
    assert_close(record.grads["c"], jnp.array([2.0, 0.0, 1.0]))


def test_a_while_loop_yields_the_last_value_no_gradient_and_a_note():
    def fun(x, n):
        start = (0, lax.stop_gradient(x))
        return x * lax.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, tag(s[1] * 2, "w")), start)[1]

    record = jax.jit(retain_grads(fun))(jnp.float32(1.5), 3)
    assert record.values["w"] == 12.0
    assert record.grads["w"] is None
    assert record.notes["w"] == "while_loop has no reverse mode: the last value, no gradient"
    assert record.reached["w"]
    assert_close(record.arg_grads[0], jnp.float32(12.0))

    never = retain_grads(fun)(jnp.float32(1.5), 0)
    assert not never.reached["w"]


def test_checkpoint_changes_nothing():
    def block(x):
        return jnp.sum(tag(jnp.sin(tag(x * x, "a")), "b") ** 2)

    plain = retain_grads(block)(X)
    policies = [None, jax.checkpoint_policies.everything_saveable, jax.checkpoint_policies.nothing_saveable]
    for policy in policies:
        record = jax.jit(retain_grads(jax.checkpoint(block, policy=policy)))(X)
        assert_close(record, plain)
        assert record.names == ("a", "b")


def test_checkpoint_in_a_scan_yields_one_record():
    @jax.checkpoint
    def step(c, y):
        return tag(jnp.sin(c * y), "s"), None

    def fun(x):
        return lax.scan(step, 1.0, x)[0]

    def plain(x):
        return lax.scan(lambda c, y: (tag(jnp.sin(c * y), "s"), None), 1.0, x)[0]

    assert_close(jax.jit(retain_grads(fun))(X), retain_grads(plain)(X))


def test_a_function_with_a_rule_of_its_own_keeps_it_when_called():
    @jax.custom_vjp
    def seven(x):
        return 2 * x

    seven.defvjp(lambda x: (2 * x, None), lambda _, g: (7 * g,))
    record = retain_grads(lambda x: jnp.sum(tag(seven(tag(x * 1, "before")), "after")))(X)
    assert_close(dict(record.grads), {"before": jnp.full(3, 7.0), "after": jnp.ones(3)})
    relu = retain_grads(lambda x: jnp.sum(jax.nn.relu(tag(x * 1, "before"))))(X)
    assert_close(relu.grads["before"], jnp.array([1.0, 0.0, 1.0]))


def test_a_shard_map_yields_a_value_for_each_shard():
    if jax.device_count() < 2:
        pytest.fail("tests run on two CPU devices: see conftest.py")
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))

    def fun(x, w):
        def body(x, w):
            w = tag(2 * w, "shared")
            return lax.psum(jnp.sum(tag(x * w, "own") ** 2), "i")

        return jax.shard_map(body, mesh=mesh, in_specs=(jax.P("i"), jax.P()), out_specs=jax.P())(x, w)

    x, w = np.float32([1, 2, 3, 4]), np.float32(3)
    own = (x * 2 * w).reshape(2, 2)
    assert_retained(
        fun, (x, w), {"shared": 2 * w, "own": own}, {"shared": np.sum(2 * own * x.reshape(2, 2)), "own": 2 * own}
    )


def test_a_gradient_is_sharded_as_its_value_where_shardings_are_part_of_the_type():
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Explicit,))

    def fun(x):
        return jnp.sum(lax.scan(lambda c, t: (tag(c * t, "c"), None), x, jnp.ones(3))[0])

    with jax.set_mesh(mesh):
        record = jax.jit(retain_grads(fun))(jax.device_put(jnp.arange(4.0), jax.P("i")))
    assert record.values["c"].sharding.spec == record.grads["c"].sharding.spec == jax.P(None, "i")
    np.testing.assert_array_equal(record.grads["c"], np.ones((3, 4)))


# Transformations around and inside


@pytest.mark.parametrize("in_axes", [0, 1, -1])
def test_vmap_inside_leads_with_the_batch_axis(in_axes):
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)

    def fun(rows):
        return jnp.sum(jax.vmap(lambda row: jnp.sum(tag(jnp.sin(row), "s") ** 2), in_axes=in_axes)(rows))

    s = np.sin(np.moveaxis(rows, in_axes, 0))
    assert_retained(fun, (rows,), {"s": s}, {"s": 2 * s})


def test_nested_vmaps_lead_outermost_first():
    cube = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / np.float32(10)

    def fun(cube):
        one = lambda row: jnp.sum(jnp.exp(tag(2 * row, "s")))  # noqa: E731
        return jnp.sum(jax.vmap(jax.vmap(one, in_axes=1), in_axes=2)(cube))

    s = np.transpose(2 * cube, (2, 1, 0))  # axis 2 is the outer batch; of the two left, axis 1 the inner one
    assert_retained(fun, (cube,), {"s": s}, {"s": np.exp(s)})


def rows_in_an_inner_retain_grads(rows):
    return retain_grads(lambda rows: jnp.sum(jax.vmap(lambda row: jnp.sum(tag(2 * row, "h")))(rows)))(rows).output


INNER = {
    "alone": lambda cube: rows_in_an_inner_retain_grads(cube[0]),
    "in a vmap": lambda cube: jnp.sum(jax.vmap(rows_in_an_inner_retain_grads)(cube)),
    "in a scan": lambda cube: lax.scan(lambda s, rows: (s + rows_in_an_inner_retain_grads(rows), None), 0.0, cube)[0],
}


@pytest.mark.parametrize("around", INNER)
def test_a_tag_in_a_vmap_in_an_inner_retain_grads_keeps_its_axes(around):
    cube = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    record = quick_jit(retain_grads(INNER[around]))(cube)
    want = cube[0] if around == "alone" else cube
    np.testing.assert_array_equal(record.values["h"], 2 * want)
    np.testing.assert_array_equal(record.grads["h"], np.ones_like(want))


def test_a_vmap_around_an_inner_retain_grads_that_may_batch_the_tag_or_not_is_an_error():
    def fun(cube):
        return jnp.sum(jax.vmap(lambda a: a + INNER["in a scan"](cube))(jnp.ones(5)))

    with pytest.raises(TagError, match="order of its leading axes is unknown"):
        retain_grads(fun)(np.ones((2, 3, 4), np.float32))


def test_vmap_of_scan_and_scan_of_vmap_differ_in_their_axes():
    xs = np.arange(6, dtype=np.float32).reshape(2, 3)

    def scanned(x):
        return lax.scan(lambda c, y: (tag(c + y, "s"), None), 0.0, x)[0]

    def vmapped_step(c, y):
        return jax.vmap(lambda c, y: tag(c + y, "s"))(c, y), None

    def steps(x):
        return lax.scan(vmapped_step, jnp.zeros(2), x.T)[0]

    sums = np.cumsum(xs, axis=1)
    assert_retained(lambda x: jnp.sum(jax.vmap(scanned)(x)), (xs,), {"s": sums}, {"s": np.ones_like(sums)})
    assert_retained(lambda x: jnp.sum(steps(x)), (xs,), {"s": sums.T}, {"s": np.ones_like(sums.T)})
    through_jit = jax.vmap(jax.jit(lambda x: scanned(x)))
    assert_retained(lambda x: jnp.sum(through_jit(x)), (xs,), {"s": sums}, {"s": np.ones_like(sums)})


def test_a_value_that_a_vmap_does_not_batch_is_one_value_with_one_gradient():
    def fun(w, x):
        return jnp.sum(jax.vmap(lambda x: tag(2 * w, "w2") * x)(x))

    assert_retained(fun, (jnp.float32(3), X), {"w2": jnp.float32(6)}, {"w2": jnp.sum(X)})


def test_a_branch_under_vmap_inside_has_its_gradient_where_taken():
    def fun(x):
        return jnp.sum(jax.vmap(lambda y: lax.cond(y > 0, lambda y: tag(y * y, "t"), lambda y: y, y))(x))

    assert_close(retain_grads(fun)(X).grads["t"], jnp.array([1.0, 0.0, 1.0]))


def test_vmap_around_leads_with_the_batch_axis():
    def fun(w, x):
        return jnp.sum(jnp.exp(tag(w * x, "h")))

    rows = jnp.arange(6.0).reshape(2, 3) / 5
    record = jax.jit(jax.vmap(retain_grads(fun), in_axes=(None, 0)))(X, rows)
    assert record.names == ("h",)
    assert_close(record.values["h"], X * rows)
    assert_close(record.grads["h"], jnp.exp(X * rows))
    assert_close(record.arg_grads, (rows * jnp.exp(X * rows), X * jnp.exp(X * rows)))


def test_vmap_around_a_cond_is_reached_row_by_row():
    def fun(x):
        return lax.cond(x > 0, lambda x: tag(x * x, "t"), lambda x: x, x)

    record = jax.vmap(retain_grads(fun))(X)
    assert record.reached["t"].tolist() == [True, False, True]
    assert_close(record.values["t"], jnp.array([0.25, 0.0, 4.0]))
    assert_close(record.grads["t"], jnp.array([1.0, 0.0, 1.0]))


def test_the_second_and_third_derivative_through_grads_are_right():
    def fun(x):
        return jnp.exp(tag(jnp.sin(x), "z")) * x

    def z_bar(x):
        return retain_grads(fun)(x).grads["z"]

    def truth(x):  # d/dz exp(z) x at z = sin x
        return jnp.exp(jnp.sin(x)) * x

    def second_and_third(derivative, fun):
        return quick_jit(lambda x: (derivative(fun)(x), derivative(jax.grad(fun))(x)))(np.float32(0.8))

    want = second_and_third(jax.grad, truth)
    for derivative in (jax.grad, jax.jacfwd):
        assert_close(second_and_third(derivative, z_bar), want)


def test_values_can_be_differentiated_too():
    def fun(x):
        return lax.scan(lambda c, y: (tag(c * y, "s"), None), 1.0, x)[0]

    def loss(x):
        return jnp.sum(retain_grads(fun)(x).values["s"] ** 2)

    assert_close(jax.grad(loss)(X), jax.grad(lambda x: jnp.sum(jnp.cumprod(x) ** 2))(X))


def test_a_function_that_itself_calls_grad():
    def energy(x):
        return jnp.sum(tag(jnp.sin(x), "z") ** 2)

    def penalty(x):
        return jnp.sum(tag(jax.grad(energy)(x), "force") ** 2)

    record = retain_grads(penalty)(X)
    assert record.names == ("z", "force")
    assert_close(record.grads["force"], 2 * jnp.sin(2 * X))
    assert_close(record.grads["z"], jax.grad(lambda z: jnp.sum((2 * z * jnp.cos(X)) ** 2))(jnp.sin(X)))


def test_retain_grads_of_retain_grads_is_the_second_derivative():
    def fun(x):
        return tag(jnp.sin(x), "z") ** 3

    outer = retain_grads(lambda x: retain_grads(fun)(x).grads["z"])(jnp.float32(0.8))
    assert_close(outer.grads["z"], 6 * jnp.sin(jnp.float32(0.8)))


def test_what_the_function_closes_over_may_be_traced_outside():
    def outer(scale, x):
        return retain_grads(lambda x: jnp.sum(tag(x * scale, "h") ** 2))(x).grads["h"]

    want = 2 * X * 3
    assert_close(quick_jit(outer)(3.0, X), want)
    assert_close(quick_jit(jax.vmap(outer, in_axes=(0, None)))(np.float32([3.0, 4.0]), X)[0], want)
    assert_close(quick_jit(jax.jacfwd(outer))(3.0, X), 2 * X)


def test_it_is_traced_once_for_arguments_of_the_same_shapes():
    fun = jax.jit(chex.assert_max_traces(retain_grads(neuron.forward), n=1))
    for seed in range(3):
        x = jax.random.normal(jax.random.key(seed), (2,))
        fun(x, jnp.arange(3.0))


# Tagging changes nothing


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: f,
        jax.grad,
        jax.hessian,
        lambda f: jax.vmap(jax.grad(f), in_axes=0),
        lambda f: jax.grad(jax.jit(f)),
        lambda f: jax.grad(jax.checkpoint(f)),
        lambda f: lambda x: lax.scan(lambda c, x: (c + f(x), None), 0.0, x)[0],
    ],
    ids=["jit", "grad", "hessian", "vmap", "nested jit", "checkpoint", "scan"],
)
def test_a_tag_that_nothing_retains_leaves_the_lowered_program_as_it_is(transform):
    def lowered(tag):
        def fun(x):
            return jnp.sum(jnp.exp(tag(jnp.sin(tag(x, "a")), "b")) ** 2)

        return jax.jit(transform(fun)).lower(jnp.ones((2, 3))).as_text()

    assert lowered(tag) == lowered(lambda value, name: value)


def test_outside_of_a_trace_a_tag_returns_its_argument_itself():
    for value in (1.5, -0.0, True, np.ones(2), np.float64(2.0), X, jax.random.key(0)):
        assert tag(value, "v") is value


def test_retaining_nothing_costs_nothing():
    def fun(x):
        return jnp.sum(jnp.exp(tag(jnp.sin(x), "b")) ** 2)

    def flops(f):
        return jax.jit(f).lower(jnp.ones((64, 64))).compile().cost_analysis()["flops"]

    plain = flops(jax.value_and_grad(fun))
    assert flops(retain_grads(fun, names=())) == plain
    assert flops(retain_grads(fun)) == plain


# Values without a gradient


def test_integers_booleans_and_keys_have_a_value_no_gradient_and_a_note():
    def fun(x):
        i, b, k = tag(jnp.arange(3), "i"), tag(x > 0, "b"), tag(jax.random.key(0), "k")
        return jnp.sum(jnp.where(b, x, 0) * i * jax.random.normal(k, (3,)))

    record = retain_grads(fun)(X)
    assert [record.grads[name] for name in ("i", "b", "k")] == [None] * 3
    assert dict(record.notes) == {
        "i": "int32 has no gradient",
        "b": "bool has no gradient",
        "k": "key<fry> has no gradient",
    }
    assert record.values["i"].tolist() == [0, 1, 2]


def test_an_integer_that_is_dropped_has_a_note_and_is_never_bypassed():
    def fun(x, n):
        graph = {"n": n, "x": x}
        tagged = tag(graph, "graph")
        return jnp.sum(tagged["x"] * graph["n"])

    record = retain_grads(fun)(X, jnp.array([1, 2, 3]))
    assert record.notes == {"graph['n']": "int32 has no gradient"}
    assert_close(record.grads["graph['x']"], jnp.array([1.0, 2.0, 3.0]))


def test_the_tangent_of_an_integer_has_no_gradient():
    def fun(x):
        tangent = jax.vjp(lambda i, x: i * x, 3, x)[1](x)[0]
        assert tag(tangent, "t").dtype == jax.dtypes.float0
        return jnp.sum(x)

    assert dict(retain_grads(fun)(X).notes) == {"t": "float0 has no gradient"}


def test_a_tag_that_does_not_reach_the_output_says_so():
    record = retain_grads(lambda x: (tag(2 * x, "dead"), jnp.sum(tag(x * 1, "live")))[1])(X)
    assert record.names == ("dead", "live")
    assert record.grads["dead"] is None
    assert dict(record.notes) == {"dead": "does not reach the output"}
    assert_close(record.values["dead"], 2 * X)


def test_a_tag_that_reaches_only_the_auxiliary_output_does_not_reach_the_output():
    record = retain_grads(lambda x: (jnp.sum(x), tag(2 * x, "metric")), has_aux=True)(X)
    assert dict(record.notes) == {"metric": "does not reach the output"}
    assert_close(record.aux, 2 * X)


def test_a_true_zero_is_a_zero_and_not_a_note():
    record = retain_grads(lambda x: jnp.sum(lax.stop_gradient(tag(2 * x, "stopped")) + x))(X)
    assert_close(record.grads["stopped"], jnp.zeros(3))
    assert not record.notes


# Arguments


def test_argnums_selects_and_leaves_the_rest_untraced():
    def fun(w, flag, x):
        if flag == "square":
            x = x * x
        return jnp.sum(tag(w * x, "h"))

    assert retain_grads(fun, argnums=0)(X, "square", X).arg_grads[1:] == (None, None)
    for argnums in [(0, -1), (-3, 2)]:
        assert_close(retain_grads(fun, argnums=argnums)(X, "square", X).arg_grads[2], 2 * X * X)
    assert_close(retain_grads(fun)(X, "square", X).arg_grads[0], X * X)


def test_integer_arguments_have_no_gradient_by_default():
    record = retain_grads(lambda x, i: jnp.sum(tag(x * i, "h")))(X, jnp.arange(3))
    assert record.arg_grads[1] is None


def test_keyword_arguments_are_passed_on():
    record = retain_grads(lambda x, *, scale: jnp.sum(tag(x * scale, "h")))(X, scale=2)
    assert_close(record.values["h"], 2 * X)


def test_aux_is_returned_as_it_is():
    def fun(x):
        return jnp.sum(tag(x, "x")), {"array": x, "text": "kept", "none": None, "number": 3}

    record = retain_grads(fun, has_aux=True)(X)
    assert_close(record.aux["array"], X)
    assert (record.aux["text"], record.aux["none"], record.aux["number"]) == ("kept", None, 3)


def test_names_select_by_exact_name_or_glob():
    def fun(x):
        for name in ("block.0", "block.1", "head", "head"):
            x = tag(jnp.sin(x), name)
        return jnp.sum(checkpoint_name(x, "saved"))

    def names(select):
        return retain_grads(fun, names=select)(X).names

    assert names(None) == ("block.0", "block.1", "head[0]", "head[1]")
    assert names("block.*") == ("block.0", "block.1")
    assert names(["head"]) == ("head[0]", "head[1]")
    assert names(("head[1]", "block.0")) == ("block.0", "head[1]")
    assert names({"saved"}) == ("saved",)
    assert names(n for n in ["block.1"]) == ("block.1",)
    assert names(()) == ()


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("h[0]", ("h[0]",)),
        ("h[?]", ("h[0]", "h[1]")),
        ("h?", ("h0",)),
        ("p['a']", ("p['a']",)),
        ("p*", ("p['a']", "pa")),
        ("[hp]*", None),
        ("h[!0]", None),
        ("H*", None),
    ],
)
def test_the_only_wildcards_are_star_and_question_mark_for_names_have_brackets(pattern, wanted):
    def fun(x):
        for name in ("h", "h", "h0", "pa"):
            x = tag(jnp.sin(x), name)
        return jnp.sum(tag({"a": x}, "p")["a"])

    if wanted is None:
        with pytest.raises(TagError, match="nothing is tagged so"):
            retain_grads(fun, names=pattern)(X)
    else:
        assert set(retain_grads(fun, names=pattern)(X).names) == set(wanted)


def test_a_generator_of_names_serves_every_call():
    fun = retain_grads(lambda x: jnp.sum(tag(x, "a") * 2), names=(n for n in "a"))
    assert fun(X).names == fun(X).names == ("a",)


def test_checkpoint_names_are_retained_when_asked_for():
    policy = jax.checkpoint_policies.save_only_these_names("h")

    @jax.checkpoint
    def block(x):
        return jnp.sum(jnp.exp(checkpoint_name(jnp.sin(x), "h")))

    for fun in (block, jax.checkpoint(block, policy=policy)):
        record = jax.jit(retain_grads(fun, names=["h"]))(X)
        assert_close(dict(record.values), {"h": jnp.sin(X)})
        assert_close(dict(record.grads), {"h": jnp.exp(jnp.sin(X))})


# retain_vjp


def test_retain_vjp_pulls_back_any_cotangent():
    def fun(x, w):
        h = tag(jnp.sin(x), "h")
        return {"a": h * w, "b": jnp.sum(h)}

    w = jnp.arange(3.0)
    output, values, pullback = retain_vjp(fun, X, w)
    assert_close(output, {"a": jnp.sin(X) * w, "b": jnp.sum(jnp.sin(X))})
    assert_close(values, {"h": jnp.sin(X)})
    for ct in ({"a": X, "b": jnp.float32(2)}, {"a": jnp.zeros(3), "b": jnp.float32(1)}):
        arg_grads, grads = pullback(ct)
        assert_close(grads, {"h": ct["a"] * w + ct["b"]})
        assert_close(arg_grads, ((ct["a"] * w + ct["b"]) * jnp.cos(X), ct["a"] * jnp.sin(X)))


def test_the_pullback_of_retain_vjp_passes_through_jit():
    pullback = jax.jit(lambda x: retain_vjp(lambda x: jnp.sin(tag(2 * x, "y")), x)[2])(X)
    assert_close(pullback(jnp.ones(3))[1], {"y": jnp.cos(2 * X)})


# Errors


def line(fun):
    return fun.__code__.co_firstlineno


def bypassed(x):
    tag(x, "z")
    return jnp.sum(x)


def bypassed_in_jit(x):
    jax.jit(lambda x: tag(x, "z"))(x)
    return jnp.sum(x)


def bypassed_for_aux(x):
    h = x * 2
    return jnp.sum(h), tag(h, "z")


@pytest.mark.parametrize("fun", [bypassed, bypassed_in_jit, bypassed_for_aux])
def test_a_bypassed_tag_is_an_error_that_names_its_line(fun):
    where = f"test_retain.py:{line(fun) + (2 if fun is bypassed_for_aux else 1)}"
    with pytest.raises(TagError) as error:
        retain_grads(fun, has_aux=fun is bypassed_for_aux)(X)
    assert str(error.value) == (
        f'tag "z" ({where}) is bypassed: its result does not reach the output but its input does, so its gradient '
        'would read a misleading 0. Write `z = tag(z, "z")` and use the result.'
    )


@pytest.mark.parametrize("kind", ["custom_vjp", "custom_jvp"])
def test_a_tag_in_the_body_of_a_function_with_a_rule_is_an_error(kind):
    if kind == "custom_vjp":
        fun = jax.custom_vjp(lambda x: tag(2 * x, "in"))
        fun.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))
    else:
        fun = jax.custom_jvp(lambda x: tag(2 * x, "in"))
        fun.defjvp(lambda primals, tangents: (2 * primals[0], 2 * tangents[0]))
    for caller in (lambda x: jnp.sum(fun(x)), jax.jit(lambda x: jnp.sum(fun(x)))):
        with pytest.raises(TagError, match=rf'tag "in" .* is inside a {kind} function, whose rule bypasses it'):
            retain_grads(caller)(X)
    assert retain_grads(lambda x: jnp.sum(tag(fun(x), "out")), names=["out"])(X).names == ("out",)


def test_a_tag_in_the_condition_of_a_while_loop_is_an_error():
    def fun(x):
        n = lax.while_loop(lambda i: tag(i, "i") < 3, lambda i: i + 1, 0)
        return jnp.sum(x * n)

    with pytest.raises(TagError, match="is in the condition of a while_loop, which returns nothing else"):
        retain_grads(fun)(X)


def test_a_checkpoint_differentiated_inside_is_an_error_where_it_would_miss_a_path():
    def energy(x):
        return jnp.sum(jax.checkpoint(lambda x: jnp.exp(tag(jnp.sin(x), "z")))(x))

    def outer(x):
        return jnp.sum(jax.jit(jax.grad(energy))(x) ** 2)

    with pytest.raises(TagError, match=r"jax\.checkpoint that is differentiated in here, and computed twice"):
        retain_grads(outer)(X)


def test_a_checkpoint_name_in_a_vmap_is_an_error():
    def fun(x):
        return jnp.sum(jax.vmap(lambda x: checkpoint_name(2 * x, "n"))(x))

    with pytest.raises(TagError, match=r'checkpoint_name "n" is in a vmap, and does not keep which .* is the batch'):
        retain_grads(fun, names="n")(X)
    assert jax.vmap(retain_grads(lambda x: checkpoint_name(2 * x, "n"), names="n"))(X).names == ("n",)


def test_axes_of_unknown_order_are_an_error():
    def fun(x):
        def step(c, t):
            return c + jax.vmap(lambda t: tag(2 * t, "s"))(t) * c, None

        return jnp.sum(jax.vmap(lambda y: lax.scan(step, jnp.zeros(3) + y, x)[0])(jnp.ones(4)))

    with pytest.raises(TagError, match="the order of its leading axes is unknown"):
        retain_grads(fun)(jnp.ones((2, 3)))


def test_two_intermediates_of_one_name_are_an_error():
    def fun(x):
        return jnp.sum(tag((x,), "p")[0] + tag(x, "p[0]x") + tag(2 * x, "q") + tag(3 * x, "q") + tag(x, "q[1]"))

    with pytest.raises(TagError, match=r'two intermediates would be named "q\[1\]": .* Rename one of them'):
        retain_grads(fun)(X)


def test_an_unknown_name_is_an_error_with_the_nearest():
    def fun(x):
        return jnp.sum(tag(x, "hidden") + tag(x, "logits"))

    with pytest.raises(TagError) as error:
        retain_grads(fun, names=["hiden"])(X)
    assert str(error.value) == (
        '`names` asks for "hiden", and nothing is tagged so. Did you mean "hidden"? There are: hidden, logits.'
    )
    with pytest.raises(TagError, match=r"nothing is tagged so\. The function has no tag at all\."):
        retain_grads(lambda x: jnp.sum(x), names="h")(X)
    with pytest.raises(TagError, match="`names` has 3; expected names or globs, as strings"):
        retain_grads(fun, names=[3])
    with pytest.raises(TagError, match="`names` has 3; expected names or globs, as strings"):
        retain_grads(fun, names=3)


def test_a_function_with_no_tag_is_an_error():
    with pytest.raises(TagError, match=r"the function has no tag, so there is nothing to retain\. Name its"):
        retain_grads(lambda x: jnp.sum(x))(X)


@pytest.mark.parametrize("name", ["", None, 3, b"z"])
def test_a_name_that_is_no_string_or_empty_is_an_error(name):
    with pytest.raises(TagError, match=r"the name of the tag at test_retain\.py:\d+ is .*; expected a string"):
        tag(X, name)


NO_ARRAYS = {
    "a str": "text",
    "a object": object(),
    "a str, 'text'": [X, "text"],
    "a ndarray of object, array": np.array([1, "a"], object),
    "a ndarray of <U1": np.array(["a"]),
    "a datetime64 of datetime64": np.datetime64("2026-01-01"),
}


@pytest.mark.parametrize("kind", NO_ARRAYS)
def test_a_tag_on_what_is_no_array_is_an_error(kind):
    with pytest.raises(TagError, match=r'tag "v.*" \(test_retain\.py:\d+\) is on ' + kind + ".*; expected an array of"):
        tag(NO_ARRAYS[kind], "v")
    with pytest.raises(TagError, match=r'tag "v" .* is on None, with no array in it; expected an array'):
        tag(None, "v")


def test_a_python_if_on_a_traced_value_says_what_to_do():
    with pytest.raises(jax.errors.TracerBoolConversionError) as error:
        retain_grads(lambda x: jnp.sum(tag(x, "x")) if x[0] > 0 else 0.0)(X)
    assert "Write jnp.where or lax.cond in place of `if`" in error.value.__notes__[-1]


@pytest.mark.parametrize(
    ("fun", "text"),
    [
        (lambda x: tag(x, "x"), r"the output of fun is float32\[3\]; expected a real scalar, .* Use retain_vjp"),
        (lambda x: jnp.sum(tag(x, "x")) * 1j, r"the output of fun is complex64\[\]; expected a real scalar"),
        (lambda x: jnp.sum(tag(x, "x")).astype(int), r"the output of fun is int32\[\]; expected a real scalar"),
        (lambda x: (jnp.sum(tag(x, "x")), x), r"expected one real scalar\. For \(output, aux\) give has_aux=True"),
        (lambda x: None, "expected one real scalar"),
    ],
)
def test_an_output_without_a_gradient_is_an_error(fun, text):
    with pytest.raises(OutputError, match=text):
        retain_grads(fun)(X)


def test_has_aux_wants_a_pair():
    with pytest.raises(OutputError, match=r"with has_aux, fun returns a .*; expected a pair"):
        retain_grads(lambda x: jnp.sum(tag(x, "x")), has_aux=True)(X)


def test_bad_argnums_are_an_error():
    fun = retain_grads(lambda x, i: jnp.sum(tag(x * i, "h")), argnums=1)
    with pytest.raises(InputError, match="argument 1 has leaves of dtype int32, which have no gradient"):
        fun(X, jnp.arange(3))
    with pytest.raises(InputError, match="`argnums` has 2, and the function was called with 2 positional arguments"):
        retain_grads(lambda x, i: jnp.sum(tag(x * i, "h")), argnums=2)(X, X)


def test_a_record_is_a_record():
    assert isinstance(retain_grads(neuron.forward)(X, jnp.ones(4)), Record)
