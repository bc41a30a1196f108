"""What a notebook or a prompt shows of a result: short, and never a screenful of digits."""

import re

import jax
import jax.numpy as jnp
import pytest

from jaxgrad import compare, ledger, neuron, retain_grads, tag

X, W = jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1])


def test_a_record_is_a_table():
    record = retain_grads(neuron.forward)(X, W)
    assert repr(record).splitlines() == [
        "Record  value         gradient",
        "z       -2.23517e-08  0.25",
        "k       1             -0.25",
        "h       2             -0.25",
        "f       0.5           1",
        "arg[0]                float32[2], -0.075 to 0.125",
        "arg[1]                float32[3], 0.25 to 0.5",
        "output  0.5",
    ]
    assert record._repr_html_().count("<tr>") == 8


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "complex64", "int32"])
def test_a_record_of_any_dtype_and_size_is_short(dtype):
    def fun(x):
        tag(jnp.ones((50, 50), dtype), "a<b")
        return jnp.sum(x)

    record = retain_grads(fun)(jnp.ones((1000, 1000)))
    assert len(repr(record)) < 400
    assert "a&lt;b" in record._repr_html_()
    assert "a<b" not in record._repr_html_()


def test_a_record_under_a_transformation_has_a_repr():
    seen = []
    jax.jit(lambda x: seen.append(repr(retain_grads(neuron.forward)(x, W))) or x)(X)
    assert "z       float32[]" in seen[0]


def test_a_record_of_many_names_is_cut_and_says_so():
    def fun(x):
        for i in range(60):
            x = tag(x * 1.0, f"a{i}")
        return x

    assert "... 20 more" in repr(retain_grads(fun)(1.0)).splitlines()


def test_a_ledger_a_comparison_and_a_grade_are_one_line():
    found = ledger(neuron.forward)(X, W)
    record = retain_grads(neuron.forward)(X, W)
    assert repr(found) == "Ledger(9 nodes, 8 edges, output 'f')"
    assert repr(compare(record, record)) == "Comparison(11 rows, all agree)"
    assert repr(compare(record, {"z": 1.0})).endswith("differ)")
    assert repr(found.grade({"w0": 0.5, "w1": 0.5})) == "Grade(1 of 2 answers right)"
    assert "<li>" in found.grade({"w0": 0.5})._repr_html_()
    assert compare(record, record)._repr_html_().startswith("<pre>all 11 rows agree")


def test_an_explanation_is_text_and_mathematics():
    text = ledger(neuron.forward)(X, W).explain("w0")
    assert isinstance(text, str)
    latex = text._repr_latex_()
    assert latex.startswith("$$\\begin{align*}\n\\frac{")
    assert latex.endswith("\\end{align*}$$")


def test_a_picture_in_a_notebook_has_the_notebooks_colours():
    shown = ledger(neuron.forward)(X, W)._repr_html_()
    assert "--jp-layout-color0" in shown
    assert "prefers-color-scheme" not in shown
    assert set(re.findall(r"url\((#[\w-]+)\)", shown)) == {"#jaxgrad-head"}
