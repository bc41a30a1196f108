"""Every float16, bfloat16 and float32, and 10**8 float64: how far is each sigmoid from the truth?

    python bench/exhaustive.py [--every N] [--workers N]

Prints a JSON line for each (dtype, contender, quantity), then a table. The contenders are `neuron.sigmoid` and
`neuron.backprop`, the document's chain by autodiff, `jax.nn.sigmoid` and, where PyTorch is installed, `torch.sigmoid`
with autograd; all are jitted, on one thread a worker. Errors are in units in the last place of the true value wherever
that is a normal number of the dtype. The truth is `tests/helpers/sigmoid_oracle.py`'s.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad import neuron

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from helpers.sigmoid_oracle import QUANTITIES, Floats, is_false_zero, patterns, truth, truth_by_mpmath, ulp_error

DTYPES = ("float16", "bfloat16", "float32", "float64")
PIECE = 1 << 16  # floats at a time: what a core's cache holds
TASK = 1 << 25  # patterns at a time in one worker
SIGN = 1 << 63  # of a float64
MPMATH_POINTS = 100_000

Columns = Mapping[str, Floats]
Contender = Callable[[Floats], Columns]


@dataclass(frozen=True)
class Task:
    """The floats whose bit patterns are start, start + step, ...; or, by mpmath, as many random ones."""

    dtype: str
    start: int
    stop: int
    step: int = 1
    mpmath: bool = False


@dataclass(frozen=True)
class Found:
    """The worst of one quantity of one contender, over the floats of one dtype."""

    dtype: str
    contender: str
    quantity: str
    floats: int
    worst_ulp: float
    at: float
    nan: int
    false_zeros: int

    def __add__(self, other: "Found") -> "Found":
        worst = max(self, other, key=lambda found: found.worst_ulp)
        counts = (self.nan + other.nan, self.false_zeros + other.false_zeros)
        return Found(*self.key, self.floats + other.floats, worst.worst_ulp, worst.at, *counts)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.dtype, self.contender, self.quantity


def tasks(every: int) -> Iterator[Task]:
    for dtype, bits in (("float16", 16), ("bfloat16", 16), ("float32", 32)):
        for start in range(0, 1 << bits, TASK):
            yield Task(dtype, start, min(start + TASK, 1 << bits), every)
    # float64: 1.1e8 between 2**-60 and 1500, where something happens, and 2e6 from 0 to NaN, either sign.
    low, high = (int(np.float64(z).view(np.uint64)) for z in (2.0**-60, 1500.0))
    for sign in (0, SIGN):
        edges = np.linspace(low, high, 9).astype(np.uint64).tolist()
        step = (high - low) // 55_000_000 * every
        yield from (Task("float64", sign + a, sign + b, step) for a, b in pairwise(edges))
        yield Task("float64", sign, sign + SIGN - 1, (SIGN // 1_000_000) * every)
    yield from (Task("float64", seed, seed + MPMATH_POINTS // 8, every, mpmath=True) for seed in range(8))


def run(task: Task) -> list[Found]:
    """The worst of every contender over one task's floats."""
    jax.config.update("jax_enable_x64", True)
    total: dict[tuple[str, str, str], Found] = {}
    for z in pieces(task):
        true = truth_by_mpmath(z) if task.mpmath else truth(z)
        label = f"{task.dtype} by mpmath" if task.mpmath else task.dtype
        for contender, columns in contenders().items():
            for quantity, got in columns(z).items():
                found = measure(label, contender, quantity, z, got, true[quantity])
                total[found.key] = total[found.key] + found if found.key in total else found
    return list(total.values())


def pieces(task: Task) -> Iterator[Floats]:
    if task.mpmath:
        rng = np.random.default_rng(task.start)
        n = (task.stop - task.start) // task.step // 2
        size = np.exp2(rng.uniform(-60, 10, n))
        yield np.concatenate([rng.uniform(-750, 750, n), size * rng.choice([-1, 1], n)])
        return
    for start in range(task.start, task.stop, PIECE * task.step):
        z = patterns(task.dtype, start, min(start + PIECE * task.step, task.stop), task.step)
        # Always of one length, so that nothing is compiled twice; what is repeated changes no maximum.
        yield np.resize(z, PIECE) if task.dtype in ("float32", "float64") else z


def measure(dtype: str, contender: str, quantity: str, z: Floats, got: Floats, true: Floats) -> Found:
    floats = z.size
    if _constant(got) and _constant(true):  # three quarters of all floats: too large or too small to make a difference
        z, got, true = z[:1], got[:1], true[:1]
    error = ulp_error(got, true)
    worst = int(error.argmax())
    nan = zeros = 0
    if error[worst] > 1:  # a NaN and a false zero are farther away than that
        share = floats // z.size
        nan = share * int(np.count_nonzero(np.isnan(got) & ~np.isnan(true)))
        zeros = share * int(np.count_nonzero(is_false_zero(got, true)))
    return Found(dtype, contender, quantity, floats, float(error[worst]), float(z[worst]), nan, zeros)


def _constant(array: Floats) -> bool:
    if array.dtype == np.longdouble:
        return False
    bits = array.view(f"i{array.itemsize}")
    return bool(bits[0] == bits[-1] and bits.min() == bits.max())


@cache
def contenders() -> dict[str, Contender]:
    found = {
        "neuron.sigmoid": _derivatives(neuron.sigmoid),
        "neuron.backprop": _backprop,
        "the chain": _chain,
        "jax.nn.sigmoid": _derivatives(jax.nn.sigmoid),
    }
    return found | ({"torch.sigmoid": _torch()} if find_spec("torch") else {})


def _numpy(fun: Callable[[Any], Mapping[str, Any]]) -> Contender:
    jitted = jax.jit(fun)
    return lambda z: {name: np.asarray(column) for name, column in jitted(z).items()}


def _each(fun: Callable[[Any], Any], z: Any) -> dict[str, Any]:
    """Value, derivative and second derivative."""
    return {
        "f": fun(z),
        "df/dz": jax.vmap(jax.grad(fun))(z),
        "d2f/dz2": jax.vmap(jax.grad(jax.grad(fun)))(z),
    }


def _derivatives(fun: Callable[[Any], Any]) -> Contender:
    return _numpy(lambda z: _each(fun, z))


@_numpy
def _backprop(z: Any) -> Mapping[str, Any]:
    w = jnp.array([1, 0], z.dtype)
    columns = neuron.quantities(jax.vmap(neuron.backprop, in_axes=(0, None))(z[:, None], w))
    return {name: column for name, column in columns.items() if name in QUANTITIES}


@_numpy
def _chain(z: Any) -> Mapping[str, Any]:
    k = neuron.k(z)
    h = neuron.h(k)
    df_dk = jax.vmap(jax.grad(lambda k: neuron.f(neuron.h(k))))(k)
    return {
        "k": k,
        "h": h,
        "df/dh": jax.vmap(jax.grad(neuron.f))(h),
        "df/dk": df_dk,
        **_each(lambda z: neuron.f(neuron.h(neuron.k(z))), z),
    }


def _torch() -> Contender:
    import torch

    torch.set_num_threads(1)

    def columns(z: Floats) -> Columns:
        bits = torch.from_numpy(z.view(f"i{z.itemsize}").copy())
        x = bits.view(getattr(torch, z.dtype.name)).requires_grad_()
        f = torch.sigmoid(x)
        (slope,) = torch.autograd.grad(f.sum(), x, create_graph=True)
        (curve,) = torch.autograd.grad(slope.sum(), x)
        found = {"f": f, "df/dz": slope, "d2f/dz2": curve}
        return {name: v.detach().view(bits.dtype).numpy().view(z.dtype) for name, v in found.items()}

    return columns


def table(found: Mapping[tuple[str, str, str], Found]) -> str:
    """Markdown: a row for each quantity, a column for each contender."""
    names = list(dict.fromkeys(contender for _, contender, _ in found))
    lines = ["| | | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for dtype in dict.fromkeys(dtype for dtype, _, _ in found):
        for quantity in QUANTITIES:
            cells = [_cell(found.get((dtype, name, quantity))) for name in names]
            lines.append(f"| {dtype} | {quantity} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(found: Found | None) -> str:
    if found is None:
        return ""
    wrong = [f"{count:.2g} {what}" for count, what in ((found.nan, "NaN"), (found.false_zeros, "false 0")) if count]
    if wrong:
        return ", ".join(wrong)
    return f"{found.worst_ulp:.3g} at {found.at:.6g}" if found.worst_ulp < 1000 else f"wrong at {found.at:.6g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="look at every Nth float only (default: each)")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if np.finfo(np.longdouble).nmant < 63:
        parser.error("np.longdouble is no wider than float64 here: there is no oracle for float64")

    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["JAX_PLATFORMS"] = "cpu"
    begun, total = time.perf_counter(), {}
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run, task) for task in tasks(arguments.every)]
        for done, future in enumerate(as_completed(futures), start=1):
            for found in future.result():
                total[found.key] = total[found.key] + found if found.key in total else found
            print(f"\r{done}/{len(futures)}, {time.perf_counter() - begun:.0f} s", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)

    total = {found.key: found for found in sorted(total.values(), key=_order)}
    versions = {name: version(name) for name in ("jax", "numpy", "torch") if find_spec(name)}
    for found in total.values():
        print(json.dumps({**asdict(found), "worst_ulp": str(found.worst_ulp), "at": str(found.at), **versions}))
    print(f"\n{table(total)}\n")
    floats = {dtype: found.floats for (dtype, _, _), found in total.items()}
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = f"{time.perf_counter() - begun:.0f} s, {children.ru_utime + children.ru_stime:.0f} s of CPU time"
    print(f"Floats: {floats}. --every {arguments.every}, --workers {arguments.workers}: {took}. {versions}")
    if not find_spec("torch"):
        print("PyTorch is not installed: its column is missing")


def _order(found: Found) -> tuple[int, str, int, int]:
    dtype = found.dtype.split()[0]
    return DTYPES.index(dtype), found.dtype, list(contenders()).index(found.contender), QUANTITIES.index(found.quantity)


if __name__ == "__main__":
    main()
