"""Graphs to draw, and what is wrong with a picture, counted."""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad import ledger, neuron, tag
from jaxgrad._graph.draw.picture import LABEL_CHAR, Arrow, Box, Layout
from jaxgrad._graph.graph import Edge, Graph, Node

Point = tuple[float, float]
Rect = tuple[float, float, float, float]  # left, top, right, bottom


def of_neuron() -> Graph:
    return ledger(neuron.forward)(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1])).graph


def of_mazur() -> Graph:
    def fun(w1, w2, w3, w4, b1, w5, w6, w7, w8, b2, i1, i2):
        h1 = tag(jax.nn.sigmoid(tag(w1 * i1 + w2 * i2 + b1, "net_h1")), "out_h1")
        h2 = tag(jax.nn.sigmoid(tag(w3 * i1 + w4 * i2 + b1, "net_h2")), "out_h2")
        o1 = tag(jax.nn.sigmoid(tag(w5 * h1 + w6 * h2 + b2, "net_o1")), "out_o1")
        o2 = tag(jax.nn.sigmoid(tag(w7 * h1 + w8 * h2 + b2, "net_o2")), "out_o2")
        return tag(tag(0.5 * (0.01 - o1) ** 2, "E_o1") + tag(0.5 * (0.99 - o2) ** 2, "E_o2"), "E_total")

    return ledger(fun)(0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.05, 0.1).graph


def of_mazur_by_vectors() -> Graph:
    def fun(W1, b1, W2, b2, i):
        h = tag(jax.nn.sigmoid(tag(W1 @ i + b1, "net_h")), "out_h")
        o = tag(jax.nn.sigmoid(tag(W2 @ h + b2, "net_o")), "out_o")
        return tag(0.5 * jnp.sum((jnp.array([0.01, 0.99]) - o) ** 2), "E")

    w1, w2 = jnp.array([[0.15, 0.2], [0.25, 0.3]]), jnp.array([[0.4, 0.45], [0.5, 0.55]])
    return ledger(fun)(w1, 0.35, w2, 0.6, jnp.array([0.05, 0.1])).graph


def of_micrograd() -> Graph:
    def fun(a, b):
        c = tag(a + b, "c")
        d = tag(a * b + b**3, "d")
        c = tag(c + c + 1, "c1")
        c = tag(c + 1 + c - a, "c2")
        d = tag(d + d * 2 + jax.nn.relu(b + a), "d1")
        d = tag(d + 3 * d + jax.nn.relu(b - a), "d2")
        e = tag(c - d, "e")
        f = tag(e**2, "f")
        return tag(f / 2.0 + 10.0 / f, "g")

    return ledger(fun)(-4.0, 2.0).graph


def of_cs231n_product() -> Graph:
    return ledger(lambda x, y, z: tag(tag(x + y, "q") * z, "f"))(-2.0, 5.0, -4.0).graph


def of_cs231n_max() -> Graph:
    def fun(x, y, z, w):
        return tag(2 * tag(tag(x * y, "p") + tag(jnp.maximum(z, w), "m"), "s"), "f")

    return ledger(fun)(3.0, -4.0, 2.0, -1.0).graph


def of_cs231n_sigmoids() -> Graph:
    def fun(x, y):
        sigy = tag(1 / (1 + tag(jnp.exp(-y), "expy")), "sigy")
        num = tag(x + sigy, "num")
        sigx = tag(1 / (1 + tag(jnp.exp(-x), "expx")), "sigx")
        xpy = tag(x + y, "xpy")
        den = tag(sigx + tag(xpy**2, "xpysqr"), "den")
        return tag(num * tag(1 / den, "invden"), "f")

    return ledger(fun)(3.0, -4.0).graph


def of_mlp() -> Graph:
    def fun(params, x):
        for i, (w, b) in enumerate(params):
            x = tag(jnp.tanh(w @ x + b), f"h{i}")
        return tag(jnp.sum(x**2), "loss")

    rng = np.random.default_rng(0)
    params = [(jnp.asarray(rng.normal(size=(4, 4)), "f"), jnp.asarray(rng.normal(size=4), "f")) for _ in range(8)]
    return ledger(fun)(params, jnp.ones(4)).graph


def _attention(x: Any, wq: Any, wk: Any, wv: Any) -> Any:
    q, k, v = tag(x @ wq, "q"), tag(x @ wk, "k"), tag(x @ wv, "v")
    s = tag(q @ k.T / jnp.sqrt(2.0), "scores")
    a = tag(jax.nn.softmax(s), "weights")
    return tag(jnp.sum(tag(a @ v, "out") ** 2), "loss")


def _tokens() -> list[Any]:
    rng = np.random.default_rng(1)
    return [jnp.asarray(rng.normal(size=shape), "f") for shape in [(3, 2), (2, 2), (2, 2), (2, 2)]]


def of_attention() -> Graph:
    return ledger(_attention)(*_tokens()).graph


def of_attention_by_elements() -> Graph:
    return ledger(_attention, split=16)(*_tokens()).graph


def of_scan() -> Graph:
    def fun(w, u, xs):
        def step(h, x):
            a = tag(w * h + u * x, "a")
            h = tag(jnp.tanh(a), "h")
            return h, None

        return tag(jax.lax.scan(step, 1.0, xs)[0] ** 2, "y")

    return ledger(fun)(0.5, 0.25, jnp.arange(4.0)).graph


def of_rnn() -> Graph:
    def fun(w, u, b, xs):
        h = 0.0
        for t in range(5):
            h = tag(jnp.tanh(w * h + u * xs[t] + b), f"h{t}")
        return tag(h**2, "y")

    return ledger(fun)(0.5, 0.25, 0.1, jnp.arange(5.0)).graph


def of_residual() -> Graph:
    def fun(w0, w1, w2, x):
        for i, w in enumerate((w0, w1, w2)):
            x = tag(x + tag(jnp.tanh(w * x), f"f{i}"), f"x{i}")
        return tag(x * x, "y")

    return ledger(fun)(0.5, -0.25, 0.75, 1.0).graph


def of_200() -> Graph:
    """A ladder of 200 intermediates, made by hand: no time goes into compiling."""
    names = ["x", "w0", "w1", *(f"h{i}" for i in range(200))]
    kinds = ["argument"] * 3 + ["tag"] * 200
    nodes = {
        a: Node(a, kind, np.float32(i), np.float32(-i)) for i, (a, kind) in enumerate(zip(names, kinds, strict=True))
    }
    ends = [("x", "h0"), *((f"h{i}", f"h{i + 1}") for i in range(199)), *((f"w{i % 2}", f"h{i}") for i in range(200))]
    ends += [(f"h{i}", f"h{i + 2}") for i in range(0, 198, 3)]
    return Graph(nodes, {e: Edge(*e, np.float32(0.5), np.float32(0.25)) for e in ends}, names[-1])


GRAPHS: dict[str, Callable[[], Graph]] = {
    "neuron": of_neuron,
    "mazur": of_mazur,
    "mazur by vectors": of_mazur_by_vectors,
    "micrograd": of_micrograd,
    "cs231n product": of_cs231n_product,
    "cs231n max": of_cs231n_max,
    "cs231n sigmoids": of_cs231n_sigmoids,
    "mlp of 8": of_mlp,
    "attention": of_attention,
    "attention by elements": of_attention_by_elements,
    "scan": of_scan,
    "rnn": of_rnn,
    "residual": of_residual,
    "200 nodes": of_200,
}


def rect(box: Box, grown: float = 0.0) -> Rect:
    w, h = box.width / 2 + grown, box.height / 2 + grown
    return box.x - w, box.y - h, box.x + w, box.y + h


def label_rect(arrow: Arrow) -> Rect:
    (x, y), width = arrow.at, len(arrow.label) * LABEL_CHAR
    return x - width / 2, y - 6, x + width / 2, y + 6


def overlap(a: Rect, b: Rect) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def curve(points: Sequence[Point], n: int = 24) -> np.ndarray:
    """Points on cubic curves, one after the other."""
    p, ts = np.asarray(points), np.linspace(0, 1, n)[:, None]
    parts = [
        (1 - ts) ** 3 * p[i] + 3 * (1 - ts) ** 2 * ts * p[i + 1] + 3 * (1 - ts) * ts**2 * p[i + 2] + ts**3 * p[i + 3]
        for i in range(0, len(p) - 3, 3)
    ]
    return np.concatenate(parts)


def crossings(lines: Sequence[np.ndarray]) -> int:
    """How many pairs of lines cross, each time that they do."""
    return sum(_crossings(a, b) for a, b in combinations(lines, 2))


def _crossings(a: np.ndarray, b: np.ndarray) -> int:
    p, r, q, s = a[:-1, None], np.diff(a, axis=0)[:, None], b[None, :-1], np.diff(b, axis=0)[None]
    cross = r[..., 0] * s[..., 1] - r[..., 1] * s[..., 0]
    with np.errstate(all="ignore"):
        d = q - p
        t = (d[..., 0] * s[..., 1] - d[..., 1] * s[..., 0]) / cross
        u = (d[..., 0] * r[..., 1] - d[..., 1] * r[..., 0]) / cross
    inside = (t > 0) & (t < 1) & (u > 0) & (u < 1) & (cross != 0)
    return int(np.count_nonzero(inside))


def faults(placed: Layout) -> Iterator[tuple[str, str]]:
    """Labels on boxes and on labels, and arrows through boxes: which kind, and which."""
    for arrow in placed.arrows:
        for box in placed.boxes:
            if overlap(label_rect(arrow), rect(box)):
                yield "label on a box", f"{arrow.source}->{arrow.target} on {box.name}"
            if box.name in (arrow.source, arrow.target):
                continue
            left, top, right, bottom = rect(box, -1)
            x, y = curve(arrow.points).T
            if np.any((x > left) & (x < right) & (y > top) & (y < bottom)):
                yield "arrow through a box", f"{arrow.source}->{arrow.target} through {box.name}"
    for a, b in combinations(placed.arrows, 2):
        if overlap(label_rect(a), label_rect(b)):
            yield "label on a label", f"{a.source}->{a.target} on {b.source}->{b.target}"


def count(placed: Layout) -> dict[str, int]:
    kinds = [kind for kind, _ in faults(placed)]
    found = {kind: kinds.count(kind) for kind in ("label on a box", "label on a label", "arrow through a box")}
    lines = [curve(arrow.points) for arrow in placed.arrows if arrow.source != arrow.target]
    return found | {"crossings": crossings(lines)}


def segments(points: np.ndarray) -> int:
    return len(list(pairwise(points)))
