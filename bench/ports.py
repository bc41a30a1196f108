"""Programs as PyTorch has them and as one ports them to JAX; and mistakes to plant in a port.

Each original is `(keep, *tensors) -> loss`, where `keep(tensor, name)` names an intermediate, as `jaxgrad.tag` does in
the port. Arguments are of float32 and random: weights scaled by the root of 1 over the length of their sums.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from jax import lax

from jaxgrad import tag


class Case(NamedTuple):
    original: Callable[..., Any]
    port: Callable[..., Any]
    draw: Callable[[np.random.Generator], tuple[Any, ...]]


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray[Any, Any]:
    return (rng.standard_normal(shape) / math.sqrt(shape[0])).astype(np.float32)


def rows(rng: np.random.Generator, *shape: int) -> np.ndarray[Any, Any]:
    return rng.standard_normal(shape).astype(np.float32)


def neuron_torch(keep, x, w):
    z = keep(w[0] * x[0] + w[1] * x[1] + w[2], "z")
    return keep(1 / keep(1 + keep(torch.exp(-z), "k"), "h"), "f")


def neuron(x, w):
    z = tag(w[:2] @ x + w[2], "z")
    return tag(1 / tag(1 + tag(jnp.exp(-z), "k"), "h"), "f")


def mlp_torch(keep, p, x):
    for i, (w, b) in enumerate(p):
        x = keep(torch.tanh(F.linear(x, w.T, b)), f"h{i}")
    return (x**2).mean()


def mlp(p, x):
    for i, (w, b) in enumerate(p):
        x = tag(jnp.tanh(x @ w + b), f"h{i}")
    return jnp.mean(x**2)


def relu_mlp_torch(keep, p, x):
    for i, (w, b) in enumerate(p):
        x = keep(F.relu(F.linear(x, w.T, b)), f"h{i}")
    return x.sum() / len(x)


def relu_mlp(p, x):
    for i, (w, b) in enumerate(p):
        x = tag(jax.nn.relu(x @ w + b), f"h{i}")
    return jnp.sum(x) / len(x)


def layer_norm_torch(keep, gain, shift, x):
    y = keep(F.layer_norm(x, x.shape[-1:], gain, shift, 1e-5), "y")
    return torch.sin(y).mean()


def layer_norm(gain, shift, x):
    return jnp.mean(jnp.sin(tag(_norm(x, gain, shift), "y")))


def _norm(x, gain, shift, eps=1e-5, outside=False):
    mean = jnp.mean(x, -1, keepdims=True)
    variance = jnp.var(x, -1, keepdims=True)
    scale = 1 / (jnp.sqrt(variance) + eps) if outside else lax.rsqrt(variance + eps)
    return (x - mean) * scale * gain + shift


def blocks_torch(keep, p, x):
    for i, (gain, shift, w, v) in enumerate(p):
        h = keep(F.layer_norm(x, x.shape[-1:], gain, shift, 1e-5), f"norm{i}")
        x = keep(x + F.gelu(h @ w) @ v, f"block{i}")
    return (x**2).mean()


def blocks(p, x, eps=1e-5, outside=False, approximate=False):
    """The mistakes are in the fourth block alone."""
    for i, (gain, shift, w, v) in enumerate(p):
        last = i == 3
        h = tag(_norm(x, gain, shift, eps if last else 1e-5, outside and last), f"norm{i}")
        x = tag(x + jax.nn.gelu(h @ w, approximate=approximate and last) @ v, f"block{i}")
    return jnp.mean(x**2)


def attention_torch(keep, p, x):
    q, k, v = (keep(x @ p[name], name) for name in "qkv")
    s = keep(q @ k.T / math.sqrt(q.shape[-1]), "score")
    s = s.masked_fill(~torch.tril(torch.ones(s.shape, dtype=torch.bool)), -math.inf)
    a = keep(torch.softmax(s, -1), "weights")
    return (keep(x + keep(a @ v, "mixed") @ p["w"], "y") ** 2).mean()


def attention(p, x, detached=False, scale=True):
    q, k, v = (tag(x @ p[name], name) for name in "qkv")
    s = tag(jnp.einsum("ik,jk->ij", q, k) / (math.sqrt(q.shape[-1]) if scale else 1), "score")
    s = lax.stop_gradient(s) if detached else s
    a = tag(jax.nn.softmax(jnp.where(jnp.tril(jnp.ones(s.shape, bool)), s, -jnp.inf)), "weights")
    return jnp.mean(tag(x + tag(a @ v, "mixed") @ p["w"], "y") ** 2)


def convolution_torch(keep, p, x):
    h = keep(F.conv2d(x, p["kernel"]), "conv")
    y = keep(F.max_pool2d(F.relu(h), 2).flatten(1) @ p["w"], "y")
    return (y**2).mean()


def convolution(p, x):
    h = tag(lax.conv_general_dilated(x, p["kernel"], (1, 1), "VALID"), "conv")
    pooled = lax.reduce_window(jax.nn.relu(h), -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return jnp.mean(tag(pooled.reshape(len(x), -1) @ p["w"], "y") ** 2)


def recurrent_torch(keep, p, xs):
    h, steps = xs[0] @ p["x"] * 0, []
    for x in xs:
        h = torch.tanh(h @ p["h"] + x @ p["x"])
        steps.append(h)
        h.retain_grad()
    keep(steps, "h")
    return (h**2).mean()


def recurrent(p, xs):
    def step(h, x):
        h = tag(jnp.tanh(h @ p["h"] + x @ p["x"]), "h")
        return h, None

    return jnp.mean(lax.scan(step, jnp.zeros_like(xs[0] @ p["x"]), xs)[0] ** 2)


def cross_entropy_torch(keep, w, x, classes):
    logits = keep(x @ w, "logits")
    losses = keep(torch.logsumexp(logits, -1) - logits.gather(-1, classes[:, None].long())[:, 0], "losses")
    return losses.mean()


def cross_entropy(w, x, classes, short=0):
    logits = tag(x @ w, "logits")
    own = jnp.take_along_axis(logits, classes[:, None], -1)[:, 0]
    return jnp.sum(tag(jax.nn.logsumexp(logits, -1) - own, "losses")) / (len(x) - short)


def variance_torch(keep, x):
    return keep(torch.var(x, unbiased=False), "variance")


def variance(x, ddof=0):
    return tag(jnp.var(x, ddof=ddof), "variance")


def long_sum_torch(keep, x):
    return torch.sin(keep((x * x.flip(0)).sum(), "total"))


def long_sum(x):
    return jnp.sin(tag(jnp.sum(x * x[::-1]), "total"))


def _layers(rng):
    return [(weights(rng, 16, 16), weights(rng, 16)) for _ in range(6)], rows(rng, 8, 16)


def _blocks(rng):
    block = lambda: (1 + weights(rng, 16), weights(rng, 16), weights(rng, 16, 32), weights(rng, 32, 16))  # noqa: E731
    return [block() for _ in range(4)], rows(rng, 8, 16)


def _attention(dim):
    def draw(rng):
        shapes = {"q": (16, dim), "k": (16, dim), "v": (16, dim), "w": (dim, 16)}
        return {name: weights(rng, *shape) for name, shape in shapes.items()}, rows(rng, 8, 16)

    return Case(attention_torch, attention, draw)


CASES = {
    "neuron": Case(neuron_torch, neuron, lambda rng: (rows(rng, 2), rows(rng, 3))),
    "MLP, tanh": Case(mlp_torch, mlp, _layers),
    "MLP, relu": Case(relu_mlp_torch, relu_mlp, _layers),
    "LayerNorm": Case(
        layer_norm_torch, layer_norm, lambda rng: (1 + weights(rng, 64), rows(rng, 64), rows(rng, 8, 64))
    ),
    "four residual blocks": Case(blocks_torch, blocks, _blocks),
    "causal attention, 1": _attention(1),
    "causal attention, 2": _attention(2),
    "causal attention, 8": _attention(8),
    "conv and pool": Case(
        convolution_torch,
        convolution,
        lambda rng: ({"kernel": rows(rng, 4, 2, 3, 3) / 4, "w": weights(rng, 36, 3)}, rows(rng, 2, 2, 8, 8)),
    ),
    "RNN, scanned": Case(
        recurrent_torch,
        recurrent,
        lambda rng: ({"h": weights(rng, 8, 8), "x": weights(rng, 4, 8)}, rows(rng, 12, 3, 4)),
    ),
    "logsumexp": Case(
        cross_entropy_torch,
        cross_entropy,
        lambda rng: (2 * weights(rng, 16, 10), rows(rng, 8, 16), rng.integers(0, 10, 8).astype(np.int32)),
    ),
    "variance": Case(variance_torch, variance, lambda rng: (3 + rows(rng, 64),)),
    "sum of 4,096": Case(long_sum_torch, long_sum, lambda rng: (rows(rng, 4096) / 64,)),
}

# mistake -> (case, the port with it, the row that must be named)
MISTAKES = {
    "eps 1e-6 in block 4": ("four residual blocks", functools.partial(blocks, eps=1e-6), "norm3"),
    "eps outside the root in block 4": ("four residual blocks", functools.partial(blocks, outside=True), "norm3"),
    "tanh-GELU in block 4": ("four residual blocks", functools.partial(blocks, approximate=True), "block3"),
    "a detached score": ("causal attention, 8", functools.partial(attention, detached=True), "score.grad"),
    "an unscaled score": ("causal attention, 8", functools.partial(attention, scale=False), "score"),
    "cross entropy over n - 1": ("logsumexp", functools.partial(cross_entropy, short=1), "output"),
    "variance with n - 1": ("variance", functools.partial(variance, ddof=1), "variance"),
}
