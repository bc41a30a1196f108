"""Two sides that name the same things differently are paired, and compared in one layout."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import InputError, Record, align, compare, neuron, reference, retain_grads, tag


def record(values, grads=None, arg_grads=(), output=1.0):
    values = {name: np.asarray(value, np.float32) for name, value in values.items()}
    grads = {name: np.asarray(grads[name], np.float32) if grads else value for name, value in values.items()}
    return Record(np.float32(output), tuple(values), values, grads, arg_grads)


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("z", "z"),
        ("layers_0", "layers.0"),
        ("layers[0].h", "layers.0.h"),
        ("encoder.norm", "model.encoder.norm"),
        ("block.attn.out", "attn.out"),
    ],
)
def test_a_name_is_paired_with_the_same_parts_written_otherwise(ours, theirs):
    got, want = record({ours: [1, 2], "other": [1]}), record({"unlike": [1, 2, 3], theirs: [1, 2]})
    assert align(got, want) == {ours: theirs, "output": "output"}


@pytest.mark.parametrize(
    ("params", "label"),
    [
        ({"params": {"layers_0": {"kernel": random(2, 3)}}}, "arg[0]['params']['layers_0']['kernel']"),
        ({"layers": [{"weight": random(3, 2)}]}, "arg[0]['layers'][0]['weight']"),
        ({"layers_0": {"w": random(2, 3)}}, "arg[0]['layers_0']['w']"),
    ],
)
def test_parameters_are_paired_with_named_parameters(params, label):
    weight = next(iter(params.values()))
    got = record({}, arg_grads=(params, random(4)))
    want = record({"layers[0].weight": random(3, 2), "h": [1]}, arg_grads=(random(4),))
    assert weight is not None
    assert align(got, want) == {label: "layers[0].weight", "arg[1]": "arg[0]", "output": "output"}


def test_what_has_no_name_in_common_is_paired_by_shape_and_order_between_pairs():
    got = record({"a": random(2, 3), "mid": random(5), "b": random(2, 3)})
    want = record({"u": random(2, 3), "mid": random(5), "v": random(2, 3)})
    assert align(got, want) == {"a": "u", "mid": "mid", "b": "v", "output": "output"}


def test_a_shape_that_one_side_has_more_often_is_not_guessed():
    got, want = record({"a": [1, 2], "b": [1, 2]}), record({"u": [1, 2]})
    names = align(got, want)
    assert names == {"output": "output"}
    text = str(compare(got, want, names=names))
    assert "left out of `got`, without a partner: a, b\n" in text
    assert text.endswith("left out of `want`, without a partner: u")


def test_a_dict_is_aligned_too():
    got = retain_grads(lambda x: jnp.sum(tag(2 * x, "layers_0")))(jnp.ones(3))
    want = {"layers.0": 2 * np.ones(3, np.float32), "layers.0.grad": np.ones(3, np.float32)}
    assert [row.label for row in compare(got, want, names=align(got, want)).rows] == ["layers_0", "layers_0.grad"]


@pytest.mark.parametrize(
    ("name", "got_shape", "order", "want_name"),
    [
        ("arg[0]['kernel']", (5, 4), (1, 0), "weight"),
        ("arg[0]['kernel']", (4, 4), (1, 0), "weight"),  # square: the numbers tell
        ("arg[0]['kernel']", (3, 3, 2, 5), (3, 2, 0, 1), "weight"),
        ("conv", (2, 6, 7, 3), (0, 3, 1, 2), "conv"),
        ("conv", (2, 4, 4, 4), (0, 3, 1, 2), "conv"),
        ("hidden", (3, 5, 7), (1, 0, 2), "hidden"),
    ],
)
def test_arrays_in_another_layout_are_compared_in_one(name, got_shape, order, want_name):
    array = random(*got_shape)
    got = record({}, arg_grads=({"kernel": array},)) if "arg" in name else record({name: array})
    want = record({want_name: array.transpose(order)})
    names = align(got, want)
    assert names[name] == want_name
    comparison = compare(got, want, names=names)
    assert comparison.ok, str(comparison)
    back = tuple(int(i) for i in np.argsort(order))
    assert f"with these axes of `want`: {name} ({', '.join(map(str, back))})" in str(comparison)
    wrong = record({want_name: 1.01 * array.transpose(order)})
    assert not compare(got, wrong, names=names).ok


def test_a_transposed_activation_of_the_same_shape_is_a_difference():
    scores = random(2, 4, 4)
    got, want = record({"scores": scores}), record({"scores": scores.transpose(0, 2, 1)})
    assert not compare(got, want, names=align(got, want)).ok


def test_integers_of_another_width_agree_and_other_integers_differ():
    got = Record(np.float32(1), ("i",), {"i": np.int32([1, 2])}, {"i": None}, ())
    assert compare(got, {"i": np.int64([1, 2])}, names={"i": "i"}).ok
    for other in ([1, 3], [1, 2 + 2**32]):
        assert not compare(got, {"i": np.int64(other)}, names={"i": "i"}).ok


def test_a_dict_can_be_changed_and_says_what_is_compared_in_gots_order():
    got, want = record({"a": [1], "b": [2]}), record({"v": [2], "u": [1]})
    comparison = compare(got, want, names={"b": "v", "a": "u", "output": "output"})
    assert comparison.ok
    assert [row.label for row in comparison.rows] == ["a", "b", "output", "b.grad", "a.grad"]
    assert not compare(got, want, names={"a": "v", "b": "u"}).ok


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ({"zz": "z"}, "`names` has 'zz', and `got` has nothing of that name. Did you mean \"z\"?"),
        ({"z": "y"}, "`names` has 'y', and `want` has nothing of that name. Did you mean"),
        (["z"], "`names` is a list; expected a dict of name in `got` -> name in `want`, as align(got, want) returns."),
        ({}, "`names` pairs nothing that both sides have; expected a value or a gradient of both."),
    ],
)
def test_names_that_do_not_fit_are_an_error(names, text):
    with pytest.raises(InputError, match=re.escape(text)):
        compare(record({"z": [1]}), record({"z": [1]}), names=names)


def test_a_table_takes_no_names():
    got = neuron.backprop(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1]))
    with pytest.raises(InputError, match=re.escape("`want` is a table, which knows what its numbers are called")):
        compare(got, reference.load(), names={"z": "z"})


def test_nothing_in_common_is_an_error():
    got, want = record({"a": [1]}), {"b": np.ones(2, np.float32)}
    text = "nothing in `got` (a, output) is called like anything in `want` (b), nor has it the same shapes"
    with pytest.raises(InputError, match=re.escape(text)):
        align(got, want)


@pytest.mark.parametrize("got", [None, {"z": 1}])
def test_got_must_be_a_record(got):
    with pytest.raises(InputError, match="expected a Record, as retain_grads"):
        align(got, {"z": 1})


def test_want_must_be_a_record_or_a_dict():
    with pytest.raises(InputError, match=re.escape("`want` is a int; expected a Record, or a dict of name -> array.")):
        align(record({"z": [1]}), 3)
