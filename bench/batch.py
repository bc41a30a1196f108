"""The neuron's quantities over 1 to 10^8 rows in memory: `batch` beside the line that it replaces, and the limit.

    python bench/batch.py [--rows N ...] [--repeats N] [--peers]

Float32, two inputs, the ten columns that differ (df/dk is df/dh, and df/dw2 is df/dz), on the default device, for the
document's chain, `neuron.backprop` and `retain_grads(neuron.forward)`. For each:

    jit(vmap)           plain JAX, new arrays for each call
    batch               `jaxgrad.batch` of the same
    donated jit(vmap)   plain JAX, the last call's arrays donated
    batch, out          `jaxgrad.batch` with `out=`
    by 2**18, out       the same with `batch_size=2**18`, of more rows than that
    limit               the same bytes moved by numba on every core, nothing computed, arrays used again
    blocks, out         `jaxgrad.batch` with `out=`, in 30 blocks of a tenth of the rows
    stream              `batch(...).stream` of the same blocks

Then one row of `retain_grads(neuron.forward)`, new arrays and packed, beside jitted `value_and_grad`. With --peers also
NumPy and PyTorch. Contenders take turns, so that whatever else the machine does hits them alike; ratios are medians
over turns.
"""

import argparse
import functools
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import numpy as np

from jaxgrad import batch, neuron, retain_grads

# Threads that wait for work without spinning: the contenders share the cores.
os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}
CORES = len(os.sched_getaffinity(0))
W = np.array([0.5, -0.3, 0.1], np.float32)
NAMES = ("z", "k", "h", "f", "df/dz", "df/dk", "df/dw0", "df/dw1", "df/dx0", "df/dx1")
SIZE = 2**18  # rows that a loop computes at a time
ROUNDS = 3  # through the blocks in a call: a stream begins with no memory but one block's
AT_ONCE = 30_000_000  # rows: of more, contenders together would not fit in memory
PEERS = {"jit(vmap)": "jit(vmap)", "donated jit(vmap)": "donated", "blocks, out": "blocks, out", "limit": "the limit"}
MOVED = 4 * (2 + len(NAMES))  # bytes a row

Call = Callable[[], Any]


def distinct(record: Any) -> dict[str, Any]:
    columns = neuron.quantities(record)
    return {name: columns[name] for name in NAMES}


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "chain": lambda x, w: distinct(neuron.chain_rule(x, w)),
    "backprop": lambda x, w: distinct(neuron.backprop(x, w)),
    "retain": lambda x, w: distinct(retain_grads(neuron.forward)(x, w)),
}


def again(call: Callable[[Any], Any]) -> Call:
    """Calls with the last call's result, whose memory is used again."""
    last: list[Any] = [None]

    def next_call() -> Any:
        last[0] = call(last[0])
        return last[0]

    return next_call


def held(call: Call) -> Call:
    """Calls that hold the last result until the next one is there, as `result = fun(x)` in a loop does."""
    return again(lambda _: call())


def by_jax(fun: Callable[..., Any], x: jax.Array) -> dict[str, Call]:
    mapped = jax.vmap(fun, (0, None))
    plain = jax.jit(mapped)
    new, out, by_block, stream = (batch(fun, (0, None)) for _ in range(4))
    by_size = batch(fun, (0, None), batch_size=SIZE)
    donated = jax.jit(lambda last, x, w: mapped(x, w), donate_argnums=0, keep_unused=True)
    size = max(1, len(x) // 10)
    blocks = ROUNDS * [x[start : start + size] for start in range(0, len(x), size)] if len(x) >= 10_000 else []
    last = by_block(blocks[0], W) if blocks else None

    def block_by_block() -> None:
        nonlocal last
        for block in blocks:
            last = jax.block_until_ready(by_block(block, W, out=last))

    def streamed() -> None:
        for result in stream.stream((block, W) for block in blocks):
            jax.block_until_ready(result)

    calls = {
        "jit(vmap)": held(lambda: plain(x, W)),
        "batch": held(lambda: new(x, W)),
        "donated jit(vmap)": again(lambda last: donated(last, x, W)),
        "batch, out": again(lambda last: out(x, W, out=last)),
    }
    if len(x) > SIZE:
        calls["by 2**18, out"] = again(lambda last: by_size(x, W, out=last))
    return calls | ({"blocks, out": block_by_block, "stream": streamed} if blocks else {})


def by_numpy(x: np.ndarray) -> dict[str, np.ndarray]:
    x0, x1 = x[:, 0], x[:, 1]
    z = W[0] * x0 + W[1] * x1 + W[2]
    k = np.exp(-z)
    h = 1 + k
    f = 1 / h
    k_bar = -f * f
    z_bar = -k * k_bar
    found = (z, k, h, f, z_bar, k_bar, z_bar * x0, z_bar * x1, z_bar * W[0], z_bar * W[1])
    return dict(zip(NAMES, found, strict=True))


def limit(x: np.ndarray) -> dict[str, Call]:
    """The columns read and written, each contiguously, by every core."""
    if jax.default_backend() != "cpu":
        return limit_of_device(x)
    try:
        import numba
    except ImportError:
        return {}
    numba.set_num_threads(CORES)

    @numba.njit(parallel=True)
    def moved(x: Any, out: Any) -> None:
        size = 4096
        for block in numba.prange((x.shape[1] + size - 1) // size):
            start, stop = block * size, min((block + 1) * size, x.shape[1])
            for column in range(out.shape[0]):
                out[column, start:stop] = x[column % 2, start:stop]

    columns, out = np.ascontiguousarray(x.T), np.empty((len(NAMES), len(x)), np.float32)
    return {"limit": lambda: moved(columns, out)}


def limit_of_device(x: np.ndarray) -> dict[str, Call]:
    """On a GPU: the columns written from the rows, and nothing computed."""
    rows = jax.device_put(x)

    @functools.partial(jax.jit, donate_argnums=0, keep_unused=True)
    def moved(out: Any, x: Any) -> list[Any]:
        return [x[:, i % 2] for i in range(len(NAMES))]

    return {"limit": again(lambda last: moved(last, rows))}


def by_torch(x: np.ndarray) -> dict[str, Call]:
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(CORES)
    rows, w = torch.from_numpy(x), torch.from_numpy(W)

    def eager() -> dict[str, Any]:
        x = rows.detach().requires_grad_()
        z = (w[:-1] * x).sum(-1) + w[-1]
        k = torch.exp(-z)
        h = 1 + k
        f = 1 / h
        for value in (z, k, h):
            value.retain_grad()
        f.sum().backward()
        w_bar = z.grad[:, None] * rows
        found = (z, k, h, f, z.grad, k.grad, w_bar[:, 0], w_bar[:, 1], x.grad[:, 0], x.grad[:, 1])
        return {name: value.detach().numpy() for name, value in zip(NAMES, found, strict=True)}

    return {"torch eager": eager}


def check(name: str, found: Any, want: dict[str, np.ndarray]) -> None:
    """The first rows, against NumPy's."""
    for column, values in found.items() if isinstance(found, dict) else ():
        # The chain's own rounding: some units of 6e-8 on sums of three terms of size 1.
        first = values[: len(want[column])]
        np.testing.assert_allclose(first, want[column], rtol=2e-5, atol=2e-6, err_msg=f"{name}: {column}")


def timed(calls: dict[str, Call], repeats: int, want: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Seconds of each turn of each contender."""
    for name, call in calls.items():
        for _ in range(3):  # compiled, and memory lent, used again, donated
            check(name, jax.block_until_ready(call()), want or {})
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats):  # there and back: each comes before and after each other
        for name, call in list(calls.items())[:: -1 if turn % 2 else 1]:
            begun = time.perf_counter()
            jax.block_until_ready(call())
            taken[name].append(time.perf_counter() - begun)
    return {name: np.array(seconds) for name, seconds in taken.items()}


def in_memory(count: int, repeats: int, peers: bool) -> list[dict[str, Any]]:
    x = np.random.default_rng(0).standard_normal((count, 2), dtype=np.float32)
    want = by_numpy(x[:100_000])
    rows = jax.numpy.asarray(x)
    lines = []
    for function, fun in FUNCTIONS.items():
        calls = by_jax(fun, rows) | limit(x)
        if peers:
            calls |= {"NumPy": lambda: by_numpy(x)} | by_torch(x)
        if count <= AT_ONCE:
            taken = timed(calls, repeats, want)
            taken |= {name: taken[name] / ROUNDS for name in ("blocks, out", "stream") if name in taken}
        else:
            del calls
            names = ("jit(vmap)", "batch", "donated jit(vmap)", "batch, out", "by 2**18, out")
            taken = {name: timed({name: by_jax(fun, rows)[name]}, repeats, want)[name] for name in names}
        lines += [line(function, name, count, seconds, taken) for name, seconds in taken.items()]
    return lines


def line(function: str, name: str, count: int, seconds: np.ndarray, taken: dict[str, np.ndarray]) -> dict[str, Any]:
    return {
        "function": function,
        "contender": name,
        "rows": count,
        "us": round(float(np.median(seconds)) * 1e6, 1),
        "million_rows_per_s": round(count / float(np.median(seconds)) / 1e6, 2),
        "GB_per_s": round(count * MOVED / float(np.median(seconds)) / 1e9, 1),
        "speed_of": {peer: round(float(np.median(taken[peer] / seconds)), 3) for peer in PEERS if peer in taken},
    }


def one_row(repeats: int) -> list[dict[str, Any]]:
    x, w = jax.numpy.ones(2), jax.numpy.asarray(W)
    plain = jax.jit(jax.value_and_grad(neuron.forward, (0, 1)))
    record = jax.jit(retain_grads(neuron.forward))
    packed = batch(retain_grads(neuron.forward), (0, None), packed=True)
    many = x[None]
    np.testing.assert_array_equal(packed(many, w).arg_grads[1][0], plain(x, w)[1][1])
    routes: dict[str, Call] = {
        "value_and_grad": lambda: jax.block_until_ready(plain(x, w)),
        "value_and_grad, as NumPy": lambda: jax.tree.map(np.asarray, plain(x, w)),
        "retain": lambda: jax.block_until_ready(record(x, w)),
        "retain, as NumPy": lambda: jax.tree.map(np.asarray, record(x, w)),
        "retain, packed": lambda: packed(many, w),
    }
    # What is NumPy's is there once it is returned: each call has waited for what it must, and returns nothing.
    calls: dict[str, Call] = {name: functools.partial(_dropped, route) for name, route in routes.items()}
    taken = timed(calls, repeats)
    return [
        {
            "function": "one row",
            "contender": name,
            "us": round(float(np.median(seconds)) * 1e6, 1),
            "times_the_time_of": {peer: round(float(np.median(seconds / taken[peer])), 2) for peer in list(calls)[:2]},
        }
        for name, seconds in taken.items()
    ]


def _dropped(route: Call) -> None:
    route()


def table(lines: list[dict[str, Any]]) -> None:
    heads = "".join(f" of {peer} |" for peer in PEERS.values())
    print(f"\n| {lines[0]['rows']:,} rows | us | M rows/s |{heads}\n|{'---|' * (3 + len(PEERS))}")
    for found in lines:
        ratios = (found["speed_of"].get(peer, "") for peer in PEERS)
        name, us, speed = f"{found['function']}: {found['contender']}", found["us"], found["million_rows_per_s"]
        print(f"| {name} | {us} | {speed} | {' | '.join(map(str, ratios))} |", flush=True)


def about() -> dict[str, Any]:
    versions = {}
    for name in ("jax", "jaxlib", "numpy", "numba", "torch"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"device": jax.devices()[0].device_kind, "cores": CORES, "machine": platform.machine(), "versions": versions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, nargs="*", default=[1, 100, 1e4, 1e5, 1e6, 1e7, 1e8])
    parser.add_argument("--repeats", type=int, default=11, help="turns from 10^6 rows on; more for fewer")
    parser.add_argument("--peers", action="store_true", help="NumPy and PyTorch too")
    arguments = parser.parse_args()
    lines = []
    for count in map(int, arguments.rows):
        repeats = arguments.repeats * (1 if count >= 10**6 else 10) if count <= AT_ONCE else 3
        found = in_memory(count, repeats, arguments.peers)
        table(found)
        lines += found
    found = one_row(arguments.repeats * 20)
    print("\n" + "\n".join(json.dumps(one) for one in found))
    print("\n" + "\n".join(json.dumps(one | about()) for one in lines + found))


if __name__ == "__main__":
    main()
