"""The oracles, operation by operation: against derivatives written out by hand in NumPy, or refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxgrad import OutputError, complex_step, finite_difference, in_float64, retain_grads, taylor_order
from jaxgrad._program.quick_jit import quick_jit

X = np.float32([0.3, 1.7, 0.9, 1.2])  # rounded to float32: 0.3 is not 0.3 in float64
C = np.array([0.5, -1.25, 2.0, 0.75])  # exact in float32
A = np.array([[4, 1, 0, 0.5], [1, 3, 0.25, 0], [0, -1, 2, 0.5], [0.5, 0, 1, 5]])  # exact in float32
P = np.array([2.0, 3, 1, 5])
x = X.astype(np.float64)
SOLVED = np.linalg.solve(A, x)


def reversed_product(a, b):
    return a * b + a


# name -> (operation of a vector, the gradient of C @ operation at x by hand)
BY_HAND = {
    "scatter-add": (lambda v: jnp.zeros(4).at[np.array([1, 1, 0, 3])].add(v), C[[1, 1, 0, 3]]),
    "scatter-sub": (lambda v: jnp.ones(4).at[np.array([1, 1, 0, 3])].subtract(v), -C[[1, 1, 0, 3]]),
    "scatter-mul": (lambda v: v.at[1].multiply(v[0]), [C[0] + C[1] * x[1], C[1] * x[0], C[2], C[3]]),
    "scatter": (lambda v: v.at[1].set(v[0] ** 2), [C[0] + 2 * C[1] * x[0], 0, C[2], C[3]]),
    "segment_sum": (lambda v: jax.ops.segment_sum(v, np.array([3, 0, 0, 1]), 4), C[[3, 0, 0, 1]]),
    "gather": (lambda v: v[np.array([0, 0, 3, 1])], [C[0] + C[1], C[3], 0, C[2]]),
    "reduce_prod": (lambda v: jnp.prod(v) * jnp.ones(4), C.sum() * np.prod(x) / x),
    "cumsum": (jnp.cumsum, np.cumsum(C[::-1])[::-1]),
    "cumprod": (jnp.cumprod, [sum(C[j] * np.prod(x[: j + 1]) / x[i] for j in range(i, 4)) for i in range(4)]),
    "triangular_solve": (
        lambda v: jax.scipy.linalg.solve_triangular(jnp.asarray(A, v.dtype), v, lower=True),
        np.linalg.solve(np.tril(A).T, C),
    ),
    "solve": (lambda v: jnp.linalg.solve(jnp.asarray(A, v.dtype), v), np.linalg.solve(A.T, C)),
    "solve of a matrix": (
        lambda v: jnp.linalg.solve(jnp.asarray(A, v.dtype) * v[0], v),
        np.append(np.linalg.solve(A.T, C)[0] / x[0] - (C @ SOLVED) / x[0] ** 2, np.linalg.solve(A.T, C)[1:] / x[0]),
    ),
    "custom_linear_solve": (
        lambda v: lax.custom_linear_solve(lambda u: 3 * u, v, lambda _, b: b / 3, symmetric=True),
        C / 3,
    ),
    "det": (
        lambda v: jnp.linalg.det(jnp.diag(v)) * jnp.ones(4, v.dtype),
        C.sum() * np.prod(x) / x,
    ),
    "pow": (lambda v: v**v, C * x**x * (np.log(x) + 1)),
    "pow of a negative": (
        lambda v: (-v) ** jnp.asarray(P, v.dtype),
        -C * [2, 3, 1, 5] * (-x) ** [1, 2, 0, 4],
    ),
    "rem": (lambda v: lax.rem(v * v, jnp.full(4, 0.5, v.dtype)), 2 * C * x),
    "abs": (lambda v: jnp.abs(v - 1), C * np.sign(x - 1)),
    "logistic": (jax.nn.sigmoid, C * np.exp(-x) / (1 + np.exp(-x)) ** 2),
    "softplus": (jax.nn.softplus, C / (1 + np.exp(-x))),
    "maximum": (lambda v: jnp.maximum(v, 1), C * (x > 1)),
    "scan": (
        lambda v: lax.scan(lambda c, u: (c * u, c * u), jnp.ones((), v.dtype), v)[1],
        [sum(C[j] * np.prod(x[: j + 1]) / x[i] for j in range(i, 4)) for i in range(4)],
    ),
    "convolution": (
        lambda v: jnp.convolve(v, v)[:4],
        [2 * sum(C[i + j] * x[j] for j in range(4 - i)) for i in range(4)],
    ),
    "matmul": (lambda v: jnp.outer(v, v) @ v, (x @ x) * C + 2 * (C @ x) * x),
    "log1p": (jnp.log1p, C / (1 + x)),
    "arctan": (jnp.arctan, C / (1 + x * x)),
    "associative_scan": (
        lambda v: lax.associative_scan(jnp.multiply, v),
        [sum(C[j] * np.prod(x[: j + 1]) / x[i] for j in range(i, 4)) for i in range(4)],
    ),
    "reduce": (
        lambda v: lax.reduce(v, jnp.ones((), v.dtype), lax.mul, (0,)) * jnp.ones(4, v.dtype),
        C.sum() * np.prod(x) / x,
    ),
    "reduce_window": (
        lambda v: lax.reduce_window(v, 0.0, lax.add, (2,), (1,), "SAME"),
        [C[0], *(C[1:] + C[:-1])],
    ),
    "stack": (
        lambda v: jnp.stack([(w := jnp.unstack(v))[3], w[0] * w[1], w[1], w[0]]),
        [C[1] * x[1] + C[3], C[1] * x[0] + C[2], 0, C[0]],
    ),
    "pad": (lambda v: jnp.pad(v, 1)[:4], [*C[1:], 0]),
    "rev": (lambda v: v[::-1], C[::-1]),
    "concatenate": (lambda v: jnp.concatenate([v[2:], v[:2]]), [*C[2:], *C[:2]]),
    "transpose": (lambda v: v.reshape(2, 2).T.reshape(4), C[[0, 2, 1, 3]]),
    "split": (lambda v: jnp.concatenate(jnp.split(v, 2)[::-1]), [*C[2:], *C[:2]]),
    "dynamic_slice": (lambda v: jnp.tile(lax.dynamic_slice(v, (jnp.argmax(v),), (1,)), 4), [0, C.sum(), 0, 0]),
    "dynamic_update_slice": (
        lambda v: lax.dynamic_update_slice(v, v[:2] * v[2:], (jnp.argmin(v),)),
        [C[0] * x[2], C[1] * x[3], C[0] * x[0] + C[2], C[1] * x[1] + C[3]],
    ),
    "select_n": (lambda v: jnp.where(v > 1, v * v, -v), C * np.where(x > 1, 2 * x, -1)),
    "clamp": (lambda v: lax.clamp(v * 0 + 0.5, v, v * 0 + 1.5), C * ((x > 0.5) & (x < 1.5))),
    "min": (lambda v: jnp.minimum(v, 1), C * (x < 1)),
    "reduce_max": (
        lambda v: v * jnp.max(v) + jnp.min(v),
        C * x[1] + (C @ x) * np.eye(4)[1] + C.sum() * np.eye(4)[0],
    ),
    "rounding": (
        lambda v: v * (jnp.floor(v) + jnp.ceil(v) + jnp.round(v) + jnp.sign(v)),
        C * (np.floor(x) + np.ceil(x) + np.round(x) + np.sign(x)),
    ),
    "comparisons": (
        lambda v: jnp.where(jnp.isfinite(v) & (v == v) & (v != 1) & (v <= 1) & ~(v >= 1) & (v < 1), v, 2 * v),
        C * np.where(x < 1, 1, 2),
    ),
    "reduce_sum": (lambda v: v / jnp.sum(v), C / x.sum() - C @ x / x.sum() ** 2),
    "squared": (lambda v: lax.square(v) - lax.integer_pow(v, 3), C * (2 * x - 3 * x**2)),
    "optimization_barrier": (lambda v: lax.optimization_barrier(v) * v, 2 * C * x),
    "stop_gradient": (lambda v: v * jnp.sin(1 + 0 * lax.stop_gradient(v)), C * np.sin(1)),
}


ALL = dict.fromkeys(BY_HAND, X)


def loss(vectors):
    """The operations all at once, each of a vector of its own: they compile once."""
    return sum(jnp.sum(jnp.asarray(C, v.dtype) * BY_HAND[name][0](v)) for name, v in vectors.items())


@pytest.mark.parametrize(
    ("oracle", "rtol"),
    [
        (complex_step, 1e-12),  # float64's rounding over a few steps
        (in_float64, 1e-12),
        (finite_difference, 1e-6),  # of second order, s^2 = eps^(2/3), and the sum of all has more to round
        # float32, and solves of a small condition
        (lambda fun, names: quick_jit(retain_grads(fun, names=names)), 3e-5),
    ],
)
def test_every_oracle_and_jax_itself_have_each_derivative_by_hand(oracle, rtol):
    grads = oracle(loss, names=())(ALL).arg_grads[0]
    for name, (_, want) in BY_HAND.items():
        np.testing.assert_allclose(grads[name], want, rtol=rtol, atol=rtol, err_msg=name)


def test_the_taylor_remainder_of_the_derivatives_by_hand_is_of_order_2_and_of_1_with_one_wrong():
    right = {name: np.asarray(want, np.float64) for name, (_, want) in BY_HAND.items()}
    assert taylor_order(loss, ALL, grads=(right,)) == pytest.approx(2, abs=0.1)  # a fitted slope
    wrong = right | {"solve": right["solve"] * [1, 1, 1, 1.5]}
    assert taylor_order(loss, ALL, grads=(wrong,)) < 1.5


def test_a_general_reduction_is_evaluated_in_float64():
    # a * b + a, from 1 on: JAX has no reverse mode for it, so the oracles that need none are asked.
    def fun(v):
        return lax.reduce(v, jnp.ones((), v.dtype), reversed_product, (0,))

    def by_hand(v):
        total = 1.0
        for element in v:
            total = total * element + total
        return total

    truth = [(by_hand(x + s) - by_hand(x - s)) / 2e-6 for s in 1e-6 * np.eye(4)]
    np.testing.assert_allclose(finite_difference(fun, names=())(X).output, by_hand(x), rtol=1e-14)  # float64
    np.testing.assert_allclose(finite_difference(fun, names=())(X).arg_grads[0], truth, rtol=1e-7)  # finite differences


def windows_of_a_product(v):
    """Of which JAX has no reverse mode either."""
    return jnp.sum(C.astype(v.dtype) * lax.reduce_window(v, jnp.ones((), v.dtype), lax.mul, (2,), (1,), "SAME"))


@pytest.mark.parametrize("oracle", [complex_step, finite_difference])
def test_a_general_reduction_of_windows_has_its_derivative_by_hand(oracle):
    want = [C[0] * x[1], C[0] * x[0] + C[1] * x[2], C[1] * x[1] + C[2] * x[3], C[2] * x[2] + C[3]]
    # Finite differences, the coarsest.
    np.testing.assert_allclose(oracle(windows_of_a_product, names=())(X).arg_grads[0], want, rtol=1e-7)


NOT_ANALYTIC = {
    "cholesky": lambda v: jnp.linalg.cholesky(jnp.diag(v)),
    "eigh": lambda v: jnp.linalg.eigh(jnp.diag(v))[0],
    "qr": lambda v: jnp.linalg.qr(jnp.diag(v))[1],
    "svd": lambda v: jnp.linalg.svd(jnp.diag(v), compute_uv=False),
    "atan2": lambda v: jnp.arctan2(v, 2 * v + 1),
    "cumlogsumexp": lax.cumlogsumexp,
    "cummax": lax.cummax,
    "sort": jnp.sort,
    "top_k": lambda v: lax.top_k(v, 2)[0],
    "fft": lambda v: jnp.abs(jnp.fft.rfft(v)),
    "scatter-max": lambda v: v.at[0].max(v[1]),
    "scatter-min": lambda v: v.at[0].min(v[1]),
    "reduce_window_max": lambda v: lax.reduce_window(v, -jnp.inf, lax.max, (2,), (1,), "SAME"),
    "erf": jax.scipy.special.erf,
    "lgamma": jax.scipy.special.gammaln,
    "cbrt": jnp.cbrt,
    "reduce_precision": lambda v: lax.reduce_precision(v, 8, 23),
    "abs": lambda v: jnp.abs(v + 1j),
}


@pytest.mark.parametrize("name", NOT_ANALYTIC)
def test_complex_step_refuses_what_it_cannot_follow_by_name(name):
    fun = NOT_ANALYTIC[name]
    with pytest.raises(OutputError, match=f'complex_step cannot follow the operation "{name}", which is not analytic'):
        complex_step(lambda v: jnp.sum(jnp.real(fun(v))), names=())(X)


@pytest.mark.parametrize("fun", [jnp.log, jnp.sqrt, lambda v: v**0.5, jnp.arccos])
def test_where_the_real_function_ends_the_step_is_nan(fun):
    record = complex_step(lambda v: fun(v)[0], names=())(np.float32([-1.5, 0.5]))
    assert np.isnan(record.output)
    assert np.isnan(record.arg_grads[0][0])


@pytest.mark.parametrize("oracle", [finite_difference, in_float64])
def test_what_hides_its_arithmetic_is_refused_by_name(oracle):
    def fun(v):
        return jnp.sum(jax.pure_callback(lambda a: a, jax.ShapeDtypeStruct(v.shape, v.dtype), v) * v)

    with pytest.raises(OutputError, match='the operation "pure_callback" keeps its arithmetic to itself'):
        oracle(fun, names=())(X)


@pytest.mark.parametrize("oracle", [finite_difference, complex_step, in_float64])
def test_the_oracles_take_auxiliary_data(oracle):
    def fun(v):
        return jnp.sum(v * v), {"twice": 2 * v, "name": "not an array"}

    record = oracle(fun, names=(), has_aux=True)(X)
    np.testing.assert_allclose(record.arg_grads[0], 2 * x, rtol=1e-7)  # finite differences
    np.testing.assert_array_equal(record.aux["twice"], 2 * x)
    assert record.aux["name"] == "not an array"
    with pytest.raises(OutputError, match="with has_aux, fun returns a"):
        oracle(lambda v: jnp.sum(v), names=(), has_aux=True)(X)


def test_taylor_order_takes_auxiliary_data():
    assert round(taylor_order(lambda v: (jnp.sum(v**3), v), X, has_aux=True)) == 2
