"""evaluate: the neuron's quantities for each row of a file, whole or not there, and gone on with to the same bytes."""

import errno
import itertools
import json
import os
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from helpers.row_files import FORMATS, NAMES, W, files_of, inputs, quantities, read, run, save
from jaxgrad import InputError
from jaxgrad._evaluate import files, source
from jaxgrad._evaluate.evaluate import evaluate
from jaxgrad._evaluate.output.log import Done
from jaxgrad._evaluate.output.resumable import opened
from jaxgrad._evaluate.sink import Schema
from jaxgrad._evaluate.task import plan_task


@pytest.mark.parametrize(("ending", "other"), list(itertools.product(FORMATS, FORMATS)))
def test_every_format_goes_to_every_other(ending, other, tmp_path, capsys):
    x = inputs(1000)
    rows, out = save(tmp_path / f"rows{ending}", x), tmp_path / f"out{other}"
    assert run(rows, "-w", W, "-o", out) == 0
    found = read(out)
    assert list(found) == NAMES
    for name, want in quantities(x).items():
        np.testing.assert_array_equal(found[name].astype(np.float32), want, name)
    text, errors = capsys.readouterr()
    assert text == f"Read 1000 rows, wrote 1000 of 12 columns to {out}.\n"
    assert errors == ""  # no bar where there is no terminal
    assert sorted(os.listdir(tmp_path)) == sorted([rows.name, *files_of(out)])


@pytest.mark.parametrize("ending", FORMATS)
def test_the_size_of_the_blocks_changes_no_number(ending, tmp_path):
    rows = save(tmp_path / "rows.npy", inputs(100))
    for size in (1, 33, 100):
        assert run(rows, "-w", W, "-o", tmp_path / f"{size}{ending}", "--batch-size", size) == 0
    found = [read(path) for path in tmp_path.glob(f"[0-9]*{ending}")]
    for other in found[1:]:
        for name in NAMES:
            np.testing.assert_array_equal(other[name], found[0][name])


def test_columns_quantities_and_weights_are_chosen(tmp_path):
    x = inputs(50).astype(np.float64)
    path = tmp_path / "rows.csv"
    pyarrow.csv.write_csv(pa.table({"id": ["r"] * 50, "b": x[:, 1], "a": x[:, 0]}), path)
    (tmp_path / "w.txt").write_text("\ufeff0.5 -0.3\n0.1\n", encoding="utf-8")
    np.save(tmp_path / "w.npy", np.array([0.5, -0.3, 0.1]))
    want = quantities(x.astype(np.float32))
    for columns, w in (("a,b", tmp_path / "w.txt"), ("2,1", tmp_path / "w.npy")):
        out = tmp_path / "out.npy"
        chosen = ["--columns", columns, "--keep", "df/dw*,f", "--overwrite"]
        assert run(path, "-w", w, "-o", out, *chosen) == 0
        found = read(out)
        assert list(found) == ["f", "df/dw0", "df/dw1", "df/dw2"]
        for name, column in found.items():
            np.testing.assert_array_equal(column, want[name])


@pytest.mark.parametrize(
    ("given", "asked", "got"),
    [
        ("f8", None, "f8"),
        ("f8", "float32", "f4"),
        ("i4", None, "f4"),
        ("u8", None, "f4"),
        ("?", None, "f4"),
        ("f2", None, "f2"),
        ("g", None, "f8"),
    ],
)
def test_the_dtype_of_the_rows_is_kept_or_the_one_asked_for_is_taken(given, asked, got, tmp_path):
    import jax

    x = np.arange(20).reshape(10, 2).astype(given)
    np.save(tmp_path / "rows.npy", x)
    assert run(tmp_path / "rows.npy", "-w", W, "-o", tmp_path / "out.npy", *(["--dtype", asked] if asked else [])) == 0
    found = read(tmp_path / "out.npy")
    with jax.enable_x64(got == "f8"):
        want = quantities(x.astype(got))
    for name in NAMES:
        assert found[name].dtype == np.dtype(got)
        np.testing.assert_array_equal(found[name], want[name])


def test_named_columns_of_a_structured_array_are_inputs_in_any_order_of_memory(tmp_path):
    x = inputs(30)
    named = np.empty(30, [("b", "f4"), ("a", "f4"), ("note", "U3")])
    named["a"], named["b"] = x.T
    np.save(tmp_path / "named.npy", named)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(x))
    np.save(tmp_path / "swapped.npy", x.astype(">f4"))
    for name, columns in (("named", "a,b"), ("fortran", "0,1"), ("swapped", "x0,x1")):
        out = tmp_path / f"{name}.out.npy"
        assert run(tmp_path / f"{name}.npy", "-w", W, "-o", out, "--columns", columns) == 0
        np.testing.assert_array_equal(read(out)["f"], quantities(x)["f"])


def test_a_csv_without_names_and_an_arrow_stream_are_read(tmp_path):
    x = inputs(30)
    np.savetxt(tmp_path / "rows.csv", x, delimiter=",")
    table = pa.table({"a": x[:, 0], "b": x[:, 1]})
    with pa.ipc.new_stream(tmp_path / "rows.arrow", table.schema) as file:
        file.write_table(table)
    for ending in ("csv", "arrow"):
        assert run(tmp_path / f"rows.{ending}", "-w", W, "-o", tmp_path / f"{ending}.npy") == 0
        np.testing.assert_array_equal(read(tmp_path / f"{ending}.npy")["f"], quantities(x)["f"])


BAD_CELLS = [
    ("csv", "", "it is missing"),
    ("csv", "abc", 'it is "abc"'),
    ("csv", "1_000", 'it is "1_000"'),
    ("csv", "nan", "it is nan"),
    ("csv", "-inf", "it is -inf"),
    ("csv", "1e300", "it is 1e+300, too large for float32"),
    ("parquet", None, "it is missing"),
    ("parquet", np.nan, "it is nan"),
    ("arrow", np.inf, "it is inf"),
    ("npy", np.nan, "it is nan"),
]


@pytest.mark.parametrize(("ending", "cell", "text"), BAD_CELLS)
def test_a_bad_row_is_named_or_left_out_or_nan(ending, cell, text, tmp_path, capsys):
    x = inputs(1000)
    path, out = tmp_path / f"rows.{ending}", tmp_path / "out.npy"
    cells = [
        None if i == 700 and cell is None else str(value) if ending == "csv" else value
        for i, value in enumerate(x[:, 1].tolist())
    ]
    cells[700] = cell
    if ending == "csv":
        path.write_text("a,b\n" + "".join(f"{a},{b}\n" for a, b in zip(x[:, 0], cells, strict=True)))
    elif ending == "npy":
        np.save(path, np.stack([x[:, 0], np.array(cells, np.float32)], 1))
    else:
        table = pa.table({"a": x[:, 0], "b": pa.array(cells, pa.float32())})
        if ending == "parquet":
            pq.write_table(table, path)
        else:
            with pa.ipc.new_file(path, table.schema) as file:
                file.write_table(table)
    assert run(path, "-w", W, "-o", out, "--batch-size", 300) == 2
    name = "x1" if ending == "npy" else "b"
    error = capsys.readouterr().err
    place = f'"{path}", row 701{" (line 702)" if ending == "csv" else ""}, column {name}: {text}'
    assert f"{place}; expected finite numbers." in error
    assert error.count("\n") == 1
    assert not out.exists()

    assert run(path, "-w", W, "-o", out, "--on-bad-row", "skip", "--overwrite") == 0
    assert f"Bad rows: 1, the first: {place}." in capsys.readouterr().out
    np.testing.assert_array_equal(read(out)["f"], quantities(np.delete(x, 700, 0))["f"])

    assert run(path, "-w", W, "-o", out, "--on-bad-row", "nan", "--overwrite") == 0
    for name, want in quantities(x).items():
        want[700] = np.nan
        np.testing.assert_array_equal(read(out)[name], want)


def broken(tmp_path):
    """Files that cannot be read: name -> what the error says."""
    x = inputs(1000)
    save(tmp_path / "cut.npy", x)
    save(tmp_path / "cut.parquet", x)
    save(tmp_path / "corrupt.parquet", x)
    save(tmp_path / "cut.arrow", x)
    for name in ("cut.npy", "cut.parquet", "cut.arrow"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    damaged = bytearray((tmp_path / "corrupt.parquet").read_bytes())
    damaged[4:40] = bytes(36)
    (tmp_path / "corrupt.parquet").write_bytes(damaged)
    for name in ("empty.csv", "empty.npy", "empty.parquet"):
        (tmp_path / name).touch()
    (tmp_path / "header.csv").write_text("a,b\n")
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1,2,3\n")
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n")
    np.save(tmp_path / "none.npy", np.empty((0, 2), np.float32))
    np.save(tmp_path / "flat.npy", np.ones(4))
    np.save(tmp_path / "objects.npy", np.array([[{}]], object))
    (tmp_path / "rows.txt").write_text("1 2")
    np.save(tmp_path / "complex.npy", x.astype(complex))
    np.save(tmp_path / "text.npy", x.astype(str))
    np.save(tmp_path / "vectors.npy", np.zeros(3, [("a", "f4", 2), ("b", "f4")]))
    np.savez(tmp_path / "several.npz", x)
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    pq.write_table(pa.table({"a": [[1.0]], "b": [1.0]}), tmp_path / "lists.parquet")
    pq.write_table(pa.table([[1.0], [2.0]], names=["a", "a"]), tmp_path / "twice.parquet")
    pq.write_table(pa.table({"a": x[:, 0], "b": x[:, 1]}), tmp_path / "flipped.parquet", write_page_checksum=True)
    flipped = bytearray((tmp_path / "flipped.parquet").read_bytes())
    flipped[len(flipped) // 3] ^= 1
    (tmp_path / "flipped.parquet").write_bytes(flipped)


BROKEN = {
    "cut.npy": "cannot be read as npy",
    "cut.parquet": "cannot be read as parquet",
    "corrupt.parquet": "cannot be read as parquet",
    "cut.arrow": "cannot be read as arrow",
    "empty.csv": "is empty; expected rows of numbers",
    "empty.npy": "is empty; expected rows of numbers",
    "empty.parquet": "is empty; expected rows of numbers",
    "header.csv": "has no rows; expected at least one",
    "ragged.csv": "row 2 (line 3): it has 3 columns; expected 2",
    "twice.csv": 'has two columns "a"; expected a name for each',
    "none.npy": "has no rows; expected at least one",
    "flat.npy": "holds an array of shape (4,) and dtype float64; expected (rows, columns)",
    "objects.npy": "cannot be read as npy",
    "several.npy": "cannot be read as npy",
    "complex.npy": "column x0: it is of dtype complex128; expected real numbers",
    "text.npy": "column x0: it is of dtype <U32; expected real numbers",
    "vectors.npy": "column a: it is of dtype ('<f4', (2,)); expected real numbers",
    "lists.parquet": "column a: it is of type list<element: double>; expected real numbers",
    "twice.parquet": 'has two columns "a"; expected a name for each',
    "flipped.parquet": "cannot be read as parquet",
    "rows.txt": "expected a file that ends in .csv, .csv.gz, .npy, .parquet, .arrow",
    "absent.npy": "there is no file",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_read_is_one_line_of_error(name, tmp_path, capsys):
    broken(tmp_path)
    before = sorted(os.listdir(tmp_path))
    assert run(tmp_path / name, "-w", W, "-o", tmp_path / "out.npy") == 2
    error = capsys.readouterr().err
    assert BROKEN[name] in error
    assert name in error
    assert error.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == before


WRONG = [
    (["-w", "1,2"], "there are 2 weights and 2 columns of inputs (x0, x1); expected 3 weights"),
    (["-w", "complex.npy"], 'the weights in "complex.npy" cannot be read: Cannot cast array data'),
    (["-w", "w" * 300], f'-w is "{"w" * 60}..."; expected numbers'),
    (["-w", W, "--processes", "2"], "--processes and --process are given without --coordinator; expected its host"),
    (["-w", "1,2,nan"], "weight 2 is not a finite float32; expected one"),
    (["-w", "1,two,3"], '-w is "1,two,3"; expected numbers with commas between them, as 0.5,-0.3,0.1, or a file'),
    (["-w", W, "--columns", "x0,c"], 'has no column "c"; expected one of x0, x1, or a number from 0 to 1'),
    (["-w", W, "--keep", "g"], 'there is no quantity "g"; expected names or globs of z, k, h, f, df/dz'),
    (["-w", W, "--batch-size", "0"], "--batch-size is 0; expected a positive number of rows"),
    (["-w", W, "-o", "out.xls"], "expected a file that ends in .npy, .parquet, .arrow, .csv"),
    (["-w", W, "-o", "nowhere/out.npy"], 'there is no folder "nowhere" to write "out.npy" in; make it first'),
    (["-w", W, "-o", "rows.npy", "--overwrite"], '"rows.npy" holds the rows; expected another file for the output'),
    (["-w", W, "-o", "/proc/out.npy"], "/proc/out.npy"),
]


@pytest.mark.parametrize(("arguments", "text"), WRONG)
def test_what_cannot_be_done_is_one_line_of_error(arguments, text, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "rows.npy", inputs(10))
    np.save(tmp_path / "complex.npy", np.array([1, 2, 3j]))
    assert run("rows.npy", *([] if "-o" in arguments else ["-o", "out.npy"]), *arguments) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert "--resume" not in error  # there is nothing to go on with
    assert sorted(os.listdir(tmp_path)) == ["complex.npy", "rows.npy"]


@pytest.mark.parametrize("ending", FORMATS)
def test_blocks_larger_than_the_file_take_no_more_memory_than_it(ending, tmp_path):
    rows, out = save(tmp_path / f"rows{ending}", inputs(10)), tmp_path / "out.npy"
    assert run(rows, "-w", W, "-o", out, "--batch-size", 10**20) == 0
    assert len(read(out)["f"]) == 10


def test_more_processes_than_rows_are_an_error(tmp_path):
    for ending in (".npy", ".csv"):
        rows = save(tmp_path / f"rows{ending}", inputs(2))
        with pytest.raises(InputError, match="has 2 rows for 3 processes; expected one for each at least"):
            plan_task(rows, W, share=(0, 3))


def test_bad_rows_are_counted_in_what_was_done_earlier_too(tmp_path, capsys, broken_off, monkeypatch):
    x = inputs(1000)
    x[[3, 200, 900]] = np.nan
    rows, out = save(tmp_path / "rows.npy", x), tmp_path / "out.npy"
    arguments = (rows, "-w", W, "-o", out, "--batch-size", 128, "--on-bad-row", "nan")
    broken_off(5, KeyboardInterrupt())
    assert run(*arguments) == 130
    monkeypatch.undo()
    assert run(*arguments, "--resume") == 0
    assert "Bad rows: 3, the first: " in (text := capsys.readouterr().out)
    assert "row 4, column x0: it is nan." in text


def test_an_output_that_exists_is_kept_unless_it_may_be_written_over(tmp_path, capsys):
    rows, out = save(tmp_path / "rows.npy", inputs(10)), tmp_path / "out.npy"
    out.write_text("mine")
    assert run(rows, "-w", W, "-o", out) == 2
    assert f'"{out}" exists, and was kept. Give --overwrite to write over it' in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert run(rows, "-w", W, "-o", out, "--overwrite") == 0
    assert len(read(out)["f"]) == 10


def test_what_has_the_name_of_the_output_or_of_its_part_is_kept(tmp_path, capsys):
    rows, out, part = save(tmp_path / "rows.npy", inputs(10)), tmp_path / "out.npy", tmp_path / "out.npy.part"
    part.write_text("mine")
    for resume in ([], ["--resume"]):
        assert run(rows, "-w", W, "-o", out, *resume) == 2
        assert "exists, and no log beside it says what it is; it was kept" in capsys.readouterr().err
    assert part.read_text() == "mine"
    part.unlink()
    out.symlink_to("nowhere.npy")
    assert run(rows, "-w", W, "-o", out) == 2
    assert f'"{out}" exists, and was kept' in capsys.readouterr().err
    out.unlink()
    out.mkdir()
    assert run(rows, "-w", W, "-o", out, "--overwrite") == 2
    assert f'"{out}" is a folder; expected the name of a file' in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["out.npy", "rows.npy"]


def test_an_output_that_holds_the_weights_is_kept(tmp_path, capsys):
    rows, w = save(tmp_path / "rows.npy", inputs(10)), tmp_path / "w.npy"
    np.save(w, np.array([0.5, -0.3, 0.1]))
    assert run(rows, "-w", w, "-o", w, "--overwrite") == 2
    assert f'"{w}" holds the weights; expected another file for the output.' in capsys.readouterr().err
    assert np.load(w).tolist() == [0.5, -0.3, 0.1]


def test_an_output_that_comes_meanwhile_is_kept(tmp_path):
    rows, out = save(tmp_path / "rows.npy", inputs(10)), tmp_path / "out.npy"
    with pytest.raises(InputError, match="has come meanwhile, and was kept; what should be there is whole in"):
        evaluate(plan_task(rows, W), out, progress=lambda done, total: out.write_text("theirs"))
    assert out.read_text() == "theirs"


@pytest.fixture
def broken_off(monkeypatch):
    """Makes the writing of the n-th block fail."""

    def at(broken, error):
        count = itertools.count()

        def write(sink, part, columns, block, original=sys.modules["jaxgrad._evaluate.evaluate"].written_to):
            if next(count) == broken:
                raise error
            original(sink, part, columns, block)

        monkeypatch.setattr("jaxgrad._evaluate.evaluate.written_to", write)

    return at


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(("error", "status", "text"), [
    (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device"),
    (KeyboardInterrupt(), 130, "interrupted"),
])  # fmt: skip
def test_what_was_done_is_kept_when_the_disk_is_full_or_it_is_interrupted(
    ending, error, status, text, tmp_path, capsys, broken_off, monkeypatch
):
    rows, out = save(tmp_path / "rows.npy", inputs(1000)), tmp_path / f"out{ending}"
    arguments = (rows, "-w", W, "-o", out, "--batch-size", 128)
    with monkeypatch.context():
        broken_off(5, error)
        assert run(*arguments) == status
        said = capsys.readouterr().err
        assert text in said
        assert "give --resume to go on with it" in said
        assert said.count("\n") == 1
    monkeypatch.undo()
    assert not out.exists()
    assert run(*arguments) == 2
    assert "is left of a run that was broken off. Give --resume to go on with it" in capsys.readouterr().err
    assert run(*arguments, "--resume") == 0
    assert "Read 1000 rows, 640 of them earlier, wrote 1000 of 12 columns" in capsys.readouterr().out
    assert run(*arguments[:4], tmp_path / f"want{ending}", *arguments[5:]) == 0
    assert out.read_bytes() == (tmp_path / f"want{ending}").read_bytes()
    want = files_of(tmp_path / f"want{ending}")
    assert sorted(os.listdir(tmp_path)) == sorted(["rows.npy", *files_of(out), *want])


def test_a_part_of_something_else_is_not_gone_on_with(tmp_path, capsys, broken_off, monkeypatch):
    rows, out = save(tmp_path / "rows.npy", inputs(1000)), tmp_path / "out.npy"
    broken_off(2, KeyboardInterrupt())
    assert run(rows, "-w", W, "-o", out, "--batch-size", 128) == 130
    monkeypatch.undo()
    resume = ("--batch-size", 128, "--resume")
    for arguments, text in [
        (("-w", "1,2,3", "-o", out, *resume), "was made with weights [0.5, "),
        (("-w", W, "-o", out, *resume, "--keep", "f"), "was made with keep ["),
        (("-w", W, "-o", out, "--batch-size", 64, "--resume"), "was made with batch size 128, and now it is 64"),
    ]:
        assert run(rows, *arguments) == 2
        assert text in capsys.readouterr().err
    save(rows, inputs(1000, seed=1))
    assert run(rows, "-w", W, "-o", out, *resume) == 2
    assert "was made with rows " in capsys.readouterr().err
    assert run(rows, "-w", W, "-o", out, "--overwrite", "--resume") == 0
    assert sorted(os.listdir(tmp_path)) == [*files_of(out), "rows.npy"]


def test_a_damaged_log_is_an_error(tmp_path, capsys, broken_off, monkeypatch):
    rows, out = save(tmp_path / "rows.npy", inputs(1000)), tmp_path / "out.npy"
    broken_off(2, KeyboardInterrupt())
    run(rows, "-w", W, "-o", out, "--batch-size", 128)
    monkeypatch.undo()
    (tmp_path / "out.npy.part.log").write_text("{}\n")
    assert run(rows, "-w", W, "-o", out, "--resume", "--batch-size", 128) == 2
    assert 'out.npy.part.log" is damaged. Give --overwrite to begin anew' in capsys.readouterr().err


def test_a_line_of_the_log_that_is_not_whole_is_not_believed(tmp_path, broken_off, monkeypatch):
    rows, out = save(tmp_path / "rows.npy", inputs(1000)), tmp_path / "out.npy"
    broken_off(5, KeyboardInterrupt())
    run(rows, "-w", W, "-o", out, "--batch-size", 128)
    monkeypatch.undo()
    log = tmp_path / "out.npy.part.log"
    log.write_text(log.read_text()[:-5])
    assert evaluate(plan_task(rows, W, batch_size=128), out, resume=True).resumed == 512
    np.testing.assert_array_equal(read(out)["f"], quantities(inputs(1000))["f"])


def test_broken_off_twice_what_was_not_believed_is_not_in_the_log(tmp_path, broken_off, monkeypatch):
    rows, out = save(tmp_path / "rows.npy", inputs(1000)), tmp_path / "out.npy"
    part, log = tmp_path / "out.npy.part", tmp_path / "out.npy.part.log"
    broken_off(5, KeyboardInterrupt())
    run(rows, "-w", W, "-o", out, "--batch-size", 128)
    log.write_text(log.read_text()[:-5])  # half a line: four blocks are whole
    os.truncate(part, part.stat().st_size - 128 * 48 - 1)  # and of the fourth the last byte is lost
    monkeypatch.undo()
    broken_off(1, KeyboardInterrupt())
    run(rows, "-w", W, "-o", out, "--batch-size", 128, "--resume")
    assert [json.loads(line)["read"] for line in log.read_text().splitlines()[1:]] == [128] * 4
    monkeypatch.undo()
    assert evaluate(plan_task(rows, W, batch_size=128), out, resume=True).resumed == 512
    np.testing.assert_array_equal(read(out)["f"], quantities(inputs(1000))["f"])


def test_two_processes_do_not_write_one_output(tmp_path, capsys):
    rows, out = save(tmp_path / "rows.npy", inputs(10)), tmp_path / "out.npy"

    def second(done, total):
        assert run(rows, "-w", W, "-o", out, "--resume") == 2

    evaluate(plan_task(rows, W), out, progress=second)
    assert "is being written by another process; wait for it" in capsys.readouterr().err
    assert len(read(out)["f"]) == 10


def test_the_log_says_what_is_written(tmp_path, broken_off):
    rows, out = save(tmp_path / "rows.npy", inputs(300)), tmp_path / "out.npy"
    broken_off(2, KeyboardInterrupt())
    run(rows, "-w", W, "-o", out, "--batch-size", 100)
    task, *done = map(json.loads, (tmp_path / "out.npy.part.log").read_text().splitlines())
    assert task["task"]["keep"] == NAMES
    assert [block["read"] for block in done] == [100, 100]


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_a_part_that_would_be_written_otherwise_now_is_not_gone_on_with(ending, tmp_path):
    path = tmp_path / f"out{ending}"
    file = opened(path, None)
    schema = Schema({}, ["f"], np.dtype("f4"))
    sink = files.open_sink(ending, file, schema)
    sink.write({"f": np.ones(10, "f4")})
    file.end()
    again = opened(path, Done(10, 10, 0, path.stat().st_size, 0, None, "00000000"))
    with pytest.raises(InputError, match=r"bytes long and would be .* as this pyarrow writes it; expected the same"):
        files.open_sink(ending, again, schema, 11, [{"f": np.ones(11, "f4")}])
    again.end()


def test_blocks_have_the_size_asked_for_whatever_the_file_has(tmp_path):
    x = inputs(1000)
    for ending in FORMATS:
        rows = files.open_source(save(tmp_path / f"rows{ending}", x))
        for start in (0, 1, 299, 300, 999):
            chunks = list(source.blocks(rows, [1, 0], start, 256))
            assert [len(chunk) for chunk in chunks[:-1]] == [256] * (len(chunks) - 1)
            joined = np.concatenate([np.stack(chunk.columns, 1) for chunk in chunks]).astype(np.float32)
            np.testing.assert_array_equal(joined, x[start:, ::-1])


def test_without_pyarrow_npy_goes_on_and_the_rest_says_what_to_install(tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    np.save(tmp_path / "rows.npy", inputs(10))
    assert run(tmp_path / "rows.npy", "-w", W, "-o", tmp_path / "out.npy") == 0
    assert run(tmp_path / "rows.npy", "-w", W, "-o", tmp_path / "out.parquet") == 2
    assert "pip install 'jaxgrad[files]'" in capsys.readouterr().err
    assert not list(tmp_path.glob("out.parquet*"))
