"""Publishing: at every moment OUT is whole or absent, and no file that is not OUT's own is ever written to."""

import os
from contextlib import suppress

import numpy as np
import pytest

from helpers.killed import STEPS
from helpers.row_files import W, files_of, inputs, read, run, save
from jaxgrad._evaluate.output import part as output_part
from jaxgrad._evaluate.output import resumable


class Killed(BaseException):
    """What stands for a kill in one process: nothing that would tidy up runs."""


@pytest.fixture
def killed_at(monkeypatch):
    """Runs the command and kills it before or after a step of publishing."""

    def kill(step, when, *arguments):
        owner, name = STEPS[step]
        original = getattr(owner, name)

        def dying(*args, **kwargs):
            if when == "before":
                raise Killed
            original(*args, **kwargs)
            raise Killed

        def left(part):  # as the system does it
            part.file.end()
            with suppress(OSError):
                part._log.close()

        with monkeypatch.context() as patch:
            patch.setattr(output_part.Part, "leave", left)
            publish = output_part.Part.publish

            def publishing(part, seal):
                patch.setattr(owner, name, dying)
                publish(part, seal)

            patch.setattr(output_part.Part, "publish", publishing)
            try:
                run(*arguments)
            except Killed:
                return True
        return False

    return kill


@pytest.mark.parametrize(
    "ending",
    [".npy", ".parquet", *(pytest.param(other, marks=pytest.mark.deep) for other in (".csv", ".arrow"))],
)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", range(len(STEPS)))
def test_killed_around_any_step_of_publishing_nothing_is_lost(step, when, ending, tmp_path, killed_at):
    rows, out, want = save(tmp_path / "rows.npy", inputs(300)), tmp_path / f"out{ending}", tmp_path / f"want{ending}"
    assert run(rows, "-w", W, "-o", want) == 0
    arguments = (rows, "-w", W, "-o", out)
    killed = killed_at(step, when, *arguments)
    for overwrite in (False, True, False):
        was_there = out.exists() and out.read_bytes()
        assert was_there in (False, want.read_bytes())
        if overwrite:
            killed |= killed_at(step, when, *arguments, "--overwrite")
            assert out.read_bytes() == want.read_bytes()
        else:
            assert run(*arguments, "--resume") == 0
            assert out.read_bytes() == want.read_bytes()
            assert sorted(os.listdir(tmp_path)) == sorted(["rows.npy", *files_of(out), *files_of(want)])
    assert killed or (STEPS[step][1] in ("_publish_seal", "write_whole") and ending not in (".npy", ".csv"))


def test_a_part_that_is_the_published_output_too_is_not_written_to(tmp_path):
    """As a kill between the link and the unlink leaves it."""
    rows, out, part = save(tmp_path / "rows.npy", inputs(300)), tmp_path / "out.npy", tmp_path / "out.npy.part"
    assert run(rows, "-w", W, "-o", out) == 0
    whole = out.read_bytes()
    os.link(out, part)
    nan = inputs(300)
    nan[7] = np.nan
    save(rows, nan)
    assert run(rows, "-w", W, "-o", out, "--overwrite") == 2  # and had begun to write by then
    assert out.read_bytes() == whole


@pytest.mark.parametrize("kind", ["symlink", "hard link"])
@pytest.mark.parametrize("name", ["out.npy.part", "out.npy.part.log"])
def test_a_link_by_the_name_of_a_part_or_log_leads_to_no_harm(name, kind, tmp_path, capsys):
    rows, out, mine = save(tmp_path / "rows.npy", inputs(10)), tmp_path / "out.npy", tmp_path / "mine.txt"
    mine.write_text("mine")
    make = os.symlink if kind == "symlink" else os.link
    make(mine, tmp_path / name)
    for options in ([], ["--resume"], ["--overwrite"], ["--overwrite", "--resume"]):
        run(rows, "-w", W, "-o", out, *options)
        assert mine.read_text() == "mine"
    error = capsys.readouterr().err
    assert "was kept" in error


@pytest.mark.parametrize("name", ["out.npy", "out.npy.part", "out.npy.part.log", "out.npy.seal.json"])
@pytest.mark.parametrize("what", ["rows", "weights"])
def test_what_is_read_is_never_written_to(name, what, tmp_path, capsys):
    rows, w = save(tmp_path / "rows.npy", inputs(10)), tmp_path / "w.txt"
    w.write_text("0.5 -0.3 0.1")
    kept = rows if what == "rows" else w
    before = kept.read_bytes()
    os.link(kept, tmp_path / name)
    assert run(rows, "-w", w, "-o", tmp_path / "out.npy", "--overwrite") == 2
    assert f'"{tmp_path / name}" holds the {what}; expected another file for the output.' in capsys.readouterr().err
    assert kept.read_bytes() == before


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
@pytest.mark.parametrize("whole", [True, False])
def test_what_a_kill_left_of_a_file_beside_the_output_is_taken_away(whole, options, tmp_path):
    """A file that has not its own name yet, of a process that was killed while it wrote it."""
    rows, out = save(tmp_path / "rows.npy", inputs(10)), tmp_path / "out.npy"
    assert not whole or run(rows, "-w", W, "-o", out) == 0
    staged = [".out.npy.seal.json.123.tmp", ".out.npy.skipped.csv.123.tmp"]
    others = [
        ".other.npy.seal.json.123.tmp",
        ".out.npy.seal.json.x.tmp",
        ".out.npy.123.tmp",
        ".outznpy.seal.json.1.tmp",
    ]
    for name in (*staged, *others):
        (tmp_path / name).touch()
    (tmp_path / "out.npy.part.log").touch()
    assert run(rows, "-w", W, "-o", out, "--resume", *options) == 0
    left = set(os.listdir(tmp_path))
    assert left >= set(others)
    assert not left & set(staged) or (whole and not options)  # where nothing says that a run was there


def test_the_weights_named_as_the_part_are_kept(tmp_path):
    rows, w = save(tmp_path / "rows.npy", inputs(10)), tmp_path / "o.npy.part"
    w.write_text("0.5 -0.3 0.1")
    assert run(rows, "-w", w, "-o", tmp_path / "o.npy", "--overwrite") == 2
    assert w.read_text() == "0.5 -0.3 0.1"


def test_a_pipe_by_the_name_of_the_log_does_not_hang(tmp_path, capsys):
    rows = save(tmp_path / "rows.npy", inputs(10))
    os.mkfifo(tmp_path / "out.npy.part.log")
    for option in ("--resume", "--overwrite"):
        assert run(rows, "-w", W, "-o", tmp_path / "out.npy", option) == 2
        assert "is no file of its own, and was kept" in capsys.readouterr().err


def test_a_part_of_two_names_is_not_gone_on_with(tmp_path):
    path = tmp_path / "part"
    file = resumable.opened(path, None)
    file.write(b"abc")
    file.end()
    os.link(path, tmp_path / "other")
    last = output_part.Done(1, 1, 0, 3, 0, None, "352441c2")
    with pytest.raises(output_part.InputError, match="has another name too, and was kept; expected a file of its own"):
        resumable.opened(path, last)
    assert path.read_bytes() == b"abc"


def test_what_is_written_is_on_the_disk_every_few_seconds(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(output_part, "SYNC_EVERY", 0.0)
    monkeypatch.setattr(os, "fsync", synced.append)
    rows, out = save(tmp_path / "rows.npy", inputs(5000)), tmp_path / "out.parquet"
    assert run(rows, "-w", W, "-o", out, "--batch-size", 100) == 0
    assert len(synced) > 4  # the last alone are the part, the log and the folder
    assert len(read(out)["f"]) == 5000
