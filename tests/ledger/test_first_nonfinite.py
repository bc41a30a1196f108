"""The operation, with its line, at which NaN or infinity begins, on a ledger of a function without tags."""

import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import compare, ledger, retain_grads, tag

HERE = Path(__file__).name


def root(x):
    gap = x - 1
    return 2 * jnp.sqrt(gap)


@jax.jit
def helper(x):
    return jnp.log(x)


def by_helper(x):
    return jnp.sum(helper(x) * x)


def length(x):
    return 3 * jnp.linalg.norm(x)


def library(x):
    return jnp.sum(jax.nn.relu(x) / x)


ZEROS, INPUTS = np.zeros(2, np.float32), np.array([1.0, 0.0], np.float32)

BEGINS = {
    "a value": (root, 0.5, "sqrt", "sqrt", "jnp.sqrt(gap)"),
    "a gradient, by the operation that it comes back through": (root, 1.0, "sub.grad", "sqrt", "jnp.sqrt(gap)"),
    "a line of a jitted helper": (by_helper, INPUTS, "log", "log", "jnp.log(x)"),
    "an operation inside of JAX, at the line that calls it": (length, ZEROS, "sum.grad", "sqrt", "jnp.linalg.norm(x)"),
    "a quotient": (library, INPUTS, "div", "div", "jax.nn.relu(x) / x"),
}


@pytest.mark.parametrize("case", BEGINS)
def test_a_ledger_says_at_which_operation_and_line_nan_or_infinity_begins(case):
    fun, x, label, operation, code = BEGINS[case]
    found = ledger(fun)(x).first_nonfinite
    assert (found.label, found.operation) == (label, operation)
    file, line = found.where.split(":")
    assert file == HERE
    assert code in inspect.getsource(inspect.getmodule(root)).splitlines()[int(line) - 1]
    assert str(found) == f"{label}{'' if label == operation else f', by {operation}'} ({found.where})"


def test_a_tag_is_named_with_its_own_line_and_an_argument_without():
    found = ledger(lambda x: jnp.sqrt(tag(x - 1, "gap")))(0.5).first_nonfinite
    assert found.label == "output"
    assert ledger(lambda x: tag(jnp.log(x), "y") + 1)(0.0).first_nonfinite.where.startswith(f"{HERE}:")
    assert str(ledger(lambda x: x * 2)(jnp.inf).first_nonfinite) == "x"


def test_a_ledger_of_finite_numbers_has_none():
    assert ledger(root)(2.0).first_nonfinite is None


def test_the_comparison_says_where_both_sides_are_nan_and_points_to_the_first():
    record = retain_grads(lambda x: jnp.sum(tag(jnp.log(tag(x - 1, "gap")), "log")))(np.float32([0.5, 2.0]))
    assert compare(record, record).ok
    assert "Both sides are NaN, which counts as equal, in log (1 of 2), output (1 of 1)" in str(compare(record, record))
    assert "The first is log: look there" in str(compare(record, record))
    # A NaN on one side alone is a difference, and no remark.
    one_sided = compare(record, {"log": np.float32([0.0, 0.0])}, names=None)
    assert not one_sided.ok
    assert "Both sides" not in str(one_sided)


def test_the_remark_counts_what_it_does_not_list():
    def fun(x):
        for i in range(6):
            x = tag(jnp.log(x - 2), f"x{i}")
        return x

    record = retain_grads(fun)(1.0)
    text = str(compare(record, record))
    assert text.count("x0 (1 of 1), x1 (1 of 1), x2 (1 of 1), x3 (1 of 1), x4 (1 of 1) and 8 more") == 1
    fine = retain_grads(lambda x: tag(x, "x"))(1.0)
    assert "Both sides" not in str(compare(fine, fine))
