"""Programs of the study of verdicts, each written twice, as one who ports a model does; and mistakes to plant."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxgrad import tag


class Case(NamedTuple):
    """A program: the original, its port, and the arguments of a seed, in float32."""

    original: Callable[..., Any]
    ported: Callable[..., Any]
    draw: Callable[[np.random.Generator], tuple[Any, ...]]


def arguments(case, seed, dtype):
    """The arguments of a seed in a dtype; integers stay what they are."""
    given = case.draw(np.random.default_rng(seed))
    return jax.tree.map(lambda a: jnp.asarray(a, dtype if a.dtype == np.float32 else a.dtype), given)


def normal(rng, *shape):
    """Weights of the usual size: the root of 1 over the length of their sums."""
    return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def rows(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def neuron(x, w):
    z = tag(w[0] * x[0] + w[1] * x[1] + w[2], "z")
    return tag(1 / tag(1 + tag(jnp.exp(-z), "k"), "h"), "f")


def neuron_ported(x, w):
    z = tag(w[2] + w[:2] @ x, "z")
    k = tag(1 / jnp.exp(z), "k")
    return tag(tag(k + 1, "h") ** -1, "f")


def mlp(p, x):
    for i, w in enumerate(p):
        x = tag(jnp.tanh(x @ w), f"h{i}")
    return jnp.mean(x**2)


def mlp_ported(p, x):
    for i, w in enumerate(p):
        x = tag(jnp.tanh(jnp.einsum("ik,jk->ij", x, w.T)), f"h{i}")
    return jnp.sum(x * x) / x.size


def layer_norm(h, gain, shift, eps):
    mean = h.mean(-1, keepdims=True)
    variance = ((h - mean) ** 2).mean(-1, keepdims=True)
    return (h - mean) / jnp.sqrt(variance + eps) * gain + shift


def layer_norm_ported(h, gain, shift, eps=1e-5, outside=False):
    centred = h - jnp.sum(h, -1, keepdims=True) / h.shape[-1]
    variance = jnp.sum(centred * centred, -1, keepdims=True) / h.shape[-1]
    scale = 1 / (jnp.sqrt(variance) + eps) if outside else lax.rsqrt(variance + eps)
    return shift + gain * (centred * scale)


def blocks(p, x):
    for i, (gain, shift, w, v) in enumerate(p):
        h = tag(layer_norm(x, gain, shift, 1e-5), f"norm{i}")
        x = tag(x + jax.nn.gelu(h @ w) @ v, f"block{i}")
    return jnp.mean(x**2)


def blocks_ported(p, x, eps=(1e-5,) * 4, outside=()):
    for i, (gain, shift, w, v) in enumerate(p):
        h = tag(layer_norm_ported(x, gain, shift, eps[i], i in outside), f"norm{i}")
        x = tag(jnp.einsum("ik,kj->ij", jax.nn.gelu(jnp.einsum("ik,jk->ij", h, w.T)), v) + x, f"block{i}")
    return jnp.sum(x * x) / x.size


def scanned_blocks(p, x):
    def block(x, p):
        gain, shift, w, v = p
        h = tag(layer_norm(x, gain, shift, 1e-5), "norm")
        return tag(x + jax.nn.gelu(h @ w) @ v, "block"), None

    return jnp.mean(lax.scan(block, x, p)[0] ** 2)


def scanned_blocks_ported(p, x, eps=(1e-5,) * 4):
    def block(x, given):
        (gain, shift, w, v), eps = given
        h = tag(layer_norm_ported(x, gain, shift, eps), "norm")
        return tag(jnp.einsum("ik,kj->ij", jax.nn.gelu(jnp.einsum("ik,jk->ij", h, w.T)), v) + x, "block"), None

    y = lax.scan(block, x, (p, jnp.asarray(eps, x.dtype)))[0]
    return jnp.sum(y * y) / y.size


def attention(p, x):
    q, k, v = (tag(x @ p[name], name) for name in "qkv")
    s = tag(q @ k.T / math.sqrt(q.shape[-1]), "score")
    a = tag(jax.nn.softmax(jnp.where(jnp.tril(jnp.ones(s.shape, bool)), s, -jnp.inf)), "weights")
    return jnp.mean(tag(x + tag(a @ v, "mixed") @ p["w"], "y") ** 2)


def attention_ported(p, x, detached=False):
    q, k, v = (tag(jnp.einsum("ik,jk->ij", x, p[name].T), name) for name in "qkv")
    s = tag(jnp.einsum("ik,jk->ij", q, k) * q.shape[-1] ** -0.5, "score")
    e = jnp.where(jnp.tril(jnp.ones(s.shape, bool)), s, -jnp.inf)
    e = lax.stop_gradient(e) if detached else e
    e = jnp.exp(e - lax.stop_gradient(jnp.max(e, -1, keepdims=True)))
    a = tag(e / jnp.sum(e, -1, keepdims=True), "weights")
    y = tag(tag(jnp.einsum("ij,jk->ik", a, v), "mixed") @ p["w"] + x, "y")
    return jnp.sum(y * y) / y.size


def convolution(p, x):
    h = tag(lax.conv_general_dilated(x, p["kernel"], (1, 1), "VALID"), "conv")
    pooled = lax.reduce_window(jax.nn.relu(h), -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    y = tag(pooled.reshape(len(x), -1) @ p["w"], "y")
    return jnp.mean(y**2)


def convolution_ported(p, x):
    n, _, height, width = (*x.shape[:2], x.shape[2] - 2, x.shape[3] - 2)
    patches = jnp.stack([x[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)], 2)
    kernel = p["kernel"].reshape(*p["kernel"].shape[:2], 9)
    h = tag(jnp.einsum("ncphw,ocp->nohw", patches, kernel), "conv")
    pooled = jnp.maximum(h, 0).reshape(n, -1, height // 2, 2, width // 2, 2).max((3, 5))
    y = tag(jnp.einsum("ni,ij->nj", pooled.reshape(n, -1), p["w"]), "y")
    return jnp.sum(y * y) / y.size


def recurrent(p, xs):
    def step(h, x):
        h = tag(jnp.tanh(h @ p["h"] + x @ p["x"]), "h")
        return h, None

    return jnp.mean(lax.scan(step, jnp.zeros_like(xs[0] @ p["x"]), xs)[0] ** 2)


def recurrent_ported(p, xs):
    def step(h, x):
        h = tag(jnp.tanh(jnp.concatenate([x, h], -1) @ jnp.concatenate([p["x"], p["h"]])), "h")
        return h, None

    h = lax.scan(step, jnp.zeros_like(xs[0] @ p["x"]), xs)[0]
    return jnp.sum(h * h) / h.size


def cross_entropy(w, x, classes):
    logits = tag(x @ w, "logits")
    own = jnp.take_along_axis(logits, classes[:, None], -1)[:, 0]
    losses = tag(jax.nn.logsumexp(logits, -1) - own, "losses")
    return jnp.mean(losses)


def cross_entropy_ported(w, x, classes, short=0):
    logits = tag(jnp.einsum("ik,jk->ij", x, w.T), "logits")
    hot = jax.nn.one_hot(classes, logits.shape[-1], dtype=logits.dtype)
    losses = tag(-jnp.sum(hot * jax.nn.log_softmax(logits), -1), "losses")
    return jnp.sum(losses) / (len(x) - short)


def variance(x):
    mean = tag(jnp.mean(x), "mean")
    return tag(jnp.mean((x - mean) ** 2), "variance")


def variance_ported(x, ddof=0):
    mean = tag(jnp.sum(x) / x.size, "mean")
    centred = x - mean
    return tag(centred @ centred / (x.size - ddof), "variance")


def long_sum(x):
    total = tag(jnp.sum(x * x[::-1]), "total")
    return jnp.sin(total)


def long_sum_ported(x):
    total = tag(x @ x[::-1], "total")
    return jnp.sin(total)


def _attention(dim):
    def draw(rng):
        shapes = {"q": (16, dim), "k": (16, dim), "v": (16, dim), "w": (dim, 16)}
        return {name: normal(rng, *shape) for name, shape in shapes.items()}, rows(rng, 8, 16)

    return Case(attention, attention_ported, draw)


def _draw_blocks(rng):
    block = lambda: (1 + normal(rng, 16), normal(rng, 16), normal(rng, 16, 32), normal(rng, 32, 16))  # noqa: E731
    return [block() for _ in range(4)], rows(rng, 8, 16)


def _draw_stacked_blocks(rng):
    blocks, x = _draw_blocks(rng)
    return tuple(np.stack(leaves) for leaves in zip(*blocks, strict=True)), x


CASES = {
    "neuron": Case(neuron, neuron_ported, lambda rng: (rows(rng, 2), rows(rng, 3))),
    "MLP": Case(mlp, mlp_ported, lambda rng: ([normal(rng, 16, 16) for _ in range(6)], rows(rng, 8, 16))),
    "residual blocks": Case(blocks, blocks_ported, _draw_blocks),
    "scanned blocks": Case(scanned_blocks, scanned_blocks_ported, _draw_stacked_blocks),
    "attention, 1": _attention(1),
    "attention, 2": _attention(2),
    "attention, 8": _attention(8),
    "conv and pool": Case(
        convolution,
        convolution_ported,
        lambda rng: ({"kernel": rows(rng, 4, 2, 3, 3) / 4, "w": normal(rng, 36, 3)}, rows(rng, 2, 2, 8, 8)),
    ),
    "RNN": Case(
        recurrent, recurrent_ported, lambda rng: ({"h": normal(rng, 8, 8), "x": normal(rng, 4, 8)}, rows(rng, 12, 3, 4))
    ),
    "logsumexp": Case(
        cross_entropy,
        cross_entropy_ported,
        lambda rng: (normal(rng, 16, 10) * 2, rows(rng, 8, 16), rng.integers(0, 10, 8).astype(np.int32)),
    ),
    "variance": Case(variance, variance_ported, lambda rng: (3 + rows(rng, 64),)),
    "long sum": Case(long_sum, long_sum_ported, lambda rng: (rows(rng, 4096) / 64,)),
}

# mistake -> (case, the port with it, the row that must be named)
PLANTED = {
    "LayerNorm's eps in block 4": (
        "residual blocks",
        functools.partial(blocks_ported, eps=(1e-5, 1e-5, 1e-5, 1e-6)),
        "norm3",
    ),
    "LayerNorm's eps in step 4 of a scan": (
        "scanned blocks",
        functools.partial(scanned_blocks_ported, eps=(1e-5, 1e-5, 1e-5, 1e-6)),
        "norm",
    ),
    "eps outside the root in block 4": ("residual blocks", functools.partial(blocks_ported, outside=(3,)), "norm3"),
    "a detached score": ("attention, 2", functools.partial(attention_ported, detached=True), "score.grad"),
    "cross entropy over n - 1": ("logsumexp", functools.partial(cross_entropy_ported, short=1), "output"),
    "variance with n - 1": ("variance", functools.partial(variance_ported, ddof=1), "variance"),
}
