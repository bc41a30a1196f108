"""Grading: right answers pass, each known mistake is named, and luck at one input is not enough."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import InputError, ledger, neuron, tag

W = jnp.array([0.5, -0.3, 0.1])


@pytest.fixture(scope="module")
def document():
    return ledger(neuron.forward)(jnp.array([1.0, 2.0]), W)


@pytest.fixture(scope="module")
def elsewhere():
    return ledger(neuron.forward)(jnp.array([1.0, 3.0]), W)  # k = 1.35, h = 2.35


RIGHT = {
    ("h", "f"): lambda h: -1 / h**2,
    ("k", "h"): 1,
    ("z", "k"): lambda z: -jnp.exp(-z),
    ("w0", "z"): lambda x0: x0,
    ("x1", "z"): lambda w1: w1,
    ("w2", "z"): 1.0,
}


def test_the_documents_factors_are_right(document, elsewhere):
    for found in (document, elsewhere):
        grade = found.grade(RIGHT)
        assert grade.ok
        assert not grade.wrong
        assert str(grade).endswith("6 of 6 factors are right.")


@pytest.mark.parametrize(
    ("edge", "answer", "mistake"),
    [
        (("z", "k"), lambda z: jnp.exp(-z), "a minus is missing"),
        (("z", "k"), lambda k: k, "a minus is missing"),
        (("w1", "z"), -3.0, "there is a minus too many"),
        (("h", "f"), lambda h: -1 / h, "a factor of 1/h is missing or a factor of f is missing"),
        (("h", "f"), lambda h: 1 / h, "a factor of 1/h is missing, and a minus is missing or"),
        (("h", "f"), lambda h: 1 / h**2, "a minus is missing"),
        (("h", "f"), lambda h: -(h**2), "it is upside down"),
        (("k", "h"), lambda k: k, "that is the value of k, not a derivative"),
        (("x0", "z"), 1.0, "that is the value of x0, not a derivative"),
        (("w1", "z"), 6.0, "it is 2 times too large"),
        (("z", "k"), lambda h, f, k: k / h**2, "that is df/dz, multiplied by what is upstream already"),
        (("k", "h"), 0.77, ""),
    ],
)
def test_the_wrong_factor_and_its_mistake_are_named(elsewhere, edge, answer, mistake):
    grade = elsewhere.grade({**RIGHT, edge: answer})
    (mark,) = grade.wrong
    assert (mark.source, mark.target) == edge
    assert mark.mistake.startswith(mistake)
    assert bool(mark.mistake) == bool(mistake)
    line = next(line for line in str(grade).splitlines() if line.startswith(f"d{edge[1]}/d{edge[0]} = "))
    assert " is wrong, it is " in line
    n = len(grade.marks)
    assert str(grade).endswith(f"{n - 1} of {n} factors are right.")


@pytest.mark.parametrize(
    ("edge", "answer", "mistake"),
    [
        (("z", "k"), lambda z: -1.0, "a factor of k is missing"),
        (("k", "h"), lambda k: k, "that is the value of k, not a derivative"),
        (("h", "f"), lambda h: -1 / (2 * h), ""),
    ],
)
def test_a_function_that_is_right_by_chance_is_wrong(document, edge, answer, mistake):
    (mark,) = document.grade({edge: answer}).marks
    assert not mark.ok
    assert mark.got == mark.want
    assert mark.mistake.startswith("right here by chance; where ")
    assert mistake in mark.mistake
    assert " is right here by chance" in str(mark)


@pytest.mark.parametrize(("answer", "ok"), [(-0.25, True), (-0.2502, True), (-0.251, False), (0.25, False), (0, False)])
def test_a_typed_number_needs_three_digits(document, answer, ok):
    assert document.grade({("h", "f"): answer}).ok is ok


def test_a_factor_of_0_has_to_be_0():
    found = ledger(lambda x: tag(x * x, "y"))(0.0)
    assert found.grade({("x", "y"): 0}).ok
    assert not found.grade({("x", "y"): 1e-9}).ok


def test_rtol_is_the_learners_to_choose(document):
    assert document.grade({("h", "f"): -0.24}, rtol=0.1).ok


def test_a_jacobian_is_graded_whole():
    m = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    found = ledger(lambda v: tag(jnp.sum(tag(m @ tag(v * v, "q"), "u")), "y"))(jnp.array([1.0, 2.0]))
    assert found.grade({("q", "u"): m, ("u", "y"): np.ones(2), ("v0", "q"): [2, 0]}).ok
    assert found.grade({("q", "u"): m.T}).wrong[0].mistake == "it is transposed"
    with pytest.raises(InputError, match=r"the answer for du/dq has shape \(3,\); expected \(2, 2\)"):
        found.grade({("q", "u"): [1, 2, 3]})


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        ({}, r"expected a dict of local derivatives by their edge"),
        ([1], r"expected a dict of local derivatives by their edge"),
        ({"dk/dz": 1}, r"an answer is for 'dk/dz'; expected a pair \(source, target\)"),
        ({("k", "z"): 1}, r"there is no edge from 'k' to 'z'; write \('z', 'k'\)"),
        ({("z", "f"): 1}, r"there is no edge from 'z' to 'f'. Edges to 'f': \('h', 'f'\)"),
        ({("q", "f"): 1}, r"there is no node 'q'"),
        ({("h", "f"): "-1/h"}, r"the answer for df/dh is '-1/h'; expected a number, an array, or a function of nodes"),
        ({("h", "f"): lambda h, q: 1}, r"there is no node 'q'"),
    ],
)
def test_answers_that_cannot_be_graded(document, answers, text):
    with pytest.raises(InputError, match=text):
        document.grade(answers)
