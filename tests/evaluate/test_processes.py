"""Several processes under JAX's own runtime: each its rows, and nothing half written when one of them dies."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from helpers import on_processes
from helpers.row_files import inputs, run
from jaxgrad import InputError, batch, neuron
from jaxgrad._evaluate.output.seal import beside
from jaxgrad._evaluate.processes.processes import check_agreement, check_no_others
from jaxgrad._evaluate.task import plan_task

ENVIRONMENT = {
    **os.environ,
    "JAX_NUM_CPU_DEVICES": "2",
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir or "",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
W = "0.5,-0.3,0.1"
EVALUATE = (sys.executable, "-m", "jaxgrad", "evaluate")
# The same, but JAX notices a death after 3 seconds.
IMPATIENT = (
    sys.executable, "-c", "import sys; from jaxgrad import __main__; from jaxgrad._evaluate.processes import processes"
    "; processes.HEARTBEAT = 3; sys.exit(__main__.main())",
    "evaluate",
)  # fmt: skip
# And killed when its third block is written: however slow the machine, neither process is done by then.
DYING = (
    sys.executable, "-c", "import os; from jaxgrad._evaluate import evaluate as e; write, left = e.written_to, [1, 2]\n"
    "def killed(*a): write(*a); left.pop() if left else os.kill(os.getpid(), 9)\n"
    "e.written_to = killed\n" + IMPATIENT[2], "evaluate",
)  # fmt: skip
ROWS = 10_000


@pytest.fixture
def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def start(*command):
    return subprocess.Popen(
        [*map(str, command)], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def evaluations(address, rows, out, *options, commands=(EVALUATE, EVALUATE)):
    processes = ("--coordinator", address, "--processes", 2, "--process")
    return [start(*command, rows, "-w", W, "-o", out, *options, *processes, i) for i, command in enumerate(commands)]


def finish(processes):
    """What each process printed; all of them must end well."""
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return [out for out, _ in said]


def test_a_batch_over_two_processes_equals_that_of_one_to_the_bit(address, tmp_path):
    script = Path(on_processes.__file__)
    finish([start(sys.executable, script, address, 2, i, tmp_path) for i in range(2)])
    batched = batch(neuron.backprop, (0, None))
    for process in range(2):
        want = neuron.quantities(batched(on_processes.rows(process), on_processes.W))
        with np.load(tmp_path / f"{process}.npz") as got:
            assert set(got) == set(want)
            for name, column in want.items():
                np.testing.assert_array_equal(got[name], column)
        error = (tmp_path / f"different{process}.txt").read_text()
        assert error.startswith("the processes have 10000, 10000, 9998, 9998 rows, device by device; expected as")
        error = (tmp_path / f"uneven{process}.txt").read_text()
        assert error.startswith("this process has 9999 rows and 2 devices of the mesh; over several processes each")
        assert error.endswith("Add 1 rows and drop their results.")
        error = (tmp_path / f"task{process}.txt").read_text()
        assert error == "process 1 has another value for weights than process 0; expected the same in all."


def test_two_processes_evaluate_half_of_the_rows_each_and_carry_what_is_beside_them(address, tmp_path):
    x = on_processes.rows(0)[:1001]
    rows, out = tmp_path / "year=2025" / "rows.csv", tmp_path / "out.csv"
    rows.parent.mkdir()
    lines = [f"a{i},{a:.9g},{b:.9g}" for i, (a, b) in enumerate(x)]
    rows.write_text("\n".join(["id,x0,x1", *lines, ""]))
    options = ("--columns", "x0,x1", "--carry", "id,year", "--row-number", "row")
    said = finish(evaluations(address, rows, out, *options))
    parts = [tmp_path / f"out-0000{i}-of-00002.csv" for i in range(2)]
    assert [
        f"wrote {count} of 15 columns to {part}." in text
        for count, part, text in zip((500, 501), parts, said, strict=True)
    ] == [True, True]
    assert sorted(tmp_path.iterdir()) == sorted([rows.parent, *parts, *map(beside, parts)])
    assert run(rows, "-w", W, "-o", out, *options) == 0
    first, second = (part.read_text().splitlines() for part in parts)
    assert second[0] == first[0]
    assert [*first, *second[1:]] == out.read_text().splitlines()
    cells = [line.split(",")[:3] for line in (first[1], second[1], second[-1])]
    assert [[cell.strip('"') for cell in row] for row in cells] == [
        ["1", "a0", "2025"], ["501", "a500", "2025"], ["1001", "a1000", "2025"]
    ]  # fmt: skip


@pytest.mark.deep
def test_processes_that_are_at_different_tasks_end_with_an_error(address, tmp_path):
    rows, out = tmp_path / "rows.npy", tmp_path / "out.npy"
    np.save(rows, on_processes.rows(0)[:100])
    several = ("--coordinator", address, "--processes", 2, "--process")
    processes = [start(*EVALUATE, rows, "-w", w, "-o", out, *several, i) for i, w in enumerate((W, "0.5,-0.3,0.2"))]
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], said
    text = "process 1 has another value for weights than process 0; expected the same in all."
    assert all(text in error for error in said)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("changed", "key"),
    [({"keep": ["f"]}, "keep"), ({"rows": "other.npy"}, "rows"), ({"dtype": "float64"}, "dtype"), ({}, "output")],
)
def test_what_the_processes_disagree_about_is_named(changed, key, tmp_path, monkeypatch):
    for seed, name in enumerate(("rows.npy", "other.npy")):
        np.save(tmp_path / name, inputs(100, seed=seed))
    outs = ("out.npy", "out.npy" if changed else "other.npy")
    same = {"rows": "rows.npy", "keep": None, "dtype": None}
    tasks = [
        plan_task(tmp_path / g["rows"], W, keep=g["keep"], dtype=g["dtype"], share=(i, 2))
        for i, g in enumerate((same, same | changed))
    ]
    digests = []
    monkeypatch.setattr(
        "jax.experimental.multihost_utils.process_allgather", lambda d: digests.append(d) or np.stack(digests)
    )
    check_agreement(tasks[0], outs[0])
    with pytest.raises(InputError, match=f"process 1 has another value for {key} than process 0"):
        check_agreement(tasks[1], outs[1])


def test_shards_of_another_number_are_not_left_beside_new_ones(tmp_path):
    for name in ("out-00000-of-00003.npy", "out-00000-of-00002.npy", "out2-00000-of-00003.npy"):
        (tmp_path / name).touch()
    check_no_others(tmp_path / "out.npy", 1)
    check_no_others(tmp_path / "out2.npy", 3)
    with pytest.raises(InputError, match=r"of 3 shards, and now there are 2; expected none"):
        check_no_others(tmp_path / "out.npy", 2)


@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_process_dies_the_other_ends_with_an_error_and_both_can_be_resumed(victim, address, tmp_path):
    rows, out = tmp_path / "rows.npy", tmp_path / "out.npy"
    np.save(rows, inputs(ROWS))
    options = ("--batch-size", 200)
    processes = evaluations(
        address, rows, out, *options, commands=[DYING if i == victim else IMPATIENT for i in (0, 1)]
    )
    assert processes[victim].wait(60) == -signal.SIGKILL, processes[victim].communicate()
    died = time.monotonic()
    _, error = processes[1 - victim].communicate(timeout=60)
    assert time.monotonic() - died < 60
    assert processes[1 - victim].returncode not in (0, None)
    ours = f"jaxgrad: process {victim} has ended before it was done, so that JAX will end this one too"
    assert error.count(ours) == 1 or victim == 0  # JAX's own connection to the first ends at the same moment
    assert victim == 0 or "another task died" not in error.partition(ours)[0]
    assert "another task died" in error
    assert not list(tmp_path.glob("*of-00002.npy"))
    processes[victim].communicate()
    if victim == 1:
        for i in range(2):  # which needs no processes that know each other
            assert run(rows, "-w", W, "-o", out, *options, "--resume", "--part", f"{i}/2") == 0
        assert run(rows, "-w", W, "-o", out) == 0
        parts = [np.load(tmp_path / f"out-0000{i}-of-00002.npy") for i in range(2)]
        assert np.concatenate(parts).tobytes() == np.load(out).tobytes()


def test_when_one_process_cannot_go_on_the_other_ends_too(address, tmp_path):
    x = on_processes.rows(0)[:1000].copy()
    x[700] = np.nan
    rows, out = tmp_path / "rows.npy", tmp_path / "out.npy"
    np.save(rows, x)
    processes = evaluations(address, rows, out, commands=[IMPATIENT, IMPATIENT])
    first, second = (process.communicate(timeout=60) for process in processes)
    assert processes[1].returncode == 2
    assert "row 701, column x0: it is nan" in second[1]
    assert processes[0].returncode not in (0, None)
    assert "jaxgrad: process 1 has ended before it was done" in first[1].partition("another task died")[0]
    assert "another task died" in first[1]
    assert not list(tmp_path.glob("*of-00002.npy"))
