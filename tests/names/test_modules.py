"""Modules' outputs are named by the module's path, of every library and of plain classes."""

import jax
import jax.numpy as jnp
import pytest

from jaxgrad import retain_grads, watch

X = jnp.ones((2, 4))


def traced(fun, *args):
    """The record of a watched function, its numbers not computed."""
    return jax.eval_shape(retain_grads(watch(fun), argnums=0), *args)


@pytest.fixture(scope="module")
def equinox_model():
    eqx = pytest.importorskip("equinox")

    class Net(eqx.Module):
        layers: list
        norm: eqx.nn.LayerNorm

        def __call__(self, x):
            h = jnp.tanh(self.layers[0](x))
            return self.layers[1](self.norm(h))

    keys = jax.random.split(jax.random.key(0), 2)
    return Net([eqx.nn.Linear(4, 3, key=keys[0]), eqx.nn.Linear(3, 1, key=keys[1])], eqx.nn.LayerNorm(3))


NET = ("layers[0]", "h", "norm", "layers[1]")


def vmapped(net, x):
    return jax.vmap(net)(x).sum()


def in_filter_jit(net, x):
    import equinox as eqx

    return eqx.filter_jit(vmapped)(net, x)


def combined(net, x):
    import equinox as eqx

    model = eqx.combine(*eqx.partition(net, eqx.is_array))
    return vmapped(model, x)


@pytest.mark.parametrize("fun", [vmapped, in_filter_jit, combined], ids=lambda fun: fun.__name__)
def test_equinox_modules_are_named_by_their_path(fun, equinox_model):
    assert traced(fun, equinox_model, X).names == NET


def test_a_layer_made_in_the_function_has_its_variables_name_and_without_one_a_note():
    eqx = pytest.importorskip("equinox")

    def made(x):
        fc = eqx.nn.Linear(4, 3, key=jax.random.key(0))
        return eqx.nn.Linear(3, 1, key=jax.random.key(1))(fc(x)).sum()

    record = traced(made, X[0])
    assert record.names == ("fc",)
    assert dict(record.notes) == {
        "Linear": "its output has no name: no variable holds the Linear that is called; bind it to one"
    }


@pytest.fixture(scope="module")
def nnx_model():
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.fc = nnx.Linear(4, 3, rngs=rngs)
            self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs), nnx.Linear(3, 1, rngs=rngs)])

        def __call__(self, x):
            h = jnp.tanh(self.fc(x))
            return self.layers[1](self.layers[0](h)).sum()

    return Net()


@pytest.mark.parametrize("way", ["argument", "closure", "merged", "merged in its call", "jitted"])
def test_nnx_modules_are_named_by_their_path(way, nnx_model):
    from flax import nnx

    graph, state = nnx.split(nnx_model)

    def merged(state, x):
        model = nnx.merge(graph, state)
        return model(x)

    fun, *args = {
        "argument": (lambda model, x: model(x), nnx_model, X),
        "closure": (lambda x: nnx_model(x), X),
        "merged": (merged, state, X),
        "merged in its call": (lambda state, x: nnx.merge(graph, state)(x), state, X),
        "jitted": (lambda model, x: nnx.jit(lambda model, x: model(x))(model, x), nnx_model, X),
    }[way]
    assert traced(fun, *args).names == ("fc", "h", "layers[0]", "layers[1]")


def test_two_models_made_in_the_function_have_no_name_in_common(nnx_model):
    from flax import nnx

    graph, state = nnx.split(nnx_model)

    def both(state, x):
        actor, critic = nnx.merge(graph, state), nnx.merge(graph, state)
        return actor(x) + critic(2 * x)

    names = traced(both, state, X).names
    assert names[:4] == ("fc", "h", "layers[0]", "layers[1]")
    assert names[4:] == ("critic.fc", "critic.h", "critic.layers[0]", "critic.layers[1]", "critic")


def test_linen_modules_are_named_by_their_path_those_of_a_list_as_in_it():
    nn = pytest.importorskip("flax.linen")

    class Block(nn.Module):
        def setup(self):
            self.layers = [nn.Dense(3), nn.Dense(4)]
            self.heads = {"a": nn.Dense(4)}

        def __call__(self, x):
            h = nn.relu(self.layers[0](x))
            return self.heads["a"](self.layers[1](h))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = Block(name="block_0")(x)  # which is in no list that could be seen
            return nn.Dense(1)(y).sum()

    net = Net()
    block = [f"block_0.{name}" for name in ("layers[0]", "h", "layers[1]", "heads['a']")]
    record = traced(net.apply, net.init(jax.random.key(0), X), X)
    assert record.names == (*block, "block_0", "y", "Dense_0")


def test_haiku_modules_are_named_by_their_path():
    hk = pytest.importorskip("haiku")

    class Block(hk.Module):
        def __call__(self, x):
            h = hk.Linear(3, name="fc")(x)
            return hk.Linear(3)(jnp.tanh(h))

    def forward(x):
        y = Block(name="block")(x)
        return hk.Linear(1)(y).sum()

    net = hk.transform(forward)

    def loss(params, x):
        return net.apply(params, None, x)

    record = traced(loss, net.init(jax.random.key(0), X), X)
    assert record.names == ("block.fc", "block.h", "block.linear", "block", "forward.y", "linear")


class Layer:
    def __init__(self, w):
        self.w = w

    def __call__(self, x):
        h = self.w * x
        return jnp.tanh(h)


class Model:
    def __init__(self):
        self.layers = [Layer(2.0), Layer(0.5)]

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_plain_classes_hang_on_attributes_and_lists():
    names = traced(Model(), 0.3).names
    assert names == ("layers[0].h", "layers[0]", "x[0]", "layers[1].h", "layers[1]", "x[1]")


def test_two_models_within_reach_are_told_apart_by_their_variables():
    actor, critic = Model(), Model()
    names = traced(lambda x: actor(x) + critic(x), 0.3).names
    assert {"actor.layers[0].h", "critic.layers[1]", "actor", "critic"} <= set(names)
