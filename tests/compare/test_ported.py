"""Mistakes planted in a ported network are found by name, and the same network unharmed always agrees."""

import functools

import jax
import numpy as np
import pytest
from conftest import DTYPES

from helpers.ported import MISTAKES, ROUNDED, draw, original, ported
from jaxgrad import compare, retain_grads, with_rounding
from jaxgrad._program.quick_jit import quick_jit

SEEDS = 1000  # of which all are compared behind the marker, and some at every run
BY_DEFAULT = (  # the rest are judged so behind the marker: by default the port's own rounding has to be compiled
    "a transposed weight",
    "a 0 in the tail",
    "a stale epsilon",
    "detached statistics",
    "a detached residual",
    "a gradient counted twice",
    "a half in the loss",
    "a frozen weight",
    "a missing minus in a rule",
)


def retained(fun):
    return retain_grads(fun, argnums=(0, 1))


def in_dtype(name):
    return jax.enable_x64(name == "float64")


@functools.cache
def drawn():
    """The inputs of every seed, drawn once for all dtypes."""
    with jax.enable_x64(False):
        return jax.device_get(quick_jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), SEEDS)))


def first(name):
    """The inputs of the first seed."""
    return jax.tree.map(lambda array: array[0].astype(name), drawn())


def run(fun, name):
    """The record of `fun` at the first seed."""
    with in_dtype(name):
        return jax.device_get(quick_jit(retained(fun))(*first(name)))


@functools.cache
def expected(name):
    """The original: a planted mistake changes the port alone."""
    return run(original, name)


@functools.cache
def known(name):
    """The original, its rounding known."""
    with in_dtype(name):
        *given, target = first(name)
        return with_rounding(lambda p, x: original(p, x, target))(*given)  # all is differentiated, so it is compiled


def found_in(name, mistake, want):
    step, wrong, row = (MISTAKES | ROUNDED)[mistake]
    return compare(run(functools.partial(ported, **{step: wrong}), name), want(name)), row


def deeper(mistakes, chosen):
    """The mistakes, all but the chosen ones marked."""
    return [each if each in chosen else pytest.param(each, marks=pytest.mark.deep) for each in mistakes]


def test_there_are_thirty_mistakes_and_more():
    assert len(MISTAKES) >= 30


@pytest.mark.parametrize(
    ("mistake", "want"),
    [
        *(pytest.param(each, known, id=f"{each}-by rounding") for each in MISTAKES if each not in BY_DEFAULT),
        *(
            pytest.param(each, expected, id=f"{each}-by default", marks=() if each in BY_DEFAULT else pytest.mark.deep)
            for each in MISTAKES
        ),
    ],
)
def test_a_planted_mistake_is_found_at_its_name(mistake, want):
    comparison, row = found_in("float32", mistake, want)
    assert comparison.first_divergence is not None
    assert comparison.first_divergence.label == row, str(comparison)
    assert row in str(comparison).splitlines()[0]


@pytest.mark.parametrize("mistake", deeper(ROUNDED, ["a float32 weight"]))
def test_what_float32_loses_is_found_in_float64_at_its_name(mistake):
    comparison, row = found_in("float64", mistake, expected)
    assert comparison.first_divergence.label == row, str(comparison)


@pytest.mark.parametrize("mistake", ROUNDED)
def test_what_float32_loses_is_found_in_float64_by_the_rounding(mistake):
    comparison, row = found_in("float64", mistake, known)
    assert comparison.first_divergence.label == row, str(comparison)


@pytest.mark.parametrize(
    ("mistake", "name", "want"),
    [
        ("a transposed weight", "float16", expected),
        ("a detached target", "bfloat16", expected),
        ("a factor of 2", "float16", known),
        ("a sum for a mean", "bfloat16", known),
        ("no residual", "bfloat16", known),
        *(
            pytest.param(mistake, name, expected, marks=pytest.mark.deep)
            for mistake in (
                "a transposed weight",
                "no residual",
                "a factor of 2",
                "a sum for a mean",
                "a detached target",
            )
            for name in ("float16", "bfloat16")
        ),
    ],
)
def test_a_gross_mistake_is_found_in_16_bits_too(mistake, name, want):
    comparison, row = found_in(name, mistake, want)
    assert comparison.first_divergence.label == row, str(comparison)


@pytest.mark.parametrize("seeds", [15, pytest.param(SEEDS, marks=pytest.mark.deep)])
@pytest.mark.parametrize("name", DTYPES)
def test_the_network_unharmed_agrees_on_every_seed(name, seeds):
    with in_dtype(name):
        both = quick_jit(jax.vmap(lambda *given: (retained(ported)(*given), retained(original)(*given))))
        got, want = jax.device_get(both(*jax.tree.map(lambda array: array[:seeds].astype(name), drawn())))
    for seed in range(seeds):
        comparison = compare(*(jax.tree.map(lambda a, seed=seed: a[seed], record) for record in (got, want)))
        assert comparison.ok, f"seed {seed}: {comparison}"
    assert any(not np.array_equal(got.grads[name], want.grads[name]) for name in got.names)  # it is another program
