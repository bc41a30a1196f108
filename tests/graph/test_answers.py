"""A learner's typical answers: none that is right is marked wrong, and what went wrong is told."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import InputError, ledger, neuron, tag


@functools.cache
def of_neuron():
    return ledger(neuron.forward)(jnp.array([1.0, 3.0]), jnp.array([0.5, -0.3, 0.1]))  # z = -0.3


@functools.cache
def of_hidden():
    """Two hidden units, Mazur's way."""

    def fun(w1, w2, w5, w6, x1, x2):
        h1 = tag(jax.nn.sigmoid(w1 * x1), "h1")
        h2 = tag(jax.nn.sigmoid(w2 * x2), "h2")
        o = tag(w5 * h1 + w6 * h2, "o")
        return tag(0.5 * (0.2 - o) ** 2, "E")

    return ledger(fun)(0.15, -0.4, 0.4, 0.55, 0.5, 1.2)


@functools.cache
def of_softmax():
    def fun(s, y):
        p = tag(jax.nn.softmax(s), "p")
        return tag(-jnp.sum(y * jnp.log(p)), "L")

    return ledger(lambda s, y: fun(tag(s * 1.0, "q"), y))(jnp.array([1.0, 2.0, 0.5]), jnp.array([0.0, 1.0, 0.0]))


@functools.cache
def of_mean():
    return ledger(lambda v: tag(jnp.mean(tag(v**2, "q")), "m"))(jnp.array([1.0, -2.0, 0.5, 4.0]))


@functools.cache
def of_matrix():
    m = jnp.array([[1.0, 2.0, 5.0], [3.0, 4.0, 7.0]])
    return ledger(lambda v: tag(jnp.sum(tag(m @ tag(v * v, "q"), "u") ** 2), "y"))(jnp.array([1.0, 2.0, 0.5]))


def of_relu(at=0.0):
    return ledger(lambda x: tag(3 * tag(jax.nn.relu(tag(x * 1.0, "h")), "a"), "y"))(at)


K, H = float(np.exp(np.float32(0.3))), 1 + float(np.exp(np.float32(0.3)))
F = 1 / H

RIGHT = [
    (of_neuron, ("h", "f"), -0.1811),
    (of_neuron, ("h", "f"), -0.181),
    (of_neuron, ("h", "f"), -0.18),
    (of_neuron, ("h", "f"), lambda h: -1 / h**2),
    (of_neuron, ("h", "f"), lambda f: -(f**2)),
    (of_neuron, ("h", "f"), lambda t: -(t**-2.0)),
    (of_neuron, ("h", "f"), lambda h, n=2: -1 / h**n),
    (of_neuron, ("h", "f"), -1 / H**2),
    (of_neuron, ("z", "k"), lambda x: -jnp.exp(-x)),
    (of_neuron, ("z", "k"), lambda k: -k),
    (of_neuron, ("z", "k"), -1.35),
    (of_neuron, ("k", "h"), 1),
    (of_neuron, ("k", "h"), lambda k: 1.0),
    (of_neuron, ("w1", "z"), 3),
    (of_neuron, ("w1", "z"), lambda x1: x1),
    (of_neuron, ("w", "z"), [1.0, 3.0, 1.0]),
    (of_neuron, ("w", "z"), lambda x: jnp.append(x, 1.0)),
    (of_neuron, ("x", "z"), lambda w: w[:2]),
    (of_neuron, "w0", 0.244),
    (of_neuron, "w0", 0.2445),
    (of_neuron, "z", lambda f: f * (1 - f)),
    (of_neuron, "w", [0.244, 0.733, 0.2445]),
    (of_neuron, "f", 1),
    (of_hidden, ("w5", "o"), lambda h1: h1),
    (of_hidden, ("h1", "o"), 0.4),
    (of_hidden, ("w1", "h1"), lambda h1, x1: h1 * (1 - h1) * x1),
    (of_hidden, ("o", "E"), lambda o: o - 0.2),
    (of_hidden, "o", lambda o: -(0.2 - o)),
    (of_softmax, "q", lambda p, y: p - y),
    (of_softmax, ("q", "p"), lambda p: jnp.diag(p) - jnp.outer(p, p)),
    (of_mean, ("q", "m"), [0.25, 0.25, 0.25, 0.25]),
    (of_mean, ("q", "m"), 0.25),
    (of_matrix, ("q", "u"), [[1, 2, 5], [3, 4, 7]]),
    (of_matrix, ("u", "y"), lambda u: 2 * u),
    (of_relu, ("h", "a"), 0),
    (of_relu, ("h", "a"), 1),
    (of_relu, ("h", "a"), lambda h: jnp.where(h > 0, 1.0, 0.0)),
    (of_relu, "h", 3.0),
]

WRONG = [
    (of_neuron, ("z", "k"), lambda z: jnp.exp(-z), "a minus is missing"),
    (of_neuron, ("z", "k"), 1.35, "a minus is missing"),
    (of_neuron, ("z", "k"), lambda z: -1.0, "a factor of k is missing"),
    (of_neuron, ("z", "k"), 0, "z is taken as a constant"),
    (of_neuron, ("z", "k"), -13.5, "the decimal point has slipped"),
    (of_neuron, ("z", "k"), lambda z: z, "that is the value of z, not a derivative"),
    (of_neuron, ("h", "f"), lambda h: -1 / h, "a factor of 1/h is missing"),
    (of_neuron, ("h", "f"), lambda h: 1 / h**2, "a minus is missing"),
    (of_neuron, ("h", "f"), lambda h: 1 / h, "a factor of 1/h is missing, and a minus is missing"),
    (of_neuron, ("h", "f"), lambda h: jnp.log(h), "that is ln(h): integrated, not differentiated"),
    (of_neuron, ("h", "f"), lambda h: -(h**2), "it is upside down"),
    (of_neuron, ("h", "f"), lambda h: h, "that is the value of h, not a derivative"),
    (of_neuron, ("h", "f"), -1.81, "the decimal point has slipped"),
    (of_neuron, ("h", "f"), lambda h: -2 / h**2, "it is 2 times too large"),
    (of_neuron, ("h", "f"), 0.0, "h is taken as a constant"),
    (of_neuron, ("k", "h"), lambda k: k, "that is the value of k, not a derivative"),
    (of_neuron, ("k", "h"), -1, "there is a minus too many"),
    (of_neuron, ("k", "h"), 0, "k is taken as a constant"),
    (of_neuron, ("k", "h"), 2, "it is 2 times too large"),
    (of_neuron, ("w1", "z"), -3.0, "there is a minus too many"),
    (of_neuron, ("w1", "z"), 1.0, "that is dz/dw0, a neighbour's"),
    (of_neuron, ("w1", "z"), -0.3, "that is the value of w1, not a derivative"),
    (of_neuron, ("x0", "z"), -0.3, "that is dz/dx1, a neighbour's"),
    (of_neuron, ("x1", "z"), 0.5, "that is dz/dx0, a neighbour's"),
    (of_neuron, ("w", "z"), [1.0, 3.0, 0.0], "it is right but for element [2]"),
    (of_neuron, ("x", "z"), [-0.5, 0.3], "the sign is wrong"),
    (of_neuron, "k", 1.0, "that is dh/dk, the local derivative: what is upstream of h is missing"),
    (of_neuron, "z", -1.35, "that is dk/dz, the local derivative: what is upstream of k is missing"),
    (of_neuron, "w0", 0.733, "that is df/dw1, a neighbour's"),
    (of_neuron, "w0", -0.2445, "there is a minus too many"),
    (of_neuron, "w1", 3.0, "that is dz/dw1, the local derivative: what is upstream of z is missing"),
    (
        of_neuron,
        "x0",
        -0.0733,
        "that is df/dx1, a neighbour's",
    ),
    (of_neuron, "w1", 7.334, "the decimal point has slipped"),
    (of_neuron, "z", lambda f: f, "a factor of (1 - f) is missing"),
    (of_hidden, ("w5", "o"), lambda h2: h2, "that is do/dw6, a neighbour's"),
    (of_hidden, ("h1", "o"), lambda w6: w6, "that is do/dh2, a neighbour's"),
    (of_hidden, ("h1", "o"), 0.0, "h1 is taken as a constant"),
    (of_hidden, ("w1", "h1"), lambda h1, x1: h1 * (1 - h1), "a factor of x1 is missing"),
    (of_hidden, ("w1", "h1"), lambda h1, x1: h1 * x1, "a factor of (1 - h1) is missing"),
    (of_hidden, ("o", "E"), lambda o: 0.2 - o, "there is a minus too many"),
    (of_hidden, ("o", "E"), lambda o: 2 * (o - 0.2), "it is 2 times too large"),
    (of_hidden, ("o", "E"), lambda o: (o - 0.2) / 2, "a factor of 2 is missing"),
    (of_hidden, "w5", lambda o, h2: (o - 0.2) * h2, "that is dE/dw6, a neighbour's"),
    (of_hidden, "w5", lambda h1: h1, "that is do/dw5, the local derivative"),
    (of_hidden, "h1", lambda w5: w5, "that is do/dh1, the local derivative"),
    (of_softmax, "q", lambda p: p, "y is not subtracted"),
    (of_softmax, "q", lambda p, y: y - p, "the sign is wrong"),
    (of_softmax, "q", lambda p, y: 3 * (p - y), "a mean is forgotten: a factor of 1/3 is missing"),
    (of_softmax, "q", lambda p, y: (p - y) / 3, "there is a factor of 1/3 too many"),
    (of_softmax, ("q", "p"), lambda p: jnp.diag(p), "that is diag(p): what is off the diagonal"),
    (of_softmax, ("q", "p"), lambda p: jnp.diag(p * (1 - p)), "what is off the diagonal is missing"),
    (of_softmax, ("q", "p"), lambda p: jnp.outer(p, p) - jnp.diag(p), "the sign is wrong"),
    (of_softmax, ("p", "L"), lambda p, y: y / p, "a minus is missing"),
    (of_mean, ("q", "m"), [1.0, 1.0, 1.0, 1.0], "a mean is forgotten: a factor of 1/4 is missing"),
    (of_mean, ("q", "m"), [0.25, 0.25, 0.25, 0.5], "it is right but for element [3]"),
    (of_mean, "q", lambda q: q, "that is the value of q, not a derivative"),
    (of_matrix, ("q", "u"), [[1, 3], [2, 4], [5, 7]], "it is transposed"),
    (of_matrix, ("q", "u"), [[1, 2, 5], [3, 4, 6]], "it is right but for element [1, 2]"),
    (of_matrix, ("u", "y"), lambda u: u, "a factor of 2 is missing"),
    (of_matrix, ("u", "y"), lambda u: -2 * u, "there is a minus too many"),
    (of_relu, ("h", "a"), lambda h: 0.0, "right here by chance"),
    (lambda: of_relu(2.0), ("h", "a"), lambda h: 1.0, "right here by chance"),
    (lambda: of_relu(2.0), ("h", "a"), 0, "h is taken as a constant"),
    (of_relu, "h", 7.0, ""),
]


@pytest.mark.parametrize(("made", "asked", "answer"), RIGHT)
def test_a_right_answer_is_right(made, asked, answer):
    grade = made().grade({asked: answer})
    assert grade.ok, str(grade)


@pytest.mark.parametrize(("made", "asked", "answer", "mistake"), WRONG)
def test_a_wrong_answer_is_wrong_and_its_mistake_is_told(made, asked, answer, mistake):
    (mark,) = made().grade({asked: answer}).marks
    assert not mark.ok
    assert mistake in mark.mistake
    assert bool(mistake) == bool(mark.mistake), mark.mistake


def test_nearly_every_mistake_is_told():
    assert sum(bool(mistake) for *_, mistake in WRONG) >= 50


def test_the_documents_wrong_labels_are_marked_as_what_they_are():
    found = ledger(neuron.forward)(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1]))
    assert str(found.grade({"w0": 0.25, "k": 1.0, "z": -1.0})).splitlines() == [
        "df/dw0 = 0.25: right",
        "df/dk = 1 is wrong, it is -0.25: that is dh/dk, the local derivative: what is upstream of h is missing",
        "df/dz = -1 is wrong, it is 0.25: that is dk/dz, the local derivative: what is upstream of k is missing",
        "1 of 3 answers are right.",
    ]


@pytest.mark.parametrize(
    ("asked", "answer", "where"),
    [
        (("h", "f"), 0.7, "look at f = 1/h, and at nothing but h in it"),
        ("k", 1.0, "it is df/dh times dh/dk"),
        ("h", 3.0, "add up what comes through f"),
    ],
)
def test_a_hint_says_where_and_not_what(asked, answer, where):
    text = str(of_neuron().grade({asked: answer}, hint=True))
    assert where in text
    assert " is not right yet: " in text
    want = of_neuron().grade({asked: answer}).marks[0].want
    assert f"{want:.3g}"[:5] not in text


@pytest.mark.parametrize(("answer", "ok"), [(0.2, False), (0.24, True), (0.25, False), (0.244, True), (0.2445, True)])
def test_a_typed_number_is_right_to_the_digits_typed(answer, ok):
    assert of_neuron().grade({"w2": answer}).ok is ok


@pytest.mark.parametrize(
    ("asked", "answer", "text"),
    [
        ("dk/dz", 1, r"an answer is for 'dk/dz'; expected a pair \(source, target\), or a node"),
        ("kk", 1, "there is no node 'kk'"),
        (("w", "f"), [1, 2, 3], "there is no edge from 'w' to 'f'"),
        (("w", "z"), [1, 2], r"has shape \(2,\); expected \(3,\), the target's shape followed by the source's"),
        ("w", [1, 2], r"has shape \(2,\); expected \(3,\), the source's"),
    ],
)
def test_what_cannot_be_graded_is_said(asked, answer, text):
    with pytest.raises(InputError, match=text):
        of_neuron().grade({asked: answer})
