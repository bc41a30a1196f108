"""`neuron.backprop` against the truth: every quantity, for every z, and for rows as extreme as the dtype has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sigmoid import DTYPES, sample

from helpers.sigmoid_oracle import Floats, truth, ulp_error
from jaxgrad import Record, compare, neuron
from jaxgrad.reference import load

# In ULP, measured by bench/exhaustive.py over every float on CPU, and rounded up. XLA's exp is 5 ULP off in float32
# where it nearly overflows, and so are k and h; elsewhere they are within 1.5.
BOUNDS = {
    "float16": {"k": 0.51, "h": 1.1, "f": 0.51, "df/dh": 1.9, "df/dk": 1.9, "df/dz": 0.51},
    "bfloat16": {"k": 0.51, "h": 1.1, "f": 0.51, "df/dh": 1.9, "df/dk": 1.9, "df/dz": 0.51},
    "float32": {"k": 5.6, "h": 5.6, "f": 1.7, "df/dh": 4.5, "df/dk": 4.5, "df/dz": 2.5},
    "float64": {"k": 2, "h": 2, "f": 2, "df/dh": 5.3, "df/dk": 5.3, "df/dz": 2.7},
}
PRODUCT = 4.0  # ULP of df/dw and df/dx: df/dz's, and three more roundings


def far_off(fun, dtype: str) -> dict[str, tuple[float, float]]:
    """Each quantity whose error exceeds its bound, with the largest error and the z where it lies."""
    z = sample(dtype)
    true = truth(z)
    found = {}
    with jax.enable_x64(dtype == "float64"):
        columns = neuron.quantities(run(fun, z[:, None], np.array([1, 0], dtype)))
    for name, bound in BOUNDS[dtype].items():
        error = ulp_error(np.asarray(columns[name]), true[name])
        if error.max() > bound:
            found[name] = float(error.max()), float(z[error.argmax()])
    return found


def run(fun, x: Floats, w: Floats) -> Record:
    return jax.jit(jax.vmap(fun, in_axes=(0, None if w.ndim == 1 else 0)))(x, w)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_quantity_is_right_for_every_z(dtype):
    assert far_off(neuron.backprop, dtype) == {}


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_check_fails_for_the_chain(dtype):
    assert "df/dz" in far_off(neuron.chain_rule, dtype)


def extreme_rows(dtype: str, n: int) -> tuple[Floats, Floats]:
    """Rows of one input with z = w0 * x0 of any size up to twice underflow's, and w0 of any exponent there is."""
    rng = np.random.default_rng(0)
    info = np.finfo(dtype)
    z = rng.uniform(2.2 * np.log(info.tiny), -2.2 * np.log(info.tiny), n)
    w0 = (rng.choice([-1, 1], n) * np.exp2(rng.uniform(info.minexp + 12, info.maxexp - 0.01, n))).astype(dtype)
    with np.errstate(over="ignore", under="ignore"):
        x0 = (z / w0).astype(dtype)
    keep = np.isfinite(x0) & (np.abs(x0) >= info.tiny)
    return x0[keep, None], np.stack([w0, np.zeros_like(w0)], axis=1)[keep]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_products_with_a_derivative_that_underflows_are_right(dtype):
    x, w = extreme_rows(dtype, 50_000)
    with jax.enable_x64(dtype == "float64"):
        record = run(neuron.backprop, x, w)
    slope = truth(np.asarray(record.values["z"]))["df/dz"]
    x_bar, w_bar = map(np.asarray, record.arg_grads)
    assert ulp_error(x_bar[:, 0], slope * w[:, 0]).max() <= PRODUCT
    assert ulp_error(w_bar[:, 0], slope * x[:, 0]).max() <= PRODUCT
    # A test of the rows: with df/dz rounded first, products that are normal numbers are lost.
    lost = np.asarray(record.grads["z"]) * w[:, 0]
    assert not ulp_error(lost, slope * w[:, 0]).max() <= PRODUCT


finite = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)


@given(st.tuples(finite, finite), st.tuples(finite, finite, finite))
@settings(max_examples=150, deadline=None)
def test_finite_rows_give_no_nan_and_the_right_signs(x, w):
    x, w = np.float32(x), np.float32(w)
    record = jax.device_get(_jitted(x, w))
    z = record.values["z"]
    if not np.isfinite(z):
        return
    assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves(record))
    assert record.grads["z"] >= 0
    assert record.grads["h"] <= 0
    (x_bar, w_bar), slope = record.arg_grads, truth(z)["df/dz"]
    assert ulp_error(x_bar, slope * w[:-1].astype(float)).max() <= PRODUCT
    assert ulp_error(w_bar, slope * np.append(x, 1).astype(float)).max() <= PRODUCT


_jitted = jax.jit(neuron.backprop)


@pytest.mark.parametrize("call", [neuron.backprop, jax.jit(neuron.backprop)])
def test_the_documents_numbers_stay(call):
    table = load()
    comparison = compare(call(table.x, table.w), table)
    comparison.raise_if_different()
    assert {row.ulp for row in comparison.rows} == {0}


def test_it_equals_the_chain_where_the_chain_is_right():
    x = np.random.default_rng(0).normal(size=(10_000, 3)).astype(np.float32) * 3
    w = np.float32([0.5, -0.3, 0.2, 0.1])
    got, want = (run(fun, x, w) for fun in (neuron.backprop, neuron.chain_rule))
    compare(got, want, rtol=2e-6).raise_if_different()  # each is some 5 ULP off the truth at most


@pytest.mark.parametrize("scale", [1, 1000])
def test_its_gradients_can_be_differentiated(scale):
    x, w = jnp.array([1.0, -2.0]), jnp.array([0.5, 0.3, -0.4]) * scale
    dz_dw = np.append(x, 1.0)
    curve = truth(np.asarray(neuron.z(x, w)))["d2f/dz2"]
    for jacobian in (jax.jacfwd, jax.jacrev):
        through = jax.jit(jacobian(lambda w: (neuron.backprop(x, w).grads["z"], neuron.backprop(x, w).arg_grads[1])))
        z_bar_dw, w_bar_dw = through(w)
        np.testing.assert_allclose(z_bar_dw, curve * dz_dw, rtol=1e-6, atol=1e-37)  # float32; subnormals flushed to 0
        np.testing.assert_allclose(w_bar_dw, curve * np.outer(dz_dw, dz_dw), rtol=1e-6, atol=1e-37)  # the same


def test_overflow_of_k_gives_infinities_and_no_nan():
    record = neuron.backprop(jnp.array([-100.0]), jnp.array([1.0, 0.0]))
    assert [record.values[name].item() for name in neuron.NAMES] == [-100.0, np.inf, np.inf, 0.0]
    assert [record.grads[name].item() for name in neuron.NAMES] == [0.0, 0.0, 0.0, 1.0]
    assert np.signbit(record.grads["k"])
