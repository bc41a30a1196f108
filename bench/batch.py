"""The neuron's quantities over 10^4 to 10^8 rows, in memory and from file to file, beside its peers and the limit.

    python bench/batch.py [--rows N ...] [--repeats N] [--files N ...] [--folder FOLDER]

In memory, float32, two inputs, one table for each number of rows. Each contender writes the ten columns that differ
(df/dk is df/dh, and df/dw2 is df/dz):

    limit                 the same bytes moved by numba, nothing computed, arrays used again: what memory allows
    numba                 the chain of the document in one loop on every core, arrays used again
    NumPy                 the chain, column by column
    jit(vmap), new        `neuron.chain_rule` by plain JAX, new arrays for each call
    batch, new            `jaxgrad.batch` of the same: on the default device, compiled once for any number of rows
    batch on a mesh, new  the same over a CPU device for each core
    batch on a mesh, out  the same with `out=`: the last call's arrays used again
    the same, backprop    `neuron.backprop`, right for every z, in place of the chain
    the same, retain      `retain_grads(neuron.forward)`
    torch.func            vmap(grad) by PyTorch, 5 gradients
    torch eager           PyTorch with retain_grad, one backward for all rows, df/dw row by row from df/dz

They take turns, so that whatever else the machine does hits them alike; a ratio is the median over turns. On a GPU the
limit is a copy on the device, and the share of the memory's bandwidth is that of the best contender.

From file to file: `evaluate`, all 12 columns, beside copying the same columns with the same library and nothing
computed, in turns, each in a process that has run it once; and its peak memory in a process of its own.
"""

import argparse
import functools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

# Threads that wait for work without spinning: the contenders share the cores.
os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}
CORES = len(os.sched_getaffinity(0))
jax.config.update("jax_num_cpu_devices", CORES)

from jaxgrad import batch, neuron, retain_grads  # noqa: E402
from jaxgrad._evaluate.evaluate import evaluate  # noqa: E402
from jaxgrad._evaluate.task import plan_task  # noqa: E402

W = np.array([0.5, -0.3, 0.1], np.float32)
NAMES = ("z", "k", "h", "f", "df/dz", "df/dk", "df/dw0", "df/dw1", "df/dx0", "df/dx1")
ALL = ("z", "k", "h", "f", "df/dz", "df/dk", "df/dh", "df/dw0", "df/dw1", "df/dw2", "df/dx0", "df/dx1")
ON_CPU = jax.default_backend() == "cpu"
BLOCK = 1 << 20
AT_ONCE = 30_000_000  # rows


def distinct(record: Any) -> dict[str, Any]:
    columns = neuron.quantities(record)
    return {name: columns[name] for name in NAMES}


def chain(x: Any, w: Any) -> dict[str, Any]:
    return distinct(neuron.chain_rule(x, w))


def backprop(x: Any, w: Any) -> dict[str, Any]:
    return distinct(neuron.backprop(x, w))


def retain(x: Any, w: Any) -> dict[str, Any]:
    return distinct(retain_grads(neuron.forward)(x, w))


Call = Callable[[], Any]


def by_jax(x: np.ndarray) -> dict[str, Call]:
    mesh = jax.make_mesh((len(jax.devices()),), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    on_one = jax.device_put(x, jax.devices()[0])
    spread = jax.device_put(x, jax.NamedSharding(mesh, jax.P("rows"))) if not len(x) % mesh.size else x
    plain = jax.jit(jax.vmap(chain, (0, None)))
    new, on_mesh = batch(chain, (0, None)), batch(chain, (0, None), mesh=mesh)
    return {
        "jit(vmap), new": lambda: plain(on_one, W),
        "batch, new": lambda: new(x if ON_CPU else on_one, W),
        "batch on a mesh, new": lambda: on_mesh(spread, W),
        "batch on a mesh, out": again(on_mesh, spread),
        "the same, backprop": again(batch(backprop, (0, None), mesh=mesh), spread),
        "the same, retain": again(batch(retain, (0, None), mesh=mesh), spread),
    }


def again(batched: Any, x: Any) -> Call:
    """Calls with the last call's result as `out`."""
    last: list[Any] = [None]

    def call() -> Any:
        last[0] = batched(x, W, out=last[0])
        return last[0]

    return call


def by_numpy(x: np.ndarray) -> dict[str, Call]:
    def call() -> dict[str, np.ndarray]:
        x0, x1 = x[:, 0], x[:, 1]
        z = W[0] * x0 + W[1] * x1 + W[2]
        k = np.exp(-z)
        h = 1 + k
        f = 1 / h
        k_bar = -f * f
        z_bar = -k * k_bar
        found = (z, k, h, f, z_bar, k_bar, z_bar * x0, z_bar * x1, z_bar * W[0], z_bar * W[1])
        return dict(zip(NAMES, found, strict=True))

    return {"NumPy": call}


def by_numba(x: np.ndarray) -> dict[str, Call]:
    try:
        import numba
    except ImportError:
        return {}
    numba.set_num_threads(CORES)
    one = np.float32(1)

    @numba.njit(parallel=True, fastmath=True)
    def chain(x: Any, w: Any, out: Any) -> None:
        for i in numba.prange(x.shape[0]):
            z = w[0] * x[i, 0] + w[1] * x[i, 1] + w[2]
            k = np.exp(-z)
            h = one + k
            f = one / h
            k_bar = -f * f
            z_bar = -k * k_bar
            out[0, i], out[1, i], out[2, i], out[3, i], out[4, i], out[5, i] = z, k, h, f, z_bar, k_bar
            out[6, i], out[7, i] = z_bar * x[i, 0], z_bar * x[i, 1]
            out[8, i], out[9, i] = z_bar * w[0], z_bar * w[1]

    @numba.njit(parallel=True, fastmath=True)
    def moved(x: Any, out: Any) -> None:
        for i in numba.prange(x.shape[0]):
            both = x[i, 0] + x[i, 1]  # one addition, so that the reading is not left out
            for column in range(out.shape[0]):
                out[column, i] = both

    out, moved_to = np.empty((len(NAMES), len(x)), np.float32), np.empty((len(NAMES), len(x)), np.float32)

    def call() -> dict[str, np.ndarray]:
        chain(x, W, out)
        return dict(zip(NAMES, out, strict=True))

    return {"limit": lambda: moved(x, moved_to), "numba": call}


def by_torch(x: np.ndarray) -> dict[str, Call]:
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(CORES)
    rows, w = torch.from_numpy(x), torch.from_numpy(W)

    def forward(x: Any, w: Any) -> Any:
        return 1 / (1 + torch.exp(-((w[:-1] * x).sum(-1) + w[-1])))

    gradients = torch.func.vmap(torch.func.grad(forward, argnums=(0, 1)), in_dims=(0, None))

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

    def func() -> dict[str, Any]:
        x_bar, w_bar = gradients(rows, w)
        return dict(zip(NAMES[-4:], (*w_bar[:, :2].T.numpy(), *x_bar.T.numpy()), strict=True))

    return {"torch.func": func, "torch eager": eager}


def limit_of_device(x: np.ndarray) -> dict[str, Call]:
    """On a GPU: the columns written from the rows, and nothing computed."""
    if ON_CPU:
        return {}
    rows = jax.device_put(x)

    @functools.partial(jax.jit, donate_argnums=0, keep_unused=True)
    def moved(out: Any, x: Any) -> list[Any]:
        return [x[:, i % 2] for i in range(len(NAMES))]

    last: list[Any] = [moved(None, rows)]

    def call() -> Any:
        last[0] = moved(last[0], rows)
        return last[0]

    return {"limit": call}


def contenders(x: np.ndarray) -> dict[str, Call]:
    return by_numba(x) | limit_of_device(x) | by_numpy(x) | by_jax(x) | by_torch(x)


def check(name: str, found: Any, want: dict[str, np.ndarray]) -> None:
    """The first rows, against NumPy's."""
    for column, values in (found or {}).items() if name != "limit" else ():
        # The chain's own rounding: some units of 6e-8 on sums of three terms of size 1.
        first = values[: len(want[column])]
        np.testing.assert_allclose(first, want[column], rtol=2e-5, atol=2e-6, err_msg=f"{name}: {column}")


def in_memory(count: int, repeats: int) -> list[dict[str, Any]]:
    x = np.random.default_rng(0).standard_normal((count, 2), dtype=np.float32)
    want = by_numpy(x[:100_000])["NumPy"]()
    names = list(contenders(x[:100]))
    taken: dict[str, list[float]] = {name: [] for name in names}
    if count > AT_ONCE:  # one at a time: together their arrays do not fit in memory
        for name in names:
            turns({name: contenders(x)[name]}, want, taken, repeats)
    else:
        turns(contenders(x), want, taken, repeats)
    return [line(name, count, np.array(seconds), taken) for name, seconds in taken.items()]


def turns(calls: dict[str, Call], want: dict[str, np.ndarray], taken: dict[str, list[float]], repeats: int) -> None:
    for name, call in calls.items():
        check(name, call(), want)
    for _ in range(repeats):
        for name, call in calls.items():
            jax.block_until_ready(call())  # what the last contender left in the caches is gone
            begun = time.perf_counter()
            jax.block_until_ready(call())
            taken[name].append(time.perf_counter() - begun)


def line(name: str, count: int, seconds: np.ndarray, taken: dict[str, list[float]]) -> dict[str, Any]:
    speed = count / 1e6 / seconds
    peers = ("limit", "NumPy", "jit(vmap), new", "torch.func", "torch eager")
    ratios = {peer: round(float(np.median(np.array(taken[peer]) / seconds)), 3) for peer in peers if peer in taken}
    moved = count * 4 * (2 + len(NAMES)) / float(np.median(seconds)) / 1e9
    return {
        "contender": name, "rows": count, "million_rows_per_s": round(float(np.median(speed)), 1),
        "quartiles": np.percentile(speed, [25, 75]).round(1).tolist(), "GB_per_s": round(moved, 1), "times_of": ratios,
    }  # fmt: skip


def table(lines: list[dict[str, Any]]) -> None:
    peers = list(lines[0]["times_of"])
    print(f"\n| {lines[0]['rows']:,} rows | M rows/s | {' | '.join(f'of {peer}' for peer in peers)} |")
    print("|" + "---|" * (len(peers) + 2))
    for found in lines:
        ratios = " | ".join(f"{found['times_of'][peer]:.2f}" for peer in peers)
        print(f"| {found['contender']} | {found['million_rows_per_s']:.1f} | {ratios} |", flush=True)


def copied(rows: Path, out: Path) -> None:
    """The rows' columns, twelve times, with the library that the format has and nothing computed."""
    if rows.suffix == ".npy":
        x = np.load(rows, mmap_mode="r")
        found = np.lib.format.open_memmap(out, "w+", [(name, np.float32) for name in ALL], shape=(len(x),))
        size = 1 << 14
        for start in range(0, len(x), size):
            for i, name in enumerate(ALL):
                found[name][start : start + size] = x[start : start + size, i % 2]
        found.flush()
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([pa.field(name, pa.float32(), nullable=False) for name in ALL])
    with pq.ParquetWriter(out, schema, compression="none", use_dictionary=False, write_statistics=False) as writer:
        for found in pq.ParquetFile(rows).iter_batches(BLOCK):
            columns = [found.column(i % 2) for i in range(len(ALL))]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=BLOCK)


def save(rows: Path, count: int) -> None:
    """Rows of a block's size at a time: the file may be larger than memory."""
    draw = np.random.default_rng(0)
    blocks = (draw.standard_normal((min(BLOCK, count - start), 2), np.float32) for start in range(0, count, BLOCK))
    if rows.suffix == ".npy":
        found = np.lib.format.open_memmap(rows, "w+", np.float32, shape=(count, 2))
        for i, block in enumerate(blocks):
            found[i * BLOCK : i * BLOCK + len(block)] = block
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("a", pa.float32()), ("b", pa.float32())])
    with pq.ParquetWriter(rows, schema, compression="none", use_dictionary=False) as writer:
        for block in blocks:
            writer.write_table(pa.table([block[:, 0], block[:, 1]], schema=schema))


def from_file_to_file(count: int, ending: str, repeats: int, folder: Path) -> dict[str, Any]:
    rows, out, copy = (folder / f"{name}{ending}" for name in ("rows", "out", "copy"))
    save(rows, count)
    task = plan_task(rows, "0.5,-0.3,0.1")
    begun = time.perf_counter()
    evaluate(task, out, overwrite=True)
    first = time.perf_counter() - begun
    taken: dict[str, list[float]] = {"evaluate": [], "copy": []}
    for _ in range(repeats):
        for name, call in (("evaluate", lambda: evaluate(task, out)), ("copy", lambda: copied(rows, copy))):
            out.unlink(missing_ok=True)
            copy.unlink(missing_ok=True)
            begun = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - begun)
    out.unlink(missing_ok=True)
    copy.unlink(missing_ok=True)
    peak = peak_memory(rows, out)
    out.unlink()
    rows.unlink()
    return {
        "file": ending, "rows": count,
        "evaluate_million_rows_per_s": round(count / 1e6 / statistics.median(taken["evaluate"]), 1),
        "copy_million_rows_per_s": round(count / 1e6 / statistics.median(taken["copy"]), 1),
        "of_copy": round(float(np.median(np.array(taken["copy"]) / np.array(taken["evaluate"]))), 2),
        "first_with_compiling_s": round(first, 2), "peak_GB": round(peak / 1e9, 2),
    }  # fmt: skip


def peak_memory(rows: Path, out: Path) -> int:
    """Bytes that a process of its own used at most, the interpreter and JAX in it."""
    # Started by a small process: one that this large one starts would be counted as large as it.
    script = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
    )
    command = [sys.executable, "-m", "jaxgrad", "evaluate", str(rows), "-w", "0.5,-0.3,0.1", "-o", str(out)]
    done = subprocess.run([sys.executable, "-c", script, *command], check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout)


def about() -> dict[str, Any]:
    versions = {}
    for name in ("jax", "jaxlib", "numpy", "numba", "torch", "pyarrow"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"device": jax.devices()[0].device_kind, "devices": len(jax.devices()), "cores": CORES,
            "machine": platform.machine(), "versions": versions}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, nargs="*", default=[1e4, 1e5, 1e6, 1e7, 1e8])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--files", type=float, nargs="*", default=[1e7])
    parser.add_argument("--folder", type=Path, help="where the files are written (default: a temporary folder)")
    arguments = parser.parse_args()
    lines = []
    for count in map(int, arguments.rows):
        found = in_memory(count, arguments.repeats if count <= AT_ONCE else 3)
        table(found)
        lines += found
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        for count in map(int, arguments.files):
            for ending in (".npy", ".parquet"):
                lines.append(from_file_to_file(count, ending, min(5, arguments.repeats), folder))
                print(json.dumps(lines[-1]), flush=True)
    finally:
        shutil.rmtree(folder)
    print("\n" + "\n".join(json.dumps(found | about()) for found in lines))


if __name__ == "__main__":
    main()
