"""Pieces of a program: they compute what it computes, and only those that compute the same are one kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import io_callback

from jaxgrad import ledger, tag
from jaxgrad._program import fingerprint
from jaxgrad._program.segments import segments

V = jnp.linspace(-1.0, 2.0, 4)


def parts(fun, *arguments):
    """The kinds of a function that returns a list, each piece checked against the function's own results."""
    kinds, constants = segments(fun, arguments, lambda piece: None)
    want = fun(*arguments)
    assert sorted(o for kind in kinds for piece in kind.pieces for o in piece.outputs) == list(range(len(want)))
    for kind in kinds:
        for piece in kind.pieces:
            got = kind.run([[*arguments, *constants][i] for i in piece.inputs])
            for o, value in zip(piece.outputs, got, strict=True):
                np.testing.assert_array_equal(value, want[o])
    return kinds


def sizes(fun, *arguments):
    """How many pieces each kind has."""
    return sorted(len(kind.pieces) for kind in parts(fun, *arguments))


def test_equal_layers_are_one_kind_whatever_their_weights():
    weights = [jnp.full((4, 4), float(i)) for i in range(6)]

    def layers(*v):
        return [jnp.tanh(w @ x) for w, x in zip(weights, v, strict=True)]

    assert sizes(layers, *[V * i for i in range(6)]) == [6]


@jax.custom_jvp
def square(x):
    return x * x


square.defjvp(lambda primals, tangents: (square(*primals), 2 * primals[0] * tangents[0]))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (lambda v: jnp.roll(v, 1), lambda v: jnp.roll(v, 2)),
        (lambda v: v * 2.0, lambda v: v * 3.0),
        (lambda v: v + 0.0, lambda v: v + -0.0),
        (lambda v: v - v[0], lambda v: v[0] - v),
        (lambda v: v[0] * v, lambda v: v[1] * v),
        (lambda v: jnp.sum(v), lambda v: jnp.sum(v, keepdims=True)),
        (lambda v: lax.cond(v[0] > 0, jnp.sin, jnp.cos, v), lambda v: lax.cond(v[0] > 0, jnp.cos, jnp.sin, v)),
        (
            lambda v: lax.scan(lambda c, x: (c + x, c), 0.0, v)[0],
            lambda v: lax.scan(lambda c, x: (c + x, c), 0.0, v, reverse=True)[0],
        ),
        (
            lambda v: lax.scan(lambda c, x: (c * 0.5 + x, c), 0.0, v)[0],
            lambda v: lax.scan(lambda c, x: (c * 0.25 + x, c), 0.0, v)[0],
        ),
    ],
)
def test_what_differs_is_not_one_kind(a, b):
    assert sizes(lambda v: [a(v), b(v)], V) == [1, 1]
    assert sizes(lambda v: [a(v), a(v * 1)], V) in ([2], [1, 1])
    assert sizes(lambda v, u: [a(v), a(u)], V, V + 1) == [2]


def test_another_dtype_or_shape_is_another_kind():
    assert sizes(lambda *v: [jnp.sin(x) for x in v], V, V.astype(jnp.bfloat16), V[:2], V + 1, 1.0) == [1, 1, 1, 2]


def test_a_jit_and_a_checkpoint_are_looked_into():
    f = jax.jit(lambda v: jnp.sin(v) * 2)
    assert sizes(lambda v, u: [f(v), jax.checkpoint(f)(u), jnp.sin(v + u)], V, V + 1) == [1, 2]


def test_the_results_of_one_loop_are_one_piece():
    def fun(v):
        last, every = lax.scan(lambda c, x: (c + x, c * x), 0.0, v)
        return [last, every, jnp.sin(v)]

    assert sorted(piece.outputs for kind in parts(fun, V) for piece in kind.pieces) == [(0, 1), (2,)]


def test_results_that_nothing_is_computed_for_are_pieces_too():
    assert sizes(lambda v: [v, jnp.float32(2.0) * jnp.ones(3), v[0]], V) == [1, 1, 1]


def test_what_has_an_effect_is_of_no_kind_but_its_own():
    def loud(v):
        return io_callback(lambda x: x, jax.ShapeDtypeStruct(v.shape, v.dtype), v)

    assert sizes(lambda v, u: [loud(v), loud(u)], V, V + 1) == [1, 1]


def test_a_derivative_rule_of_its_own_makes_another_kind():
    @jax.custom_jvp
    def wrong(x):
        return x * x

    wrong.defjvp(lambda primals, tangents: (wrong(*primals), tangents[0]))
    assert sizes(lambda v, u: [square(v), wrong(u)], V, V + 1) == [1, 1]


@pytest.mark.parametrize(
    ("a", "b"),
    [(0.0, -0.0), (1, True), (1, 1.0), (np.float32(0), np.float32(-0.0)), (np.zeros(2), -np.zeros(2)), ("1", 1)],
)
def test_constants_that_only_look_equal_are_not(a, b):
    assert fingerprint.of_constant(a) != fingerprint.of_constant(b)
    assert fingerprint.of_constant(a) == fingerprint.of_constant(a)


def network(x):
    for i in range(30):
        u = tag(jnp.tanh(x * 0.5), f"u{i}")
        x = tag(jnp.roll(u, 1 + i % 2) + x, f"x{i}")
    return jnp.sum(x)


def shares(found, name):
    return sum(edge.contribution for (source, _), edge in found.edges.items() if source == name)


def test_kinds_that_are_taken_for_equal_are_noticed(monkeypatch):
    found = ledger(network)(V)
    np.testing.assert_allclose(shares(found, "u3"), found.nodes["u3"].grad, rtol=1e-6)  # a sum of float32
    monkeypatch.setattr(fingerprint, "of_operation", lambda eqn: eqn.primitive)
    wrong = ledger(network)(V * jnp.arange(4))
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(wrong.edges["u3", "x3"].local, found.edges["u3", "x3"].local)


def test_branches_that_differ_in_which_operand_they_read_are_not_taken_for_equal():
    def one(a, b, c):
        product, total = a * b, a + b
        return (product - c) * total

    def two(a, b, c):
        product, total = a * b, a + b
        return (product - total) * c

    def fun(a, b, c):
        p = tag(lax.cond(a > 0, one, lambda a, b, c: a, a, b, c), "p")
        return p * tag(lax.cond(a > 0, two, lambda a, b, c: a, a, b, c), "q")

    found = ledger(fun)(2.0, 3.0, 5.0)
    for name, branch in (("p", one), ("q", two)):
        want = jax.grad(branch, argnums=(0, 1, 2))(2.0, 3.0, 5.0)
        assert [found.edges[source, name].local for source in "abc"] == list(want)
