"""What a ledger takes: the document's neuron, and programs of 200 tags, cold and once compiled.

    python bench/ledger.py [--repeats N]

One JSON line a case: seconds of the first call, which traces and compiles, the median and spread of the calls after
it at other inputs of the same shapes, how many programs those compile (0), and the seconds of drawing it as SVG.
Answers are checked first: the contributions of every ledger sum to its gradients.
"""

import argparse
import json
import logging
import os
import platform
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

import jaxgrad
from jaxgrad import neuron, tag

LIMITS = {"document": 0.3, "chain of 200": 2.0, "layers of 200": 2.0}  # seconds of a call, once compiled


def chain(x, w):
    for i in range(200):
        x = tag(jnp.sin(x) * w[i % 4] + 0.5 * x, f"a{i}")
    return x


def layers(x, w):
    """Vectors of 4, each tagged, every second one read twice: Jacobians, skips and many paths."""
    h = jnp.stack([x, 1 - x, 2 * x, x * x])
    for i in range(100):
        u = tag(jnp.tanh(h * w), f"u{i}")
        h = tag(u + 0.5 * jnp.roll(h, 1), f"h{i}")
    return jnp.mean(h)


CASES = {
    "document": (neuron.forward, jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1])),
    "chain of 200": (chain, 0.5, jnp.array([0.25, 0.5, -0.25, 0.75])),
    "layers of 200": (layers, 0.5, jnp.array([0.25, 0.5, -0.25, 0.75])),
}


class Compiled(logging.Handler):
    """Counts the programs that JAX compiles."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def emit(self, record):
        self.n += record.getMessage().startswith("Finished XLA compilation")


def check(found):
    for name, node in found.nodes.items():
        shares = [edge.contribution for (source, _), edge in found.edges.items() if source == name]
        if shares:
            # atol: float32 sums of products in another order than JAX's own.
            np.testing.assert_allclose(sum(shares), node.grad, rtol=1e-4, atol=1e-6)


def measure(fun, x, w, repeats):
    read, counter = jaxgrad.ledger(fun), Compiled()
    start = time.perf_counter()
    found = read(x, w)
    first = time.perf_counter() - start
    check(found)
    check(read(x, w * 0.75))
    logging.getLogger("jax").addHandler(counter)
    logging.getLogger("jax").propagate = False
    times = []
    with jax.log_compiles():
        for i in range(repeats):
            start = time.perf_counter()
            read(x, w * (1 + 0.01 * i))
            times.append(time.perf_counter() - start)
    start = time.perf_counter()
    found._repr_html_()
    drawn = time.perf_counter() - start
    return found, first, times, counter.n, drawn


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    for case, (fun, x, w) in CASES.items():
        found, first, times, compiled, drawn = measure(fun, x, w, repeats)
        line = {
            "case": case,
            "device": f"{jax.default_backend()}, {os.cpu_count()} cores, {platform.machine()}",
            "python": platform.python_version(),
            "jax": jax.__version__,
            "jaxgrad": jaxgrad.__version__,
            "nodes": len(found.nodes),
            "edges": len(found.edges),
            "first_s": round(first, 3),
            "median_s": round(statistics.median(times), 4),
            "spread_s": [round(min(times), 4), round(max(times), 4)],
            "limit_s": LIMITS[case],
            "compiled_again": compiled,
            "svg_s": round(drawn, 4),
        }
        print(json.dumps(line))
