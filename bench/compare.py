"""Comparing two records of ten million elements: time, and memory beside the arrays.

    python bench/compare.py

prints one JSON line a case: "equal", the same bits; "rounded", every other element one ULP away; "different", as
rounded, and one element wrong. "limit" is NumPy's |got - want| alone, in one piece. Times are of a call, in seconds.
"""

import json
import os
import platform
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

import jaxgrad

SIZE, TAGS, REPEATS = 10_000_000, 4, 7


def record(shift: int, wrong: bool) -> jaxgrad.Record:
    """`SIZE` elements in `TAGS` values and as many gradients; every other one is moved by `shift` ULP."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((SIZE // TAGS // 2 // 250, 250), np.float32) for _ in range(2 * TAGS)]
    for array in arrays:
        array.view(np.int32)[:, ::2] += shift
    if wrong:
        arrays[TAGS][17, 3] *= -1
    names = tuple(f"h{i}" for i in range(TAGS))
    values, grads = (dict(zip(names, part, strict=True)) for part in (arrays[:TAGS], arrays[TAGS:]))
    return jaxgrad.Record(np.float32(1), names, values, grads, ())


def seconds(call: Callable[[], Any]) -> list[float]:
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return found


def peak(call: Callable[[], Any]) -> float:
    """Memory that a call takes at its highest, in copies of one record."""
    tracemalloc.start()
    call()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / (4 * SIZE)


if __name__ == "__main__":
    want = record(0, wrong=False)
    cases = {"equal": record(0, wrong=False), "rounded": record(1, wrong=False), "different": record(1, wrong=True)}
    for name, got in cases.items():
        comparison = jaxgrad.compare(got, want)
        assert comparison.ok == (name != "different")
        assert name != "different" or comparison.first_divergence.label == "h0.grad"
        times = seconds(lambda got=got: jaxgrad.compare(got, want))
        limit = seconds(lambda got=got: [np.abs(got.values[n] - want.values[n]) for n in want.names for _ in "vg"])
        print(
            json.dumps(
                {
                    "case": name,
                    "device": f"cpu, {os.cpu_count()} cores, {platform.machine()}",
                    "python": platform.python_version(),
                    "numpy": np.__version__,
                    "jaxgrad": jaxgrad.__version__,
                    "size": SIZE,
                    "repeats": REPEATS,
                    "median_s": round(statistics.median(times), 3),
                    "spread_s": [round(min(times), 3), round(max(times), 3)],
                    "limit_s": round(statistics.median(limit), 3),
                    "extra_copies": round(peak(lambda got=got: jaxgrad.compare(got, want)), 3),
                }
            )
        )
