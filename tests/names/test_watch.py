"""Variables named as they are in the code, against the same function tagged by hand."""

import ast
import inspect
import json
import sys
from importlib.resources import files

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxgrad
from jaxgrad import retain_grads, tag, watch


def neuron(x0, x1, w0, w1, w2):
    z = w0 * x0 + w1 * x1 + w2
    k = jnp.exp(-z)
    h = 1 + k
    f = 1 / h
    return f


INPUTS = (1.0, 2.0, 0.5, -0.3, 0.1)
PRINTED = {  # cell 79 of the document
    "f": 0.5, "h": 2.0, "df/dh": -0.25, "k": 1.0, "df/dk": -0.25, "z": -2.2351741790771484e-08, "df/dz": 0.25,
    "df/dw0": 0.25, "df/dw1": 0.5, "df/dw2": 0.25, "df/dx0": 0.125, "df/dx1": -0.07500000298023224,
}  # fmt: skip


def test_the_documents_function_is_its_cells_with_jnp_for_torch():
    notebook = json.loads(files("jaxgrad").joinpath("notebooks", "chain_rule.ipynb").read_text(encoding="utf-8"))
    cells = {cell["id"]: "".join(cell["source"]) for cell in notebook["cells"]}
    code = "".join(cells[f"torch-{number}"].split("```")[1].removeprefix("python") for number in (73, 74))
    # z.retain_grad() and its like are left out: that is what watch is for.
    lines = [line for line in ast.parse(code.replace("torch.", "jnp.")).body if isinstance(line, ast.Assign)]
    *body, _ = ast.parse(inspect.getsource(neuron)).body[0].body
    assert [ast.unparse(line) for line in body] == [ast.unparse(line) for line in lines]


def test_the_documents_function_gives_its_twelve_numbers_with_no_tag():
    record = retain_grads(watch(neuron))(*INPUTS)
    found = {name: record.values[name] for name in "zkhf"}
    found |= {f"df/d{name}": record.grads[name] for name in "zkh"}
    found |= dict(zip(("df/dx0", "df/dx1", "df/dw0", "df/dw1", "df/dw2"), record.arg_grads, strict=True))
    assert {name: float(value) for name, value in found.items()} == PRINTED  # 0 ULP
    assert record.names == ("z", "k", "h", "f")


def test_a_ledger_draws_the_documents_graph_in_its_own_words():
    found = str(jaxgrad.ledger(watch(neuron))(*INPUTS))
    for formula in ("z = w0*x0 + w1*x1 + w2", "k = exp(-z)", "h = 1 + k", "f = 1/h"):
        assert formula in found


def helper(x):
    u = jnp.sin(x)
    return u * u


def loop(x):
    h = x * 2
    h = jnp.tanh(h)
    first = helper(h)
    return first + helper(x)


def tagged_loop(x):
    def helper(x):
        u = tag(jnp.sin(x), "helper.u")
        return u * u

    h = tag(x * 2, "h")
    h = tag(jnp.tanh(h), "h")
    first = tag(helper(h), "first")
    return first + helper(x)


def scanned(x):
    def step(carry, t):
        y = jnp.tanh(carry * t)
        return y, y * y

    last, squares = lax.scan(step, x, jnp.arange(3.0))
    return last + squares.sum()


def tagged_scanned(x):
    def step(carry, t):
        y = tag(jnp.tanh(carry * t), "step.y")
        return y, y * y

    last, squares = lax.scan(step, x, jnp.arange(3.0))
    return tag(last, "last") + tag(squares, "squares").sum()


def used_in_its_own_line(x):
    return (y := x * 3) + y * y


def tagged_used(x):
    y = tag(x * 3, "y")
    return y + y * y


def contained(x):
    pair = {"a": x * 2, "b": [jnp.sin(x)]}
    return pair["a"] * pair["b"][0]


def tagged_contained(x):
    pair = tag({"a": x * 2, "b": [jnp.sin(x)]}, "pair")
    return pair["a"] * pair["b"][0]


def compiled(x):
    return jax.jit(helper)(x) + jax.checkpoint(helper)(2 * x)


def tagged_compiled(x):
    def helper(x):
        u = tag(jnp.sin(x), "helper.u")
        return u * u

    return jax.jit(helper)(x) + jax.checkpoint(helper)(2 * x)


TWINS = [
    (loop, tagged_loop),
    (scanned, tagged_scanned),
    (used_in_its_own_line, tagged_used),
    (contained, tagged_contained),
    (compiled, tagged_compiled),
]


@pytest.mark.parametrize(("plain", "tagged"), TWINS, ids=[plain.__name__ for plain, _ in TWINS])
def test_a_watched_function_has_the_record_of_its_tagged_twin(plain, tagged):
    got, want = jax.jit(retain_grads(watch(plain)))(0.7), jax.jit(retain_grads(tagged))(0.7)
    assert set(got.names) == set(want.names)
    for name in want.names:
        np.testing.assert_array_equal(got.values[name], want.values[name])
        # One rounding: where a value has several uses, a probe changes the order in which their cotangents are added.
        np.testing.assert_array_max_ulp(got.grads[name], want.grads[name], 1)
    assert got.output == jax.jit(plain)(0.7)


def test_a_jitted_helper_that_jax_has_in_its_cache_is_traced_again():
    jitted = jax.jit(helper)

    def fun(x):
        return jitted(x)

    jax.make_jaxpr(fun)(0.3)
    assert retain_grads(watch(fun))(0.3).names == ("helper.u",)


def test_a_compiled_watched_function_is_the_program_without():
    got, want = (jax.jit(fun).lower(0.5).as_text().replace("watched", "loop") for fun in (watch(loop), loop))
    assert got == want


@pytest.mark.parametrize("within", [len, 3, "jax", sys])
def test_within_of_no_python_code_is_refused(within):
    with pytest.raises(jaxgrad.InputError, match="has no Python code to watch; expected modules"):
        watch(loop, within=within)


def test_what_cannot_be_called_is_refused():
    with pytest.raises(jaxgrad.InputError, match="watch is given a int, 3; expected a function"):
        watch(3)
