"""Refs (`jax.new_ref`) carry gradients: what is written to a ref that is read later reaches the output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ref import addupdate, freeze, swap

from jaxgrad import TagError, complex_step, finite_difference, in_float64, ledger, retain_grads, retain_vjp, tag
from jaxgrad._program import liveness
from jaxgrad._program.jaxpr import Program, opened

X = jnp.array([0.3, -0.7, 1.1])


def empty():
    return jax.new_ref(jnp.zeros(3))


def named(x):
    return tag(2 * x, "h")


def by_assignment(x):
    r = empty()
    r[...] = named(x)
    return r[...]


def by_elements(x):
    r, h = empty(), named(x)
    for i in range(3):
        r[i] += h[i]
    return r[...]


def by_addupdate(x):
    r = empty()
    addupdate(r, ..., named(x))
    return r[...]


def by_swap(x):
    r = jax.new_ref(named(x))
    return swap(r, ..., jnp.zeros(3))


def by_freeze(x):
    r = empty()
    r[...] = named(x)
    return freeze(r)


def by_a_second_ref(x):
    r, s = empty(), empty()
    r[...] = named(x)
    s[...] = r[...]
    r[...] = jnp.ones(3)
    return s[...]


def in_a_scan(x):
    r = empty()

    def step(i, a):
        r[i] = named(a)
        return i + 1, None

    lax.scan(step, 0, x)
    return r[...]


def in_a_scan_one_step_later(x):
    r, s = empty(), empty()

    def step(i, a):
        s[i - 1] = r[i - 1]  # what the step before has written
        r[i] = named(a)
        return i + 1, None

    lax.scan(step, 0, x)
    s[2] = r[2]
    return s[...]


def in_a_fori_loop(x):
    r = empty()

    def step(i, _):
        r[i] = named(x[i])

    lax.fori_loop(0, 3, step, None)
    return r[...]


def in_a_branch(x):
    r = empty()

    def write():
        r[...] = named(x)

    lax.cond(x[0] > 0, write, lambda: None)
    return r[...]


def in_a_jit_that_closes_over_it(x):
    r = empty()

    @jax.jit
    def write():
        r[...] = named(x)

    write()
    return r[...]


def in_a_jit_that_is_given_it(x):
    r = empty()

    @jax.jit
    def write(r, x):
        r[...] = named(x)

    write(r, x)
    return r[...]


def in_a_vmap(x):
    def row(a):
        r = jax.new_ref(jnp.zeros(()))
        r[...] = named(a)
        return r[...]

    return jax.vmap(row)(x)


WAYS = [
    by_assignment,
    by_elements,
    by_addupdate,
    by_swap,
    by_freeze,
    by_a_second_ref,
    in_a_scan,
    in_a_scan_one_step_later,
    in_a_fori_loop,
    in_a_branch,
    in_a_jit_that_closes_over_it,
    in_a_jit_that_is_given_it,
    in_a_vmap,
]


def squares(way):
    return lambda x: jnp.sum(way(x) ** 2)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("way", WAYS)
def test_what_is_written_to_a_ref_that_is_read_has_its_gradient(way, transform):
    record = transform(retain_grads(squares(way)))(X)
    assert record.notes == {}
    np.testing.assert_array_equal(record.values["h"], 2 * X)
    np.testing.assert_array_equal(record.grads["h"], 4 * X)
    np.testing.assert_array_equal(record.arg_grads[0], 8 * X)


@pytest.mark.parametrize("way", WAYS)
def test_a_cotangent_is_pulled_back_through_a_ref(way):
    output, _, pullback = retain_vjp(way, X)
    arg_grads, grads = pullback(jnp.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(output, 2 * X)
    np.testing.assert_array_equal(grads["h"], [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(arg_grads[0], [2.0, 4.0, 6.0])


@pytest.mark.parametrize("way", [way for way in WAYS if way is not in_a_branch])
def test_a_ledger_has_the_edges_through_a_ref(way):
    found = ledger(squares(way))(X)
    edge = found.edges["h", found.output]
    np.testing.assert_array_equal(edge.local, 4 * X)
    np.testing.assert_array_equal(edge.contribution, 4 * X)
    assert {ends for ends in found.edges if ends[1] == "h"} == {("x0", "h"), ("x1", "h"), ("x2", "h")}


@pytest.mark.parametrize("way", [by_assignment, by_swap, in_a_scan, in_a_jit_that_is_given_it])
@pytest.mark.parametrize("oracle", [finite_difference, complex_step, in_float64])
def test_an_oracle_follows_refs_too(oracle, way):
    with jax.enable_x64(True):
        x = jnp.array([0.3, -0.7, 1.1])
        np.testing.assert_allclose(oracle(squares(way))(x).grads["h"], 4 * x, rtol=1e-8)  # float64 differences


def test_what_is_written_to_a_ref_that_nothing_reads_does_not_reach_the_output():
    def fun(x):
        r = empty()
        r[...] = named(x)
        return jnp.sum(x**2)

    record = retain_grads(fun)(X)
    assert record.notes == {"h": "does not reach the output"}
    assert record.grads["h"] is None


def test_a_swap_whose_old_value_alone_is_used_does_not_make_the_new_value_live():
    def fun(x):
        r = jax.new_ref(x)
        return jnp.sum(swap(r, ..., named(x)) ** 2)

    assert retain_grads(fun)(X).notes == {"h": "does not reach the output"}


def test_a_tag_that_is_dropped_while_its_operand_goes_into_a_ref_is_bypassed():
    def fun(x):
        r, h = empty(), 2 * x
        tag(h, "h")
        r[...] = h
        return jnp.sum(r[...] ** 2)

    with pytest.raises(TagError, match=r'tag "h" \(test_refs.py:\d+\) is bypassed'):
        retain_grads(fun)(X)


def test_a_value_that_is_written_over_has_a_gradient_of_zero():
    def fun(x):
        r = empty()
        r[...] = tag(3 * x, "lost")
        r[...] = named(x)
        return jnp.sum(r[...] ** 2)

    record = retain_grads(fun)(X)
    np.testing.assert_array_equal(record.grads["lost"], jnp.zeros(3))
    np.testing.assert_array_equal(record.grads["h"], 4 * X)


def written_by_a_checkpoint(x):
    r = empty()

    @jax.checkpoint
    def write(x):
        r[...] = named(x)

    write(x)
    return r[...]


def in_a_checkpoint(x):
    return jax.checkpoint(by_assignment)(x)


@pytest.mark.parametrize("transform", [retain_grads, ledger])
@pytest.mark.parametrize("way", [written_by_a_checkpoint, in_a_checkpoint])
def test_a_ref_in_a_checkpoint_is_an_error_for_the_derivative_of_jax_itself_is_wrong(way, transform):
    with pytest.raises(
        TagError, match=r"jax.checkpoint has a ref \(jax.new_ref\) in its body, .* Leave the checkpoint"
    ):
        transform(squares(way))(X)


def test_a_ref_in_a_branch_is_an_error_of_the_ledger_that_says_to_use_retain_grads():
    with pytest.raises(TagError, match=r"lax.cond has a ref .* Use retain_grads, or carry the value"):
        ledger(squares(in_a_branch))(X)


def test_what_the_body_of_a_while_loop_writes_is_live_where_its_condition_reads_it():
    def fun(x):
        count = jax.new_ref(jnp.float32(0))

        def body(s):
            count[...] = tag(count[...] + 1, "count")
            return 2 * s

        return jnp.sum(x) * lax.while_loop(lambda s: count[...] < 3, body, jnp.float32(1))

    jaxpr = jax.make_jaxpr(fun)(X)
    states = liveness.states(Program(*opened(jaxpr), jnp.float32(0), None, {}))
    assert states == {}  # neither dead nor bypassed
