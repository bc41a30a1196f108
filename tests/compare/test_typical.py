"""A record that comes out of jit or vmap knows its program, though not its arguments, and is judged by that."""

import dataclasses
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.study import CASES, PLANTED, arguments
from jaxgrad import compare, retain_grads, tag
from jaxgrad._compare.doubt.typical import typical_of
from jaxgrad._compare.oracles import draws
from jaxgrad._program.quick_jit import quick_jit
from jaxgrad._record import NOWHERE


def one_key(s):
    """The gradient of a softmax over one element is g - g * 1, which is 0 or rounding; beside one that is none."""
    return jnp.sum(jax.nn.softmax(tag(s, "s")[:, :1] * 0.7) * 3) + jnp.sum(tag(s[:, 1:] * 2, "twice"))


S = jnp.linspace(0.1, 1, 16).reshape(8, 2)


def with_gradient(record, number):
    """What a reference has, where `record` has a 0 or rounding."""
    grad = np.array(record.grads["s"])
    grad[3, 0] = number
    return {
        "s": record.values["s"],
        "twice": record.values["twice"],
        "s.grad": grad,
        "twice.grad": record.grads["twice"],
    }


@functools.cache
def jitted():
    return jax.jit(retain_grads(one_key))


@pytest.mark.parametrize("number", [0, 1e-7, -3e-8])
def test_a_jitted_record_is_excused_a_0_where_its_program_leaves_but_rounding(number):
    comparison = compare(jitted()(S), with_gradient(jitted()(S), number))
    assert comparison.ok, str(comparison)


def test_a_number_that_is_no_rounding_is_not_excused_there():
    comparison = compare(jitted()(S), with_gradient(jitted()(S), 1e-3))
    assert comparison.first_divergence.label == "s.grad"
    assert "judged by the rounding of the program at arguments that stand in for its own" in str(comparison)


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("small", [1e-9, 1e-30])
def test_a_false_0_beside_large_numbers_is_still_a_difference(small, traced):
    def fun(x):
        return jnp.sum(tag(x, "x") * jnp.append(jnp.ones(9), jnp.float32(small)))

    got = (jax.jit if traced else lambda fun: fun)(retain_grads(fun))(jnp.ones(10))
    assert compare(got, {"x": np.ones(10, np.float32), "x.grad": np.asarray(got.grads["x"])}).ok
    assert not compare(got, {"x": np.ones(10, np.float32), "x.grad": np.float32([1] * 9 + [0])}).ok


def test_attention_agrees_with_itself_jitted_and_mapped_in_float64():
    case = CASES["attention, 2"]
    with jax.enable_x64(True):
        given = [arguments(case, seed, "float64") for seed in range(20)]
        run, mapped = quick_jit(retain_grads(case.ported)), quick_jit(jax.vmap(retain_grads(case.ported)))
        both = jax.device_get(mapped(*jax.tree.map(lambda *leaves: jnp.stack(leaves), *given)))
        for seed, each in enumerate(given):
            comparison = compare(jax.tree.map(lambda a, seed=seed: a[seed], both), run(*each))
            assert comparison.ok, f"seed {seed}: {comparison}"


def test_layer_norms_eps_in_block_4_is_found_in_a_jitted_record():
    name, wrong, row = PLANTED["LayerNorm's eps in block 4"]
    run, want = (quick_jit(retain_grads(fun)) for fun in (wrong, CASES[name].original))
    honest = quick_jit(retain_grads(CASES[name].ported))
    for seed in range(5):
        given = arguments(CASES[name], seed, "float32")
        expected = {label: np.asarray(value) for label, value in want(*given).values.items()}
        assert compare(run(*given), expected).first_divergence.label == row, f"seed {seed}"
        assert compare(honest(*given), expected).ok, f"seed {seed}"


def test_what_is_found_of_a_program_serves_all_records_of_it():
    compare(jitted()(S), with_gradient(jitted()(S), 1e-3))
    found = jitted()(S)._origin.found
    assert found is not None
    assert jitted()(2 * S)._origin.found is found
    assert typical_of(jitted()(S)._origin) is found


def scaled(x):
    return jnp.sum(tag(x * 2, "y"))


def squared(x):
    return jnp.sum(tag(x * x, "y"))


X = jnp.ones(3)


@pytest.mark.parametrize(
    "record",
    [
        jax.jit(retain_grads(scaled))(X),
        jax.vmap(retain_grads(scaled))(X[None]),
        jax.jit(jax.vmap(retain_grads(scaled)))(X[None]),
        jax.lax.map(retain_grads(scaled), X[None]),
        jax.jit(lambda w: retain_grads(lambda x: scaled(x * w))(w))(X),  # closes over what is traced
    ],
)
def test_what_comes_out_of_jit_and_vmap_knows_its_program(record):
    assert record._origin.traced is not None
    assert jax.tree.map(lambda leaf: leaf[:1] if leaf.ndim else leaf, record)._origin is record._origin
    typical = typical_of(record._origin)
    assert typical.share["y"] > 0
    assert typical.cancels["y"].shape == (3,)


def test_no_number_and_no_tracer_is_kept():
    with jax.checking_leaks():
        record = jax.jit(retain_grads(scaled))(X)
    assert [type(leaf) for leaf in record._origin.traced.leaves] == [jax.ShapeDtypeStruct]
    assert pickle.loads(pickle.dumps(record))._origin.traced is None


def test_records_of_two_programs_are_trees_of_one_structure():
    records = [route(retain_grads(fun))(X) for fun in (scaled, squared) for route in (jax.jit, lambda fun: fun)]
    assert len({jax.tree.structure(record) for record in records}) == 1
    traces = []

    @jax.jit
    def twice(record):
        traces.append(record)
        return jax.tree.map(lambda leaf: 2 * leaf, record)

    doubled = [twice(record) for record in records]
    assert len(traces) == 1
    assert all(record._origin.traced is None for record in doubled)  # else the first one's would be in all of them


@pytest.mark.parametrize("route", [jax.jit, lambda fun: fun])
def test_of_a_record_of_one_of_two_branches_it_is_not_known_which_program_made_it(route):
    def either(x):
        return jax.lax.cond(x[0] > 0, retain_grads(scaled), retain_grads(squared), x)

    record = route(either)(-X)
    np.testing.assert_array_equal(record.grads["y"], X)
    assert record._origin.traced is None


def called_back(x):
    y = jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), jax.lax.stop_gradient(x))
    return jnp.sum(tag(x * y, "y"))


def test_a_jitted_program_that_cannot_be_followed_is_judged_by_the_rule_and_the_text_says_so():
    got = jax.jit(retain_grads(called_back))(X)
    comparison = compare(got, {"y": np.asarray(got.values["y"]) * np.float32([1, 1, 1.1])})
    assert comparison.first_divergence.label == "y"
    assert 'could not be found: the operation "pure_callback"' in str(comparison)


def test_integers_and_keys_have_stand_ins_too():
    def fun(x, index, key):
        return jnp.sum(tag(x[index] * jax.random.uniform(key), "y"))

    record = jax.jit(retain_grads(fun))(X, jnp.array([0, 2]), jax.random.key(0))
    assert typical_of(record._origin).share["y"] > 0


def test_what_is_a_number_of_positive_arguments_alone_has_positive_stand_ins():
    record = jax.jit(retain_grads(lambda x: jnp.sum(tag(jnp.log(x), "y"))))(jnp.linspace(1, 2, 64))
    assert typical_of(record._origin).share["y"] > 0


def one_pass(gain, x, eps=1e-5):
    """LayerNorm by the mean of squares, which cancels where the mean is large."""
    mean = jnp.mean(x, -1, keepdims=True)
    variance = jnp.mean(x * x, -1, keepdims=True) - mean * mean
    return jnp.mean(jnp.sin(tag((x - mean) / jnp.sqrt(variance + eps) * gain, "y")))


def two_pass(gain, x):
    centred = x - jnp.mean(x, -1, keepdims=True)
    return jnp.mean(jnp.sin(tag(centred * jax.lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5) * gain, "y")))


@pytest.mark.parametrize(("eps", "mean", "ok"), [(1e-5, 0, True), (1e-5, 3, True), (1e-6, 0, False)])
def test_what_goes_one_way_is_no_rounding_and_what_differs_from_row_to_row_is(eps, mean, ok):
    run, want = jax.jit(retain_grads(functools.partial(one_pass, eps=eps))), jax.jit(retain_grads(two_pass))
    for seed in range(5):
        x = mean + np.random.default_rng(seed).standard_normal((8, 64)).astype(np.float32)
        comparison = compare(run(np.ones(64, np.float32), x), want(np.ones(64, np.float32), x))
        assert comparison.ok == ok, f"seed {seed}: {comparison}"
        assert ok or comparison.first_divergence.label == "y"


def chaotic(ws, x, port=False):
    """Some layers, of which each makes a difference larger."""
    for i, w in enumerate(ws):
        x = tag(1 - 2 / (jnp.exp(2 * (x @ w)) + 1) if port else jnp.tanh(x @ w), f"h{i}")
    return jnp.sin(jnp.sum(x))


def test_a_program_that_makes_roundings_larger_may_be_further_off_than_the_rule():
    runs = [quick_jit(retain_grads(functools.partial(chaotic, port=port))) for port in (True, False)]
    rng = np.random.default_rng(2)
    ws, x = [(rng.standard_normal((8, 8)) * 0.8).astype(np.float32) for _ in range(6)], rng.standard_normal((4, 8))
    got, want = (run(ws, x.astype(np.float32)) for run in runs)
    unknown = [dataclasses.replace(record, _origin=NOWHERE) for record in (got, want)]
    assert not compare(*unknown).ok
    assert compare(got, want).ok
    wrong = dataclasses.replace(want, grads={**want.grads, "h3": want.grads["h3"] * np.float32(1.001)})
    assert compare(got, wrong).first_divergence.label == "h3.grad"


def test_a_program_too_large_to_be_drawn_by_default_is_judged_by_the_rule_and_the_text_says_so(monkeypatch):
    monkeypatch.setattr(draws, "_LARGE", 2.0**7)
    for got in (jax.jit(retain_grads(scaled))(X), retain_grads(scaled)(X)):
        comparison = compare(got, {"y": np.asarray(2 * X) * np.float32([1, 1, 1.01])})
        assert comparison.first_divergence.label == "y"
        assert "found: its largest array has 3 elements, of which 8 draws take 0.0 GiB; expected" in str(comparison)
