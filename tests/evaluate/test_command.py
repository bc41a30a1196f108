"""The command as a process: signals, streams that are closed, what goes wrong before it begins; JSON, plans, limits."""

import json
import logging
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from helpers.broken_off import broken_off
from helpers.row_files import FORMATS, W, inputs, quantities, read, run, save
from jaxgrad import __main__ as command
from jaxgrad._cli import interrupts
from jaxgrad._evaluate.processes import processes

COMMAND = [sys.executable, "-m", "jaxgrad", "evaluate"]
COMPILED = {
    "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


@pytest.fixture(autouse=True)
def rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return save(tmp_path / "rows.npy", inputs(1000))


def start(*arguments, **options):
    environment = os.environ | COMPILED | options.pop("env", {})
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        **options,
    )  # fmt: skip


@pytest.mark.parametrize(("which", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_ends_it_in_order_and_it_goes_on_to_the_same_bytes(which, status, tmp_path):
    save(tmp_path / "rows.npy", inputs(60_000))
    out, log = tmp_path / "out.npy", tmp_path / "out.npy.part.log"
    process = start("rows.npy", "-w", W, "-o", out, "--batch-size", 100)
    while not log.exists() or log.read_bytes().count(b"\n") < 4:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(which)
    said, error = process.communicate(timeout=60)
    assert (process.returncode, said) == (status, "")
    assert error == f'jaxgrad: interrupted. What was done is in "{out}.part": give --resume to go on with it.\n'
    assert not out.exists()
    assert run("rows.npy", "-w", W, "-o", out, "--batch-size", 100, "--resume") == 0
    assert run("rows.npy", "-w", W, "-o", "want.npy", "--batch-size", 100) == 0
    assert out.read_bytes() == (tmp_path / "want.npy").read_bytes()


def test_ctrl_c_while_jax_is_imported_is_one_line():
    process = start("rows.npy", "-w", W, "-o", "out.npy", env={"PYTHONVERBOSE": "1"})
    for line in process.stderr:
        if line.startswith("import 'jax.") or line.startswith("import 'jaxlib"):
            break
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error
    assert "jaxgrad: interrupted.\n" in error


def test_what_goes_wrong_while_jax_is_imported_is_one_line():
    process = start("rows.npy", "-w", W, "-o", "out.npy", env={"JAX_ENABLE_X64": "garbage"})
    said, error = process.communicate(timeout=60)
    assert (process.returncode, said) == (2, "")
    assert error.startswith("jaxgrad: it cannot be started: ValueError: invalid truth value 'garbage'")
    assert error.count("\n") == 1


@pytest.mark.deep  # as of the report, whose test of it is in test_main.py
def test_a_platform_that_is_not_here_is_one_line():
    process = start("rows.npy", "-w", W, "-o", "out.npy", env={"JAX_PLATFORMS": "cuda"})
    said, error = process.communicate(timeout=60)
    assert (process.returncode, said) == (2, "")
    assert error.startswith("jaxgrad: JAX cannot ")
    assert "cuda" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", pytest.param(">&- 2>/dev/full", marks=pytest.mark.deep)])
def test_streams_that_are_closed_or_full_do_no_harm(closed, tmp_path):
    """Descriptor 2 free, the output would get it, and whatever is said would be in the file."""
    arguments = f"rows.npy -w {W} -o out.npy"
    done = subprocess.run(["sh", "-c", f"{' '.join(COMMAND)} {arguments} {closed}"], env=os.environ | COMPILED)
    assert done.returncode == 0
    assert run("rows.npy", "-w", W, "-o", "want.npy") == 0
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "want.npy").read_bytes()


def test_an_error_that_no_one_hears_is_an_error_all_the_same(monkeypatch):
    with open(os.devnull) as not_to_be_written_to:
        for stream in (None, not_to_be_written_to):
            monkeypatch.setattr(sys, "stderr", stream)
            assert command.main(["evaluate", "none.npy", "-w", W, "-o", "out.npy"]) == 2


def test_a_second_signal_ends_it_at_once(monkeypatch):
    ended = []
    monkeypatch.setattr(interrupts, "end_at_once", lambda: ended.append(True))
    before = [signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)]
    with interrupts.interruptible(for_good=False):
        with pytest.raises(interrupts.Terminated):
            signal.raise_signal(signal.SIGTERM)
        assert not ended
        with pytest.raises(KeyboardInterrupt):
            interrupts.check_not_interrupted()  # where the first was dropped
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert ended
    assert [signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)] == before
    with interrupts.interruptible(for_good=False):
        interrupts.check_not_interrupted()


def test_a_signal_that_is_ignored_stays_so(monkeypatch):
    """As under nohup, and of a job in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.interruptible(for_good=False):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_no_one_foresaw_is_one_line_and_its_traceback_is_there_to_be_asked_for(monkeypatch, capsys):
    def broken(*args, **options):
        raise KeyError("x")

    monkeypatch.setattr("jaxgrad._cli.evaluating.plan_task", broken)
    arguments = ("rows.npy", "-w", W, "-o", "out.npy")
    text = "jaxgrad: unexpected KeyError: 'x'. Give --traceback to see where it comes from.\n"
    assert run(*arguments) == 2
    assert capsys.readouterr().err == text
    assert run(*arguments, "--traceback") == 2
    error = capsys.readouterr().err
    assert error.startswith("Traceback (most recent call last):\n")
    assert error.endswith(text)


def test_the_summary_the_progress_and_errors_are_json_where_it_is_asked_for(capsys):
    arguments = ("rows.npy", "-w", W, "-o", "out.npy", "--json")
    assert run(*arguments) == 0
    out, error = capsys.readouterr()
    assert json.loads(out) == {
        "out": "out.npy", "read": 1000, "written": 1000, "columns": 12, "bad": 0, "first_bad": None, "resumed": 0,
        "was_whole": False,
    }  # fmt: skip
    assert json.loads(error.splitlines()[0]) == {"rows": 0, "of": 1000}
    assert run(*arguments, "--resume") == 0
    assert json.loads(capsys.readouterr().out)["was_whole"] is True
    assert run(*arguments) == 2
    out, error = capsys.readouterr()
    assert out == ""
    found = json.loads(error)
    assert found["status"] == 2
    assert found["error"].startswith('"out.npy" exists, and was kept. Give --overwrite')


def test_progress_is_said_about_once_a_second(capsys, monkeypatch):
    now = iter(np.arange(0, 100, 0.4).tolist())
    monkeypatch.setattr("jaxgrad._cli.evaluating.time.monotonic", lambda: next(now))
    assert run("rows.npy", "-w", W, "-o", "out.npy", "--json", "--batch-size", 100) == 0
    said = [json.loads(line)["rows"] for line in capsys.readouterr().err.splitlines()]
    assert said[0] == 0
    assert 3 <= len(said) <= 6
    assert said == sorted(set(said))


@pytest.mark.parametrize("as_json", [True, False])
def test_a_dry_run_says_what_would_be_done_and_writes_nothing(as_json, tmp_path, capsys):
    before = sorted(os.listdir())
    arguments = ("rows.npy", "-w", W, "-o", "out.npy", "--dry-run", "--limit", 10, "--batch-size", 4)
    assert run(*arguments, *(["--json"] if as_json else [])) == 0
    said = capsys.readouterr().out
    if as_json:
        found = json.loads(said)
        assert (found["rows"], found["rows at a time"], found["inputs"]) == (10, 4, ["x0", "x1"])
        assert (found["dtype"], len(found["columns"]), found["out"]) == ("float32", 12, "out.npy")
    else:
        assert said == (
            'Would read 10 rows of 2 columns from "rows.npy" as float32, 4 at a time, and write 12 columns to out.npy. '
            "Nothing was written.\n"
        )
    assert sorted(os.listdir()) == before
    for ending in (".npy", ".xls"):
        (tmp_path / f"there{ending}").touch()
        assert run("rows.npy", "-w", W, "-o", f"there{ending}", "--dry-run") == 2
    assert "exists, and was kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("limit", "ending"),
    [
        pytest.param(limit, ending, marks=[pytest.mark.deep] if ending != ".csv" and limit not in (300, 1000) else [])
        for limit in (1, 300, 999, 1000, 5000)
        for ending in FORMATS
    ],
)
def test_a_limit_takes_the_first_rows(limit, ending, tmp_path):
    x = inputs(1000)
    save(tmp_path / f"r{ending}", x)
    assert run(f"r{ending}", "-w", W, "-o", "out.npy", "--limit", limit, "--batch-size", 256) == 0
    np.testing.assert_array_equal(np.load("out.npy")["f"], quantities(x[:limit])["f"])
    assert run(f"r{ending}", "-w", W, "-o", "out.npy", "--limit", limit, "--batch-size", 256, "--resume") == 0
    is_all = limit >= 1000 and ending != ".csv"  # where it is not known how many there are, it is another task
    assert run(f"r{ending}", "-w", W, "-o", "out.npy", "--batch-size", 256, "--resume") == (0 if is_all else 2)


@pytest.mark.parametrize(
    "compression",
    ["none", "zstd", *(pytest.param(name, marks=pytest.mark.deep) for name in ("snappy", "lz4", "gzip", "brotli"))],
)
def test_parquet_is_packed_and_in_groups_as_asked_for(compression, tmp_path):
    options = ("--compression", compression, "--row-group-size", 150, "--batch-size", 400)
    assert run("rows.npy", "-w", W, "-o", "out.parquet", *options) == 0
    metadata = pq.read_metadata("out.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [150, 150, 100] * 2 + [150, 50]
    want = "UNCOMPRESSED" if compression == "none" else compression.upper()
    assert {metadata.row_group(0).column(i).compression for i in range(12)} == {want}
    for name, column in quantities(inputs(1000)).items():
        np.testing.assert_array_equal(read(tmp_path / "out.parquet")[name], column)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_packed_parquet_that_was_broken_off_is_computed_again_to_the_same_bytes(compression, tmp_path, monkeypatch):
    options = ("--compression", compression, "--row-group-size", 150, "--batch-size", 400)
    assert run("rows.npy", "-w", W, "-o", "want.parquet", *options) == 0
    with broken_off(monkeypatch, after=2):
        assert run("rows.npy", "-w", W, "-o", "out.parquet", *options) == 130
    assert run("rows.npy", "-w", W, "-o", "out.parquet", *options, "--resume") == 0
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "want.parquet").read_bytes()


def test_what_is_done_is_logged(caplog):
    with caplog.at_level(logging.DEBUG, logger="jaxgrad"):
        assert run("rows.npy", "-w", W, "-o", "out.npy", "--batch-size", 600) == 0
    assert [record.message for record in caplog.records if record.name == "jaxgrad.evaluate"] == [
        "rows.npy to out.npy, from row 0 on",
        "rows 0 to 600 are written, 0 of them bad",
        "rows 600 to 1000 are written, 0 of them bad",
        "out.npy is whole: 1000 rows",
    ]


def test_the_help_has_the_exit_statuses(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    said = capsys.readouterr().out
    assert all(f"\n  {status} " in said for status in (0, 2, 130, 143))


@pytest.mark.parametrize("first", [True, False])
def test_an_address_where_no_first_process_can_be_is_an_error(first, monkeypatch, capsys):
    import socket

    monkeypatch.setattr(processes, "JOINING", 0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if first:
            taken.listen()
        address = f"localhost:{taken.getsockname()[1]}"
        several = ("--coordinator", address, "--processes", 2, "--process", 0 if first else 1)
        assert run("rows.npy", "-w", W, "-o", "out.npy", *several) == 2
    error = capsys.readouterr().err
    text = (
        "cannot wait there for the others: Address already in use. Give another port."
        if first
        else ("and no process 0 has answered there for 0 seconds: ")
    )
    assert f'--coordinator is "{address}", and ' in error
    assert text in error


def test_a_cluster_that_is_none_is_an_error(capsys, monkeypatch):
    def initialize(*args, **options):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    assert run("rows.npy", "-w", W, "-o", "out.npy", "--distributed") == 2
    assert capsys.readouterr().err == (
        "jaxgrad: the processes of this run cannot be found out: coordinator_address should be defined. Give "
        "--coordinator, --processes and --process.\n"
    )
