"""Porting a model: in three lines where a port departs from its PyTorch original, and forced, each place by itself."""

import os

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from flax import linen, nnx

from jaxgrad import align, compare, retain_grads, retain_torch, watch

if os.environ.get("JAXGRAD_REQUIRE_TORCH") == "1":
    import torch
else:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")
from torch import nn
from torch.nn import functional as F

SIZE, STEPS = 4, 3


class TorchBlock(nn.Module):
    """A transformer block of one head."""

    def __init__(self):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(SIZE), nn.LayerNorm(SIZE)
        self.q, self.k, self.v, self.out = (nn.Linear(SIZE, SIZE) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(SIZE, 2 * SIZE), nn.Linear(2 * SIZE, SIZE)

    def forward(self, x):
        u = self.ln1(x)
        scores = self.q(u) @ self.k(u).transpose(-1, -2) / SIZE**0.5
        weights = torch.softmax(scores, -1)
        mid = x + self.out(weights @ self.v(u))
        act = F.gelu(self.fc1(self.ln2(mid)))
        return (mid + self.fc2(act)).square().mean()


class Block:
    """Its port, to the library of its subclass; `wrong` names its mistakes."""

    layers = ("ln1", "ln2", "q", "k", "v", "out", "fc1", "fc2")

    def __call__(self, x):
        u = each(self.ln1, x)
        scores = (
            each(self.q, u) @ jnp.swapaxes(each(self.k, u), -1, -2) / (SIZE if "scores" in self.wrong else SIZE**0.5)
        )
        weights = jax.nn.softmax(scores)
        mid = x + each(self.out, weights @ each(self.v, u))
        act = jax.nn.gelu(each(self.fc1, each(self.ln2, mid)), approximate="act" in self.wrong)
        return jnp.mean((mid + each(self.fc2, act)) ** 2)


class TorchLSTM(nn.Module):
    """An LSTM, its gates written out."""

    def __init__(self):
        super().__init__()
        self.ih, self.hh = nn.Linear(SIZE, 4 * SIZE), nn.Linear(SIZE, 4 * SIZE)

    def forward(self, x):
        h = c = torch.zeros(len(x), SIZE)
        for t in range(STEPS):
            gates = self.ih(x[:, t]) + self.hh(h)
            i, f, g, o = gates.chunk(4, -1)
            keep = torch.sigmoid(f)
            cell = keep * c + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
            h, c = hidden, cell
        return h.square().sum()


class LSTM:
    """Its port."""

    layers = ("ih", "hh")

    def __call__(self, x):
        h = c = jnp.zeros((len(x), SIZE))
        for t in range(STEPS):
            gates = each(self.ih, x[:, t]) + each(self.hh, h)
            i, f, g, o = jnp.split(gates, 4, -1)
            keep = jax.nn.sigmoid(f + 1 if "keep" in self.wrong else f)
            cell = keep * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            hidden = jax.nn.sigmoid(o) * (cell if "hidden" in self.wrong else jnp.tanh(cell))
            h, c = hidden, cell
        return jnp.sum(h**2)


def each(layer, x):
    """A layer at each row; those of Equinox take one."""
    if isinstance(layer, eqx.Module):
        for _ in range(x.ndim - 1):
            layer = jax.vmap(layer)
    return layer(x)


def in_equinox(port, weights, wrong):
    """A loss, and the model that it is of."""

    def layer(weight, bias):
        like = eqx.nn.Linear(*weight.shape[::-1], key=jax.random.key(0)) if weight.ndim > 1 else eqx.nn.LayerNorm(SIZE)
        return eqx.tree_at(lambda layer: (layer.weight, layer.bias), like, (weight, bias))

    fields = dict.fromkeys(port.layers, eqx.Module)
    cls = type(port.__name__, (port, eqx.Module), {"__annotations__": fields, "wrong": wrong, "__module__": __name__})
    return (lambda model, x: model(x)), cls(**{name: layer(*pair) for name, pair in weights.items()})


def in_linen(port, weights, wrong):
    def setup(self):
        for name, (weight, bias) in weights.items():
            setattr(self, name, linen.Dense(len(bias)) if weight.ndim > 1 else linen.LayerNorm(epsilon=1e-5))

    cls = type(port.__name__, (port, linen.Module), {"setup": setup, "wrong": wrong, "__module__": __name__})
    model = cls()
    return (lambda params, x: model.apply(params, x)), {
        "params": {name: kernel(*pair) for name, pair in weights.items()}
    }


def in_nnx(port, weights, wrong):
    def layer(weight, bias):
        rngs = nnx.Rngs(0)
        like = (
            nnx.Linear(*weight.shape[::-1], rngs=rngs)
            if weight.ndim > 1
            else nnx.LayerNorm(SIZE, epsilon=1e-5, rngs=rngs)
        )
        for name, value in kernel(weight, bias).items():
            setattr(like, name, nnx.Param(value))
        return like

    model = type(port.__name__, (port, nnx.Module), {"wrong": wrong, "__module__": __name__})()
    for name, pair in weights.items():
        setattr(model, name, layer(*pair))
    return (lambda model, x: model(x)), model


def kernel(weight, bias):
    return {"scale" if weight.ndim == 1 else "kernel": weight.T, "bias": bias}


LIBRARIES = {"equinox": in_equinox, "linen": in_linen, "nnx": in_nnx}
MODELS = {
    "transformer": (TorchBlock, Block, ["scores", "act"]),
    "lstm": (TorchLSTM, LSTM, ["keep", "hidden"]),
}


@pytest.fixture(params=LIBRARIES)
def library(request):
    return LIBRARIES[request.param]


@pytest.fixture(params=MODELS)
def journey(request, library):
    """The reference; a port and its arguments, by its mistakes; the names of its two mistakes."""
    original, ported, mistakes = MODELS[request.param]
    torch.manual_seed(0)
    model = original()
    x = torch.randn(2, STEPS, SIZE)
    weights = {
        name: tuple(jnp.asarray(p.detach().numpy()) for p in (layer.weight, layer.bias))
        for name, layer in model.named_children()
    }

    def port(*wrong):
        loss, params = library(ported, weights, wrong)
        return loss, (params, jnp.asarray(x.numpy()))

    return retain_torch(model)(x), port, mistakes


def different(comparison):
    """The values that differ, without the numbers of steps."""
    wrong = (row.name for row in comparison.rows if not row.ok and row.kind == "value")
    return list(dict.fromkeys(name.partition("[")[0] for name in wrong))


def test_a_right_port_agrees_in_every_name_and_every_parameter(journey):
    want, port, _ = journey
    loss, args = port()
    got = retain_grads(watch(loss), argnums=0)(*args)
    names = align(got, want)
    comparison = compare(got, want, names=names, rtol=1e-4, atol=1e-6)  # float32 through some 20 operations
    assert comparison.ok, str(comparison)
    assert {name: names[name] for name in got.names} == {name: name for name in got.names}
    assert {name for name in want.names if name.endswith((".weight", ".bias"))} <= set(names.values())


def test_two_mistakes_are_found_by_name(journey):
    want, port, mistakes = journey
    loss, args = port(*mistakes)
    got = retain_grads(watch(loss), argnums=0)(*args)
    names = align(got, want)
    first = compare(got, want, names=names, rtol=1e-4, atol=1e-6).first_divergence
    assert first.name.partition("[")[0] == mistakes[0]
    forced = retain_grads(watch(loss), argnums=0, forced=want, names=names)(*args)
    assert different(compare(forced, want, names=names, rtol=1e-4, atol=1e-6)) == mistakes
