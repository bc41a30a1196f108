"""On a reference's own values and cotangents each piece from tag to tag shows its own mistake and no other's."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType

from jaxgrad import InputError, TagError, align, compare, in_float64, retain_grads, tag, with_rounding

SIZE = 4
X = jnp.asarray(np.random.default_rng(0).standard_normal((3, SIZE)), jnp.float32)
W = jnp.asarray(np.random.default_rng(1).standard_normal((3, SIZE, SIZE)), jnp.float32) / 2


def chain(x, w, wrong=(), name="{}"):
    a = tag(jnp.tanh(x @ w[0]) * (1.01 if "a" in wrong else 1), name.format("a"))
    b = tag(a @ w[1] + (0.01 if "b" in wrong else 0), name.format("b"))
    c = tag(jnp.sin(b) + (lax.stop_gradient(b) if "c" in wrong else b), name.format("c"))
    return jnp.sum(tag(c @ w[2], name.format("d")) ** 2)


def differing(got, want, **options):
    return [row.label for row in compare(got, want, **options).rows if not row.ok and not row.name.startswith("arg")]


def test_a_port_without_a_mistake_is_the_same_forced():
    want = retain_grads(chain)(X, W)
    got = retain_grads(chain, forced=want)(X, W)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("wrong", "found", "jitted"),
    [
        ("a", ["a"], False),
        ("b", ["b"], False),
        ("c", ["b.grad"], False),
        ("ab", ["a", "b"], True),
        ("abc", ["a", "b", "b.grad"], False),
    ],
)
def test_each_mistake_shows_by_itself(wrong, found, jitted):
    want = retain_grads(chain)(X, W)

    def port(x, w):
        return chain(x, w, wrong)

    forced = retain_grads(port, forced=want)
    assert differing((jax.jit(forced) if jitted else forced)(X, W), want) == found
    assert len(differing(retain_grads(port)(X, W), want)) > len(found)


def scanned(x, w, wrong=False):
    def step(h, parts):
        w, i = parts
        h = tag(jnp.tanh(h @ w) * jnp.where(wrong & (i == 1), 1.01, 1), "h")
        return h, jnp.sum(h**2)

    return jnp.sum(lax.scan(step, x, (w, jnp.arange(3)))[1])


def unrolled(x, w):
    total = 0
    for i in range(3):
        x = tag(jnp.tanh(x @ w[i]), "h")
        total += jnp.sum(x**2)
    return total


@pytest.mark.parametrize("vmapped", [False, True])
def test_in_a_scan_the_one_wrong_step_is_found(vmapped):
    def fun(x, w, wrong):
        return jnp.sum(jax.vmap(lambda x: scanned(x, w, wrong))(x)) if vmapped else scanned(x, w, wrong)

    want = retain_grads(fun, argnums=(0, 1))(X, W, False)
    got = retain_grads(fun, argnums=(0, 1), forced=want)(X, W, True)
    axis = 1 if vmapped else 0
    off = np.any(np.asarray(got.values["h"] != want.values["h"]), axis=tuple(i for i in range(3) if i != axis))
    assert off.tolist() == [False, True, False]
    steps = retain_grads(unrolled)(X, W)
    stacked = np.stack([steps.grads[f"h[{i}]"] for i in range(3)], axis=axis)
    np.testing.assert_allclose(want.grads["h"], stacked, rtol=1e-5)  # 16 float32 roundings


def test_in_a_branch_the_reference_stands_in_too():
    def fun(x, w, scale):
        y = lax.cond(x[0, 0] > -9, lambda x: tag(x @ w[0] * scale, "y"), lambda x: x, x)
        return jnp.sum(tag(jnp.sin(y), "s"))

    want = retain_grads(fun, argnums=0)(X, W, 1)
    assert differing(retain_grads(fun, argnums=0, forced=want)(X, W, 1.01), want) == ["y"]


def test_argument_gradients_are_made_from_the_reference():
    want = retain_grads(chain)(X, W)
    got = retain_grads(lambda x, w: chain(x, w, "bc"), forced=want)(X, W)
    np.testing.assert_array_equal(got.arg_grads[0], want.arg_grads[0])


def test_names_that_differ_are_paired_by_a_dict():
    want = retain_grads(lambda x, w: chain(x, w, name="model.{}.0"))(X, W)

    def port(x, w):
        return chain(x, w, "ac", "{}_0")

    names = align(retain_grads(port)(X, W), want)
    got = retain_grads(port, forced=want, names=names)(X, W)
    assert differing(got, want, names=names) == ["a_0", "b_0.grad"]


def test_an_image_is_put_in_in_the_ports_layout():
    def fun(x, scale=1.0):
        return jnp.sum(tag(jnp.tanh(tag(x * scale, "a")), "b") ** 2)

    x = np.random.default_rng(0).standard_normal((2, 4, 5, 3)).astype(np.float32)
    want = retain_grads(fun)(jnp.asarray(x))
    theirs = {
        label: np.asarray(array).transpose(0, 3, 1, 2)
        for name in want.names
        for label, array in ((name, want.values[name]), (f"{name}.grad", want.grads[name]))
    }
    got = retain_grads(fun, argnums=0, forced=theirs)(jnp.asarray(x), 1.01)
    assert differing(got, theirs, names={"a": "a", "b": "b"}) == ["a"]


def test_a_value_without_a_gradient_lets_the_gradient_through():
    want = retain_grads(chain)(X, W)
    values = {name: np.asarray(value) for name, value in want.values.items()}
    got = retain_grads(chain, forced=values)(X, W)
    for name in want.names:
        np.testing.assert_array_equal(got.grads[name], want.grads[name])


def test_an_integer_stands_in_too():
    def fun(x, shift=0):
        i = tag(jnp.argmax(x[0]) + shift, "i")
        return jnp.sum(tag(x[:, i], "column"))

    want = retain_grads(fun)(X)
    got = retain_grads(fun, argnums=0, forced=want)(X, 1)
    assert differing(got, want) == ["i"]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"forced": 3}, InputError, "`forced` is a int; expected a Record, or a dict of name -> array."),
        ({"forced": {"zz": np.ones(3)}}, InputError, "`forced` has none of the tags: it has zz, and the function a, b"),
        ({"forced": {"a": np.ones(3)}}, InputError, 'has the shape [3, 4], and `forced` has [3] for "a"; expected the'),
        ({"names": {"a": "a"}}, TagError, "`names` is a dict, which goes with `forced`; expected names or globs"),
    ],
)
def test_bad_input_is_one_clear_error(options, error, text):
    with pytest.raises(error, match=re.escape(text)):
        retain_grads(chain, **options)(X, W)


def test_each_piece_is_judged_at_its_own_rounding():
    want = in_float64(chain)(X, W)
    want = {name: np.float32(want.values[name]) for name in want.names}

    def port(x, w):
        return chain(x, w, "b")

    forced, whole = with_rounding(port, forced=want)(X, W), with_rounding(port)(X, W)
    assert differing(forced, want) == ["b"]
    # The last of four roundings alone is some half of all four together.
    assert np.mean(forced.uncertainty["d"]) < 0.7 * np.mean(whole.uncertainty["d"])
    by_default = retain_grads(port, forced=want)(X, W)
    assert differing(by_default, want) == ["b"]


def test_in_a_shard_map_the_reference_is_cut_by_shard():
    mesh = jax.make_mesh((2,), ("i",), axis_types=(AxisType.Auto,))

    def fun(x, scale):
        def body(x, scale):
            y = tag(x * scale, "y")
            s = tag(lax.psum(jnp.sum(jnp.sin(y)), "i"), "s")
            return s * s

        return jax.shard_map(body, mesh=mesh, in_specs=(jax.P("i"), jax.P()), out_specs=jax.P())(x, scale)

    x = X[0]
    want = jax.jit(retain_grads(fun, argnums=0))(x, 1.0)
    assert want.values["y"].shape == (2, SIZE // 2)  # one for each shard
    got = jax.jit(retain_grads(fun, argnums=0, forced=want))(x, 1.01)
    assert differing(got, want) == ["y"]
    np.testing.assert_array_equal(got.grads["y"], want.grads["y"])
    with pytest.raises(
        InputError, match=r'tag "y" .* has the shape \[2, 2\], and `forced` has \[2\] for "y"; expected'
    ):
        retain_grads(fun, argnums=0, forced={"y": want.values["y"][0]})(x, 1.0)
