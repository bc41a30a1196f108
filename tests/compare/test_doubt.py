"""Where the rule for all programs is unsure, the rounding of the program itself is found, once, and said."""

import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import DifferenceError, assert_matches, compare, retain_grads, tag
from jaxgrad._record import NOWHERE


def first_row(s):
    """The gradient of a softmax over one element is g - g * 1, which is 0 or rounding."""
    return jnp.sum(jax.nn.softmax(tag(s, "s")[:, :1] * 0.7) * 3)


def small(x):
    return 1e-9 * tag(x, "x")


def called_back(x):
    y = jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), jax.lax.stop_gradient(x))
    return tag(x * y, "y")


S = jnp.float32([[0.3], [0.4]])


def test_a_cancelled_0_beside_rounding_is_no_false_alarm_and_the_text_says_why():
    got = retain_grads(first_row)(S)
    want = {"s": S, "s.grad": np.float32([[1e-7], [0]])}
    comparison = compare(got, want)
    assert comparison.ok, str(comparison)
    assert "judged by the rounding of the program itself" in str(comparison)


def test_a_false_0_is_still_a_difference():
    got = retain_grads(small)(jnp.float32(1))
    comparison = compare(got, {"x": np.float32(1), "x.grad": np.float32(0)})
    assert comparison.first_divergence.label == "x.grad"
    assert "judged by the rounding" in str(comparison)


def test_rounding_is_not_looked_for_where_all_agree_or_where_a_tolerance_is_given():
    got, want = retain_grads(small)(jnp.float32(1)), {"x": np.float32(1), "x.grad": np.float32(0)}
    assert compare(got, {"x": np.float32(1)}).remarks == ()
    assert compare(got, want, ulp=1).remarks == ()
    assert got._call.found is None


def test_it_is_found_once_for_a_record():
    got, want = retain_grads(small)(jnp.float32(1)), {"x": np.float32(1), "x.grad": np.float32(0)}
    compare(got, want)
    found = got._call.found
    compare(got, want)
    assert got._call.found is found is not None


def test_a_program_that_cannot_be_followed_is_judged_by_the_old_rule_and_the_text_says_so():
    got = retain_grads(called_back)(jnp.float32(1))
    comparison = compare(got, {"y": np.float32(0)})
    assert not comparison.ok
    assert 'could not be found: the operation "pure_callback"' in str(comparison)


def test_only_an_eager_record_remembers_its_call_and_no_copy_in_a_file_does():
    record = retain_grads(first_row)(S)
    assert record._call is not None
    assert pickle.loads(pickle.dumps(record))._call is None
    assert jax.tree.map(lambda leaf: leaf, record)._call is None
    assert jax.jit(retain_grads(first_row))(S)._call is None
    assert "_call" not in repr(record)


def test_assert_matches_raises_the_readable_table():
    got = retain_grads(small)(jnp.float32(1))
    assert_matches(got, {"x": np.float32(1)})
    with pytest.raises(DifferenceError, match=r"1 of 1 rows differ: the first value to differ is x"):
        assert_matches(got, {"x": np.float32(2)})
    assert_matches(got, {"x": np.float32(2)}, atol=1)
    with pytest.raises(AssertionError):
        assert_matches(dataclasses.replace(got, output=jnp.float32(3)), got)


def test_another_slope_at_a_kink_is_no_rounding_where_every_value_agrees():
    def fun(relu):
        def of(w, x):
            h = tag(w @ x, "h")
            return jnp.sum(tag(relu(h), "a") ** 2 + relu(h))

        return of

    w, x = jnp.array([[1.0, 2.0], [1.0, -1.0]]), jnp.array([1.0, 1.0])
    half, none = (retain_grads(fun(relu))(w, x) for relu in (lambda h: jnp.maximum(h, 0), jax.nn.relu))
    comparison = compare(half, none)
    assert comparison.first_divergence.label == "h.grad"
    assert compare(none, retain_grads(fun(jax.nn.relu))(w, x)).ok


def one_key(s):
    """As `first_row`, with more of it: all that is left of the gradient is rounding, beside one that is none."""
    return jnp.sum(jax.nn.softmax(tag(s, "s")[:, :1] * 0.7) * 3) + jnp.sum(tag(s * 2, "twice"))


def off(record, name, factor):
    """The record with a value scaled, as its twin that knows no call."""
    return unknown(dataclasses.replace(record, values={**record.values, name: record.values[name] * factor}))


def unknown(record):
    return dataclasses.replace(record, _call=None, _origin=NOWHERE)


def test_what_differs_altogether_is_told_without_looking_for_the_rounding():
    got = retain_grads(one_key)(jnp.linspace(0.1, 1, 16).reshape(8, 2))
    comparison = compare(got, off(got, "twice", 1.5))
    assert comparison.first_divergence.label == "twice"
    assert "differs by more than rounding does: the program's own rounding was not looked for" in str(comparison)
    assert got._call.found is None


def test_small_numbers_that_differ_altogether_are_gross_too():
    got = retain_grads(lambda x: jnp.sum(tag(x * 1e-6, "tiny")))(jnp.linspace(0.1, 1, 16))
    comparison = compare(got, off(got, "tiny", 1.5))
    assert "the program's own rounding was not looked for" in str(comparison)
    assert got._call.found is None


def test_of_another_shape_it_is_not_said_that_rounding_might_explain_it():
    got = retain_grads(one_key)(jnp.linspace(0.1, 1, 16).reshape(8, 2))
    comparison = compare(got, {"s": np.asarray(got.values["s"]).T, "twice": np.asarray(got.values["twice"])})
    assert comparison.first_divergence.label == "s"
    assert comparison.remarks == ()
    assert got._call.found is None


@pytest.mark.parametrize("factor", [1 + 3e-5, 1.2])
def test_what_differs_by_less_has_its_rounding_looked_for(factor):
    got = retain_grads(one_key)(jnp.linspace(0.1, 1, 16).reshape(8, 2))
    assert compare(got, off(got, "twice", factor)).first_divergence.label == "twice"
    assert got._call.found is not None


def test_a_gradient_that_is_all_rounding_is_not_gross():
    def left_over(s):
        return jnp.sum(jax.nn.softmax(tag(s, "s")[:, None] * 0.7) * 3) + jnp.sum(s) * 0

    s = jnp.linspace(0.1, 1, 16)
    got = retain_grads(left_over)(s)
    garbage = np.where(np.arange(16) % 2, 1e-7, -2e-7).astype(np.float32)
    comparison = compare(got, {"s": s, "s.grad": np.asarray(got.grads["s"]) + garbage, "output": got.output})
    assert comparison.ok, str(comparison)
    assert "judged by the rounding of the program itself" in str(comparison)


X = jnp.linspace(0.5, 1, 64)
UNIT = 8 * 2**-24 * (1 + 8 / 8) * 2  # what the rule allows of the largest element at the first step


@pytest.mark.parametrize(("times", "ok"), [(0.9, True), (2.7, True), (3.3, False)])
def test_three_times_the_rule_is_allowed_where_no_record_knows_its_program(times, ok):
    got = unknown(retain_grads(lambda x: jnp.sum(tag(x * 1, "x")))(X))
    assert compare(got, off(got, "x", np.float32(1 + times * UNIT))).ok == ok


@pytest.mark.parametrize(("times", "looked"), [(0.4, False), (0.7, True), (2.7, True)])
def test_from_half_the_rule_on_the_program_decides(times, looked):
    got = retain_grads(lambda x: jnp.sum(tag(x * 1, "x")))(X)
    comparison = compare(got, off(got, "x", np.float32(1 + times * UNIT)))
    assert comparison.ok == (not looked)  # a product is off by one rounding, and not by ten
    assert (got._call.found is not None) == looked


def test_beside_an_oracle_and_with_a_tolerance_the_rule_is_itself():
    got = unknown(retain_grads(lambda x: jnp.sum(tag(x * 1, "x")))(X))
    want = off(got, "x", np.float32(1 + 2 * UNIT))
    assert not compare(got, dataclasses.replace(want, uncertainty={"x": np.zeros(64)})).ok
    assert compare(got, want, rtol=1e-4).ok
    assert not compare(got, want, rtol=1e-7).ok
