"""Mistakes planted in a ported network are found by name, and the same network unharmed always agrees."""

import functools

import jax
import numpy as np
import pytest
from conftest import DTYPES

from helpers.ported import MISTAKES, ROUNDED, draw, original, ported
from jaxgrad import compare, retain_grads
from jaxgrad._program.quick_jit import quick_jit

SEEDS = 1000  # of which all are compared behind the marker, and some at every run


def retained(fun):
    return retain_grads(fun, argnums=(0, 1))


def in_dtype(name):
    return jax.enable_x64(name == "float64")


@functools.cache
def drawn():
    """The inputs of every seed, drawn once for all dtypes."""
    with jax.enable_x64(False):
        return jax.device_get(quick_jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), SEEDS)))


def run(fun, name):
    """The record of `fun` at the first seed."""
    with in_dtype(name):
        given = jax.tree.map(lambda array: array[0].astype(name), drawn())
        return jax.device_get(quick_jit(retained(fun))(*given))


@functools.cache
def expected(name):
    """The original: a planted mistake changes the port alone."""
    return run(original, name)


def found_in(name, mistake):
    step, wrong, row = (MISTAKES | ROUNDED)[mistake]
    return compare(run(functools.partial(ported, **{step: wrong}), name), expected(name)), row


def test_there_are_thirty_mistakes_and_more():
    assert len(MISTAKES) >= 30


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found_at_its_name(mistake):
    comparison, row = found_in("float32", mistake)
    assert comparison.first_divergence is not None
    assert comparison.first_divergence.label == row, str(comparison)
    assert row in str(comparison).splitlines()[0]


@pytest.mark.parametrize("mistake", ROUNDED)
def test_what_float32_loses_is_found_in_float64_at_its_name(mistake):
    comparison, row = found_in("float64", mistake)
    assert comparison.first_divergence.label == row, str(comparison)


@pytest.mark.parametrize(
    ("mistake", "name"),
    [
        ("a transposed weight", "float16"),
        ("no residual", "bfloat16"),
        ("a factor of 2", "float16"),
        ("a sum for a mean", "bfloat16"),
        ("a detached target", "bfloat16"),
        pytest.param("a transposed weight", "bfloat16", marks=pytest.mark.deep),
        pytest.param("no residual", "float16", marks=pytest.mark.deep),
        pytest.param("a factor of 2", "bfloat16", marks=pytest.mark.deep),
        pytest.param("a sum for a mean", "float16", marks=pytest.mark.deep),
        pytest.param("a detached target", "float16", marks=pytest.mark.deep),
    ],
)
def test_a_gross_mistake_is_found_in_16_bits_too(mistake, name):
    comparison, row = found_in(name, mistake)
    assert comparison.first_divergence.label == row, str(comparison)


@pytest.mark.parametrize("seeds", [50, pytest.param(SEEDS, marks=pytest.mark.deep)])
@pytest.mark.parametrize("name", DTYPES)
def test_the_network_unharmed_agrees_on_every_seed(name, seeds):
    with in_dtype(name):
        both = quick_jit(jax.vmap(lambda *given: (retained(ported)(*given), retained(original)(*given))))
        got, want = jax.device_get(both(*jax.tree.map(lambda array: array[:seeds].astype(name), drawn())))
    for seed in range(seeds):
        comparison = compare(*(jax.tree.map(lambda a, seed=seed: a[seed], record) for record in (got, want)))
        assert comparison.ok, f"seed {seed}: {comparison}"
    assert any(not np.array_equal(got.grads[name], want.grads[name]) for name in got.names)  # it is another program
