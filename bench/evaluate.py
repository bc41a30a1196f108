"""`evaluate` beside the library that copies the same columns, and what its checksums and fsync cost.

    python bench/evaluate.py [--rows N] [--cases npy,parquet,zstd,csv] [--memory N,N] [--wide]

prints one JSON line a case. The peer reads the inputs' columns and writes as many columns as `evaluate`, with the same
numbers in them, block by block, in the same format and by the same options: NumPy for .npy, pyarrow for the others. It
computes nothing, and ends in an fsync as `evaluate` does. The ratio is its time over that of `evaluate`, the median of
pairs run in turn. `--memory` has the peak memory of a process at each number of rows; `--wide` the time for two of 1e5
columns.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

import jaxgrad
from jaxgrad import neuron
from jaxgrad.__main__ import main as jaxgrad_command

W = "0.5,-0.3,0.1"
BLOCK = 1 << 20  # rows at a time, on both sides
PAIRS = 5
FIGURES = {"npy": 0.9, "parquet": 0.9, "zstd": 0.9, "csv": 0.7}
# Not ru_maxrss: a process starts with that of its parent, which has made the file.
PEAK = """
import re, sys
from pathlib import Path
from jaxgrad.__main__ import main
assert main(sys.argv[1:]) == 0
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def inputs(rows: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((rows, 2), dtype=np.float32)


def save(path: Path, x: np.ndarray[Any, Any]) -> None:
    table = pa.table({"a": np.ascontiguousarray(x[:, 0]), "b": np.ascontiguousarray(x[:, 1])})
    match path.suffix:
        case ".npy":
            np.save(path, x)
        case ".parquet":
            pq.write_table(table, path, compression="none", use_dictionary=False, row_group_size=BLOCK)
        case ".csv":
            pyarrow.csv.write_csv(table, path)


def evaluated(rows: Path, out: Path, *options: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        status = jaxgrad_command(
            ["evaluate", str(rows), "-w", W, "-o", str(out), "--batch-size", str(BLOCK), "--overwrite", *options]
        )
    assert status == 0


def read(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    match path.suffix:
        case ".npy":
            table = np.load(path, mmap_mode="r")
            return {name: np.ascontiguousarray(table[name]) for name in table.dtype.names}
        case ".parquet":
            columns = pq.read_table(path)
        case ".csv":
            columns = pyarrow.csv.read_csv(path)
    return {name: columns[name].to_numpy() for name in columns.column_names}


def check(x: np.ndarray[Any, Any], found: dict[str, np.ndarray[Any, Any]]) -> None:
    """The numbers are right: z and f by NumPy in float64, all others as the neuron has them."""
    z = 0.5 * x[:, 0].astype(float) - 0.3 * x[:, 1] + 0.1
    np.testing.assert_allclose(found["z"], z, atol=4e-6)  # a few roundings of terms up to 5
    np.testing.assert_allclose(found["f"], 1 / (1 + np.exp(-z)), rtol=2e-6)
    w = np.array([0.5, -0.3, 0.1], np.float32)
    want = neuron.quantities(jax.vmap(neuron.backprop, (0, None))(x[:1000], w))
    for name, column in want.items():
        np.testing.assert_allclose(found[name][:1000], column, rtol=1e-5, atol=1e-6)


def blocks(rows: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, rows)) for start in range(0, rows, BLOCK))


def copied_by_numpy(rows: Path, out: Path, columns: dict[str, np.ndarray[Any, Any]]) -> None:
    x = np.load(rows, mmap_mode="r")
    dtype = np.dtype([(name, column.dtype) for name, column in columns.items()])
    table = np.lib.format.open_memmap(out, mode="w+", dtype=dtype, shape=(len(x),))
    for part in blocks(len(x)):
        np.array(x[part])
        for name, column in columns.items():
            table[name][part] = column[part]
    table.flush()


def copied_by_pyarrow(rows: Path, out: Path, columns: dict[str, np.ndarray[Any, Any]], compression: str) -> None:
    table = pa.table(columns)
    with out.open("wb") as file:
        writer: Any
        if out.suffix == ".csv":
            batches = iter(pyarrow.csv.open_csv(rows))
            writer = pyarrow.csv.CSVWriter(file, table.schema)
        else:
            batches = pq.ParquetFile(rows).iter_batches(BLOCK)
            writer = pq.ParquetWriter(
                file, table.schema, compression=compression, use_dictionary=False, write_statistics=False
            )
        read = iter(batches)
        for part in blocks(table.num_rows):
            next(read, None)
            writer.write_table(table.slice(part.start, part.stop - part.start))
        for _ in read:  # of a CSV file, whose blocks are smaller
            pass
        writer.close()
        file.flush()
        os.fsync(file.fileno())


def measured(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock, and seconds of all cores together, which other processes do not lengthen."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu


@contextlib.contextmanager
def without(module: Any, name: str, instead: Callable[..., Any]) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, instead)
    try:
        yield
    finally:
        setattr(module, name, original)


def case(name: str, rows: int, folder: Path) -> dict[str, Any]:
    ending = {"zstd": "parquet"}.get(name, name)
    packed = "zstd" if name == "zstd" else "none"
    options = ["--compression", "zstd"] if name == "zstd" else []
    path, out, copy = folder / f"rows.{ending}", folder / f"out.{ending}", folder / f"copy.{ending}"
    x = inputs(rows)
    save(path, x)
    evaluated(path, out, *options)  # compiles
    columns = read(out)
    check(x, columns)
    times: dict[str, list[tuple[float, float]]] = {
        "peer": [],
        "evaluate": [],
        "without checksums": [],
        "without fsync": [],
    }
    for _ in range(PAIRS):
        copy.unlink(missing_ok=True)
        if ending == "npy":
            times["peer"].append(measured(lambda: copied_by_numpy(path, copy, columns)))
        else:
            times["peer"].append(measured(lambda: copied_by_pyarrow(path, copy, columns, packed)))
        times["evaluate"].append(measured(lambda: evaluated(path, out, *options)))
        with without(zlib, "crc32", lambda data, value=0: 0):
            times["without checksums"].append(measured(lambda: evaluated(path, out, *options)))
        with without(os, "fsync", lambda descriptor: None):
            times["without fsync"].append(measured(lambda: evaluated(path, out, *options)))

    def median(of: str, over: str, which: int = 0) -> float:
        return statistics.median(a[which] / b[which] for a, b in zip(times[of], times[over], strict=True))

    def speed(of: str) -> float:
        return round(rows / statistics.median(wall for wall, _ in times[of]) / 1e6, 2)

    return {
        "rows": rows,
        "figure": FIGURES[name],
        "peer / evaluate": round(median("peer", "evaluate"), 3),
        "the same of the cores' time": round(median("peer", "evaluate", 1), 3),
        "M rows/s": speed("evaluate"),
        "peer, M rows/s": speed("peer"),
        "share of the checksums": round(1 - median("without checksums", "evaluate"), 3),
        "share of fsync": round(1 - median("without fsync", "evaluate"), 3),
        "seconds": {key: [[round(value, 3) for value in pair] for pair in found] for key, found in times.items()},
    }


def peak(rows: int, folder: Path) -> dict[str, Any]:
    """Peak memory in MB of a process that reads all rows and writes one column."""
    path, out = folder / "rows.npy", folder / "out.npy"
    table = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, 2))
    for part in blocks(rows):
        table[part] = np.random.default_rng(part.start).standard_normal((part.stop - part.start, 2), dtype=np.float32)
    del table
    arguments = ["evaluate", str(path), "-w", W, "-o", str(out), "--keep", "f", "--overwrite"]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True, check=True)
    assert len(np.load(out, mmap_mode="r")) == rows
    return {
        "rows": rows, "peak MB": round(int(done.stdout.split()[-1]) / 1024),
        "seconds": round(time.perf_counter() - start, 1),
    }  # fmt: skip


def wide(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Two of 1e5 columns, and all of a thousand."""
    names = [f"c{i}" for i in range(100_000)]
    x = np.random.default_rng(0).standard_normal((3, len(names))).astype(np.float32)
    table = pa.table({name: x[:, i] for i, name in enumerate(names)})
    for ending in ("npy", "parquet", "csv"):
        path = folder / f"wide.{ending}"
        if ending == "npy":
            np.save(path, x)
        elif ending == "parquet":
            pq.write_table(table, path)
        else:
            lines = [",".join(names), *(",".join(map(str, row)) for row in x)]
            path.write_text("\n".join(lines) + "\n")
        chosen = "5,99999" if ending == "npy" else "c5,c99999"
        took, cpu = measured(lambda path=path, chosen=chosen: evaluated(path, folder / "out.npy", "--columns", chosen))
        yield f"two of 1e5 columns, {ending}", {"seconds": round(took, 2), "of the cores": round(cpu, 2), "figure": 5}
    np.save(folder / "thousand.npy", x[:2, :1000])
    np.save(folder / "w.npy", np.ones(1001))
    with contextlib.redirect_stdout(io.StringIO()):
        arguments = [folder / "thousand.npy", "-w", folder / "w.npy", "-o", folder / "out.npy", "--overwrite"]
        took, cpu = measured(lambda: jaxgrad_command(["evaluate", *map(str, arguments)]))
    yield "a thousand inputs, two rows, compiled", {"seconds": round(took, 2), "of the cores": round(cpu, 2)}


def line(name: str, found: dict[str, Any]) -> None:
    about = {
        "case": name, "device": f"{jax.default_backend()}, {os.cpu_count()} cores, {platform.machine()}",
        "jax": jax.__version__, "numpy": np.__version__, "pyarrow": pa.__version__, "jaxgrad": jaxgrad.__version__,
    }  # fmt: skip
    print(json.dumps(about | found), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4 * BLOCK)
    parser.add_argument("--cases", default="npy,parquet,zstd,csv")
    parser.add_argument("--memory", default="")
    parser.add_argument("--wide", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in filter(None, arguments.cases.split(",")):
            line(name, case(name, arguments.rows, Path(folder)))
        for rows in filter(None, arguments.memory.split(",")):
            line("memory", peak(int(float(rows)), Path(folder)))
        if arguments.wide:
            for name, found in wide(Path(folder)):
                line(name, found)


if __name__ == "__main__":
    main()
