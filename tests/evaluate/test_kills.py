"""SIGKILL at random moments: while it begins, goes on, writes over and publishes. Nothing is lost or half written."""

import multiprocessing
import os
import random
import signal

import jax
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.killed import STEPS, evaluate_and_die
from helpers.row_files import FORMATS, W, files_of, inputs, run

ROWS, SIZE = 20_000, 500  # 40 blocks


@pytest.fixture(scope="module")
def processes():
    """Processes that start where the command has imported what it needs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers.killed", "pyarrow.csv", "pyarrow.parquet"])
    return context


def some_moment(draw):
    if draw.random() < 0.5:
        return ("block", draw.randint(1, 40), draw.uniform(0, 0.01))
    return ("step", draw.randrange(len(STEPS)), draw.choice(["before", "after"]))


def rows_to_carry(folder):
    """Rows with text of any length, so that a block's bytes depend on more than the number of its rows."""
    x = inputs(ROWS)
    names = [None if i % 7 == 0 else "\u00e4" * (i * i % 23) for i in range(ROWS)]
    pq.write_table(pa.table({"a": x[:, 0], "b": x[:, 1], "id": range(ROWS), "name": names}), folder / "rows.parquet")
    return folder / "rows.parquet"


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.deep)])
def test_killed_at_any_moment_nothing_is_lost_or_half_written(kills, ending, tmp_path, processes):
    rows, out, want = rows_to_carry(tmp_path), tmp_path / f"out{ending}", tmp_path / f"want{ending}"
    passing = ["--columns", "a,b", "--carry", "id" if ending == ".npy" else "id,name", "--row-number", "row"]
    arguments = [str(argument) for argument in (rows, "-w", W, "--batch-size", SIZE, *passing, "-o", out)]
    assert run(*arguments[:-1], want) == 0
    draw, died = random.Random(ending), 0

    def killed(*options):
        """Whether a process with these options was killed; some moments are none of this format."""
        compiled = jax.config.jax_compilation_cache_dir
        command = ["evaluate", *arguments, *options]
        process = processes.Process(target=evaluate_and_die, args=(command, some_moment(draw), compiled))
        process.start()
        process.join(120)
        assert process.exitcode in (0, -signal.SIGKILL)
        return process.exitcode != 0

    while died < kills:
        died += killed("--resume")
        while draw.random() < 0.3:  # and again, while it goes on
            assert not out.exists() or out.read_bytes() == want.read_bytes()
            died += killed("--resume")
        assert not out.exists() or out.read_bytes() == want.read_bytes()
        assert run(*arguments, "--resume") == 0
        assert out.read_bytes() == want.read_bytes()
        assert sorted(os.listdir(tmp_path)) == sorted(["rows.parquet", *files_of(out), *files_of(want)])
        died += killed("--overwrite")
        assert out.read_bytes() == want.read_bytes()
        assert run(*arguments, draw.choice(["--resume", "--overwrite"])) == 0
        assert out.read_bytes() == want.read_bytes()
        assert sorted(os.listdir(tmp_path)) == sorted(["rows.parquet", *files_of(out), *files_of(want)])
        for name in files_of(out):
            (tmp_path / name).unlink()
