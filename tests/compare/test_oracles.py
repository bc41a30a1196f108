"""Each oracle agrees with retain_grads where it is right, and not where it is wrong."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxgrad import (
    InputError,
    OutputError,
    TagError,
    compare,
    complex_step,
    finite_difference,
    in_float64,
    neuron,
    retain_grads,
    tag,
    taylor_order,
)
from jaxgrad._program.quick_jit import quick_jit

ORACLES = {
    "finite_difference": finite_difference,
    "of order 4": lambda fun, **options: finite_difference(fun, order=4, **options),
    "complex_step": complex_step,
    "in_float64": in_float64,
}
X, W = np.float32([1.0, 2.0]), np.float32([0.5, -0.3, 0.1])


def branches(x):
    y = lax.cond(x[0] > 0, lambda x: tag(jnp.sin(x), "up"), lambda x: tag(x * 2, "down"), x)
    return jnp.sum(y)


def steps(w, xs):
    def step(h, x):
        h = tag(jnp.tanh(w * h + x), "h")
        return h, h * h

    last, squares = lax.scan(step, 0.0, xs)
    return last + jnp.sum(squares)


def layers(p, x):
    h = tag(jax.nn.relu(x @ p["w1"] + 0.1), "h")
    h = tag(jax.nn.softmax(h @ p["w2"]), "q")
    return jnp.mean(jnp.log(h) ** 2) + jax.nn.logsumexp(h) + jnp.max(h)


def rows(x):
    return jnp.sum(jax.vmap(lambda row: tag(jax.nn.silu(row), "a").sum() ** 2)(x))


@jax.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (doubled(x), None), lambda _, bar: (2 * bar,))

RNG = np.random.default_rng(0)
PROGRAMS = {
    "the neuron": (neuron.forward, (X, W)),
    "the sigmoid": (lambda z: jax.nn.sigmoid(tag(z * 2, "z")), (np.float32(0.3),)),
    "a scan": (steps, (np.float32(0.5), np.float32([1.0, -2.0, 0.5]))),
    "a taken branch": (branches, (np.float32([1.0, 2.0]),)),
    "another branch": (branches, (np.float32([-1.0, 2.0]),)),
    "layers": (
        layers,
        ({"w1": RNG.normal(size=(3, 4)).astype("f4"), "w2": RNG.normal(size=(4, 2)).astype("f4")}, np.ones(3, "f4")),
    ),
    "a vmap inside": (rows, (RNG.normal(size=(3, 2)).astype("f4"),)),
    "a checkpoint": (jax.checkpoint(lambda x: jnp.sin(tag(x * x, "y"))), (np.float32(0.7),)),
    "a rule of its own": (lambda x: doubled(tag(jnp.exp(x), "y")), (np.float32(0.7),)),
    "a jit": (lambda x: jax.jit(lambda x: tag(x * 0.1, "y") ** 3)(x), (np.float32(0.7),)),
    "a while loop": (
        lambda x: x * lax.stop_gradient(lax.while_loop(lambda c: c < 10, lambda c: tag(c * 2, "c"), 1.0)),
        (np.float32(0.7),),
    ),
}


@functools.cache
def retained(program):
    fun, args = PROGRAMS[program]
    return quick_jit(retain_grads(fun))(*args)


@pytest.mark.parametrize("oracle", ORACLES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_oracle_agrees_with_retain_grads(oracle, program):
    fun, args = PROGRAMS[program]
    got, want = retained(program), ORACLES[oracle](fun)(*args)
    assert want.names == got.names
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves((want.values, want.grads, want.arg_grads)))
    comparison = compare(got, want)
    assert comparison.ok, str(comparison)


@pytest.mark.parametrize("oracle", ORACLES)
@pytest.mark.parametrize("x", [1.0, -2.0, 30.0])
def test_every_oracle_finds_a_wrong_rule(oracle, x):
    @jax.custom_vjp
    def square(x):
        return x * x

    square.defvjp(lambda x: (x * x, x), lambda x, bar: (1.001 * 2 * x * bar,))

    def fun(x):
        return square(tag(x, "x")) + 1

    comparison = compare(retain_grads(fun)(np.float32(x)), ORACLES[oracle](fun)(np.float32(x)))
    # In float64 the rule is the same rule.
    assert comparison.ok == (oracle == "in_float64")
    if not comparison.ok:
        assert comparison.first_divergence.label == "x.grad"


def test_the_neuron_agrees_with_all_oracles_in_every_dtype(dtype):
    rng = np.random.default_rng(0)
    run = quick_jit(neuron.backprop)
    for _ in range(2):
        x, w = (rng.uniform(-1, 1, n).astype(dtype) for n in (4, 5))
        for name, oracle in ORACLES.items():
            comparison = compare(run(x, w), oracle(neuron.forward)(x, w))
            assert comparison.ok, (name, str(comparison))


def test_in_float64_is_of_the_traced_program_whatever_it_casts_to():
    def fun(x):
        y = tag(x.astype(jnp.float16) * jnp.float16(0.1), "y")
        return y.astype(jnp.float32) * np.float32(0.1)

    record = in_float64(fun)(np.float32(1 / 3))
    assert record.values["y"] == np.float64(np.float32(1 / 3)) * np.float64(np.float16(0.1))
    assert record.grads["y"] == np.float64(np.float32(0.1))
    assert not jax.config.jax_enable_x64


def test_in_float64_shows_a_loss_at_its_tag():
    def fun(x):
        one = tag(1 + x, "one")
        return tag(one - 1, "x again") * 3

    comparison = compare(retain_grads(fun)(np.float32(1e-6)), in_float64(fun)(np.float32(1e-6)))
    assert [row.label for row in comparison.rows if not row.ok] == ["x again", "output"]


def test_random_numbers_and_bits_stay_what_they_are():
    def fun(x):
        mask = jax.random.bernoulli(jax.random.key(0), 0.5, x.shape)
        return jnp.sum(tag(jnp.where(mask, x, 0), "kept") * jax.random.normal(jax.random.key(1), x.shape))

    x = np.linspace(1, 2, 32, dtype=np.float32)
    got = quick_jit(retain_grads(fun))(x)
    assert compare(got, in_float64(fun)(x)).ok
    assert compare(got, finite_difference(fun)(x)).ok


def test_finite_differences_know_how_far_off_they_may_be():
    def fun(x):
        return jnp.sum(jnp.exp(tag(jnp.sin(3 * x), "y")))

    x = np.linspace(-2, 2, 9, dtype=np.float32)
    truth = 3 * np.cos(3 * np.float64(x)) * np.exp(np.sin(3 * np.float64(x)))
    for order in (2, 4):
        record = finite_difference(fun, order=order)(x)
        error = np.abs(record.arg_grads[0] - truth)
        assert np.all(error <= record.uncertainty["arg[0].grad"] + 1e-14)
        assert np.all(error < 1e-7)


def test_at_a_kink_any_slope_between_is_right():
    fun = PROGRAMS["layers"][0]
    p = {"w1": np.float32([[-0.1, 1.0]]), "w2": np.eye(2, dtype=np.float32)}
    x = np.float32([1.0])
    got = quick_jit(retain_grads(fun))(p, x)
    assert np.all(got.values["h"][0] == 0)
    assert compare(got, finite_difference(fun)(p, x)).ok


def test_a_right_gradient_leaves_a_remainder_of_order_2_and_a_wrong_one_of_order_1():
    fun, args = PROGRAMS["layers"]
    right = retain_grads(fun)(*args).arg_grads
    assert taylor_order(fun, *args) == pytest.approx(2, abs=0.1)  # a slope fitted to measured errors
    wrong = jax.tree.map(lambda bar: bar * 1.01, right)
    assert taylor_order(fun, *args, grads=wrong) == pytest.approx(1, abs=0.1)  # the same
    assert taylor_order(lambda x: 3 * x, np.float32(2)) == np.inf


@pytest.mark.parametrize(("x", "grads"), [(0.5, (np.nan,)), (0.5, (np.inf,)), (-0.5, (1.0,))])
def test_what_is_not_finite_has_no_order(x, grads):
    assert np.isnan(taylor_order(jnp.log, x, grads=grads))


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda: finite_difference(jnp.sin, order=3), InputError, "order is 3; expected 2 or 4."),
        (lambda: finite_difference(lambda x: x)(X), OutputError, "expected a real scalar, of shape ()"),
        (lambda: complex_step(jnp.sin)(0.5), TagError, "the function has no tag, so there is nothing to retain."),
        (
            lambda: complex_step(lambda x: lax.erf(tag(x, "x")))(0.5),
            OutputError,
            'complex_step cannot follow the operation "erf", which is not analytic',
        ),
        (
            lambda: complex_step(lambda x: tag(x, "x").real)(np.complex64(1j)),
            InputError,
            "an argument or a tag is complex, and this oracle steps along the real line",
        ),
        (
            lambda: jax.jit(in_float64(lambda x: tag(x, "x") * 2))(0.5),
            InputError,
            "an oracle needs numbers and was given traced arguments. Call it outside of jit, vmap and grad.",
        ),
        (
            lambda: taylor_order(jnp.sin, 0.5, grads=(np.ones(2),)),
            InputError,
            "grads has the shapes [(2,)]; expected the arguments', [()]. Give one like record.arg_grads.",
        ),
        (
            lambda: taylor_order(jnp.sin, 0.5, direction=(1.0, 2.0)),
            InputError,
            "direction has the shapes [(), ()]; expected the arguments', [()].",
        ),
    ],
)
def test_what_an_oracle_cannot_do_is_an_error(call, kind, text):
    with pytest.raises(kind, match=re.escape(text)):
        call()
