"""What it takes to trace `retain_grads` of 5,000 operations, beside `jax.make_jaxpr` and `jax.vjp` of the same.

    python bench/tracing.py

Nothing is compiled and nothing computed: all is traced inside `jax.make_jaxpr`. Each round traces anew, the peer and
each number of tags in turn, and a ratio is the median of those of the rounds. One JSON line for each number of tags.
The limits: 1.3 with one tag, 2 with 2,500. Exits with 1 where one is passed.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgrad import retain_grads, tag

LIMITS = {1: 1.3, 2500: 2.0}


def chain(operations: int, tags: int) -> Callable[[Array], Array]:
    """sin, times 0.9, sin, ... of a vector, so many operations long, with tags at even distances; to a scalar."""
    every = operations // tags if tags else operations + 1

    def fun(x: Array) -> Array:
        for i in range(operations):
            x = jax.lax.sin(x) if i % 2 else jax.lax.mul(x, np.float32([0.9, 1.1, 1.0]))
            if i % every == every - 1:
                x = tag(x, f"x{i}")
        return jnp.sum(x)

    return fun


def peer(fun: Callable[[Array], Array]) -> Callable[[Array], tuple[Array, Array]]:
    """`jax.make_jaxpr` and `jax.vjp` of the function."""

    def run(x: Array) -> tuple[Array, Array]:
        jax.make_jaxpr(fun)(x)
        output, pullback = jax.vjp(fun, x)
        return output, *pullback(jnp.ones_like(output))

    return run


def check() -> None:
    """The chain's gradients are those of each of its rests."""
    x = jnp.float32([0.3, -0.7, 1.1])
    record = retain_grads(chain(8, 4))(x)
    want = jax.grad(chain(8, 0))(x)
    np.testing.assert_allclose(record.arg_grads[0], want, rtol=1e-6)
    for name in record.names:
        done = int(name[1:]) + 1
        eps = jnp.zeros(3)

        def rest(eps: Array, done: int = done, value: Array = record.values[name]) -> Array:
            y = value + eps
            for i in range(done, 8):
                y = jax.lax.sin(y) if i % 2 else jax.lax.mul(y, np.float32([0.9, 1.1, 1.0]))
            return jnp.sum(y)

        np.testing.assert_allclose(record.grads[name], jax.grad(rest)(eps), rtol=1e-6, err_msg=name)


def seconds(fun: Callable[[Array], object]) -> float:
    """The processor's time to trace `fun` anew."""
    x = jnp.ones(3)
    start = time.process_time()
    jax.make_jaxpr(lambda x: jax.tree.leaves(fun(x)))(x)
    return time.process_time() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operations", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    check()
    passed = False
    times: dict[int, list[tuple[float, float]]] = {1: [], args.operations // 2: []}
    for _ in range(args.rounds):
        for tags, found in times.items():
            plain = seconds(peer(chain(args.operations, 0)))
            found.append((seconds(lambda x, tags=tags: retain_grads(chain(args.operations, tags))(x).grads), plain))
    for tags, found in times.items():
        ratios = sorted(ours / plain for ours, plain in found)
        ratio = statistics.median(ratios)
        passed |= ratio > LIMITS.get(tags, 2.0)
        line = {
            "case": f"trace {args.operations} operations, {tags} tags",
            "retain_grads_s": round(statistics.median(ours for ours, _ in found), 3),
            "make_jaxpr_and_vjp_s": round(statistics.median(plain for _, plain in found), 3),
            "ratio": round(ratio, 2),
            "spread": [round(ratios[0], 2), round(ratios[-1], 2)],
            "limit": LIMITS.get(tags, 2.0),
            "jax": jax.__version__,
            "python": platform.python_version(),
            "device": jax.devices()[0].device_kind,
        }
        print(json.dumps(line))
    return int(passed)


if __name__ == "__main__":
    sys.exit(main())
