"""No tag vanishes: it is in the record, or an error names it, its line and the operation that hides it."""

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxgrad import TagError, ledger, retain_grads, retain_vjp, tag
from jaxgrad._program.rules import equations_with_rules

X = jnp.array([0.3, -0.7, 1.1])


def in_custom_root(x):
    def newton(residual, start):
        return lax.fori_loop(0, 5, lambda _, s: s - residual(s) / (2 * s), start)

    return lax.custom_root(lambda s: tag(s**2 - x**2, "r"), x + 1.0, newton, lambda g, y: y / g(jnp.ones_like(y)))


def in_custom_linear_solve(x):
    a = jnp.diag(x**2 + 1.0)
    return lax.custom_linear_solve(lambda v: tag(a @ v, "r"), x, lambda _, b: jnp.linalg.solve(a, b), symmetric=True)


def hidden(x):
    """A tag in a program that is traced, and kept where no equation shows it."""
    jax.make_jaxpr(lambda x: tag(x, "r"))(x)
    return x


OPERATIONS = {
    in_custom_root: r"is inside (a custom_jvp function|the operation \"CustomRoot\")",
    in_custom_linear_solve: r'is inside the operation "custom_linear_solve", which cannot be followed',
    hidden: r"was traced in make_jaxpr \(test_lost_tags.py:\d+\) and is not in the program that came of it",
}


@pytest.mark.parametrize("fun", OPERATIONS)
@pytest.mark.parametrize("transform", [retain_grads, ledger])
def test_a_tag_in_a_body_that_cannot_be_seen_is_an_error_each_time(fun, transform):
    retaining = transform(lambda x: jnp.sum(tag(fun(x), "y")))
    for _ in range(2):  # JAX has the body in its cache the second time
        with pytest.raises(TagError, match=r'tag "r" \(test_lost_tags.py:\d+\) ' + OPERATIONS[fun]):
            retaining(X)


@pytest.mark.parametrize("fun", OPERATIONS)
def test_it_can_be_left_out_by_names(fun):
    record = retain_grads(lambda x: jnp.sum(tag(fun(x), "y")), names="y")(X)
    assert record.names == ("y",)
    np.testing.assert_array_equal(record.grads["y"], jnp.ones(3))


def with_vjp_rule(where):
    def name(value, here):
        return tag(value, "r") if here == where else value

    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.defvjp(lambda x: (jnp.sin(x), name(jnp.cos(x), "fwd")), lambda cos, bar: (name(cos * bar, "bwd"),))
    return sine


def with_jvp_rule():
    sine = jax.custom_jvp(jnp.sin)
    sine.defjvp(lambda primals, tangents: (jnp.sin(*primals), tag(jnp.cos(*primals), "r") * tangents[0]))
    return sine


IN_RULE = r'tag "r" \(test_lost_tags.py:\d+\) is in a derivative rule'
RULES = {"fwd": with_vjp_rule("fwd"), "bwd": with_vjp_rule("bwd"), "jvp": with_jvp_rule()}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("around", [lambda f: f, jax.jit, jax.vmap, jax.checkpoint], ids=["", "jit", "vmap", "remat"])
def test_a_tag_in_a_derivative_rule_is_an_error_and_can_be_left_out(rule, around):
    def fun(x):
        return jnp.sum(tag(around(RULES[rule])(x), "y") ** 2)

    for _ in range(2):
        with pytest.raises(TagError, match=IN_RULE):
            retain_grads(fun)(X)
    record = retain_grads(fun, names="y")(X)
    np.testing.assert_allclose(record.grads["y"], 2 * jnp.sin(X), rtol=1e-6)  # float32, one product
    np.testing.assert_allclose(record.arg_grads[0], jnp.sin(2 * X), rtol=1e-6)  # the same


@pytest.mark.parametrize("rule", RULES)
def test_the_pullback_and_the_ledger_say_so_too(rule):
    fun = RULES[rule]
    with pytest.raises(TagError, match="is in a derivative rule"):
        retain_vjp(lambda x: tag(fun(x), "y"), X)[2](X)
    with pytest.raises(TagError, match="is in a derivative rule"):
        ledger(lambda x: jnp.sum(tag(fun(x), "y")))(X)


@jax.jit
def jitted_cosine(x):
    return tag(jnp.cos(x), "r")


def named_step(carry, x):
    return carry, tag(jnp.cos(x), "r")


HELPERS = {
    "jit": (jitted_cosine, lambda f: f),
    "scan": (lambda x: lax.scan(named_step, 0.0, x)[1], lambda f: f),
    "nested": (jax.jit(lambda x: jax.checkpoint(jitted_cosine)(x)), jax.vmap),
    "rule in jit": (jitted_cosine, jax.jit),
    "rule in remat": (jitted_cosine, jax.checkpoint),
}


def sine_by(helper, where):
    """A sine whose derivative rule calls a helper: in its fwd, its bwd or its jvp."""
    if where == "jvp":
        sine = jax.custom_jvp(jnp.sin)
        sine.defjvp(lambda primals, tangents: (jnp.sin(*primals), helper(*primals) * tangents[0]))
        return sine
    sine = jax.custom_vjp(jnp.sin)
    if where == "fwd":
        sine.defvjp(lambda x: (jnp.sin(x), helper(x)), lambda cos, bar: (cos * bar,))
    else:
        sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, bar: (helper(x) * bar,))
    return sine


@pytest.mark.parametrize("where", ["fwd", "bwd", "jvp"])
@pytest.mark.parametrize("helper", HELPERS)
def test_a_tag_in_a_rule_is_refused_though_jax_has_it_in_its_cache(helper, where):
    cosine, around = HELPERS[helper]
    sine = around(sine_by(cosine, where))

    def fun(x):
        return jnp.sum(tag(sine(x), "y"))

    jax.make_jaxpr(jax.grad(fun))(X)  # after this JAX calls neither the helper nor, in a jit, the rule
    jax.make_jaxpr(retain_grads(fun, names="y"))(X)
    for refused in (jax.make_jaxpr(retain_grads(fun)), ledger(fun)):
        with pytest.raises(TagError, match=IN_RULE):
            refused(X)


def test_a_tag_in_a_rule_is_refused_in_an_operation_of_another_library_too():
    # Equinox's noinline is a primitive whose own rule differentiates the function when it runs
    sine = eqxi.noinline(sine_by(jitted_cosine, "jvp"))
    jax.grad(lambda x: jnp.sum(sine(x)))(X)
    with pytest.raises(TagError, match=IN_RULE):
        retain_grads(lambda x: jnp.sum(tag(sine(x), "y")))(X)


def test_rules_without_tags_are_left_alone():
    """What JAX and others differentiate by rules of their own, with tags before and after it."""

    def fun(x):
        h = tag(jax.nn.relu(x) + jax.nn.softplus(x) * jax.scipy.special.logsumexp(x), "h")
        return jnp.sum(tag(optax.safe_norm(h, 1e-3) + jax.nn.softmax(h), "y"))

    jax.make_jaxpr(jax.grad(fun))(X)
    for _ in range(2):
        assert jax.eval_shape(lambda x: retain_grads(fun)(x).grads, X).keys() == {"h", "y"}


def test_the_operations_of_jax_have_no_such_rule():
    """What has one is traced and compiled apart, which a program without should not pay for."""
    jaxpr = jax.make_jaxpr(lambda x: jnp.cumsum(jax.nn.relu(jnp.sort(tag(jnp.outer(x, x), "h")) ** 2)))(X).jaxpr
    operations = [eqn.primitive.name for eqn in jaxpr.eqns]
    assert equations_with_rules(jaxpr) == {operations.index("custom_jvp_call")}


def test_an_inner_derivative_in_a_rule_is_not_the_outer_ones():
    inner = retain_grads(lambda x: jnp.sum(jnp.sin(jitted_cosine(x))))

    @jax.custom_vjp
    def cosine(x):
        return jnp.sum(jnp.sin(jnp.cos(x)))

    cosine.defvjp(lambda x: (inner(x).output, inner(x).grads["r"]), lambda r_bar, bar: (r_bar * bar,))
    for _ in range(2):
        record = retain_grads(lambda x: tag(cosine(x), "y"))(X)
        assert record.names == ("y",)
    with pytest.raises(TagError, match='tag "r"'):
        retain_grads(lambda x: jnp.sum(tag(sine_by(jitted_cosine, "fwd")(x), "y")))(X)


def test_a_rule_that_an_inner_derivative_has_used_is_part_of_the_program():
    record = retain_grads(lambda x: jnp.sum(jax.grad(lambda y: jnp.sum(RULES["fwd"](y)))(x) ** 2))(X)
    np.testing.assert_allclose(record.values["r"], jnp.cos(X), rtol=1e-6)  # float32, one cosine
    np.testing.assert_allclose(record.grads["r"], 2 * jnp.cos(X), rtol=1e-6)  # the same


def test_what_eval_shape_traces_for_the_shape_alone_is_no_lost_tag():
    def fun(x):
        shape = jax.eval_shape(lambda x: tag(x[:2], "shape"), x).shape
        return jnp.sum(tag(x * len(shape), "y"))

    assert retain_grads(fun)(X).names == ("y",)


def test_a_function_that_jax_has_converted_to_a_program_is_followed():
    def fun(x):
        converted, consts = jax.closure_convert(lambda y: tag(jnp.sin(y * x), "h") ** 2, x)
        return jnp.sum(converted(x, *consts))

    np.testing.assert_allclose(retain_grads(fun)(X).grads["h"], 2 * jnp.sin(X * X), rtol=1e-6)  # float32, one sine


@pytest.mark.parametrize("around", [jax.jit, jax.checkpoint, jax.vmap], ids=["jit", "remat", "vmap"])
def test_a_body_that_jax_has_in_its_cache_is_found_there(around):
    inner = around(lambda a: tag(jnp.sin(a), "h"))
    jax.make_jaxpr(inner)(X)
    for _ in range(2):
        assert retain_grads(lambda x: jnp.sum(inner(x)))(X).names == ("h",)
    assert retain_grads(lambda x: jnp.sum(inner(inner(x))))(X).names == ("h[0]", "h[1]")


def test_a_loop_whose_body_is_traced_twice_has_its_tag_once():
    # the carry starts as a weakly typed 1.0, and is float32 from the second trace on
    record = retain_grads(lambda x: lax.fori_loop(0, 3, lambda i, c: tag(c * x[i], "c"), 1.0))(X)
    np.testing.assert_allclose(record.values["c"], jnp.cumprod(X), rtol=1e-6)  # float32, three products
