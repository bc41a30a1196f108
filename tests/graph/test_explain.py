"""The chain rule in words: its symbols, its numbers, and what it says where there are too many paths."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxgrad import InputError, ledger, neuron, tag
from jaxgrad._graph.summary import summary

X, W = jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1])


@pytest.fixture(scope="module")
def of_neuron():
    return ledger(neuron.forward)(X, W)


@pytest.fixture(scope="module")
def forked():
    def fun(x, m):
        a = tag(x * x, "a")
        b, c = tag(3 * a, "b"), tag(4 * a, "c")
        return tag(b * c + x + 0 * jnp.sum(jnp.floor(m)), "y")

    return ledger(fun)(2.0, 1.0)


FORMULAS = """
  f = 1/h                  ∂f/∂h = -1/h**2 = -0.25
  h = 1 + k                ∂h/∂k = 1
  k = exp(-z)              ∂k/∂z = -exp(-z) = -1
"""


@pytest.mark.parametrize(
    ("name", "numbers", "rule"),
    [
        ("w0", "-0.25 · 1 · -1 · 1 = 0.25", "x0 = 1"),
        ("w1", "-0.25 · 1 · -1 · 2 = 0.5", "x1 = 2"),
        ("w2", "-0.25 · 1 · -1 · 1 = 0.25", "1"),
        ("x0", "-0.25 · 1 · -1 · 0.5 = 0.125", "w0 = 0.5"),
        ("x1", "-0.25 · 1 · -1 · -0.3 = -0.075", "w1 = -0.3"),
    ],
)
def test_the_documents_lines(of_neuron, name, numbers, rule):
    assert of_neuron.explain(name) == (
        f"df/d{name} = ∂f/∂h · ∂h/∂k · ∂k/∂z · ∂z/∂{name} = {numbers}{FORMULAS}"
        f"  z = w0*x0 + w1*x1 + w2   ∂z/∂{name} = {rule}"
    )
    plain = of_neuron.explain(name, style="plain")
    assert plain.isascii()
    assert plain.splitlines()[0] == (
        f"df/d{name} = df/dh * dh/dk * dk/dz * dz/d{name} = {numbers.replace(' · ', ' * ')}"
    )


def test_one_factor_and_none(of_neuron):
    assert of_neuron.explain("h") == "df/dh = -0.25\n  f = 1/h   ∂f/∂h = -1/h**2 = -0.25"
    assert of_neuron.explain("f") == "df/df = 1"


def test_latex(of_neuron):
    latex = of_neuron.explain("w0", style="latex")
    assert latex.startswith(r"\frac{\mathrm{d} f}{\mathrm{d} w_{0}} &= \frac{\partial f}{\partial h} \cdot ")
    assert latex.endswith(r" = -0.25 \cdot 1 \cdot \left(-1\right) \cdot 1 = 0.25")


def test_latex_has_balanced_braces_and_escapes_names():
    found = ledger(lambda x: tag(x * 1e-9, "a_b%") + tag(x * 2, "c") * 3)(2.0)
    for name in found.nodes:
        text = found.explain(name, style="latex")
        assert text.replace(r"\{", "").count("{") == text.replace(r"\}", "").count("}")
        assert not re.search(r"(?<!\\)%", text)
    assert r"10^{-9}" in found.explain("x", style="latex")
    assert r"\mathrm{a\_b\%}" in found.explain("x", style="latex")


def test_every_path_and_their_sum(forked):
    assert forked.explain("x").splitlines() == [
        "dy/dx = ∂y/∂x + ∂y/∂c · ∂c/∂a · ∂a/∂x + ∂y/∂b · ∂b/∂a · ∂a/∂x",
        "  through no node in between: 1",
        "  through c, a: 12 · 4 · 4 = 192",
        "  through b, a: 16 · 3 · 4 = 192",
        "  sum: 1 + 192 + 192 = 385",
        "Each factor on the right holds every other node fixed.",
        "  y = b*c + x   ∂y/∂x = 1",
        "                ∂y/∂c = b = 12",
        "  c = 4*a       ∂c/∂a = 4",
        "  a = x*x       ∂a/∂x = 2*x = 4",
        "  y = b*c + x   ∂y/∂b = c = 16",
        "  b = 3*a       ∂b/∂a = 3",
    ]


@pytest.mark.parametrize("style", ["plain", "unicode", "latex"])
def test_no_line_says_that_a_derivative_is_itself_and_more(forked, style):
    whole, _, terms = forked.explain("x", style=style).splitlines()[0].partition("=")
    assert whole.strip(" &") not in [term.strip() for term in terms.split(" + ")]


def test_a_minus_in_a_sum_is_a_minus_and_what_is_nothing_beside_it_is_0():
    found = ledger(lambda x: tag(tag(3 * x, "a") - tag(17 * x, "b") - tag(1e-7 * x, "c"), "y"))(1.0)
    assert "  sum: -1e-07 - 17 + 3 = -14".replace("-1e-07", "0") in found.explain("x").splitlines()
    assert "= -0" not in found.explain("x").replace("= -0.", "")


def test_what_does_not_reach_the_output_says_so():
    found = ledger(lambda x, u: (tag(u * 2, "dead"), tag(x, "y"))[1])(1.0, 2.0)
    assert found.explain("u") == "dy/du = 0\nu does not reach y"
    assert found.explain("dead") == "dead has no gradient: does not reach the output"


def test_matrices_are_multiplied_from_the_output_down():
    m = jnp.arange(6.0).reshape(2, 3)
    found = ledger(lambda v: tag(jnp.sum(tag(m @ tag(v * v, "q"), "u") ** 2), "y"))(jnp.ones(3))
    first, *rules = found.explain("v0").splitlines()
    assert first == "dy/dv0 = ∂y/∂u · ∂u/∂q · ∂q/∂v0 = [6 24] · [[0 1 2] [3 4 5]] · [2 0 0] = 144"
    assert rules == [
        "  y = sum(u**2)      ∂y/∂u = 2*u = [6 24]",
        "  u = constant @ q   dy/dq = constant.T @ dy/du",
        "  q = v*v",
    ]
    assert "[6 24] @ [[0 1 2] [3 4 5]] @ [2 0 0] = 144" in found.explain("v0", style="plain")


def test_no_matmul_is_written_where_numpy_would_refuse_it():
    def fun(a, b):
        return tag(jnp.sum(tag(tag(a * a, "s") @ b, "c")), "y")

    found = ledger(fun)(jnp.ones((5, 5)), jnp.ones((5, 4)))
    text = found.explain("a", style="plain")
    assert "dy/da = dy/dc . dc/ds . ds/da = (5x4, " in text
    assert "dy/ds = dy/dc @ b.T" in text
    assert "dy/db = s.T @ dy/dc" in found.explain("b")


@pytest.mark.parametrize(
    ("fun", "words"),
    [
        (lambda v: v + 1, "identity"),
        (lambda v: 3 * v, "3 * identity"),
        (jax.nn.relu, "mask, 2 of 3 pass"),
        (lambda v: v**3, "diag([12 27 3])"),
        (lambda v: jnp.cumsum(v), "(3x3, norm 2.449, 0 to 1)"),
    ],
)
def test_identities_diagonals_and_masks_are_called_so(fun, words):
    v = jnp.array([2.0, 3.0, -1.0])
    found = ledger(lambda v: tag(jnp.sum(tag(fun(tag(v * 1.0, "p")), "q")), "y"), names=["p", "q", "y"])(v)
    (line,) = [line for line in str(found).splitlines() if "∂q/∂p" in line and "dy" not in line]
    assert line.strip(", ").endswith(f" = {words}")


def test_a_node_that_feeds_itself_is_explained_by_one_step():
    def step(h, x):
        h = tag(0.5 * h + x, "h")
        return h, None

    found = ledger(lambda xs: lax.scan(step, 1.0, xs)[0])(jnp.arange(3.0))
    assert found.explain("xs1").splitlines() == [
        "From xs1 on, a node feeds itself from step to step: one step of the chain",
        "    rule, not every path.",
        "doutput/dxs1 = doutput/dh · ∂h/∂xs1",
        "  through h: [0.25 0.5 1] · [0 1 0] = 0.5",
        "  sum: 0.5",
        "  h[t] = 0.5*h[t-1] + xs[t]",
    ]
    assert found.explain("h").splitlines()[2:] == [
        "doutput/dh[t] = ∂output/∂h[t] + doutput/dh[t+1] · ∂h[t+1]/∂h[t]",
        "  through output: 1 · [0 0 1] = [0 0 1]",
        "  through h: [0.25 0.5 1] · (3x3, norm 0.7071, 0 to 0.5) = [0.25 0.5 0]",
        "  sum: [0.25 0.5 1]",
        "  output = h[-1]",
        "  h[t] = 0.5*h[t-1] + xs[t]   ∂h[t]/∂h[t-1] = 0.5",
    ]


def ladder(n):
    def fun(x):
        for i in range(n):
            y = tag(jnp.sin(x), f"y{i}")
            x = tag(x * 0.5 + y, f"x{i}")
        return x

    return ledger(fun)(0.1)


def test_too_many_paths_are_counted_and_not_written():
    found = ladder(60)
    first, more, *rest = found.explain("x").splitlines()
    assert first + more == f"{2**60:,} paths lead from x to x59: one step of the chain    rule, not every path."
    assert rest[0] == "dx59/dx = dx59/dx0 · ∂x0/∂x + dx59/dy0 · ∂y0/∂x"
    assert len(rest) == 4 + 2
    assert sum("through" in line for line in found.explain("x56").splitlines()) == 8


def test_a_long_path_is_cut_in_the_middle():
    def fun(x):
        for i in range(1200):
            x = tag(x * 1.0, f"a{i}")
        return x

    found = ledger(fun, names=[f"a{i}" for i in range(0, 1200, 40)])(1.0)
    text = found.explain("x")
    assert " · … (25 more) · " in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) < 20


def test_a_derivative_that_is_not_kept_is_explained_by_its_contribution():
    w = jnp.ones((30, 30))
    found = ledger(lambda w, x: tag(jnp.sum(tag(w @ x, "h")), "y"))(w, jnp.full(30, 2.0))
    assert found.explain("w").splitlines() == [
        "A local derivative between w and y is not kept: one step of the chain rule.",
        "dy/dw = dy/dh · ∂h/∂w",
        "  through h: (30 values, norm 5.477, 1 to 1) · (not kept)",
        "      = (30x30, norm 60, 2 to 2)",
        "  sum: (30x30, norm 60, 2 to 2)",
        "  h = w @ x   dy/dw = outer(dy/dh, x)",
    ]


def test_the_products_are_the_contributions(forked):
    shares = [float(edge.contribution) for edge in forked.edges.values() if edge.source == "a"]
    lines = [line for line in forked.explain("a").splitlines() if line.startswith("  through")]
    assert sorted(float(line.rsplit(" = ", 1)[1]) for line in lines) == sorted(shares) == [48, 48]


def test_unknown_names_and_styles(of_neuron):
    with pytest.raises(InputError, match=r"there is no node 'w3'. Did you mean .w2.\?"):
        of_neuron.explain("w3")
    with pytest.raises(InputError, match=r"`style` is 'html'; expected one of 'latex', 'plain', 'unicode'."):
        of_neuron.explain("w2", style="html")


def test_numbers_are_four_digits():
    assert "0.3333" in ledger(lambda x: tag(x / 3, "y"))(1.0).explain("x")
    assert np.float32(1 / 3) == ledger(lambda x: tag(x / 3, "y"))(1.0).edges["x", "y"].local


# The summary, to print


def test_the_summary_fits_80_columns(of_neuron):
    text = str(of_neuron)
    assert summary(of_neuron.graph, style="plain").isascii()
    assert max(len(line) for line in text.splitlines()) <= 80
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_the_summary_shows_every_node_local_derivative_and_chain_rule(of_neuron):
    text = " ".join(str(of_neuron).split())
    assert "z = w0*x0 + w1*x1 + w2 -2.235e-08 0.25 ∂z/∂x0 = w0 = 0.5, ∂z/∂x1 = w1 = -0.3, ∂z/∂w0 = x0 = 1, " in text
    assert "k = exp(-z) 1 -0.25 ∂k/∂z = -exp(-z) = -1" in text
    for name in ("x0", "x1", "w0", "w1", "w2"):
        assert of_neuron.explain(name).splitlines()[0] in text


def test_the_summary_of_many_nodes_is_cut_and_says_so():
    def fun(x):
        for i in range(210):
            x = tag(x * 1.0, f"a{i}")
        return x

    lines = str(ledger(fun)(jnp.ones(()))).splitlines()
    assert "... and 11 more nodes." in lines
    assert len(lines) < 220
    assert max(len(line) for line in lines) <= 80
