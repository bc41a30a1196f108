"""A network of eight layers written twice, as one who ports a model does; and mistakes to plant in the port."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxgrad import tag

ROWS, WIDTH, CLASSES = 8, 16, 4


def original(p, x, target):
    h = tag(x @ p["w1"] + p["b1"], "linear")
    h = tag(jnp.tanh(h), "tanh")
    mean = h.mean(-1, keepdims=True)
    variance = ((h - mean) ** 2).mean(-1, keepdims=True)
    h = tag((h - mean) / jnp.sqrt(variance + 1e-5) * p["gain"] + p["shift"], "norm")
    h = tag(h + jax.nn.sigmoid(h @ p["w2"] + p["b2"]), "residual")
    h = tag(jax.nn.gelu(h @ p["w3"]), "gelu")
    h = tag(jax.nn.softplus(h @ p["w4"]), "softplus")
    logits = tag(h @ p["w5"], "logits")
    q = tag(jax.nn.softmax(logits), "softmax")
    return jnp.mean(jnp.sum((q - target) ** 2, -1))


STEPS = {
    "linear": lambda p, h: p["b1"] + jnp.einsum("ik,jk->ij", h, p["w1"].T),
    "tanh": lambda p, h: jnp.tanh(h),
    "centre": lambda p, h: h - jnp.sum(h, -1, keepdims=True) / h.shape[-1],
    "scale": lambda p, h: h * lax.rsqrt(jnp.var(h, -1, keepdims=True) + jnp.asarray(1e-5, h.dtype)),
    "affine": lambda p, h: h * p["gain"] + p["shift"],
    "gate": lambda p, h: 1 / (1 + jnp.exp(-(jnp.dot(h, p["w2"]) + p["b2"]))),
    "residual": lambda p, h, gate: gate + h,
    "before gelu": lambda p, h: jnp.einsum("ik,jk->ij", h, p["w3"].T),
    "gelu": lambda p, u: u * 0.5 * (1 + jnp.tanh(u * (np.sqrt(2 / np.pi) * (1 + 0.044715 * u * u)).astype(u.dtype))),
    "softplus": lambda p, h: jnp.log1p(jnp.exp(jnp.einsum("ik,jk->ij", h, p["w4"].T))),
    "logits": lambda p, h: jnp.einsum("ik,kj->ij", h, p["w5"]),
    "softmax": lambda p, y: jnp.exp(y) / jnp.sum(jnp.exp(y), -1, keepdims=True),
    "loss": lambda p, q, target: jnp.sum((q - target) * (q - target)) / q.shape[0],
}


def ported(p, x, target, **mistakes):
    """The port; `mistakes` replace its steps."""
    do = STEPS | mistakes
    h = tag(do["linear"](p, x), "linear")
    h = tag(do["tanh"](p, h), "tanh")
    h = tag(do["affine"](p, do["scale"](p, do["centre"](p, h))), "norm")
    h = tag(do["residual"](p, h, do["gate"](p, h)), "residual")
    h = tag(do["gelu"](p, do["before gelu"](p, h)), "gelu")
    h = tag(do["softplus"](p, h), "softplus")
    logits = tag(do["logits"](p, h), "logits")
    q = tag(do["softmax"](p, logits), "softmax")
    return do["loss"](p, q, target)


def draw(key):
    """Weights, rows and classes, in float32."""
    keys = iter(jax.random.split(key, 11))

    def normal(*shape, scale=1.0):
        return jax.random.normal(next(keys), shape, jnp.float32) * scale

    p = {
        **{f"w{i}": normal(WIDTH, WIDTH, scale=WIDTH**-0.5) for i in range(1, 5)},
        "w5": normal(WIDTH, CLASSES, scale=WIDTH**-0.5),
        **{name: normal(WIDTH, scale=0.1) for name in ("b1", "b2", "shift")},
        "gain": 1 + normal(WIDTH, scale=0.1),
    }
    classes = jax.random.randint(next(keys), (ROWS,), 0, CLASSES)
    return p, normal(ROWS, WIDTH), jax.nn.one_hot(classes, CLASSES)


def _saturating(x):
    """tanh whose derivative is 1 - tanh**2, which is 0 in the tail."""

    @jax.custom_jvp
    def tanh(x):
        return jnp.tanh(x)

    tanh.defjvp(lambda x, x_dot: (jnp.tanh(x[0]), jnp.where(abs(x[0]) > 1.9, 0, 1 - jnp.tanh(x[0]) ** 2) * x_dot[0]))
    return tanh(x)


def _twice_the_gradient(h):
    return 2 * h - lax.stop_gradient(h)


# mistake -> (step that it replaces, its wrong form, the row that must be named)
MISTAKES = {
    "a sign of a bias": ("linear", lambda p, h: h @ p["w1"] - p["b1"], "linear"),
    "a forgotten bias": ("linear", lambda p, h: h @ p["w1"], "linear"),
    "a transposed weight": ("linear", lambda p, h: h @ p["w1"].T + p["b1"], "linear"),
    "another weight": ("linear", lambda p, h: h @ p["w3"] + p["b1"], "linear"),
    "half precision": (
        "linear",
        lambda p, h: (h.astype("f2") @ p["w1"].astype("f2")).astype(h.dtype) + p["b1"],
        "linear",
    ),
    "sigmoid for tanh": ("tanh", lambda p, h: jax.nn.sigmoid(h), "tanh"),
    "a clipped tanh": ("tanh", lambda p, h: jnp.clip(jnp.tanh(h), -0.99, 0.99), "tanh"),
    "a detached branch": ("tanh", lambda p, h: lax.stop_gradient(jnp.tanh(h)), "linear.grad"),
    "a 0 in the tail": ("tanh", lambda p, h: _saturating(h), "linear.grad"),
    "a stale epsilon": (
        "scale",
        lambda p, h: h / jnp.sqrt(jnp.var(h, -1, keepdims=True) + jnp.asarray(1e-4, h.dtype)),
        "norm",
    ),
    "an epsilon outside the root": ("scale", lambda p, h: h / (jnp.std(h, -1, keepdims=True) + 1e-5), "norm"),
    "an unbiased variance": ("scale", lambda p, h: h * lax.rsqrt(jnp.var(h, -1, keepdims=True, ddof=1) + 1e-5), "norm"),
    "the variance of another axis": ("scale", lambda p, h: h * lax.rsqrt(jnp.var(h, 0, keepdims=True) + 1e-5), "norm"),
    "the mean of another axis": ("centre", lambda p, h: h - jnp.mean(h, 0, keepdims=True), "norm"),
    "no mean": ("centre", lambda p, h: h, "norm"),
    "a gain of 1": ("affine", lambda p, h: h + p["shift"], "norm"),
    "a shift too many": ("affine", lambda p, h: h * p["gain"] + 2 * p["shift"], "norm"),
    "detached statistics": (
        "scale",
        lambda p, h: h * lax.stop_gradient(lax.rsqrt(jnp.var(h, -1, keepdims=True) + 1e-5)),
        "tanh.grad",
    ),
    "no residual": ("residual", lambda p, h, gate: gate, "residual"),
    "a residual subtracted": ("residual", lambda p, h, gate: h - gate, "residual"),
    "a detached residual": ("residual", lambda p, h, gate: gate + lax.stop_gradient(h), "norm.grad"),
    "a gradient counted twice": ("residual", lambda p, h, gate: gate + _twice_the_gradient(h), "norm.grad"),
    "the exact gelu": ("gelu", lambda p, u: jax.nn.gelu(u, approximate=False), "gelu"),
    "relu for gelu": ("gelu", lambda p, u: jax.nn.relu(u), "gelu"),
    "a digit of a constant": (
        "gelu",
        lambda p, u: u * 0.5 * (1 + jnp.tanh(np.float32(0.797885) * (u + np.float32(0.04715) * u**3)).astype(u.dtype)),
        "gelu",
    ),
    "softplus with a threshold": (
        "softplus",
        lambda p, h: (y := h @ p["w4"]) * 0 + jnp.where(y > 1, y, jax.nn.softplus(y)),
        "softplus",
    ),
    "a factor of 2": ("logits", lambda p, h: 2 * (h @ p["w5"]), "logits"),
    "a temperature": ("softmax", lambda p, y: jax.nn.softmax(y / 1.001), "softmax"),
    "softmax over the batch": ("softmax", lambda p, y: jax.nn.softmax(y, axis=0), "softmax"),
    "a sum for a mean": ("loss", lambda p, q, target: jnp.sum((q - target) ** 2), "output"),
    "a mean for a sum": ("loss", lambda p, q, target: jnp.mean((q - target) ** 2), "output"),
    "a half in the loss": ("loss", lambda p, q, target: jnp.sum((q - target) ** 2) / q.shape[0] / 2, "output"),
    "a detached target": (
        "loss",
        lambda p, q, target: jnp.sum((q - target) * lax.stop_gradient(q - target)) / q.shape[0],
        "softmax.grad",
    ),
    "a frozen weight": ("logits", lambda p, h: h @ lax.stop_gradient(p["w5"]), "arg[0]['w5'].grad"),
    "a missing minus in a rule": (
        "softplus",
        lambda p, h: (y := h @ p["w4"], jax.nn.softplus(lax.stop_gradient(2 * y) - y))[1],
        "gelu.grad",
    ),
}

# What shows in float64 only: rounded on the way, and cast back.
ROUNDED = {
    "float32 in a float64 chain": ("tanh", lambda p, h: jnp.tanh(h.astype("f4")).astype(h.dtype), "tanh"),
    "a float32 weight": ("logits", lambda p, h: h @ p["w5"].astype("f4").astype(h.dtype), "arg[0]['w5'].grad"),
    "a float32 result": ("softmax", lambda p, y: jax.nn.softmax(y).astype("f4"), "softmax"),
    "a stale epsilon of 1e-12": (
        "scale",
        lambda p, h: h * lax.rsqrt(jnp.var(h, -1, keepdims=True) + 1.0000001e-5),
        "norm",
    ),
    "a float32 gradient": (
        "residual",
        lambda p, h, gate: gate + h.astype("f4").astype(h.dtype) + lax.stop_gradient(h - h.astype("f4")),
        "norm.grad",
    ),
}
