"""Porting a model: in three lines where a port departs from its PyTorch original, and forced, each place by itself."""

import os

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from flax import linen, nnx

from jaxgrad import align, compare, retain_grads, retain_torch, tag

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


def block(layer, x, wrong):
    u = tag(layer("ln1", x), "u")
    scores = layer("q", u) @ jnp.swapaxes(layer("k", u), -1, -2) / (SIZE if "scores" in wrong else SIZE**0.5)
    scores = tag(scores, "scores")
    weights = tag(jax.nn.softmax(scores), "weights")
    mid = tag(x + layer("out", weights @ layer("v", u)), "mid")
    act = tag(jax.nn.gelu(layer("fc1", layer("ln2", mid)), approximate="act" in wrong), "act")
    return jnp.mean((mid + layer("fc2", act)) ** 2)


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


def lstm(layer, x, wrong):
    h = c = jnp.zeros((len(x), SIZE))
    for t in range(STEPS):
        gates = tag(layer("ih", x[:, t]) + layer("hh", h), "gates")
        i, f, g, o = jnp.split(gates, 4, -1)
        keep = tag(jax.nn.sigmoid(f + 1 if "keep" in wrong else f), "keep")
        cell = tag(keep * c + jax.nn.sigmoid(i) * jnp.tanh(g), "cell")
        hidden = tag(jax.nn.sigmoid(o) * (cell if "hidden" in wrong else jnp.tanh(cell)), "hidden")
        h, c = hidden, cell
    return jnp.sum(h**2)


def in_equinox(name, weight, bias):
    like = (
        eqx.nn.LayerNorm(SIZE) if name.startswith("ln") else eqx.nn.Linear(*weight.shape[::-1], key=jax.random.key(0))
    )
    return eqx.tree_at(lambda layer: (layer.weight, layer.bias), like, (weight, bias))


def in_linen(name, weight, bias):
    return {"scale" if name.startswith("ln") else "kernel": weight.T, "bias": bias}


def in_nnx(name, weight, bias):
    like = nnx.LayerNorm(SIZE, epsilon=1e-5, rngs=nnx.Rngs(0))
    if not name.startswith("ln"):
        like = nnx.Linear(*weight.shape[::-1], rngs=nnx.Rngs(0))
    graph, state = nnx.split(like)
    nnx.replace_by_pure_dict(state, in_linen(name, weight, bias))
    GRAPHS[name] = graph
    return state


GRAPHS = {}


def by_equinox(params, name, x):
    apply = params[name]
    for _ in range(x.ndim - 1):
        apply = jax.vmap(apply)
    return apply(x)


def by_linen(params, name, x):
    layer = linen.LayerNorm(epsilon=1e-5) if name.startswith("ln") else linen.Dense(params[name]["kernel"].shape[-1])
    return layer.apply({"params": params[name]}, x)


def by_nnx(params, name, x):
    return nnx.merge(GRAPHS[name], params[name])(x)


LIBRARIES = {"equinox": (in_equinox, by_equinox), "linen": (in_linen, by_linen), "nnx": (in_nnx, by_nnx)}
MODELS = {
    "transformer": (TorchBlock, block, ["scores", "act"]),
    "lstm": (TorchLSTM, lstm, ["keep", "hidden"]),
}


@pytest.fixture(params=LIBRARIES)
def library(request):
    return LIBRARIES[request.param]


@pytest.fixture(params=MODELS)
def journey(request, library):
    """The reference; a port by its mistakes, and its arguments; the names of its two mistakes."""
    (convert, call), (original, ported, mistakes) = library, MODELS[request.param]
    torch.manual_seed(0)
    model = original()
    x = torch.randn(2, STEPS, SIZE)
    params = {
        name: convert(name, *(jnp.asarray(p.detach().numpy()) for p in (layer.weight, layer.bias)))
        for name, layer in model.named_children()
    }

    def port(*wrong):
        def loss(params, x):
            return ported(lambda name, x: tag(call(params, name, x), name), x, wrong)

        return loss

    return retain_torch(model)(x), port, (params, jnp.asarray(x.numpy())), mistakes


def different(comparison):
    """What differs but the gradients of arguments, without the numbers of steps."""
    wrong = (row for row in comparison.rows if not row.ok and not row.name.startswith("arg"))
    return list(dict.fromkeys(row.label.partition("[")[0] for row in wrong))


def test_a_right_port_agrees_in_every_name_and_every_parameter(journey):
    want, port, args, _ = journey
    got = retain_grads(port(), argnums=0)(*args)
    names = align(got, want)
    comparison = compare(got, want, names=names, rtol=1e-4, atol=1e-6)  # float32 through some 20 operations
    assert comparison.ok, str(comparison)
    assert set(got.names) <= set(names)
    assert {name for name in want.names if name.endswith((".weight", ".bias"))} <= set(names.values())


def test_two_mistakes_are_found_by_name(journey):
    want, port, args, mistakes = journey
    wrong = port(*mistakes)
    got = retain_grads(wrong, argnums=0)(*args)
    names = align(got, want)
    first = compare(got, want, names=names, rtol=1e-4, atol=1e-6).first_divergence
    assert first.name.partition("[")[0] == mistakes[0]
    forced = retain_grads(wrong, argnums=0, forced=want, names=names)(*args)
    found = different(compare(forced, want, names=names, rtol=1e-4, atol=1e-6))
    values = [label for label in found if label in got.names or label in mistakes]
    assert values == mistakes
