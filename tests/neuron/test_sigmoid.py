"""`neuron.sigmoid` against the truth: every float of 16 bits, every 4096th float32, all floats near a threshold."""

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from helpers.sigmoid_oracle import Floats, patterns, truth, truth_by_mpmath, ulp_error
from jaxgrad import InputError, neuron

ORDERS = ("f", "df/dz", "d2f/dz2")
DTYPES = ("float16", "bfloat16", "float32", "float64")
# In ULP, measured by bench/exhaustive.py over every float on CPU, and rounded up.
BOUNDS = {
    "float16": {"f": 0.51, "df/dz": 0.51, "d2f/dz2": 0.51},
    "bfloat16": {"f": 0.51, "df/dz": 0.51, "d2f/dz2": 0.51},
    "float32": {"f": 1.7, "df/dz": 2.5, "d2f/dz2": 6.1},
    "float64": {"f": 2, "df/dz": 2.7, "d2f/dz2": 7.5},
}
# Where something overflows, underflows, is flushed, crosses 0 or changes its formula, in any of the dtypes.
THRESHOLDS = {
    "float16": (),
    "bfloat16": (),
    "float32": (0, 1e-45, 2**-126, 2**-123, 1e-7, 0.0155, 1, 12, 16.64, 43.67, 79, 87.336, 88.72, 103.97, 111, 3.4e38),
    "float64": (0, 5e-324, 2**-1022, 2**-1019, 1e-16, 1, 37, 39.5, 354.9, 673, 708.396, 709.78, 745.13, 921, 1.7e308),
}


def sample(dtype: str) -> Floats:
    """Every float of 16 bits, every 4096th float32, 2**17 float64, 1024 neighbours of each threshold; all finite."""
    bits = 8 * np.dtype(dtype).itemsize
    step = {16: 1, 32: 4096, 64: 1 << 48}[bits]
    parts = [patterns(dtype, 0, 1 << bits, step)]
    if dtype == "float64":  # evenly spaced patterns seldom have an exponent of interest
        parts.append(np.random.default_rng(0).uniform(-800, 800, 1 << 16))
    for threshold in THRESHOLDS[dtype]:
        nearest = int(np.array(threshold, dtype).view(f"u{bits // 8}"))
        near = patterns(dtype, max(0, nearest - 512), nearest + 512)
        parts += [near, -near]
    z = np.concatenate(parts)
    with np.errstate(invalid="ignore"):  # signalling NaN
        return z[np.isfinite(z)]


def derivatives(fun, z: Floats) -> dict[str, Floats]:
    def columns(z):
        return fun(z), jax.vmap(jax.grad(fun))(z), jax.vmap(jax.grad(jax.grad(fun)))(z)

    with jax.enable_x64(z.dtype == np.float64):
        return dict(zip(ORDERS, map(np.asarray, jax.jit(columns)(z)), strict=True))


def far_off(fun, dtype: str) -> dict[str, tuple[float, float]]:
    """Each order whose error exceeds its bound, with the largest error and the z where it lies."""
    z = sample(dtype)
    true = truth(z)
    found = {}
    for name, got in derivatives(fun, z).items():
        error = ulp_error(got, true[name])
        if error.max() > BOUNDS[dtype][name]:
            found[name] = float(error.max()), float(z[error.argmax()])
    return found


def chain(z):
    return neuron.f(neuron.h(neuron.k(z)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_value_and_two_derivatives_are_right_everywhere(dtype):
    assert far_off(neuron.sigmoid, dtype) == {}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wrong", [jax.nn.sigmoid, chain], ids=["jax.nn.sigmoid", "chain"])
def test_the_check_fails_for_other_sigmoids(wrong, dtype):
    found = far_off(wrong, dtype)
    assert "df/dz" in found
    assert "d2f/dz2" in found


@pytest.mark.parametrize(
    "nudge", [lambda f: f * (1 + 2.0**-20), lambda f: f + 1e-9, lambda f: jnp.where(f < 1e-37, 0, f)]
)
def test_the_check_fails_for_a_nudged_value(nudge):
    assert "f" in far_off(lambda z: nudge(neuron.sigmoid(z)), "float32")


def test_the_oracle_agrees_with_mpmath():
    z = np.random.default_rng(0).permutation(sample("float64"))[:2000]
    z = np.concatenate([z, np.random.default_rng(1).uniform(-700, 700, 1000)])
    for wide, bound in ((np.longdouble, 0.01), (np.float64, 1e-7)):
        dtype = np.float64 if wide is np.longdouble else np.float32
        with np.errstate(over="ignore"):
            narrow = z.astype(dtype)
        narrow = narrow[np.isfinite(narrow)]
        got, want = truth(narrow), truth_by_mpmath(narrow.astype(np.float64))
        for name, column in got.items():
            normal = (np.abs(want[name]) > np.finfo(dtype).tiny) & (np.abs(want[name]) < np.finfo(dtype).max)
            error = np.abs(column - want[name])[normal] / np.spacing(np.abs(want[name][normal].astype(dtype)))
            assert error.max() < bound, name  # in ULP of the dtype that is checked


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinities_give_the_limits_and_nan_gives_nan(dtype):
    z = np.array([-np.inf, np.inf, np.nan], dtype)
    for name, got in derivatives(neuron.sigmoid, z).items():
        np.testing.assert_array_equal(got.astype(float), [0, 1 if name == "f" else 0, np.nan], err_msg=name)


SECOND = {
    "reverse over reverse": lambda fun: jax.grad(jax.grad(fun)),
    "forward over reverse": lambda fun: jax.jacfwd(jax.grad(fun)),
    "reverse over forward": lambda fun: jax.grad(jax.jacfwd(fun)),
    "forward over forward": lambda fun: jax.jacfwd(jax.jacfwd(fun)),
    "hessian": jax.hessian,
    "through jit": lambda fun: jax.grad(jax.jit(jax.grad(jax.jit(fun)))),
    "through checkpoint": lambda fun: jax.grad(jax.grad(jax.checkpoint(fun))),
}


@pytest.mark.parametrize("second", SECOND.values(), ids=SECOND)
def test_every_way_to_the_second_derivative_is_right(second):
    z = sample("float32")[::16]
    got = np.asarray(jax.jit(jax.vmap(second(neuron.sigmoid)))(z))
    assert ulp_error(got, truth(z)["d2f/dz2"]).max() <= BOUNDS["float32"]["d2f/dz2"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_third_derivative_is_right_and_the_fourth_is_a_number(dtype):
    z = sample(dtype)
    third = jax.grad(jax.grad(jax.grad(neuron.sigmoid)))
    with jax.enable_x64(dtype == "float64"):
        got, fourth = (np.asarray(jax.jit(jax.vmap(fun))(z)) for fun in (third, jax.grad(third)))
    slope = truth(z)["df/dz"]
    least, eps = (float(limit) for limit in (ml_dtypes.finfo(dtype).smallest_normal, ml_dtypes.finfo(dtype).eps))
    # The third crosses 0, so its error is relative to the first, the size of the terms that cancel.
    error = np.abs(got.astype(slope.dtype) - slope * (1 - 6 * slope))
    assert (error / slope)[slope >= least].max() < 16 * eps  # measured: 6.7 in float32, 12.1 in float64
    assert error[slope < least].max() <= least
    assert np.isfinite(fourth.astype(float)).all()


def test_a_factor_is_multiplied_in_before_the_derivative_underflows():
    z = np.linspace(-176, 176, 200_001, dtype=np.float32)
    for factor in np.float32([1e10, -1e20, 3e38]):
        true = truth(z)["df/dz"] * float(factor)
        for gradient in (
            jax.vmap(jax.grad(lambda z: factor * neuron.sigmoid(z))),  # noqa: B023
            lambda z: jax.jvp(neuron.sigmoid, (z,), (jnp.full_like(z, factor),))[1],  # noqa: B023
        ):
            assert ulp_error(np.asarray(jax.jit(gradient)(z)), true).max() < 4  # 2.5, and r's two roundings


class Variants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_jit_eager_and_vmap_agree(self):
        z = sample("float32")[::64]
        for fun in (neuron.sigmoid, jax.vmap(jax.grad(neuron.sigmoid))):
            # Jitted, a product may keep its digits until the sum; rounding apart, they are the same.
            np.testing.assert_allclose(self.variant(fun)(z), jax.jit(jax.vmap(fun))(z[:, None])[:, 0], rtol=2**-22)


@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_shape_and_dtype_are_kept(shape, dtype):
    z = jax.ShapeDtypeStruct(shape, dtype)
    for found in jax.eval_shape(lambda z: jax.jvp(neuron.sigmoid, (z,), (z,)), z):
        assert (found.shape, found.dtype) == (shape, dtype)


def test_it_is_symmetric_and_grows():
    z = np.sort(np.abs(sample("float32")))
    found, mirrored = derivatives(neuron.sigmoid, z), derivatives(neuron.sigmoid, -z)
    np.testing.assert_allclose(found["f"] + mirrored["f"], 1, rtol=2**-23)  # half a unit of each
    np.testing.assert_array_equal(found["df/dz"], mirrored["df/dz"])
    np.testing.assert_array_equal(found["d2f/dz2"], -mirrored["d2f/dz2"])
    assert (np.diff(found["f"]) >= -(2**-24)).all()  # one rounding


def test_the_complex_step_gives_the_derivative():
    z = np.linspace(-80, 80, 1001, dtype=np.float32)
    step = 2.0**-40
    estimate = np.asarray(neuron.sigmoid(z + np.complex64(1j * step))).imag / np.float32(step)
    normal = truth(z)["df/dz"] * step > np.finfo(np.float32).tiny
    np.testing.assert_allclose(estimate[normal], truth(z)["df/dz"][normal], rtol=2e-6)  # float32, some ten roundings


def test_complex_values_and_derivatives_are_right_beside_the_poles():
    z = np.array([1 + 1j, -1 + 2j, 80 - 1j, -80 + 1j, 0.5j, -3 - 3j], np.complex64)
    exact = 1 / (1 + np.exp(-z.astype(complex)))
    derivative = jax.jit(jax.vmap(jax.grad(neuron.sigmoid, holomorphic=True)))(z)
    np.testing.assert_allclose(neuron.sigmoid(z), exact, rtol=1e-6)  # float32
    np.testing.assert_allclose(derivative, exact / (1 + np.exp(z.astype(complex))), rtol=2e-6)  # float32, twice
    assert np.isfinite(np.asarray(neuron.sigmoid(np.complex64([-1e30, 1e30])))).all()


@pytest.mark.parametrize("z", [3, True, np.arange(3), jnp.arange(3), np.bool_(True)])
def test_an_integer_is_refused(z):
    with pytest.raises(
        InputError, match=r"z has dtype .*; expected one of float16, .* Write jnp.asarray\(z, jnp.float32\)"
    ):
        neuron.sigmoid(z)


def test_what_is_no_array_is_refused():
    with pytest.raises(InputError, match=r"z is a str; expected a JAX or NumPy array"):
        neuron.sigmoid("1.0")


def test_float64_is_not_narrowed():
    with jax.enable_x64(False), pytest.raises(InputError, match="z is float64, which JAX would silently narrow"):
        neuron.sigmoid(np.float64(1.0))
