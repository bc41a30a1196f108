"""The neuron against closed formulas in NumPy, for every dtype, size and way of calling."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import oracle
from jaxgrad import InputError, JaxgradError, compare, neuron

SIZES = (1, 33)  # every size from 1 to 64 is tried in float32 alone: compiling takes the time
X, W = jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1])


def by_forward(x, w):
    x_bar, w_bar = jax.grad(neuron.forward, argnums=(0, 1))(x, w)
    return {"z": neuron.z(x, w), "f": neuron.forward(x, w), "df/dx": x_bar, "df/dw": w_bar}


def by_chain_rule(x, w):
    return oracle.arrays(neuron.chain_rule(x, w))


def by_backprop(x, w):
    return oracle.arrays(neuron.backprop(x, w))


@functools.cache
def compiled(dtype):
    """One program for all: batches of each size, and what each way of calling gives for them."""
    batches = [oracle.random_neurons(n, dtype) for n in SIZES]
    ways = {"forward": by_forward, "chain_rule": neuron.chain_rule, "backprop": neuron.backprop}
    found = jax.jit(lambda batches: {way: [jax.vmap(by)(x, w) for x, w in batches] for way, by in ways.items()})
    return batches, jax.device_get(found(batches))


@pytest.mark.parametrize("way", ["forward", "chain_rule", "backprop"])
def test_every_value_and_gradient_is_within_rounding_of_the_truth(way, dtype):
    batches, found = compiled(dtype)
    for (x, w), got in zip(batches, found[way], strict=True):
        oracle.assert_close(got if way == "forward" else oracle.arrays(got), x, w, dtype)


@pytest.mark.parametrize("way", ["chain_rule", "backprop"])
def test_compare_holds_the_neuron_to_the_closed_formulas(way, dtype):
    batches, found = compiled(dtype)
    for (x, w), record in zip(batches, found[way], strict=True):
        truth = oracle.labelled({name: array.astype(dtype) for name, array in oracle.neuron(x, w).items()})
        compare(record, truth).raise_if_different()
        for label, array in truth.items():
            wrong = compare(record, truth | {label: 2 * array})
            assert [row.label for row in wrong.rows if not row.ok] == [label]


# Each number of inputs compiles by itself, and a vector's lanes end at 4, 8, 16, 32 and 64 of them.
SOME = (1, 2, 3, 4, 5, 8, 9, 16, 17, 33, 64)


@pytest.mark.parametrize("sizes", [SOME, pytest.param(range(1, 65), marks=pytest.mark.deep)], ids=["some", "all"])
def test_every_number_of_inputs_from_1_to_64_is_within_rounding_of_the_truth(sizes):
    batches = [oracle.random_neurons(n, np.float32) for n in sizes]
    found = jax.jit(lambda batches: [jax.vmap(by_backprop)(x, w) for x, w in batches])(batches)
    for (x, w), got in zip(batches, found, strict=True):
        oracle.assert_close(got, x, w, np.float32)


@pytest.mark.parametrize(
    "dtype",  # one that XLA computes with as it is, one that it widens in what it fuses
    ["float32", "bfloat16", *(pytest.param(name, marks=pytest.mark.deep) for name in ("float16", "float64"))],
    indirect=True,
)
@pytest.mark.parametrize("by", [by_forward, by_chain_rule, by_backprop])
def test_one_eager_row_is_within_rounding_of_the_truth(by, dtype):
    x, w = oracle.random_neurons(2, dtype, rows=1)
    row = by(jnp.asarray(x[0]), jnp.asarray(w[0]))
    oracle.assert_close({name: value[None] for name, value in row.items()}, x, w, dtype)


@pytest.mark.parametrize("name", list(oracle.neuron(np.ones((1, 1)), np.ones((1, 2)))))
def test_the_oracle_refuses_a_quantity_that_is_a_few_roundings_off(name, dtype):
    x, w = oracle.random_neurons(2, dtype)
    truth = oracle.neuron(x, w)[name]
    step = 32 * float(jnp.finfo(dtype).eps)  # two inputs can be some 20 roundings off where nothing cancels
    oracle.assert_close({name: truth.astype(dtype)}, x, w, dtype)
    for wrong in (truth * (1 + step), truth * np.nan, truth * 0):
        with pytest.raises(AssertionError, match=f"^{name} of 2 inputs is "):
            oracle.assert_close({name: wrong.astype(dtype)}, x, w, dtype)


@pytest.mark.parametrize("shape", [(), (5,), (3, 1, 2)])
@pytest.mark.parametrize(
    ("fun", "truth"),
    [(neuron.k, lambda z: np.exp(-z)), (neuron.h, lambda k: 1 + k), (neuron.f, lambda h: 1 / h)],
    ids=["k", "h", "f"],
)
def test_k_h_and_f_take_any_shape_and_keep_it(fun, truth, shape, dtype):
    v = np.random.default_rng(0).uniform(0.5, 4, shape).astype(dtype)
    got = fun(v)
    chex.assert_shape(got, shape)
    assert got.dtype == dtype
    np.testing.assert_allclose(
        np.asarray(got).astype(np.longdouble),
        truth(v.astype(np.longdouble)),
        rtol=2 * float(jnp.finfo(dtype).eps),  # XLA's exp is off by 2 ULP at most; 1 + k and 1 / h are rounded once
    )


@pytest.mark.parametrize("fun", [neuron.chain_rule, neuron.backprop])
@pytest.mark.parametrize("n", [1, 2, 64])
def test_every_array_of_a_record_has_its_shape_and_the_dtype_of_the_arguments(fun, n, dtype):
    x, w = (jax.ShapeDtypeStruct((size,), dtype) for size in (n, n + 1))
    record = jax.eval_shape(fun, x, w)
    chex.assert_shape([record.output, *record.values.values(), *record.grads.values()], ())
    chex.assert_shape(record.arg_grads, [(n,), (n + 1,)])
    assert {leaf.dtype for leaf in jax.tree.leaves(record)} == {dtype}
    assert record.names == tuple(record.values) == tuple(record.grads) == ("z", "k", "h", "f")


def test_quantities_are_named_as_the_document_names_them_and_in_its_order():
    columns = ["z", "k", "h", "f", "df/dz", "df/dk", "df/dh", "df/dw0", "df/dw1", "df/dw2", "df/dx0", "df/dx1"]
    local = ["dh/dk", "dk/dz", "dz/dw0", "dz/dw1", "dz/dw2", "dz/dx0", "dz/dx1"]
    assert list(neuron.quantities(neuron.backprop(X, W))) == columns
    assert list(neuron.quantities(neuron.chain_rule(X, W))) == columns + local


def test_quantities_are_the_records_own():
    x, w = oracle.random_neurons(3, np.float32)
    record = jax.vmap(neuron.chain_rule)(x, w)
    arrays = oracle.arrays(record)
    for name, column in neuron.quantities(record).items():
        array = arrays[name] if name in arrays else arrays[name[:-1]][:, int(name[-1])]
        np.testing.assert_array_equal(column, array)


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("fun", "argument", "value"),
    [
        *[(fun, NAN, NAN) for fun in (neuron.k, neuron.h, neuron.f)],
        *[(neuron.k, INF, 0), (neuron.k, -INF, INF), (neuron.k, 0, 1), (neuron.k, -0.0, 1)],
        *[(neuron.h, INF, INF), (neuron.h, -INF, -INF), (neuron.h, -1, 0)],
        *[(neuron.f, INF, 0), (neuron.f, -INF, -0.0), (neuron.f, 0, INF), (neuron.f, -0.0, -INF)],
    ],
)
def test_k_h_and_f_follow_ieee_arithmetic(fun, argument, value, dtype):
    got = np.asarray(fun(np.asarray(argument, dtype))).astype(np.float64)
    np.testing.assert_array_equal(got, value)
    assert np.isnan(value) or np.signbit(got) == np.signbit(value)


@pytest.mark.parametrize(
    ("x", "w", "z", "f"),
    [
        ((NAN, 1), (1, 1, 1), NAN, NAN),
        ((1, 1), (1, 1, NAN), NAN, NAN),
        ((INF, 1), (0, 1, 1), NAN, NAN),  # infinity times 0
        ((INF, 1), (1, 1, -INF), NAN, NAN),  # infinity minus infinity
        ((INF, 1), (1, 1, 1), INF, 1),
        ((INF, 1), (-1, 1, 1), -INF, 0),
        ((1, 1), (1, 1, -INF), -INF, 0),
    ],
)
@pytest.mark.parametrize("fun", [neuron.chain_rule, neuron.backprop])
def test_nan_and_infinity_in_x_or_w_follow_ieee_arithmetic(fun, x, w, z, f, dtype):
    record = fun(np.array(x, dtype), np.array(w, dtype))
    np.testing.assert_array_equal(np.asarray(record.values["z"], np.float64), z)
    np.testing.assert_array_equal(np.asarray(record.output, np.float64), f)


def test_the_chain_by_hand_is_nan_where_k_overflows():
    record = neuron.chain_rule(jnp.array([100.0]), jnp.array([-1.0, 0.0]))
    assert record.values["k"] == INF
    assert record.output == 0
    assert np.isnan(record.grads["z"])


@pytest.mark.parametrize("fun", [neuron.z, neuron.forward])
def test_complex_arguments_give_the_derivative_by_the_complex_step(fun):
    step = 1e-30
    derivative = fun(X + 0j, (W + 0j).at[0].add(step * 1j)).imag / step
    np.testing.assert_allclose(derivative, jax.grad(fun, argnums=1)(X, W)[0], rtol=1e-6)  # a few float32 roundings


class VariantsTest(chex.TestCase):
    """With and without jit, one row and many: the same program, so the same answer but for fused roundings."""

    @chex.variants(with_jit=True, without_jit=True)
    def test_a_row_alone_is_as_it_is_in_a_batch(self):
        x, w = oracle.random_neurons(5, np.float32)
        for fun in (neuron.chain_rule, neuron.backprop):
            rows = [self.variant(fun)(x[i], w[i]) for i in range(len(x))]
            batch = self.variant(jax.vmap(fun))(x, w)
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
            oracle.assert_close(oracle.arrays(stacked), x, w, np.float32)
            oracle.assert_close(oracle.arrays(batch), x, w, np.float32)
            compare(batch, stacked).raise_if_different()

    @chex.variants(with_jit=True, without_jit=True)
    def test_one_w_serves_many_rows(self):
        x, w = oracle.random_neurons(5, np.float32)
        batch = self.variant(jax.vmap(neuron.backprop, in_axes=(0, None)))(x, w[0])
        oracle.assert_close(oracle.arrays(batch), x, np.tile(w[0], (len(x), 1)), np.float32)


@pytest.mark.parametrize("fun", [neuron.forward, neuron.chain_rule, neuron.backprop])
def test_calls_of_one_shape_are_traced_once(fun):
    chex.clear_trace_counter()
    jitted = jax.jit(chex.assert_max_traces(fun, n=1))
    jitted(X, W)
    jitted(-X, 2 * W)
    jitted(np.asarray(X), np.asarray(W))
    with pytest.raises(AssertionError, match="traced > 1 times"):
        jitted(jnp.ones(3), jnp.ones(4))


ROW = "expected (n,), one row of inputs. For many rows write jax.vmap(fun, in_axes=(0, None))(x, w)."
WEIGHTS = "expected (n+1,), the bias last. For many rows write jax.vmap(fun, in_axes=(0, None))(x, w)."
BIAS_LAST = (
    "a weight for each input and the bias last. For a neuron without bias write jnp.append(w, jnp.zeros_like(w[0]))."
)
INEXACT = "float16, bfloat16, float32, float64, complex64, complex128"
X64 = 'or jax.config.update("jax_enable_x64", True) at the start of the program.'


def no_gradient(name, dtype, expected=INEXACT):
    return (
        f"{name} has dtype {dtype}; expected one of {expected}: only these have the gradients asked for. "
        f"Write jnp.asarray({name}, jnp.float32)."
    )


def narrowed(name, wide, narrow):
    return (
        f"{name} is {wide}, which JAX would silently narrow to {narrow}; expected a dtype that it keeps. "
        f'Write {name}.astype("{narrow}"), {X64}'
    )


ROW_ERRORS = [
    (jnp.float32(1), W, f"x has shape (); {ROW}"),
    (1.0, W, f"x has shape (); {ROW}"),
    (jnp.ones((4, 2)), W, f"x has shape (4, 2); {ROW}"),
    (X, jnp.ones((4, 3)), f"w has shape (4, 3); {WEIGHTS}"),
    (X, jnp.float32(1), f"w has shape (); {WEIGHTS}"),
    (
        jnp.ones(0),
        jnp.ones(1),
        "x has shape (0,), no input at all; expected (n,) with n >= 1. Give it at least one input.",
    ),
    (X, W[:2], f"w has shape (2,) and x has shape (2,); expected w of shape (3,): {BIAS_LAST}"),
    (X, jnp.ones(4), f"w has shape (4,) and x has shape (2,); expected w of shape (3,): {BIAS_LAST}"),
    (
        X.astype(jnp.float16),
        W.astype(jnp.bfloat16),
        "x is float16 and w is bfloat16, and the result would silently be float32; expected one dtype. "
        "Write w.astype(x.dtype) or x.astype(w.dtype).",
    ),
    (
        X,
        W.astype(jnp.bfloat16),
        "x is float32 and w is bfloat16, and the result would silently be float32; expected one dtype. "
        "Write w.astype(x.dtype) or x.astype(w.dtype).",
    ),
    (np.ones(2), W, narrowed("x", "float64", "float32")),
    (X, np.ones(3), narrowed("w", "float64", "float32")),
    ([1.0, 2.0], W, "x is a list; expected a JAX or NumPy array. Write jnp.asarray(x)."),
    (X, None, "w is a NoneType; expected a JAX or NumPy array. Write jnp.asarray(w)."),
    (X, "0.5", "w is a str; expected a JAX or NumPy array. Write jnp.asarray(w)."),
]


@pytest.mark.parametrize("fun", [neuron.z, neuron.forward, neuron.chain_rule, neuron.backprop])
@pytest.mark.parametrize(("x", "w", "text"), ROW_ERRORS)
def test_a_wrong_row_is_an_error_that_says_what_to_write(fun, x, w, text):
    with pytest.raises(InputError, match=f"^{re.escape(text)}$"):
        fun(x, w)


@pytest.mark.parametrize("x", [jnp.array([1, 2]), jnp.array([True, False]), np.array([1, 2], "int64")])
@pytest.mark.parametrize(
    ("fun", "expected"),
    [
        (neuron.z, INEXACT),
        (neuron.forward, INEXACT),
        (neuron.chain_rule, "float16, bfloat16, float32, float64"),
        (neuron.backprop, "float16, bfloat16, float32, float64"),
    ],
)
def test_integers_have_no_gradient(fun, expected, x):
    with pytest.raises(InputError, match=f"^{re.escape(no_gradient('x', x.dtype, expected))}$"):
        fun(x, W)
    with pytest.raises(InputError, match=f"^{re.escape(no_gradient('w', x.dtype, expected))}$"):
        fun(X, x)


@pytest.mark.parametrize("fun", [neuron.chain_rule, neuron.backprop])
def test_a_record_has_no_complex_gradients(fun):
    text = no_gradient("x", "complex64", "float16, bfloat16, float32, float64")
    with pytest.raises(InputError, match=f"^{re.escape(text)}$"):
        fun(X + 0j, W + 0j)


@pytest.mark.parametrize(("fun", "name"), [(neuron.k, "z"), (neuron.h, "k"), (neuron.f, "h")])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, lambda name: no_gradient(name, "int32")),
        (10**30, lambda name: no_gradient(name, "int32")),
        (True, lambda name: no_gradient(name, "bool")),
        (np.array(["1.0"]), lambda name: no_gradient(name, "<U3")),
        (jnp.arange(3), lambda name: no_gradient(name, "int32")),
        (jax.random.key(0), lambda name: no_gradient(name, "key<fry>")),
        (np.float64(1), lambda name: narrowed(name, "float64", "float32")),
        (np.complex128(1), lambda name: narrowed(name, "complex128", "complex64")),
        ((1.0,), lambda name: f"{name} is a tuple; expected a JAX or NumPy array. Write jnp.asarray({name})."),
    ],
)
def test_a_wrong_argument_of_k_h_or_f_is_an_error_that_says_what_to_write(fun, name, value, text):
    with pytest.raises(InputError, match=f"^{re.escape(text(name))}$"):
        fun(value)


def test_mixed_dtypes_are_our_error_also_where_jax_promotes_none():
    with jax.numpy_dtype_promotion("strict"), pytest.raises(InputError, match="the result would silently be float32"):
        neuron.z(X.astype(jnp.float16), W.astype(jnp.bfloat16))


def test_errors_are_raised_while_tracing_too():
    with pytest.raises(InputError, match=re.escape("expected w of shape (3,)")):
        jax.jit(jax.vmap(neuron.backprop, in_axes=(0, None)))(jnp.ones((4, 2)), jnp.ones(2))


def test_input_errors_are_jaxgrad_errors_and_value_errors():
    assert issubclass(InputError, JaxgradError)
    assert issubclass(InputError, ValueError)
