"""What is there already: an output or a part passes for this task's only if it is this task's, to the last byte."""

import json
import os
import shutil

import jax
import numpy as np
import pytest

from helpers.broken_off import broken_off
from helpers.row_files import FORMATS, W, files_of, inputs, quantities, read, run, save
from jaxgrad._evaluate.output.log import Done, Log
from jaxgrad._evaluate.output.seal import beside

SIZE = ("--batch-size", 128)


@pytest.fixture(params=FORMATS)
def out(request, tmp_path):
    """An output that is whole, of rows.csv."""
    save(tmp_path / "rows.csv", inputs(1000))
    out = tmp_path / f"out{request.param}"
    assert run(tmp_path / "rows.csv", "-w", W, "-o", out, *SIZE) == 0
    return out


def resume(out, *options, rows="rows.csv", w=W):
    return run(out.with_name(rows), "-w", w, "-o", out, *SIZE, "--resume", *options)


def test_resuming_what_is_whole_does_nothing(out, capsys):
    before = out.stat().st_mtime_ns
    capsys.readouterr()
    assert resume(out) == 0
    assert capsys.readouterr().out == f"{out} was whole already; nothing was done.\n"
    assert out.stat().st_mtime_ns == before


def test_rows_that_were_copied_and_touched_are_the_same_rows(out, capsys):
    shutil.copyfile(out.with_name("rows.csv"), out.with_name("copy.csv"))
    os.utime(out.with_name("copy.csv"), (1, 1))
    assert resume(out, rows="copy.csv") == 0
    assert "was whole already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["-w", "0.5,-0.3,0.2"], "it was made with weights [0.5, -0.3"),
        (["--columns", "b,a"], "it was made with columns ['a', 'b'], and now it is ['b', 'a']"),
        (["--dtype", "float64"], "it was made with dtype 'float32', and now it is 'float64'"),
        (["--keep", "f"], "it was made with keep ["),
        (["--on-bad-row", "nan"], "it was made with on bad row 'error', and now it is 'nan'"),
        (["--batch-size", "64"], "it was made with batch size 128, and now it is 64"),
    ],
)
def test_another_task_is_named_and_the_output_kept(out, options, text, capsys):
    before = out.read_bytes()
    assert resume(out, *options) == 2
    error = capsys.readouterr().err
    assert f'"{out}" exists, and was kept: {text}' in error
    assert "Give --overwrite to write over it, or another name." in error
    assert out.read_bytes() == before


def test_other_rows_of_the_same_number_are_other_rows(out, capsys):
    x = inputs(1000)
    x[500, 1] = np.nextafter(x[500, 1], 1)
    save(out.with_name("other.csv"), x)
    assert resume(out, rows="other.csv") == 2
    assert "it was made with rows " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "setting"),
    [("matmul precision", lambda: jax.default_matmul_precision("highest")), ("jit", jax.disable_jit)],
)
def test_another_setting_of_jax_is_another_task(out, key, setting, capsys):
    with setting():
        assert resume(out) == 2
    assert f"it was made with {key} " in capsys.readouterr().err


def test_another_version_is_another_task(out, capsys, monkeypatch):
    monkeypatch.setattr("jaxgrad._evaluate.task.version", lambda package: "0.0.0")
    assert resume(out) == 2
    assert "it was made with jaxgrad '" in capsys.readouterr().err


def test_damage_anywhere_is_found(out, capsys):
    """Bytes spread over it, the first and the last ones: head, rows, and what comes after them."""
    whole = out.read_bytes()
    places = {*range(0, len(whole), 1 + len(whole) // 25), *range(len(whole) - 3, len(whole))}
    for place in sorted(places):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        out.write_bytes(damaged)
        assert resume(out) == 2, place
        assert str(out) in capsys.readouterr().err
        assert out.read_bytes() == damaged
    out.write_bytes(whole)
    assert resume(out) == 0


@pytest.mark.parametrize("change", ["zeroed", "cut", "cut at a row", "longer"])
def test_an_output_whose_bytes_changed_is_damaged(out, change, capsys):
    whole = out.read_bytes()
    match change:
        case "zeroed":
            changed = whole[: len(whole) // 3] + bytes(4096) + whole[len(whole) // 3 + 4096 :]
        case "cut":
            changed = whole[: len(whole) // 2]
        case "cut at a row":
            changed = whole[: whole.rindex(b"\n", 0, len(whole) // 2) + 1]
        case "longer":
            changed = whole + whole[-50:]
    out.write_bytes(changed)
    assert resume(out) == 2
    error = capsys.readouterr().err
    assert "is damaged" in error or "nothing in it or beside it says what it was made of" in error
    assert out.read_bytes() == changed


def test_what_has_no_seal_is_no_ones(out, capsys):
    out.write_text("mine")
    beside(out).unlink(missing_ok=True)
    assert resume(out) == 2
    assert f'"{out}" exists, and was kept: nothing in it or beside it says what it was made of.' in (
        capsys.readouterr().err
    )
    assert out.read_text() == "mine"


def test_the_output_says_what_it_was_made_of(out):
    import pyarrow as pa
    import pyarrow.parquet as pq

    match out.suffix:
        case ".parquet":
            text = pq.read_metadata(out).metadata[b"jaxgrad"]
        case ".arrow":
            file = pa.ipc.open_file(out)
            text = file.get_batch_with_custom_metadata(file.num_record_batches - 1)[1][b"jaxgrad"]
        case _:
            text = beside(out).read_text()
    seal = json.loads(text)["jaxgrad"]
    assert (seal["rows"], seal["read"], seal["bad"]) == (1000, 1000, 0)
    assert seal["task"]["weights"] == np.array([0.5, -0.3, 0.1], np.float32).tolist()
    assert seal["task"]["columns"] == ["a", "b"]


@pytest.mark.parametrize("ending", [".npy", ".csv"])
def test_a_file_with_the_name_of_the_seal_is_kept(ending, tmp_path, capsys):
    rows, mine = save(tmp_path / "rows.npy", inputs(10)), tmp_path / f"out{ending}.seal.json"
    mine.write_text('{"mine": 1}')
    assert run(rows, "-w", W, "-o", tmp_path / f"out{ending}", "--overwrite") == 2
    assert f'"{mine}" exists, and was kept: it is no seal of an output' in capsys.readouterr().err
    assert mine.read_text() == '{"mine": 1}'
    assert sorted(os.listdir(tmp_path)) == [mine.name, "rows.npy"]


@pytest.fixture
def left(tmp_path, monkeypatch, out):
    """A part with five blocks that are whole, of a run that was broken off."""
    part, log = out.with_name(f"{out.name}.part"), out.with_name(f"{out.name}.part.log")
    whole = out.read_bytes()
    out.unlink()
    with broken_off(monkeypatch, after=5):
        assert resume(out) == 130
    return out, part, log, whole


def lines(log):
    return log.read_bytes().splitlines(keepends=True)


DAMAGE = {  # what is done to the log's lines -> blocks that are believed
    "a line cut off": (lambda lines: [*lines[:-1], lines[-1][:-5]], 4),
    "a line doubled": (lambda lines: [*lines[:4], lines[3], *lines[4:]], 3),
    "a line missing": (lambda lines: [*lines[:2], *lines[3:]], 1),
    "two lines changed": (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], 1),
    "a negative count": (lambda lines: [*lines[:3], lines[3].replace(b'"read": 128', b'"read": -128'), *lines[4:]], 2),
    "no UTF-8": (lambda lines: [*lines[:3], b"\xff\xfe\n", *lines[3:]], 2),
    "a list": (lambda lines: [*lines[:3], b"[1]\n", *lines[3:]], 2),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_log_is_believed_up_to_the_line_that_is_not_as_written(left, damage, capsys):
    out, _, log, whole = left
    change, believed = DAMAGE[damage]
    log.write_bytes(b"".join(change(lines(log))))
    assert resume(out) == 0
    assert f"{believed * 128} of them earlier" in capsys.readouterr().out
    assert out.read_bytes() == whole


@pytest.mark.parametrize("first", [b"{}\n", b"\xff\n", b"[]\n", b"null\n", b"x" * 10])
def test_a_log_whose_first_line_is_damaged_is_an_error(left, first, capsys):
    out, part, log, whole = left
    log.write_bytes(first + b"".join(lines(log)[1:]))
    assert resume(out) == 2
    assert f'"{log}" is damaged. Give --overwrite to begin anew.' in capsys.readouterr().err
    assert part.exists()
    assert resume(out, "--overwrite") == 0
    assert out.read_bytes() == whole


def test_a_block_whose_bytes_changed_is_written_again(left, capsys):
    out, part, log, whole = left
    content = bytearray(part.read_bytes())
    end = json.loads(lines(log)[3])["end"]
    content[end - 10] ^= 1
    part.write_bytes(content)
    assert resume(out) == 0
    assert "256 of them earlier" in capsys.readouterr().out
    assert out.read_bytes() == whole


def test_a_part_that_is_shorter_than_its_log_says_is_written_again_from_there(left, capsys):
    out, part, log, whole = left
    os.truncate(part, json.loads(lines(log)[4])["end"] - 1)
    assert resume(out) == 0
    assert "384 of them earlier" in capsys.readouterr().out
    assert out.read_bytes() == whole


def test_a_part_of_another_task_is_not_gone_on_with(left, capsys):
    out, part, *_ = left
    assert resume(out, w="1,2,3") == 2
    assert f'"{part}" was made with weights [0.5' in capsys.readouterr().err
    assert part.exists()


def test_a_line_says_nothing_that_cannot_be(tmp_path):
    """Even with checksums that are right: blocks of no rows, more written than read, positions that go back."""
    good = Done(10, 10, 0, 100, 0, None, "0")
    assert good.may_follow(None)
    assert Done(10, 0, 0, 100, 10, "bad", "0").may_follow(good)
    for wrong in [(0, 0, 0, 100, 0), (10, 11, 0, 200, 0), (10, 10, 0, 100, 0), (10, 10, 0, 50, 0), (10, 10, 1, 200, 0),
                  (10, -1, 0, 200, 0), (10, 10, 0, 200, 11), (10, 10, 0, 200, -1), (10, 0, 0, 101, 10)]:  # fmt: skip
        assert not Done(*wrong, None, "0").may_follow(good)
    log = Log(tmp_path / "log")
    log.begin({})
    log.note(good)
    log.note(Done(10, 10, 0, 50, 0, None, "0"))
    assert log.read() == ({}, [good])
    log.close()


def test_results_are_those_of_the_rows(out):
    for name, want in quantities(inputs(1000)).items():
        np.testing.assert_array_equal(read(out)[name].astype(np.float32), want)
    assert sorted(os.listdir(out.parent)) == sorted(["rows.csv", *files_of(out)])
