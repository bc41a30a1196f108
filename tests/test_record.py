"""Record is a pytree that keeps program order wherever JAX takes it."""

import chex
import jax
import jax.numpy as jnp
import pytest

from jaxgrad import Record, neuron

X, W = jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1])

WAYS = {
    "as it is": lambda: neuron.backprop(X, W),
    "jit": lambda: jax.jit(neuron.backprop)(X, W),
    "vmap": lambda: jax.vmap(neuron.backprop, in_axes=(0, None))(X[None], W),
    "jit(vmap)": lambda: jax.jit(jax.vmap(neuron.backprop, in_axes=(0, None)))(X[None], W),
    "scan": lambda: jax.lax.scan(lambda carry, x: (carry, neuron.backprop(x, W)), 0.0, X[None])[1],
    "tree.map": lambda: jax.tree.map(lambda leaf: leaf + 1, neuron.backprop(X, W)),
    "flatten and unflatten": lambda: jax.tree.unflatten(*jax.tree.flatten(neuron.backprop(X, W))[::-1]),
    "device_get": lambda: jax.device_get(neuron.backprop(X, W)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_record_keeps_program_order(way):
    record = WAYS[way]()
    assert isinstance(record, Record)
    # Sorted, the names would be f, h, k, z.
    assert record.names == tuple(record.values) == tuple(record.grads) == ("z", "k", "h", "f")


def full_record() -> Record:
    """One that uses every field."""
    return Record(
        output=jnp.float32(1),
        names=("b", "a"),
        values={"a": jnp.int32(2), "b": jnp.float32(3)},
        grads={"a": None, "b": jnp.float32(4)},
        arg_grads=(jnp.float32(5), None),
        notes={"a": "int32 has no gradient"},
        reached={"b": jnp.bool_(True)},
        aux={"extra": jnp.float32(6)},
    )


def test_every_field_survives_the_round_trip():
    record = full_record()
    leaves, tree = jax.tree.flatten(record)
    again = jax.tree.unflatten(tree, leaves)
    for name in ("output", "arg_grads", "aux", "notes", "reached", "values", "grads", "names"):
        assert getattr(again, name) == getattr(record, name), name
    assert tuple(again.values) == tuple(again.grads) == ("b", "a")


def test_the_paths_of_the_leaves_name_the_fields():
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(full_record())]
    assert paths == [
        ".output",
        ".values[0]",
        ".values[1]",
        ".grads[0]",
        ".reached[0]",
        ".arg_grads[0]",
        ".aux['extra']",
    ]


def test_records_of_other_names_or_notes_are_other_trees():
    record = full_record()
    renamed = Record(record.output, ("b", "c"), {"b": 1, "c": 2}, {"b": 3, "c": None}, record.arg_grads)
    with pytest.raises(AssertionError, match="tree"):
        chex.assert_trees_all_equal_structs(record, renamed)
    with pytest.raises(ValueError, match="different pytree metadata"):
        jax.tree.map(lambda a, b: a, record, renamed)


def test_a_gradient_flows_through_a_record():
    def df_dz(w):
        return neuron.backprop(X, w).grads["z"]

    # f'' = f' * (1 - 2 * f), and f is 0.4378 at z = -0.25; dz/dw2 = 1
    w = jnp.array([0.5, -0.425, 0.1])
    f = neuron.forward(X, w)
    # Float32, some ten roundings.
    chex.assert_trees_all_close(jax.grad(df_dz)(w)[2], f * (1 - f) * (1 - 2 * f), rtol=1e-5)
