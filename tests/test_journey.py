"""Porting a model: in three lines where a port departs from its PyTorch original, and forced, each place by itself."""

import itertools
import os
import re

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

pytestmark = pytest.mark.torch

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


class TorchResNet(nn.Module):
    """A block of a ResNet, of images N C H W."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(SIZE, SIZE, 3, padding=1, bias=False) for _ in range(2))
        self.bn1, self.bn2 = nn.BatchNorm2d(SIZE), nn.BatchNorm2d(SIZE)
        for layer in (self.bn1, self.bn2):
            nn.init.uniform_(layer.weight, 0.5, 1.5)

    def forward(self, x):
        act = torch.relu(self.bn1(self.conv1(x)))
        res = self.bn2(self.conv2(act))
        out = torch.relu(res + x)
        return out.square().mean()


class ResNet:
    """Its port; in Linen and NNX the images are N H W C, and the batch's statistics are kept by the layers."""

    layers = ("conv1", "conv2", "bn1", "bn2")

    def __call__(self, x):
        act = jax.nn.relu(normalized(self.bn1, each(self.conv1, x), running="bn1" in self.wrong))
        res = normalized(self.bn2, each(self.conv2, act))
        out = jax.nn.relu(res) + x if "out" in self.wrong else jax.nn.relu(res + x)
        return jnp.mean(out**2)


def normalized(layer, x, running=False):
    if isinstance(layer, eqx.Module):
        state = eqx.nn.State(layer)
        return jax.vmap(lambda x: layer(x, state, inference=running)[0], axis_name="batch")(x)
    return layer(x, use_running_average=running)


def each(layer, x):
    """A layer at each row; those of Equinox take one, or one image."""
    if isinstance(layer, eqx.Module):
        for _ in range(1 if isinstance(layer, eqx.nn.Conv) else x.ndim - 1):
            layer = jax.vmap(layer)
    return layer(x)


def in_equinox(port, weights, wrong):
    """A loss, and the model that it is of."""

    def layer(name, weight, bias=None):
        key = jax.random.key(0)
        if weight.ndim == 4:
            like = eqx.filter_eval_shape(eqx.nn.Conv2d, SIZE, SIZE, 3, padding=1, use_bias=False, key=key)
        elif weight.ndim == 2:
            like = eqx.filter_eval_shape(eqx.nn.Linear, *weight.shape[::-1], key=key)
        else:
            like = eqx.nn.BatchNorm(SIZE, "batch", mode="batch") if "bn" in name else eqx.nn.LayerNorm(SIZE)
        return eqx.tree_at(
            lambda layer: [p for p in (layer.weight, layer.bias) if p is not None],
            like,
            [weight, *([] if bias is None else [bias])],
        )

    fields = dict.fromkeys(port.layers, eqx.Module)
    cls = type(port.__name__, (port, eqx.Module), {"__annotations__": fields, "wrong": wrong, "__module__": __name__})
    return (lambda model, x: model(x)), cls(**{name: layer(name, *pair) for name, pair in weights.items()})


def in_linen(port, weights, wrong):
    def layer(name, weight, bias=None):
        if weight.ndim == 4:
            return linen.Conv(SIZE, (3, 3), use_bias=False)
        if weight.ndim == 2:
            return linen.Dense(len(bias))
        return linen.BatchNorm() if "bn" in name else linen.LayerNorm(epsilon=1e-5)

    def setup(self):
        for name, given in weights.items():
            setattr(self, name, layer(name, *given))

    cls = type(port.__name__, (port, linen.Module), {"setup": setup, "wrong": wrong, "__module__": __name__})
    model = cls()
    stats = {name: {"mean": jnp.zeros(SIZE), "var": jnp.ones(SIZE)} for name in weights if "bn" in name}
    params = {name: kernel(*given) for name, given in weights.items()}
    return (lambda given, x: model.apply(given, x, mutable=["batch_stats"])[0]), {
        "params": params,
        "batch_stats": stats,
    }


def in_nnx(port, weights, wrong):
    def layer(name, weight, bias=None):
        def abstract(kind, *sizes, **options):  # to draw weights would take longer than all else here
            return nnx.eval_shape(lambda: kind(*sizes, rngs=nnx.Rngs(0), **options))

        if weight.ndim == 4:
            like = abstract(nnx.Conv, SIZE, SIZE, (3, 3), use_bias=False)
        elif weight.ndim == 2:
            like = abstract(nnx.Linear, *weight.shape[::-1])
        elif "bn" in name:
            like = nnx.BatchNorm(SIZE, rngs=nnx.Rngs(0))
        else:
            like = abstract(nnx.LayerNorm, SIZE, epsilon=1e-5)
        for at, value in kernel(weight, bias).items():
            setattr(like, at, nnx.Param(value))
        return like

    model = type(port.__name__, (port, nnx.Module), {"wrong": wrong, "__module__": __name__})()
    for name, given in weights.items():
        setattr(model, name, layer(name, *given))
    return (lambda model, x: model(x)), model


def kernel(weight, bias=None):
    """Flax's names and layouts of a weight and a bias."""
    named = {"scale": weight} if weight.ndim == 1 else {"kernel": jnp.moveaxis(weight, (1, 0), (-2, -1))}
    return named if bias is None else named | {"bias": bias}


LIBRARIES = {"equinox": in_equinox, "linen": in_linen, "nnx": in_nnx}
MODELS = {
    "transformer": (TorchBlock, Block, ["scores", "act"]),
    "lstm": (TorchLSTM, LSTM, ["keep", "hidden"]),
    "resnet": (TorchResNet, ResNet, ["bn1", "out"]),
}


# Each model and each library; the other pairs are deep.
QUICK = {("transformer", "nnx"), ("lstm", "equinox"), ("lstm", "linen"), ("resnet", "equinox")}
PAIRS = [
    pytest.param(pair, id="-".join(pair), marks=[] if pair in QUICK else pytest.mark.deep)
    for pair in itertools.product(MODELS, LIBRARIES)
]


@pytest.fixture(params=PAIRS)
def journey(request):
    """The reference; a port and its arguments, by its mistakes; the names of its two mistakes."""
    model, library = request.param
    (original, ported, mistakes), library = MODELS[model], LIBRARIES[library]
    torch.manual_seed(0)
    model = original()
    x = torch.randn(2, SIZE, 5, 6) if original is TorchResNet else torch.randn(2, STEPS, SIZE)
    weights = {
        name: [jnp.asarray(p.detach().numpy()) for p in layer.parameters()] for name, layer in model.named_children()
    }
    like = x.movedim(1, -1) if x.ndim == 4 and library is not in_equinox else x

    def port(*wrong):
        loss, params = library(ported, weights, wrong)
        return loss, (params, jnp.asarray(like.numpy()))

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
    comparison = compare(got, want, names=names)
    assert comparison.ok, str(comparison)
    # Equinox's BatchNorm returns its state too.
    assert {name: names.get(name) for name in got.names} == {
        name: re.sub(r"(bn.)\[0\]", r"\1", name) for name in got.names
    }
    assert {name for name in want.names if name.endswith((".weight", ".bias"))} <= set(names.values())


def test_two_mistakes_are_found_by_name(journey):
    want, port, mistakes = journey
    loss, args = port(*mistakes)
    got = retain_grads(watch(loss), argnums=0)(*args)
    names = align(got, want)
    first = compare(got, want, names=names).first_divergence
    assert first.name.partition("[")[0] == mistakes[0]
    forced = retain_grads(watch(loss), argnums=0, forced=want, names=names)(*args)
    assert different(compare(forced, want, names=names)) == mistakes


def test_a_scanned_lstm_is_held_to_pytorchs_own():
    torch.manual_seed(0)
    lstm, x = nn.LSTM(SIZE, SIZE, batch_first=True), torch.randn(2, STEPS, SIZE)
    params = {name: jnp.asarray(p.detach().numpy()) for name, p in lstm.named_parameters()}

    def original(x):
        out = lstm(x)[0]
        return out.square().sum()

    def port(params, x, forget=0.0):
        def step(carry, x):
            h, c = carry
            gates = x @ params["weight_ih_l0"].T + params["bias_ih_l0"]
            gates += h @ params["weight_hh_l0"].T + params["bias_hh_l0"]
            i, f, g, o = jnp.split(gates, 4, -1)
            c = jax.nn.sigmoid(f + forget) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zeros = jnp.zeros((len(x), SIZE))
        out = jax.lax.scan(step, (zeros, zeros), jnp.swapaxes(x, 0, 1))[1]
        return jnp.sum(out**2)

    want = retain_torch(original)(x)
    for forget, wrong in ((0.0, None), (1.0, "out")):
        got = jax.jit(retain_grads(watch(port), argnums=0))(params, jnp.asarray(x.numpy()), forget)
        names = align(got, want)
        assert {"out", *params} <= set(names.values())
        comparison = compare(got, want, names=names)
        first = comparison.first_divergence
        assert (first and first.name) == wrong, str(comparison)
