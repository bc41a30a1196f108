"""Of the rows that differ, the text names those at which differences begin, and counts what follows from them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import compare, retain_grads, tag
from jaxgrad._record import NOWHERE


def layers(x, wrong=(), detached=(), n=12):
    for i in range(n):
        x = jax.lax.stop_gradient(x) * 0.5 + x * 0.5 if i in detached else x
        x = tag(jnp.sin(x) + (0.25 if i in wrong else 0), f"h{i}")
    return jnp.sum(x)


X = jnp.linspace(0.1, 1, 5)


def unknown(record):
    """The record, that of a program that nobody knows."""
    return dataclasses.replace(record, _call=None, _origin=NOWHERE)


def labels(rows):
    return [row.label for row in rows]


def test_of_nearly_all_rows_that_differ_one_is_named_and_the_rest_counted():
    got, want = retain_grads(functools.partial(layers, wrong=[1]))(X), retain_grads(layers)(X)
    comparison = compare(got, want)
    wrong = sum(not row.ok for row in comparison.rows)
    assert wrong > 20
    assert labels(comparison.roots) == ["h1"]
    lines = str(comparison).splitlines()
    assert lines[0].startswith(f"{wrong} of 26 rows differ: the first value to differ is h1")
    assert lines[1] == "  h1: unknown: the numbers do not tell why (rows 0, 1, 2, 3, 4)"
    assert lines[2:4] == [f"  {wrong - 1} more rows follow from this", ""]
    assert len(comparison.diagnose()) == 1
    assert len(comparison.diagnose(following=True)) == wrong


def test_a_value_and_a_gradient_of_its_own_mistake_are_both_named():
    got = retain_grads(functools.partial(layers, wrong=[9], detached=[3]))(X)
    assert labels(compare(got, retain_grads(layers)(X)).roots) == ["h9"]  # h10.grad and on are taken at other values
    got = retain_grads(functools.partial(layers, detached=[3, 6]))(X)
    assert labels(compare(got, retain_grads(layers)(X)).roots) == ["h5.grad"]


def towers(x, y, wrong=False, sign=1):
    a = tag(jnp.sin(x) * (1.1 if wrong else 1), "a")
    b = tag(jnp.cos(y) + (0.1 if wrong else 0), "b")
    tag(jnp.exp(y), "dead")
    return jnp.sum(tag(a * b, "c")) + sign * jnp.sum(x)


def test_two_mistakes_on_ways_of_their_own_are_both_named():
    got, want = retain_grads(functools.partial(towers, wrong=True))(X, X), retain_grads(towers)(X, X)
    assert labels(compare(got, want).roots) == ["a", "b"]


def test_an_arguments_gradient_can_be_a_root():
    got, want = retain_grads(functools.partial(towers, sign=-1))(X, X), retain_grads(towers)(X, X)
    assert labels(compare(got, want).roots) == ["output", "arg[0].grad"]


def test_where_it_is_not_known_what_is_made_of_what_the_first_value_and_the_first_gradient_are_named():
    got, want = (unknown(retain_grads(functools.partial(layers, wrong=w))(X)) for w in ([1], []))
    comparison = compare(got, want)
    assert labels(comparison.roots) == ["h1", "h10.grad"]
    # the gradient may follow from the value, and its numbers do not tell anything else
    assert [found.label for found in comparison.diagnose()] == ["h1"]
    assert "more rows follow from this, or may: what is computed from what is not known" in str(comparison)


def test_a_gradient_that_tells_its_cause_is_diagnosed_beside_a_wrong_value():
    got = unknown(retain_grads(layers)(X))
    values = {**got.values, "h1": got.values["h1"] + 0.25}
    wrong = dataclasses.replace(got, values=values, grads={**got.grads, "h11": -got.grads["h11"]})
    found = compare(got, wrong).diagnose()
    assert [(each.label, each.cause) for each in found] == [("h1", "unknown"), ("h11.grad", "missing minus")]


def test_what_one_side_lacks_is_always_named():
    got, want = retain_grads(layers)(X), retain_grads(functools.partial(layers, n=13, wrong=[0]))(X)
    assert [row for row in labels(compare(got, want).roots) if row.startswith("h12")] == ["h12", "h12.grad"]


def looped(x, wrong=False):
    def step(h, v):
        return tag(jnp.tanh(h + v) * (1.01 if wrong else 1), "h"), None

    h = jax.lax.scan(step, x[0], x)[0]
    return tag(jax.lax.cond(h > 0, lambda h: tag(h * h, "yes"), lambda h: tag(-h, "no"), h), "y")


def test_roots_are_found_through_scans_and_branches():
    got, want = retain_grads(functools.partial(looped, wrong=True))(X), retain_grads(looped)(X)
    assert labels(compare(got, want).roots) == ["h"]


def test_a_function_that_cannot_be_traced_again_has_roots_all_the_same_and_that_is_no_silence():
    calls = []

    def once(x):
        calls.append(x)
        assert len(calls) == 1
        return layers(x, wrong=[1])

    got, want = retain_grads(once)(X), jax.jit(retain_grads(layers))(X)
    with pytest.warns(RuntimeWarning, match=r"could not follow the program that it compares \(AssertionError: "):
        comparison = compare(got, want)
    assert comparison.inputs == {}
    assert "judged by the rule for all programs: the rounding of this one could not be found: Ass" in str(comparison)
    assert labels(comparison.roots)[0] == "h1"


def test_many_roots_are_not_all_written_out():
    x = np.float32(2)
    got = retain_grads(lambda x: sum(tag(x * i, f"v{i:02}") for i in range(1, 12)))(x)
    comparison = compare(got, {f"v{i:02}": np.float32(-2 * i) for i in range(1, 12)})
    assert len(comparison.roots) == 11
    assert "  and 3 more, as comparison.diagnose() has them" in str(comparison)


def test_what_agrees_has_no_root():
    got = retain_grads(layers)(X)
    assert compare(got, got).roots == ()
    assert str(compare(got, got)).startswith("all 26 rows agree\n\n")


def test_each_forced_piece_is_a_root_of_its_own():
    want = retain_grads(layers)(X)
    got = retain_grads(functools.partial(layers, wrong=[2, 7]), forced=want)(X)
    assert labels(compare(got, want).roots) == ["h2", "h7"]


def test_of_a_jitted_record_it_is_known_too_what_is_computed_from_what():
    got, want = (jax.jit(retain_grads(functools.partial(towers, wrong=wrong)))(X, X) for wrong in (True, False))
    assert labels(compare(got, want).roots) == ["a", "b"]

    def closed_over(x):  # the other argument is a constant of the program, and traced
        return jax.jit(lambda y: retain_grads(lambda x: towers(x, y, wrong=True))(x))(X)

    assert labels(compare(closed_over(X), unknown(dataclasses.replace(want, arg_grads=()))).roots) == ["a", "b"]
