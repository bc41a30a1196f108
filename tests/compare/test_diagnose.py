"""comparison.diagnose() names the cause where the numbers tell it, and no cause where they don't."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import Record, compare, in_float64, neuron, reference, retain_grads, tag, with_rounding

WANT = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)


def record_of(**values):
    return Record(np.float32(1), tuple(values), values, dict.fromkeys(values), ())


def changed(index, value):
    got = WANT.copy()
    got[index] = value
    return got


def scaled(index, factor):
    return changed(index, WANT[index] * np.float32(factor))


@pytest.mark.parametrize(
    ("got", "cause", "rows"),
    [
        (-WANT, "missing minus", range(6)),
        (scaled(2, -1), "missing minus", [2]),
        (WANT * 2, "factor 2", range(6)),
        (WANT / 2, "factor 1/2", range(6)),
        (scaled(slice(1, 3), 2), "factor 2", [1, 2]),
        (WANT * np.float32(1.1), "factor 1.1", range(6)),
        (WANT.T, "transpose", range(6)),
        (WANT / 6, "mean for sum", range(6)),
        (WANT / 36, "mean for sum", range(6)),
        (WANT * 6, "sum for mean", range(6)),
        (changed((3, 1), np.inf), "overflow", [3]),
        (changed((3, 1), np.nan), "NaN", [3]),
        (WANT * 0, "cut off", range(6)),
        (np.where(WANT > 0.5, WANT + np.float32(0.1), WANT), "unknown", np.flatnonzero((WANT > 0.5).any(1))),
    ],
)
def test_the_cause_is_told_by_the_numbers(got, cause, rows):
    (found,) = compare(record_of(a=got), record_of(a=WANT)).diagnose()
    assert found.cause == cause, str(found)
    assert found.rows == tuple(rows)


def test_a_scalar_has_no_rows():
    (found,) = compare(record_of(a=np.float32(-3)), record_of(a=np.float32(3))).diagnose()
    assert (found.cause, found.rows) == ("missing minus", ())


IMAGE = np.random.default_rng(1).normal(size=(2, 5, 4, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("got", "cause", "text"),
    [
        (IMAGE.transpose(0, 2, 3, 1), "layout", r"as N H W C for N C H W: the shape is \[2, 4, 3, 5\]"),
        (IMAGE.transpose(0, 3, 1, 2), "layout", r"as N C H W for N H W C: "),
        (IMAGE.transpose(2, 3, 1, 0), "layout", r"as a kernel H W I O for O I H W: "),
        (IMAGE[:, :, ::-1, ::-1], "flipped", r"backward along the axes \(2, 3\), as a convolution does"),
        (IMAGE.reshape(2, 5, 12).transpose(0, 2, 1).reshape(2, 5, 12).reshape(IMAGE.shape), "unknown", ""),
        (IMAGE[:, :, :, [1, 2, 0]], "order", "the right numbers in another order"),
        (IMAGE.reshape(5, 2, 3, 4), "shape", r"the shape is \[5, 2, 3, 4\] and should be \[2, 5, 4, 3\]"),
    ],
)
def test_a_layout_is_told(got, cause, text):
    (found,) = compare(record_of(a=np.ascontiguousarray(got)), record_of(a=IMAGE)).diagnose()
    assert found.cause == cause, str(found)
    assert re.search(text, found.text), found.text


def test_a_square_images_axes_are_told_where_the_shape_is_right():
    image = np.random.default_rng(1).normal(size=(2, 4, 4, 4)).astype(np.float32)
    (found,) = compare(record_of(a=image.transpose(0, 2, 3, 1)), record_of(a=image)).diagnose()
    assert (found.cause, found.text) == (
        "layout",
        "its axes are (0, 2, 3, 1) of what it should be, as N H W C for N C H W",
    )


def normalised(x, eps=1e-5, ddof=0, shift=0.0):
    variance = np.var(x, -1, keepdims=True, ddof=ddof)
    return ((x - x.mean(-1, keepdims=True)) / np.sqrt(variance + eps) * GAIN + shift).astype(np.float32)


ROWS = np.random.default_rng(2).normal(size=(8, 16)) * np.linspace(0.3, 2, 8)[:, None]
GAIN, SHIFT = np.random.default_rng(3).normal(size=(2, 16))


@pytest.mark.parametrize("shift", [0.0, SHIFT])
@pytest.mark.parametrize(
    ("of", "cause", "text"),
    [
        ({"ddof": 1}, "variance with n-1", "the root of 15/16 times what it should be"),
        ({"eps": 1e-3}, "epsilon", r"each row is scaled by its own factor, 1 - 0\.00\d+ to 1 - 0\.00\d+"),
        ({"eps": 1e-6}, "epsilon", r"each row is scaled by its own factor, 1 \+ "),
    ],
)
def test_a_normalisation_is_told(of, cause, text, shift):
    want = with_rounding(lambda x: jnp.sum(tag(x * np.float32(1), "a")))(normalised(ROWS, shift=shift))
    (found,) = compare(dataclasses.replace(want, values={"a": normalised(ROWS, shift=shift, **of)}), want).diagnose()
    assert found.cause == cause, str(found)
    assert re.search(text, found.text), found.text


@pytest.mark.parametrize(
    ("got", "want", "cause", "text"),
    [
        (8 / 7, 1, "mean over n-1", "8/7 of what it should be: a mean over 7 for 8, as of a variance with n-1"),
        (7 / 8, 1, "mean over n", "7/8 of what it should be: a mean over 8 for 7"),
        (np.sqrt(8 / 7), 1, "variance with n", "the root of 8/7 times"),
        (1 + 3e-4, 1, "epsilon", "1 + 0.0003 times what it should be: another epsilon, or a constant cut short"),
        (10 / 9, 1, "factor 1.111", "1.11111 times"),  # nothing here is of length 10
    ],
)
def test_a_factor_that_a_length_makes_is_told(got, want, cause, text):
    x = np.ones(8, np.float32)
    (diagnosis,) = compare(*(record_of(x=x, loss=np.float32(loss)) for loss in (got, want))).diagnose()
    assert (diagnosis.label, diagnosis.cause) == ("loss", cause), str(diagnosis)
    assert text in diagnosis.text


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_gelu_for_another_is_told(dtype):
    with jax.enable_x64(dtype == "float64"):
        u = jnp.asarray(2 * ROWS, dtype)
        erf, by_tanh = (np.asarray(jax.nn.gelu(u, approximate=fast)) for fast in (False, True))
        quick = np.asarray(u * jax.nn.sigmoid(1.702 * u))
    for got, want, cause in (
        (by_tanh, erf, "tanh-GELU for erf"),
        (erf, by_tanh, "erf-GELU for tanh"),
        (quick, erf, "sigmoid-GELU for erf"),
    ):
        (found,) = compare(record_of(a=got), record_of(a=want)).diagnose()
        assert found.cause == cause, str(found)
    (found,) = compare(record_of(a=np.asarray(jax.nn.silu(u))), record_of(a=erf)).diagnose()
    assert found.cause == "unknown"


@pytest.mark.parametrize(
    ("want", "cause"), [(1e-39, "flushed subnormal"), (1e-30, "underflow"), (1e-12, "false 0"), (0.3, "cut off")]
)
def test_a_0_is_told_by_what_stands_in_its_place(want, cause):
    got = np.float32([1, 0, 2])
    (found,) = compare(record_of(a=got), record_of(a=np.float32([1, want, 2]))).diagnose()
    assert found.cause == cause, str(found)
    assert found.rows == (1,)


def test_a_0_behind_an_infinite_value_is_an_overflow():
    got = dataclasses.replace(record_of(a=np.float32([np.inf, 1])), grads={"a": np.float32([0, 1])})
    (found,) = compare(got, dataclasses.replace(got, grads={"a": np.float32([0.3, 1])})).diagnose()
    assert (found.label, found.cause, found.rows) == ("a.grad", "overflow", (0,))
    assert "an intermediate is infinite there, and what it divides is 0" in found.text


def test_a_transposed_shape_is_told():
    (found,) = compare(record_of(a=WANT[:3].T), record_of(a=WANT[:3])).diagnose()
    assert (found.cause, found.text) == ("transpose", "it is the transpose: the shape is [6, 3] and should be [3, 6]")


def test_the_chain_in_the_tail_is_0_times_infinity_in_the_rows_where_it_is():
    # The chain's derivative is NaN below z = -88.7, and 0 below -43.7.
    x = np.float32([[0.5], [-95.0], [2.0], [-60.0]])
    w = np.float32([1.0, 0.0])
    got = jax.jit(jax.vmap(retain_grads(neuron.forward), in_axes=(0, None)))(x, w)
    wants = [in_float64(neuron.forward)(row, w) for row in x]
    want = jax.tree.map(lambda *rows: np.stack(rows), *wants)
    found = {each.label: each for each in compare(got, want).diagnose(following=True)}
    assert (found["z.grad"].cause, found["z.grad"].rows) == ("0 times infinity", (1, 3))


def test_cancellation_is_told():
    def fun(x):
        return jnp.sum(tag((1 + x) - 1, "lost"))

    x = np.float32([1e-4, 1e-3])
    found = {each.label: each for each in compare(retain_grads(fun)(x), in_float64(fun)(x)).diagnose()}
    assert found["lost"].cause == "cancellation"
    assert found["lost"].rows == (0, 1)


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize(
    ("printed", "cause"),
    [("-0.25", "missing minus"), ("0.50", "factor 1/2"), ("0.0000", "unknown"), ("nan", "unknown")],
)
def test_a_printed_number_is_diagnosed_too(printed, cause, rounded):
    table = reference.load()
    right, other = (reference.Number("label:", "df/dz", digits) for digits in ("0.25", printed))
    table = dataclasses.replace(table, rounded=rounded, numbers=(right, other))
    (found,) = compare(neuron.backprop(table.x, table.w), table).diagnose()
    assert (found.label, found.cause) == ("df/dz", cause), str(found)


def test_what_agrees_has_no_diagnosis():
    assert compare(record_of(a=WANT), record_of(a=WANT)).diagnose() == ()


def exact_gelu(x):
    """By erfc, as jax.nn.gelu has it: its derivative is right in the tail, where that of 1 + erf is 0."""
    return jnp.sum(jax.nn.gelu(tag(x, "x"), approximate=False))


@pytest.mark.parametrize(("jitted", "known"), [(False, True), (True, False)])
def test_a_false_0_of_the_reference_is_told_to_be_its_own(jitted, known):
    x = np.float32([-5.8, -1, 0.5, 2])
    got = (jax.jit if jitted else lambda fun: fun)(retain_grads(exact_gelu))(x)
    x_bar = np.array(got.grads["x"])
    exact = in_float64(exact_gelu)(x).grads["x"][0]
    assert abs(x_bar[0] - exact) < 1e-5 * abs(exact)  # so want is the worse side
    x_bar[0] = 0
    (found,) = compare(got, {"x": x, "x.grad": x_bar}).diagnose()
    assert (found.label, found.cause, found.rows) == ("x.grad", "false 0 in want", (0,))
    assert f"want is 0 in place of {got.grads['x'][0]}" in found.text
    assert "want is the worse side if in_float64(fun) has that number too" in found.text
    assert ("of which rounding makes" in found.text) == known


def test_a_0_of_the_reference_beside_a_large_number_is_not_said_to_be_false():
    got = retain_grads(lambda x: jnp.sum(tag(x, "x") ** 2))(np.float32([1, 2, 3]))
    (found,) = compare(got, {"x": np.float32([1, 2, 3]), "x.grad": np.float32([0, 4, 6])}).diagnose()
    assert found.cause != "false 0 in want"
