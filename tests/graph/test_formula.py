"""Formulas: what a node is computed by, and its local derivative, read off the program and checked by their numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxgrad import ledger, neuron, tag


def nodes(fun, *args):
    return {name: node.formula for name, node in ledger(fun)(*args).nodes.items() if node.kind != "argument"}


@pytest.mark.parametrize(
    ("fun", "args", "want"),
    [
        (lambda x, y: x + y * 2, (1.0, 2.0), "x + 2*y"),
        (lambda x, y: (x - y) / (x + y), (1.0, 2.0), "(x - y)/(x + y)"),
        (lambda x, y: x - (y - x), (1.0, 2.0), "x - (y - x)"),
        (lambda x, y: x / (y * x), (1.0, 2.0), "x/(y*x)"),
        (lambda x, y: (-x) ** 3 + y, (1.0, 2.0), "(-x)**3 + y"),
        (lambda x: 1 / x**2, (2.0,), "1/x**2"),
        (lambda x: jnp.exp(-x) - 0.5, (2.0,), "exp(-x) - 0.5"),
        (lambda x: jnp.where(x > 0, x, 2 * x), (2.0,), "where(x > 0, x, 2*x)"),
        (lambda x: lax.select(x > 0, x, 2 * x), (2.0,), "where(x > 0, x, 2*x)"),
        (lambda x: jax.nn.relu(x) + jax.nn.sigmoid(x), (2.0,), "relu(x) + sigmoid(x)"),
        (lambda x: jnp.maximum(x, 0.0), (2.0,), "maximum(x, 0)"),
        (lambda v: v[0] * v[1] - v[-1], (jnp.ones(3),), "v0*v1 - v2"),
        (lambda v: v @ v, (jnp.ones(2),), "v0*v0 + v1*v1"),
        (lambda v: jnp.sum(v**2), (jnp.ones(20),), "sum(v**2)"),
        (lambda m, v: v @ m @ v, (jnp.ones((5, 5)), jnp.ones(5)), "v @ m @ v"),
        (lambda m, v: jnp.sum(m.T @ v), (jnp.ones((5, 5)), jnp.ones(5)), "sum(m.T @ v)"),
        (lambda m: jnp.sum(jnp.sum(m, axis=0) ** 2), (jnp.ones((5, 5)),), "sum(sum(m, axis=0)**2)"),
        (lambda v: jnp.sum(jax.nn.softmax(v) * v), (jnp.ones(20),), "sum(softmax(v)*v)"),
        (lambda v: v[1:] @ v[:-1] + v[3], (jnp.ones(20),), "v[1:] @ v[:19] + v[3]"),
        (lambda x: jax.jit(lambda y: jax.checkpoint(jnp.sin)(y) * 2)(x), (1.0,), "2*sin(x)"),
        (
            lambda x: jnp.sin(x * 1.5 + 2) ** 2 + jnp.exp(x) + jnp.cos(x * 2.5 + 3) ** 2 + jnp.tanh(x - 1),
            (1.0,),
            "by multiply, add, sin, power, exp, cos, ...",
        ),
    ],
)
def test_what_a_node_is_computed_by(fun, args, want):
    named = functools.wraps(fun)(lambda *args: tag(fun(*args), "out"))
    assert nodes(named, *args) == {"out": want}


def test_the_documents_formulas():
    args = jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1])
    assert nodes(neuron.forward, *args) == {
        "z": "w0*x0 + w1*x1 + w2", "k": "exp(-z)", "h": "1 + k", "f": "1/h"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fun", "names"),
    [
        (lambda v: jnp.sum(jax.nn.relu(v) * 2), ["relu", "mul", "output"]),
        (lambda v: jnp.sum(jax.nn.softmax(v) ** 2), ["softmax", "square", "output"]),
        (lambda v: jnp.sum(jnp.where(v > 0, v, 0) ** 3), ["where", "pow3", "output"]),
        (lambda v: jnp.ones((2, 3)) @ v @ jnp.ones(2), ["matmul", "output"]),
        (lambda v: jnp.sum(jax.nn.silu(v)) + jnp.max(v), ["silu", "sum", "max", "output"]),
        (lambda v: jnp.sum(jnp.exp(v - jnp.max(v)) / 2), ["max", "sub", "exp", "div", "output"]),
    ],
)
def test_operations_without_tags_have_the_names_that_everyone_knows(fun, names):
    assert list(nodes(fun, jnp.array([0.5, -1.0, 2.0]))) == names


@pytest.mark.parametrize(
    "fun",
    [
        lambda a, b: a * b + jnp.exp(-a),
        lambda a, b: (a - b) / (a + 2),
        lambda a, b: a**3 - 2 / b,
        lambda a, b: jnp.sin(a) * jnp.cos(b),
        lambda a, b: jnp.tanh(a * b),
        lambda a, b: jax.nn.sigmoid(a - b),
        lambda a, b: jnp.log(a) + jnp.sqrt(b) * jnp.log1p(a),
        lambda a, b: -(a - b) * -b,
        lambda a, b: jnp.expm1(a) * jnp.abs(b) + a**2.5,
        lambda a, b: a + a - b / (b * a),
    ],
)
@pytest.mark.parametrize("arrays", [False, True])
def test_a_formula_and_its_derivative_say_the_numbers_that_they_stand_beside(fun, arrays):
    """The texts are evaluated, by NumPy: an oracle that has neither JAX nor the ledger in it."""
    a, b = (jnp.linspace(0.5, 1.5, 20), jnp.linspace(1.25, 2, 20)) if arrays else (1.25, 0.75)
    found = ledger(lambda a, b: jnp.sum(tag(fun(a, b), "y")))(a, b)
    names = {name: np.asarray(found.nodes[name].value, float) for name in ("a", "b", "y")}
    names |= {
        name: getattr(np, name)
        for name in ("exp", "sin", "cos", "tanh", "log", "log1p", "sqrt", "expm1", "abs", "sign")
    }
    names |= {"sigmoid": lambda v: 1 / (1 + np.exp(-v)), "diag": np.diag, "identity": np.eye(20)}
    # Four digits of its numbers are written; the values are float32's.
    # Float32, and a formula is read by NumPy.
    np.testing.assert_allclose(eval(found.nodes["y"].formula, names), names["y"], rtol=1e-5)
    for source in ("a", "b"):
        edge = found.edges[source, "y"]
        assert edge.formula
        # The same, and what cancels.
        np.testing.assert_allclose(eval(edge.formula, names), edge.local, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("fun", "shapes"),
    [
        (lambda a, b: a @ b, [(5, 4), (4,)]),
        (lambda a, b: a @ b, [(5,), (5, 4)]),
        (lambda a, b: a @ b, [(5, 4), (4, 5)]),
        (lambda a, b: a.T @ b, [(4, 5), (4, 5)]),
        (lambda a, b: a @ b.T, [(5, 4), (5, 4)]),
        (lambda a, b: a @ b.T + jnp.ones(5), [(4,), (5, 4)]),
        (lambda a, b: 1 + a @ b, [(5, 4), (4, 5)]),
    ],
)
def test_the_rule_of_a_matrix_product_gives_the_gradient(fun, shapes):
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=shape).astype("f") for shape in shapes)

    def loss(a, b):
        return tag(jnp.sum(jnp.sin(tag(fun(tag(a * 1, "p"), tag(b * 1, "q")), "y"))), "L")

    found = ledger(loss)(a, b)
    for source in ("p", "q"):
        side, _, rule = found.edges[source, "y"].formula.partition(" = ")
        if not rule:
            continue
        assert side == f"dL/d{source}"
        names = {"p": a, "q": b, "outer": np.outer, "g": found.nodes["y"].grad}
        # Float32 sums, each in an order of its own.
        np.testing.assert_allclose(eval(rule.replace("dL/dy", "g"), names), found.nodes[source].grad, rtol=1e-4)
    assert any(" = " in found.edges[source, "y"].formula for source in ("p", "q"))


def test_in_a_loop_a_formula_says_which_step():
    def fun(reverse):
        def step(h, x):
            h = tag(0.5 * h + x, "h")
            return h, None

        return lambda xs: lax.scan(step, 1.0, xs, reverse=reverse)[0]

    for reverse, earlier in ((False, "t-1"), (True, "t+1")):
        found = ledger(fun(reverse))(jnp.arange(3.0))
        assert found.nodes["h"].formula == f"0.5*h[{earlier}] + xs[t]"
        assert found.edges["h", "h"].formula == "0.5"


@pytest.mark.parametrize(
    "fun",
    [
        lambda x: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 2), (0, 1.0))[1] * x,
        lambda x: lax.cond(x > 0, lambda: tag(x * 2, "yes"), lambda: tag(x * 3, "no")),
        lambda x: jax.vmap(lambda v: tag(v * x, "v"))(jnp.arange(3.0)).sum(),
        lambda x: jnp.linalg.det(jnp.eye(2) * x),
        lambda x: lax.fori_loop(0, 3, lambda i, c: tag(jnp.sin(c), "s"), x),
    ],
)
def test_what_has_no_short_formula_is_read_all_the_same(fun):
    assert ledger(fun)(1.5).nodes


def test_a_program_that_doubles_again_and_again_is_read_in_no_time():
    def fun(x):
        y = x
        for _ in range(60):  # 2 ** 60 terms, were they written out
            x, y = jnp.sin(x) + y, jnp.cos(y) * x
        return tag(x + y, "y")

    assert nodes(fun, 0.1)["y"].startswith("by ")
