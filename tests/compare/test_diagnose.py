"""comparison.diagnose() names the cause where the numbers tell it, and no cause where they don't."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import Record, compare, in_float64, neuron, reference, retain_grads, tag

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


@pytest.mark.parametrize(
    ("want", "cause"), [(1e-39, "flushed subnormal"), (1e-30, "underflow"), (1e-12, "false 0"), (0.3, "cut off")]
)
def test_a_0_is_told_by_what_stands_in_its_place(want, cause):
    got = np.float32([1, 0, 2])
    (found,) = compare(record_of(a=got), record_of(a=np.float32([1, want, 2]))).diagnose()
    assert found.cause == cause, str(found)
    assert found.rows == (1,)


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
    found = {each.label: each for each in compare(got, want).diagnose()}
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
