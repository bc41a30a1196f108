"""Which arguments are differentiated: arrays and numbers, and not the settings that an object holds."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import InputError, OutputError, complex_step, ledger, retain_grads, retain_vjp, tag

X = jnp.array([0.5, -1.0, 2.0])


@jax.tree_util.register_dataclass
@dataclass
class Layer:
    """A module as libraries have them: an array, and numbers that its code branches on."""

    weight: jax.Array
    rate: float = 0.0
    heads: int = 2

    def __call__(self, x):
        if self.rate == 0.0 and self.heads > 1:  # an error, were they traced
            return tag(self.weight * x, "h")
        raise AssertionError


def loss(layer, x):
    return jnp.sum(layer(x) ** 2)


@pytest.mark.parametrize("argnums", [None, 0, (0, 1)])
def test_the_numbers_of_an_object_are_settings_and_not_traced(argnums):
    record = retain_grads(loss, argnums)(Layer(jnp.float32(3)), X)
    (layer, _), weight_bar = record.arg_grads, float(2 * 3 * jnp.sum(X * X))
    assert layer.weight == weight_bar
    assert (layer.rate, layer.heads) == (None, None)
    assert complex_step(loss, argnums=argnums)(Layer(jnp.float32(3)), X).arg_grads[0].weight == weight_bar


@pytest.mark.parametrize("wrap", [lambda a: a, lambda a: {"a": a}, lambda a: [a, 1], lambda a: ((a,),)])
def test_a_number_by_itself_or_in_a_container_is_differentiated(wrap):
    def fun(given):
        return tag(2.0 * jax.tree.leaves(given)[0], "h") ** 2

    record = retain_grads(fun)(wrap(1.5))
    assert jax.tree.leaves(record.arg_grads)[0] == 12.0


def test_integers_beside_what_is_differentiated_have_no_gradient():
    def fun(graph):
        return jnp.sum(tag(graph["nodes"][graph["senders"]], "sent") ** 2)

    record = retain_grads(fun, argnums=0)({"nodes": X, "senders": jnp.array([0, 0, 2])})
    np.testing.assert_array_equal(record.arg_grads[0]["nodes"], [2.0, 0.0, 4.0])
    assert record.arg_grads[0]["senders"] is None


def test_an_argument_with_nothing_to_differentiate_is_an_error_that_says_so():
    with pytest.raises(
        InputError, match=r"argument 0 has leaves of dtype bool, int32, which have no gradient; expected"
    ):
        retain_grads(lambda a, x: jnp.sum(tag(x, "h")), argnums=0)([jnp.arange(3), np.array(True)], X)


def test_retain_vjp_takes_auxiliary_data():
    output, values, pullback, aux = retain_vjp(lambda x: (tag(x * 2, "h"), {"x": x, "label": "a"}), X, has_aux=True)
    np.testing.assert_array_equal(output, 2 * X)
    np.testing.assert_array_equal(values["h"], 2 * X)
    np.testing.assert_array_equal(pullback(X)[0][0], 2 * X)
    np.testing.assert_array_equal(aux["x"], X)
    assert aux["label"] == "a"


def test_a_ledger_takes_auxiliary_data():
    def fun(x):
        return jnp.sum(tag(x * x, "squares")), {"twice": 2 * x, "label": "a"}

    found = ledger(fun, has_aux=True)(X)
    np.testing.assert_array_equal(found.nodes["squares"].value, X * X)
    np.testing.assert_array_equal(found.aux["twice"], 2 * X)
    assert found.aux["label"] == "a"
    with pytest.raises(OutputError, match=r"with has_aux, fun returns a .*; expected a pair"):
        ledger(lambda x: jnp.sum(tag(x, "x")), has_aux=True)(X)


def test_a_ledger_leaves_the_settings_of_an_object_alone():
    found = ledger(loss)(Layer(jnp.float32(3)), X)
    assert [name for name, node in found.nodes.items() if node.kind == "argument"][1:] == ["x0", "x1", "x2"]


NARROWED = {
    "an array": ((np.array([0.1, 0.2]),), {"arg[0]"}),
    "a scalar": ((np.float64(0.1), jnp.float32([1.0])), {"arg[0]"}),
    "complex": ((jnp.float32(0.5), np.array([0.5 + 1j])), {"arg[1]"}),
    "in a tree": (({"w": np.array([0.1]), "b": np.float32(0.2)},), {"arg[0]['w']"}),
    "float32 of NumPy, and JAX's own": ((np.float32([0.1]), jnp.array([0.2]), 0.3), set()),
}


@pytest.mark.parametrize("case", NARROWED)
def test_an_array_that_jax_holds_in_fewer_bits_has_a_note(case):
    args, labels = NARROWED[case]

    def fun(*args):
        return jnp.real(sum(jnp.sum(tag(leaf, "t")) for leaf in jax.tree.leaves(args)))

    notes = retain_grads(fun)(*args).notes
    assert set(notes) == labels
    for note in notes.values():
        assert "is narrowed to" in note
        assert "jax_enable_x64" in note
    with jax.enable_x64(True):
        assert retain_grads(fun)(*args).notes == {}


def test_the_note_is_in_the_records_table_and_on_a_ledgers_nodes():
    fun = lambda x: jnp.sum(tag(jnp.sin(x), "y"))  # noqa: E731
    assert "NumPy's float64 is narrowed to float32" in repr(retain_grads(fun)(np.array([0.1, 0.2])))
    read = ledger(fun)
    assert read(np.float32([0.1, 0.2])).nodes["x0"].note == ""
    assert "float64 is narrowed" in read(np.array([0.1, 0.2])).nodes["x0"].note
    assert "float64 is narrowed" in ledger(fun)(np.ones(20)).nodes["x"].note
    assert read(np.float32([0.1, 0.2])).nodes["x1"].note == ""
