"""Ports that are honest and hard to judge: the same mathematics in another form; and mistakes that are easy to miss.

As `ports`: each original is `(keep, *tensors) -> loss`, each port uses `jaxgrad.tag`.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from jax import lax
from ports import Case, rows, weights

from jaxgrad import tag


def _heads(rng, n, d, heads=2, batch=2):
    p = {name: weights(rng, 16, heads * d) for name in "qkv"} | {"w": weights(rng, heads * d, 16)}
    return p, rows(rng, batch, n, 16)


def heads_torch(keep, p, x, d=8, mask=-math.inf, causal=True, subtract=True):
    def split(name):
        return (x @ p[name]).reshape(*x.shape[:2], -1, d).transpose(1, 2)

    q, k, v = (keep(split(name), name) for name in "qkv")
    s = keep(q @ k.transpose(-1, -2) / math.sqrt(d), "score")
    if causal:
        s = s.masked_fill(~torch.tril(torch.ones(s.shape[-2:], dtype=torch.bool)), mask)
    if subtract:
        a = torch.softmax(s, -1)
    else:
        e = torch.exp(s)
        a = e / e.sum(-1, keepdim=True)
    a = keep(a, "weights")
    y = keep(a @ v, "mixed").transpose(1, 2).reshape(*x.shape[:2], -1) @ p["w"]
    return (keep(x + y, "y") ** 2).mean()


def heads(p, x, d=8, mask=-jnp.inf, causal=True, subtract=True, axis=-1, scale=None, residual=True, off=0, detached=""):
    def split(name):
        return jnp.einsum("bnc,chd->bhnd", x, p[name].reshape(x.shape[-1], -1, d))

    q, k, v = (tag(split(name), name) for name in "qkv")
    q, k = (lax.stop_gradient(a) if detached == name else a for name, a in (("q", q), ("k", k)))
    s = tag(jnp.einsum("bhid,bhjd->bhij", q, k) * (d**-0.5 if scale is None else scale), "score")
    if causal:
        n = s.shape[-1]
        s = jnp.where(jnp.arange(n)[:, None] + off >= jnp.arange(n)[None], s, jnp.asarray(mask, s.dtype))
    m = lax.stop_gradient(s.max(axis, keepdims=True)) if subtract else 0
    e = jnp.exp(s - m)
    a = tag(e / jnp.sum(e, axis, keepdims=True), "weights")
    y = jnp.einsum(
        "bhnd,hdc->bnc", tag(jnp.einsum("bhij,bhjd->bhid", a, v), "mixed"), p["w"].reshape(-1, d, x.shape[-1])
    )
    return jnp.mean(jnp.square(tag(x + y if residual else y, "y")))


def masked_rows_torch(keep, p, x):
    s = keep(x @ p @ x.T, "score")
    m = torch.ones(s.shape, dtype=torch.bool)
    m[2] = False
    m[:, 5] = False
    a = keep(torch.softmax(s.masked_fill(~m, -1e9), -1), "weights")
    return (keep(a @ x, "y") ** 2).sum()


def masked_rows(p, x):
    s = tag(x @ (p @ x.T), "score")
    i, j = jnp.indices(s.shape)
    a = tag(jax.nn.softmax(jnp.where((i != 2) & (j != 5), s, jnp.asarray(-1e9, s.dtype))), "weights")
    return jnp.sum(tag(a @ x, "y") ** 2)


def norm_torch(keep, gain, shift, x, one_pass=False):
    y = keep(F.layer_norm(x, x.shape[-1:], gain, shift, 1e-5), "y")
    return torch.sin(y).mean()


def norm_one_pass(gain, shift, x, eps=1e-5, ddof=0):
    mean = jnp.mean(x, -1, keepdims=True)
    n = x.shape[-1]
    variance = (jnp.mean(x * x, -1, keepdims=True) - mean * mean) * (n / (n - ddof))
    return jnp.mean(jnp.sin(tag((x - mean) / jnp.sqrt(variance + eps) * gain + shift, "y")))


def rms_torch(keep, gain, w, x):
    for i in range(3):
        y = keep(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * gain, f"norm{i}")
        x = keep(x + F.silu(y @ w), f"x{i}")
    return x.pow(2).mean()


def rms(gain, w, x, eps=1e-6, at=2):
    for i in range(3):
        e = eps if i == at else 1e-6
        y = tag(gain * x / jnp.sqrt(jnp.sum(x * x, -1, keepdims=True) / x.shape[-1] + e), f"norm{i}")
        h = y @ w
        x = tag(x + h / (1 + jnp.exp(-h)), f"x{i}")
    return jnp.sum(x * x) / x.size


def group_torch(keep, gain, shift, x):
    y = keep(F.group_norm(x, 2, gain, shift, 1e-5), "y")
    return torch.tanh(y).mean()


def group(gain, shift, x, eps=1e-5, groups=2):
    g = x.reshape(x.shape[0], groups, -1)
    c = g - g.mean(-1, keepdims=True)
    y = (c * lax.rsqrt(jnp.mean(c**2, -1, keepdims=True) + eps)).reshape(x.shape)
    return jnp.mean(jnp.tanh(tag(y * gain[:, None, None] + shift[:, None, None], "y")))


def batch_norm_torch(keep, gain, shift, x, mean, var):
    mean, var = mean.detach().clone(), var.detach().clone()
    y = keep(F.batch_norm(x, mean, var, gain, shift, True, 0.1, 1e-5), "y")
    out = torch.sin(y).mean()
    keep([mean.requires_grad_()], "mean"), keep([var.requires_grad_()], "var")
    return out + 0 * (mean.sum() + var.sum())


def batch_norm(gain, shift, x, mean, var, momentum=0.1, ddof=1, eps=1e-5):
    m, v = x.mean(0), x.var(0)
    y = tag((x - m) * (gain * lax.rsqrt(v + eps)) + shift, "y")
    n = len(x)
    new_mean = tag(((1 - momentum) * mean + momentum * lax.stop_gradient(m))[None], "mean")
    new_var = tag(((1 - momentum) * var + momentum * lax.stop_gradient(v) * n / (n - ddof))[None], "var")
    return jnp.mean(jnp.sin(y)) + 0 * (jnp.sum(new_mean) + jnp.sum(new_var))


def conv_torch(keep, kernel, b, x):
    y = keep(F.conv2d(x, kernel, b, padding=1), "conv")
    return (keep(F.relu(y), "act") ** 2).mean()


def conv_matmul(kernel, b, x, flipped=False, bias=True):
    kernel = kernel[:, :, ::-1, ::-1] if flipped else kernel
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    h, w = x.shape[2:]
    cols = jnp.stack([padded[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)], 2)
    y = jnp.einsum("nckhw,ock->nohw", cols, kernel.reshape(*kernel.shape[:2], 9))
    y = tag(y + b[:, None, None] if bias else y, "conv")
    return jnp.mean(tag(jnp.maximum(y, 0), "act") ** 2)


def logsumexp_torch(keep, w, x):
    z = keep(x @ w, "z")
    return keep(torch.logsumexp(z, -1), "lse").mean()


def logsumexp_naive(w, x):
    z = tag(x @ w, "z")
    return jnp.mean(tag(jnp.log(jnp.sum(jnp.exp(z), -1)), "lse"))


def nll_torch(keep, w, b, x, y):
    logits = keep(x @ w + b, "logits")
    return F.cross_entropy(logits, y.long())


def nll(w, b, x, y, bias=True, total=False, smooth=0.0):
    logits = tag(x @ w + b if bias else x @ w, "logits")
    logp = jax.nn.log_softmax(logits)
    hot = jax.nn.one_hot(y, logits.shape[-1], dtype=logits.dtype) * (1 - smooth) + smooth / logits.shape[-1]
    losses = -jnp.sum(hot * logp, -1)
    return jnp.sum(losses) if total else jnp.mean(losses)


def gru_torch(keep, p, xs):
    h, steps = torch.zeros_like(xs[0] @ p["xr"]), []
    for x in xs:
        r = torch.sigmoid(x @ p["xr"] + h @ p["hr"])
        z = torch.sigmoid(x @ p["xz"] + h @ p["hz"])
        n = torch.tanh(x @ p["xn"] + r * (h @ p["hn"]))
        h = (1 - z) * n + z * h
        h.retain_grad()
        steps.append(h)
    keep(steps, "h")
    return (h**2).mean()


def gru(p, xs, inside=False):
    def step(h, x):
        r = jax.nn.sigmoid(x @ p["xr"] + h @ p["hr"])
        z = jax.nn.sigmoid(x @ p["xz"] + h @ p["hz"])
        n = jnp.tanh(x @ p["xn"] + ((r * h) @ p["hn"] if inside else r * (h @ p["hn"])))
        h = tag(n + z * (h - n), "h")
        return h, None

    return jnp.mean(lax.scan(step, jnp.zeros_like(xs[0] @ p["xr"]), xs)[0] ** 2)


def lstm_torch(keep, p, b, xs):
    n = b.shape[0] // 4
    h = c = torch.zeros_like(xs[0] @ p["x"])[:, :n]
    steps = []
    for x in xs:
        i, f, g, o = (x @ p["x"] + h @ p["h"] + b).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        c.retain_grad()
        steps.append(c)
    keep(steps, "c")
    return (h**2).mean()


def lstm(p, b, xs, bias=True):
    n = b.shape[0] // 4

    def step(state, x):
        h, c = state
        gates = jnp.concatenate([x, h], -1) @ jnp.concatenate([p["x"], p["h"]]) + (b if bias else 0)
        i, f, g, o = jnp.split(gates, 4, -1)
        c = tag(c / (1 + jnp.exp(-f)) + jnp.tanh(g) / (1 + jnp.exp(-i)), "c")
        h = jnp.tanh(c) / (1 + jnp.exp(-o))
        return (h, c), None

    zeros = jnp.zeros_like(xs[0] @ p["x"])[:, :n]
    return jnp.mean(lax.scan(step, (zeros, zeros), xs)[0][0] ** 2)


def embed_torch(keep, table, ids):
    e = keep(F.embedding(ids.long(), table), "e")
    h = keep(torch.tanh(e).mean(1), "h")
    return F.cross_entropy(keep(h @ table.T, "logits"), ids[:, 0].long())


def embed(table, ids, tied=True):
    e = tag(table[ids], "e")
    h = tag(jnp.sum(jnp.tanh(e), 1) / ids.shape[1], "h")
    logits = tag(jnp.einsum("bd,vd->bv", h, table if tied else lax.stop_gradient(table)), "logits")
    own = jnp.take_along_axis(logits, ids[:, :1], 1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, -1) - own)


def pool_torch(keep, x):
    y = keep(F.max_pool2d(torch.relu(keep(x * 1, "x")), 2), "pool")
    return (y**2).mean()


def pool(x):
    h = jax.nn.relu(tag(x * 1, "x"))
    y = tag(lax.reduce_window(h, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID"), "pool")
    return jnp.mean(y**2)


def gelu_torch(keep, w, x):
    for i in range(4):
        x = keep(F.gelu(keep(x @ w, f"z{i}")) + x, f"h{i}")
    return x.pow(2).mean()


def gelu(w, x, approximate=False, residual=True):
    for i in range(4):
        z = tag(x @ w, f"z{i}")
        last = i == 3
        g = jax.nn.gelu(z, approximate=True) if approximate and last else 0.5 * z * lax.erfc(-z * math.sqrt(0.5))
        x = tag(g + x if residual or not last else g, f"h{i}")
    return jnp.mean(x**2)


def softplus_torch(keep, x):
    y = keep(F.softplus(keep(x * 4, "z")), "y")
    return (y * torch.sigmoid(x)).sum()


def softplus(x, naive=False):
    z = tag(x * 4, "z")
    y = tag(jnp.log(1 + jnp.exp(z)) if naive else jnp.logaddexp(z, 0), "y")
    return jnp.sum(y / (1 + jnp.exp(-x)))


def sums_torch(keep, x):
    s = keep(x.sum(-1), "s")
    c = keep(torch.cumsum(x, -1), "c")
    return torch.sin(s).sum() + (c**2).mean()


def sums(x, mean=False):
    s = tag(jnp.mean(x, -1) if mean else jnp.dot(x[:, ::-1], jnp.ones(x.shape[-1], x.dtype)), "s")
    c = tag(lax.associative_scan(jnp.add, x, axis=1), "c")
    return jnp.sum(jnp.sin(s)) + jnp.mean(c**2)


def cosine_torch(keep, a, b, t):
    s = keep(F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T, "sim")
    logits = keep(s * t.exp(), "logits")
    labels = torch.arange(len(a))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def cosine(a, b, t, eps=1e-12, one_side=False):
    def unit(v):
        return v / jnp.maximum(jnp.sqrt(jnp.sum(v * v, -1, keepdims=True)), eps)

    s = tag(unit(a) @ unit(b).T, "sim")
    logits = tag(s * jnp.exp(t), "logits")
    diag = jnp.diagonal(logits)
    rows_, cols = (jnp.mean(jax.nn.logsumexp(logits, i) - diag) for i in (1, 0))
    return rows_ if one_side else (rows_ + cols) / 2


def zeros_torch(keep, x):
    a = keep(torch.relu(x), "relu")
    b = keep(torch.abs(x), "abs")
    c = keep(torch.amax(x, -1), "max")
    return (a**2).sum() + b.sum() * 0.5 + (c**2).sum()


def zeros(x):
    a, b, c = tag(jax.nn.relu(x), "relu"), tag(jnp.abs(x), "abs"), tag(jnp.max(x, -1), "max")
    return jnp.sum(a**2) + jnp.sum(b) * 0.5 + jnp.sum(c**2)


def mix_torch(keep, p, x):
    y = keep(torch.tanh((x.transpose(1, 2) @ p["token"]).transpose(1, 2) + x), "token")
    z = keep(y + F.silu(y @ p["channel"]), "channel")
    return z.mean(1).pow(2).sum()


def mix(p, x, sign=1):
    y = tag(jnp.tanh(jnp.einsum("bnc,nm->bmc", x, p["token"]) + x), "token")
    h = y @ p["channel"]
    h = 2 * lax.stop_gradient(h) - h if sign < 0 else h
    z = tag(y + jax.nn.silu(h), "channel")
    return jnp.sum(jnp.mean(z, 1) ** 2)


def huber_torch(keep, w, x, y):
    r = keep(x @ w - y, "r")
    return keep(F.smooth_l1_loss(r, torch.zeros_like(r)), "loss")


def huber(w, x, y):
    r = tag(x @ w - y, "r")
    return tag(jnp.mean(jnp.where(jnp.abs(r) < 1, 0.5 * r * r, jnp.abs(r) - 0.5)), "loss")


def deep_torch(keep, ws, x):
    for i, w in enumerate(ws):
        x = keep(torch.tanh(x @ w), f"h{i}")
    return x.sum().sin()


def deep(ws, x):
    for i, w in enumerate(ws):
        x = tag(1 - 2 / (jnp.exp(2 * jnp.einsum("ij,jk->ik", x, w)) + 1), f"h{i}")
    return jnp.sin(jnp.sum(x))


def _gates(rng):
    return {name: weights(rng, 4 if name[0] == "x" else 8, 8) for name in ("xr", "xz", "xn", "hr", "hz", "hn")}


def _norm_given(mean):
    return lambda rng: (1 + weights(rng, 64), rows(rng, 64), (mean + rows(rng, 8, 64)).astype(np.float32))


def _partial(fun: Any, **options: Any) -> Any:
    return functools.partial(fun, **options)


CASES = {
    **{
        f"heads of {d}": Case(
            _partial(heads_torch, d=d), _partial(heads, d=d), functools.partial(lambda rng, d: _heads(rng, 8, d), d=d)
        )
        for d in (1, 2, 8, 64)
    },
    "heads, mask -1e9": Case(
        _partial(heads_torch, mask=-1e9), _partial(heads, mask=-1e9), lambda rng: _heads(rng, 8, 8)
    ),
    "heads, softmax bare": Case(heads_torch, _partial(heads, subtract=False), lambda rng: _heads(rng, 8, 8)),
    "heads, no mask": Case(
        _partial(heads_torch, causal=False), _partial(heads, causal=False), lambda rng: _heads(rng, 8, 8)
    ),
    "heads, long": Case(heads_torch, heads, lambda rng: _heads(rng, 64, 8)),
    "rows masked whole": Case(masked_rows_torch, masked_rows, lambda rng: (weights(rng, 8, 8), rows(rng, 6, 8))),
    "LayerNorm, one pass": Case(norm_torch, norm_one_pass, _norm_given(0)),
    "LayerNorm, one pass, mean 3": Case(norm_torch, norm_one_pass, _norm_given(3)),
    "RMSNorm": Case(rms_torch, rms, lambda rng: (1 + weights(rng, 16), weights(rng, 16, 16), rows(rng, 8, 16))),
    "GroupNorm": Case(group_torch, group, lambda rng: (1 + weights(rng, 4), rows(rng, 4), rows(rng, 2, 4, 5, 5))),
    "BatchNorm": Case(
        batch_norm_torch,
        batch_norm,
        lambda rng: (1 + weights(rng, 8), rows(rng, 8), rows(rng, 32, 8), rows(rng, 8), 1 + rows(rng, 8) ** 2),
    ),
    "conv by matmul": Case(
        conv_torch, conv_matmul, lambda rng: (rows(rng, 4, 3, 3, 3) / 5, rows(rng, 4), rows(rng, 2, 3, 8, 8))
    ),
    "logsumexp, naive": Case(logsumexp_torch, logsumexp_naive, lambda rng: (weights(rng, 16, 10), rows(rng, 8, 16))),
    "cross entropy": Case(
        nll_torch,
        nll,
        lambda rng: (
            3 * weights(rng, 16, 10),
            rows(rng, 10),
            rows(rng, 8, 16),
            rng.integers(0, 10, 8).astype(np.int32),
        ),
    ),
    "GRU": Case(gru_torch, gru, lambda rng: (_gates(rng), rows(rng, 12, 3, 4))),
    "LSTM": Case(
        lstm_torch,
        lstm,
        lambda rng: ({"x": weights(rng, 4, 32), "h": weights(rng, 8, 32)}, rows(rng, 32), rows(rng, 12, 3, 4)),
    ),
    "tied embedding": Case(
        embed_torch, embed, lambda rng: (rows(rng, 20, 8), rng.integers(0, 20, (6, 5)).astype(np.int32))
    ),
    "max pool of ties": Case(pool_torch, pool, lambda rng: (np.round(rows(rng, 2, 2, 8, 8)),)),
    "GELU by erfc": Case(gelu_torch, gelu, lambda rng: (weights(rng, 16, 16), rows(rng, 8, 16))),
    "softplus": Case(softplus_torch, softplus, lambda rng: (3 * rows(rng, 40),)),
    "softplus, naive": Case(softplus_torch, _partial(softplus, naive=True), lambda rng: (rows(rng, 40),)),
    "sums": Case(sums_torch, sums, lambda rng: (rows(rng, 4, 200),)),
    "cosine similarity": Case(
        cosine_torch, cosine, lambda rng: (rows(rng, 8, 16), rows(rng, 8, 16), np.float32(2.66) + rows(rng) / 4)
    ),
    "kinks at 0": Case(zeros_torch, zeros, lambda rng: (rows(rng, 6, 8),)),
    "mixer": Case(
        mix_torch, mix, lambda rng: ({"token": weights(rng, 6, 6), "channel": weights(rng, 8, 8)}, rows(rng, 3, 6, 8))
    ),
    "Huber": Case(huber_torch, huber, lambda rng: (weights(rng, 8, 4), rows(rng, 16, 8), rows(rng, 16, 4))),
    "deep tanh": Case(deep_torch, deep, lambda rng: ([1.5 * weights(rng, 8, 8) for _ in range(20)], rows(rng, 4, 8))),
}

MISTAKES = {
    "eps 1e-6 for 1e-5": ("LayerNorm, one pass", _partial(norm_one_pass, eps=1e-6), "y"),
    "eps 1e-12 for 1e-5": ("LayerNorm, one pass", _partial(norm_one_pass, eps=1e-12), "y"),
    "variance over n - 1": ("LayerNorm, one pass", _partial(norm_one_pass, ddof=1), "y"),
    "RMSNorm eps 1e-5 at the end": ("RMSNorm", _partial(rms, eps=1e-5), "norm2"),
    "RMSNorm eps 1e-5 at the start": ("RMSNorm", _partial(rms, eps=1e-5, at=0), "norm0"),
    "GroupNorm eps 1e-6": ("GroupNorm", _partial(group, eps=1e-6), "y"),
    "GroupNorm of 4": ("GroupNorm", _partial(group, groups=4), "y"),
    "BatchNorm eps 1e-3": ("BatchNorm", _partial(batch_norm, eps=1e-3), "y"),
    "BatchNorm momentum 0.9": ("BatchNorm", _partial(batch_norm, momentum=0.9), "mean"),
    "BatchNorm var over n": ("BatchNorm", _partial(batch_norm, ddof=0), "var"),
    "no 1 / sqrt(d)": ("heads of 8", _partial(heads, scale=1.0), "score"),
    "1 / sqrt(heads * d)": ("heads of 8", _partial(heads, scale=0.25), "score"),
    "softmax over queries": ("heads, no mask", _partial(heads, causal=False, axis=-2), "weights"),
    "mask off by one": ("heads of 8", _partial(heads, off=1), "weights"),
    "mask -1e4 for -inf": ("heads of 8", _partial(heads, mask=-2.0), "weights"),
    "a missing residual": ("heads of 8", _partial(heads, residual=False), "y"),
    "keys detached": ("heads of 8", _partial(heads, detached="k"), "k.grad"),
    "a flipped kernel": ("conv by matmul", _partial(conv_matmul, flipped=True), "conv"),
    "conv without bias": ("conv by matmul", _partial(conv_matmul, bias=False), "conv"),
    "no bias": ("cross entropy", _partial(nll, bias=False), "logits"),
    "a sum for a mean": ("cross entropy", _partial(nll, total=True), "output"),
    "label smoothing 1e-4": ("cross entropy", _partial(nll, smooth=1e-4), "output"),
    "GRU reset before": ("GRU", _partial(gru, inside=True), "h"),
    "LSTM without bias": ("LSTM", _partial(lstm, bias=False), "c"),
    "untied gradient": ("tied embedding", _partial(embed, tied=False), "arg[0].grad"),
    "tanh GELU at the end": ("GELU by erfc", _partial(gelu, approximate=True), "h3"),
    "last residual missing": ("GELU by erfc", _partial(gelu, residual=False), "h3"),
    "a mean for a sum": ("sums", _partial(sums, mean=True), "s"),
    "one side of the loss": ("cosine similarity", _partial(cosine, one_side=True), "output"),
    "cosine eps 1": ("cosine similarity", _partial(cosine, eps=4.0), "sim"),
    "wrong sign backwards": ("mixer", _partial(mix, sign=-1), "token.grad"),
}
