"""A program's own rounding is found, and a comparison held to it: no false alarm, and no mistake missed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from helpers.study import CASES, PLANTED, arguments
from jaxgrad import InputError, OutputError, TagError, compare, in_float64, retain_grads, tag, with_rounding
from jaxgrad._compare.oracles.draws import _drawn
from jaxgrad._program.quick_jit import quick_jit

SEEDS = range(2)
COSTLY = ("MLP", "residual blocks", "attention, 1", "attention, 8", "conv and pool", "RNN")


def costly(names, chosen):
    """The names, those that take seconds to compile marked."""
    return [pytest.param(name, marks=pytest.mark.deep) if name in chosen else name for name in names]


@pytest.mark.parametrize("name", costly(CASES, COSTLY))
def test_an_honest_port_agrees_to_the_rounding_of_its_original(name):
    case = CASES[name]
    known, ported = with_rounding(case.original), quick_jit(retain_grads(case.ported))
    for seed in SEEDS:
        given = arguments(case, seed, "float32")
        comparison = compare(ported(*given), known(*given))
        assert comparison.ok, f"seed {seed}: {comparison}"


@pytest.mark.parametrize("name", costly(CASES, {*CASES} - {"neuron", "variance"}))
def test_a_program_compiled_in_full_agrees_to_its_own_rounding(name):
    known, compiled = with_rounding(CASES[name].original), jax.jit(retain_grads(CASES[name].original))
    for seed in SEEDS:
        given = arguments(CASES[name], seed, "float32")
        comparison = compare(compiled(*given), known(*given))
        assert comparison.ok, f"seed {seed}: {comparison}"


@pytest.mark.parametrize("mistake", costly(PLANTED, ["LayerNorm's eps in block 4", "eps outside the root in block 4"]))
def test_a_planted_mistake_is_found_at_its_name_by_the_rounding(mistake):
    name, wrong, row = PLANTED[mistake]
    known, ported = with_rounding(CASES[name].original), quick_jit(retain_grads(wrong))
    for seed in SEEDS:
        given = arguments(CASES[name], seed, "float32")
        comparison = compare(ported(*given), known(*given))
        assert comparison.first_divergence is not None, f"seed {seed}"
        assert comparison.first_divergence.label == row, f"seed {seed}: {comparison}"


@pytest.mark.parametrize("name", costly(["neuron", "variance", "attention, 2"], [*COSTLY, "attention, 2"]))
def test_an_honest_port_agrees_in_every_dtype(name, dtype):
    case = CASES[name]
    given = arguments(case, 0, dtype)
    comparison = compare(quick_jit(retain_grads(case.ported))(*given), with_rounding(case.original)(*given))
    assert comparison.ok, comparison


def test_the_record_is_that_of_retain_grads_with_the_uncertainty_of_every_number():
    case = CASES["attention, 2"]
    given = arguments(case, 0, "float32")
    known, plain = with_rounding(case.original)(*given), quick_jit(retain_grads(case.original))(*given)
    assert compare(known, plain).ok
    assert (known.names, known._call, known.notes) == (plain.names, None, plain.notes)
    numbers = {*plain.names, *(f"{n}.grad" for n in plain.names), "output"}
    assert numbers <= set(known.uncertainty)
    assert all(np.all(u > 0) and u.shape == known.values[n].shape for n in plain.names for u in [known.uncertainty[n]])


def test_the_uncertainty_covers_the_error_and_is_of_its_size():
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)

    def total(x):
        return jnp.sin(tag(jnp.sum(x), "sum"))

    known, exact = with_rounding(total)(x), np.sum(x.astype(np.float64))
    size = np.sqrt(np.sum(x.astype(np.float64) ** 2)) * 2**-24
    assert abs(float(known.values["sum"]) - exact) <= known.uncertainty["sum"]
    assert 5 * size < known.uncertainty["sum"] < 200 * size  # some units of the root of the sum of squares, 12 sigma


@pytest.mark.parametrize("total", [jnp.sum, lambda x: x @ jnp.ones((64, 3), x.dtype)])
def test_a_negative_sum_may_be_as_far_off_as_a_positive_one(total):
    known = with_rounding(lambda x: jnp.sum(jnp.sin(tag(total(x), "sum"))))
    up, down = (known(sign * jnp.linspace(0.5, 1, 64)) for sign in (1, -1))
    assert np.all(abs(up.values["sum"]) > 40)
    np.testing.assert_allclose(up.uncertainty["sum"], down.uncertainty["sum"], rtol=1e-6)  # of the same draws


def test_a_cancelled_gradient_may_be_0_and_one_that_is_not_may_not():
    def first_row(s):  # the gradient of a softmax over one element is g - g * 1
        return jnp.sum(jax.nn.softmax(tag(s, "s")[:, :1] * 0.7) * 3)

    given = (jnp.float32([[0.3], [0.4]]),)
    known = with_rounding(first_row)(*given)
    off = dataclasses.replace(known, grads={"s": np.float32([[1e-7], [0]])})
    assert compare(off, known).ok

    def small(x):
        return 1e-9 * tag(x, "x")

    known = with_rounding(small)(jnp.float32(1))
    assert not compare(dataclasses.replace(known, grads={"x": np.float32(0)}), known).ok


def scanned(x):
    return lax.scan(lambda c, v: (tag(jnp.tanh(c + v), "c"), None), jnp.zeros_like(x[0]), x)[0]


def branched(x):
    return lax.cond(x[0] > 0, lambda x: jnp.sum(tag(x * x, "yes")), lambda x: jnp.sum(jnp.exp(tag(x, "no"))), x)


def looped(x):
    y = lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, jnp.sin(s[1])), (0, lax.stop_gradient(x)))[1]
    return jnp.sum(tag(y * x, "y"))


@jax.custom_jvp
def ruled(x):
    return jnp.log1p(jnp.exp(x))


ruled.defjvp(lambda x, x_dot: (ruled(x[0]), jax.nn.sigmoid(x[0]) * x_dot[0]))


@jax.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (2 * x, None), lambda _, y_bar: (2 * y_bar,))


def with_rules(x):
    return jnp.sum(doubled(tag(ruled(x), "y")))


def solved(x):
    return jnp.sum(tag(jnp.linalg.solve(jnp.outer(x, x) + 3 * jnp.eye(len(x), dtype=x.dtype), x), "y"))


def checkpointed(x):
    return jax.checkpoint(lambda x: jnp.sum(tag(jnp.sin(x), "y") ** 2))(x)


@pytest.mark.parametrize("fun", [scanned, branched, looped, with_rules, solved, checkpointed])
def test_every_structure_is_followed(fun):
    x = jnp.float32([0.3, -0.7, 1.1])
    known = with_rounding(fun)(x)
    exact = in_float64(fun)(x)
    for name in known.names:
        error = abs(np.asarray(known.values[name], np.float64) - exact.values[name])
        assert np.all(error <= known.uncertainty[name])
        assert np.all(known.uncertainty[name] <= 1e-4 * (1 + abs(exact.values[name])))
    assert compare(quick_jit(retain_grads(fun))(x), known).ok


def test_the_steps_of_a_scan_are_off_independently():
    def count(x):
        return lax.scan(lambda c, v: (tag(c + v, "c"), None), x * 0, jnp.ones(400, x.dtype))[0] * x

    known = with_rounding(count, samples=32)(jnp.float32(1.0))
    last = known.uncertainty["c"][-1] / 12
    # Roundings of 1 .. 400 units that add up by their squares, uniform in +-u: u * sqrt(sum of k**2 / 3).
    expected = 2**-24 * np.sqrt(sum(k * k for k in range(1, 401)) / 3)
    assert 0.6 * expected < last < 1.6 * expected


def test_arguments_and_auxiliary_data_are_those_of_retain_grads():
    def fun(w, x, mode):
        return (jnp.sum(tag(w * x, "y")) if mode == "sum" else w[0]), {"mode": mode, "x": x}

    known = with_rounding(fun, argnums=0, has_aux=True, names="y")(jnp.ones(3), jnp.arange(3), "sum")
    assert known.aux["mode"] == "sum"
    assert known.arg_grads[1:] == (None, None)
    assert set(known.uncertainty) == {"y", "y.grad", "output", "arg[0].grad"}


def test_it_compiles_once_for_the_same_shapes():
    def fun(x):
        return jnp.sum(jax.nn.relu(tag(x * 1.25, "y")))

    with_rounding(fun)(jnp.float32([1, 2, 3]))
    compiled = _drawn._cache_size()
    with_rounding(fun)(jnp.float32([3, -1, 4]))
    assert _drawn._cache_size() == compiled
    with_rounding(lambda x: jnp.sum(jax.nn.relu(tag(x * 1.2500001, "y"))))(jnp.float32([3, -1, 4]))
    assert _drawn._cache_size() == compiled + 1  # another constant is another program


def called_back(x):
    y = jax.pure_callback(lambda x: np.sin(x), jax.ShapeDtypeStruct(x.shape, x.dtype), lax.stop_gradient(x))
    return jnp.sum(tag(x * y, "y"))


def printed(x):
    jax.debug.print("{}", x)
    return jnp.sum(tag(x, "y"))


@pytest.mark.parametrize(
    ("fun", "text"), [(called_back, 'the operation "pure_callback"'), (printed, "which has an effect")]
)
def test_what_cannot_be_evaluated_in_float64_is_an_error_that_names_it(fun, text):
    with pytest.raises(OutputError, match=text):
        with_rounding(fun)(jnp.ones(3))


@pytest.mark.parametrize("samples", [1, 0, 2.5, True])
def test_too_few_samples_are_an_error(samples):
    with pytest.raises(InputError, match=r"`samples` is .*; expected an integer of at least 2"):
        with_rounding(scanned, samples=samples)


def test_the_errors_of_retain_grads_are_raised():
    with pytest.raises(TagError, match="nothing"):
        with_rounding(scanned, names="nothing")(jnp.ones(3))


@pytest.mark.parametrize("oracle", [with_rounding, in_float64])
def test_any_oracles_record_can_say_the_rounding(oracle):
    x, w = jnp.float32([1, 2]), jnp.float32([0.5, -0.3, 0.1])  # z is a sum that cancels
    case = CASES["neuron"]
    got = retain_grads(case.ported)(x, w)
    want = {name: np.asarray(value) for name, value in in_float64(case.original)(x, w).values.items()}
    want = {name: value.astype(np.float32) for name, value in want.items()}
    assert compare(got, want, rounding=oracle(case.original)(x, w)).ok
    assert not compare(got, want | {"f": np.float32(0.7)}, rounding=oracle(case.original)(x, w)).ok


@pytest.mark.parametrize(
    ("rounding", "text"),
    [(retain_grads(scanned)(np.ones(3, np.float32)), "a Record without uncertainty"), (0.1, "a float")],
)
def test_a_rounding_that_says_nothing_is_an_error(rounding, text):
    record = retain_grads(scanned)(jnp.ones(3))
    with pytest.raises(InputError, match=rf"`rounding` is {text}; expected a Record that knows its uncertainty"):
        compare(record, record, rounding=rounding)


def test_the_rounding_travels_through_a_pytree():
    known = with_rounding(scanned)(jnp.ones(3))
    back = jax.tree.map(lambda leaf: leaf, known)
    assert back.uncertainty_is_rounding
    assert list(back.uncertainty) == list(known.uncertainty)


def test_a_dtype_is_compared_though_the_rounding_is_known():
    known = with_rounding(scanned)(jnp.ones(3))
    got = jax.tree.map(lambda leaf: np.asarray(leaf, np.float16), retain_grads(scanned)(jnp.ones(3)))
    assert "dtype float16" in compare(got, known).first_divergence.why


def test_tolerances_by_hand_replace_the_rounding():
    known = with_rounding(scanned)(jnp.float32([0.3, -0.7]))
    off = dataclasses.replace(known, output=known.output + 1)
    assert not compare(off, known).ok
    assert compare(off, known, atol=2).ok
