"""A thousand files of rows against one file of as many rows: one process, one compilation.

    python bench/data_sets.py [--rounds 3] [--files 1000] [--format .npy] [--deleted]

Each output is in a new folder, on a disk that has nothing else to write and whose earlier outputs stay (1 GB a round).
With --deleted, earlier outputs are deleted just before, so that their blocks and pages are there to be used again, and
their names are not.

The outputs are compared: the files' joined are the one's. Prints one JSON line a format: seconds of each, the median
ratio of the rounds, taken in turns.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxgrad.__main__ import main as command

W = ("-w", "0.5,-0.3,0.1")
ROWS = 10_000  # in a file


def save(path, x):
    if path.suffix == ".npy":
        np.save(path, x)
    else:
        pq.write_table(pa.table({"a": x[:, 0], "b": x[:, 1]}), path)


def read(path):
    return np.load(path)["f"] if path.suffix == ".npy" else pq.read_table(path)["f"].to_numpy()


def seconds(rows, out, deleted):
    if deleted:
        for earlier in out.parent.glob(f"{out.name.partition('-')[0]}-*"):
            shutil.rmtree(earlier)
    os.sync()
    start = time.perf_counter()
    assert command(["evaluate", str(rows), *W, "-o", f"{out}/"]) == 0
    return time.perf_counter() - start


def measure(ending, files, rounds, folder, deleted):
    many, one = folder / "many", folder / "one"
    for made in (many, one):
        made.mkdir()
    x = np.random.default_rng(0).standard_normal((files * ROWS, 2), dtype=np.float32)
    save(one / f"all{ending}", x)
    for i in range(files):
        save(many / f"{i:05}{ending}", x[i * ROWS : (i + 1) * ROWS])
    del x
    pairs = [
        (seconds(many, folder / f"outs-{i}", deleted), seconds(one, folder / f"out-{i}", deleted))
        for i in range(rounds + 1)
    ][1:]
    joined = np.concatenate([read(path) for path in sorted((folder / f"outs-{rounds}").glob(f"*{ending}"))])
    assert joined.tobytes() == read(folder / f"out-{rounds}" / f"all{ending}").tobytes()
    ratios = [a / b for a, b in pairs]
    return {
        "case": f"{files} files of {ROWS} rows{ending}",
        "many_s": statistics.median(a for a, _ in pairs),
        "one_s": statistics.median(b for _, b in pairs),
        "deleted": deleted,
        "ratio": round(statistics.median(ratios), 2),
        "spread": [round(min(ratios), 2), round(max(ratios), 2)],
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--format", choices=(".npy", ".parquet"), action="append")
    parser.add_argument("--deleted", action="store_true", help="earlier outputs, just before each one")
    arguments = parser.parse_args()
    for ending in arguments.format or (".npy", ".parquet"):
        with tempfile.TemporaryDirectory() as folder:
            print(
                json.dumps(measure(ending, arguments.files, arguments.rounds, Path(folder), arguments.deleted)),
                flush=True,
            )


if __name__ == "__main__":
    main()
