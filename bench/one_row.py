"""One row's values and gradients: a jitted call of the neuron beside PyTorch eager with retain_grad, in one run.

    python bench/one_row.py

prints one JSON line a case: "record", a jitted `neuron.backprop`, 11 arrays; "packed", the same in one array;
"limit", a jitted call that returns f alone; "torch", PyTorch. Medians are of a call, in microseconds, and
`times_as_fast` is PyTorch's median over the case's. It needs PyTorch: pip install '.[torch]'.
"""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxgrad
from jaxgrad import neuron

try:
    import torch
    from torch import Tensor
except ModuleNotFoundError:
    sys.exit("one_row.py: PyTorch is not installed, and there is nothing to compare with: pip install '.[torch]'")

REPEATS, CALLS = 25, 400
SIZE = 2
X, W = np.float32([1.0, 2.0]), np.float32([0.5, -0.3, 0.1])


def pack(record: jaxgrad.Record) -> jax.Array:
    """z k h f df/dz df/dk df/dh df/dx.. df/dw.. in one array."""
    values = [record.values[name] for name in ("z", "k", "h", "f")]
    grads = [record.grads[name] for name in ("z", "k", "h")]
    return jnp.concatenate([jnp.stack(values + grads), *record.arg_grads])


def by_torch(x0: Tensor, x1: Tensor, w0: Tensor, w1: Tensor, w2: Tensor) -> list[Tensor]:
    """Part 2 of the document, and the same order as `pack`."""
    x0.grad = x1.grad = w0.grad = w1.grad = w2.grad = None
    z = w0 * x0 + w1 * x1 + w2
    z.retain_grad()
    k = torch.exp(-z)
    k.retain_grad()
    h = 1 + k
    h.retain_grad()
    f = 1 / h
    f.backward()
    return [z, k, h, f, z.grad, k.grad, h.grad, x0.grad, x1.grad, w0.grad, w1.grad, w2.grad]


def microseconds(call: Callable[[], Any]) -> list[float]:
    """Each of `REPEATS` is the mean of `CALLS` calls, which wait for their results."""
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(CALLS):
            call()
        found.append((time.perf_counter() - start) / CALLS * 1e6)
    return found


def cases() -> dict[str, Callable[[], Any]]:
    x, w = jnp.asarray(X), jnp.asarray(W)
    scalars = [torch.tensor(value, requires_grad=True) for value in (*X, *W)]
    record, packed, limit = (
        jax.jit(fun) for fun in (neuron.backprop, lambda x, w: pack(neuron.backprop(x, w)), neuron.forward)
    )
    theirs = [tensor.item() for tensor in by_torch(*scalars)]
    for ours in (pack(record(x, w)), packed(x, w)):
        # rtol: a few roundings. atol: z = -2e-08 is itself the rounding of summands of size 0.6.
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    return {
        # The arrays of one call are ready together, so one is waited for.
        "record": lambda: record(x, w).output.block_until_ready(),
        "packed": lambda: packed(x, w).block_until_ready(),
        "limit": lambda: limit(x, w).block_until_ready(),
        "torch": lambda: by_torch(*scalars),
    }


if __name__ == "__main__":
    found = {name: microseconds(call) for name, call in cases().items()}
    peer = statistics.median(found["torch"])
    for name, times in found.items():
        print(
            json.dumps(
                {
                    "case": name,
                    "device": f"{jax.default_backend()}, {os.cpu_count()} cores, {platform.machine()}",
                    "python": platform.python_version(),
                    "jax": jax.__version__,
                    "torch": torch.__version__,
                    "jaxgrad": jaxgrad.__version__,
                    "size": SIZE,
                    "repeats": REPEATS,
                    "median_us": round(statistics.median(times), 1),
                    "spread_us": [round(min(times), 1), round(max(times), 1)],
                    "times_as_fast": round(peer / statistics.median(times), 2),
                }
            )
        )
