"""Rows: what changes while it is read is not published, and none is lost or made up."""

import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.row_files import FORMATS, W, inputs, quantities, read, run, save
from jaxgrad import InputError
from jaxgrad._evaluate.evaluate import evaluate
from jaxgrad._evaluate.formats.columns import without_last
from jaxgrad._evaluate.formats.opened import Opened
from jaxgrad._evaluate.task import plan_task


def replaced(rows):
    save(rows.with_name(f"new{rows.suffix}"), inputs(1000, seed=1))
    os.replace(rows.with_name(f"new{rows.suffix}"), rows)


def written_over(rows):
    save(rows.with_name(f"new{rows.suffix}"), inputs(1000, seed=1))
    with rows.open("r+b") as file:
        file.write(rows.with_name(f"new{rows.suffix}").read_bytes())


def same_time(rows):
    """In place, of the same size, and its time put back: only the content tells."""
    found = rows.stat()
    with rows.open("r+b") as file:
        file.seek(-30, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(rows, ns=(found.st_atime_ns, found.st_mtime_ns))


CHANGES = {
    "cut": lambda rows: os.truncate(rows, rows.stat().st_size // 2),
    "emptied": lambda rows: os.truncate(rows, 0),
    "appended to": lambda rows: rows.write_bytes(rows.read_bytes() + b"1,2\n" * 10),
    "removed": lambda rows: rows.unlink(),
    "replaced": replaced,
    "written over": written_over,
    "changed in one byte, its time put back": same_time,
}


@pytest.mark.parametrize(
    ("after", "ending"),
    [
        pytest.param(after, ending, marks=[] if after == 500 or ending == ".csv" else pytest.mark.deep)
        for after in (0, 500, 1000)
        for ending in FORMATS
    ],
)
@pytest.mark.parametrize("change", CHANGES)
def test_rows_that_change_while_they_are_read_are_not_published(after, change, ending, tmp_path):
    rows, out = save(tmp_path / f"rows{ending}", inputs(1000)), tmp_path / "out.npy"
    task, changed = plan_task(rows, W, batch_size=100), []

    def then(done, total):
        if done >= after and not changed:
            CHANGES[change](rows)
            changed.append(True)

    with pytest.raises(InputError, match=r"changed while it was read|cannot be read as|ends \d+ bytes early|has no "):
        evaluate(task, out, progress=then)
    assert not list(tmp_path.glob("out*"))


def test_one_file_is_read_whatever_becomes_of_its_name(tmp_path):
    rows, old = save(tmp_path / "rows.npy", inputs(1000)), tmp_path / "old.npy"
    task = plan_task(rows, W, batch_size=100)

    def swap(done, total):
        if done == 500:
            rows.rename(old)
            save(rows, inputs(1000, seed=1))
        if done == 1000:
            old.rename(rows)

    evaluate(task, tmp_path / "out.npy", progress=swap)
    np.testing.assert_array_equal(read(tmp_path / "out.npy")["f"], quantities(inputs(1000))["f"])


def test_the_fingerprint_of_a_large_file_is_of_its_ends_and_of_pages_all_over(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxgrad._evaluate.formats.opened.WHOLE", 1 << 20)
    path = tmp_path / "rows.bin"
    content = bytearray(np.random.default_rng(0).bytes(16 << 20))
    path.write_bytes(content)
    want = Opened(path).fingerprint
    shutil.copyfile(path, tmp_path / "copy")
    assert Opened(tmp_path / "copy").fingerprint == want
    for place in (0, 1000, 1 << 20, 8 << 20, (16 << 20) - 1):
        content[place] ^= 1
        path.write_bytes(content)
        assert Opened(path).fingerprint != want, place
        content[place] ^= 1


HEADERS = [  # first line, what --header says, columns' names or the error
    ("a,b", "auto", ["a", "b"]),
    ("1.5,2", "auto", ["x0", "x1"]),
    ("nan,inf", "auto", ["x0", "x1"]),
    (",b", "auto", ["", "b"]),
    ("NA,2", "auto", None),
    ("2020,b", "auto", None),
    ("0,1", "auto", None),
    ("NA,null", "auto", None),
    ("NA,2", "yes", ["NA", "2"]),
    ("NA,2", "no", ["x0", "x1"]),
    ("0,1", "yes", ["0", "1"]),
    ("0,1", "no", ["x0", "x1"]),
    ("a,b", "no", ["x0", "x1"]),
]


@pytest.mark.parametrize(("first", "header", "names"), HEADERS)
def test_a_first_line_that_may_be_names_or_a_row_is_not_guessed_at(first, header, names, tmp_path, capsys):
    rows, out = tmp_path / "rows.csv", tmp_path / "out.npy"
    rows.write_text(f"{first}\n0.25,0.5\n0.5,0.75\n")
    if names is None:
        assert run(rows, "-w", W, "-o", out, "--header", header) == 2
        assert (
            f"its first line, {first}, may be names or a row; expected to be told. Give --header yes or --header no."
            in capsys.readouterr().err
        )
        return
    assert list(plan_task(rows, W, header=header).source.names) == names
    assert run(rows, "-w", W, "-o", out, "--header", header, "--on-bad-row", "nan") == 0
    assert len(read(out)["f"]) == 2 + (names == ["x0", "x1"])


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_blank_line_of_one_column_is_a_row_that_has_no_number(ending, tmp_path, capsys):
    rows, out = tmp_path / "rows.csv", tmp_path / "out.npy"
    rows.write_bytes(ending.join(["a", "1", "", "3", "4", ""]).encode())
    assert run(rows, "-w", "2,1", "-o", out) == 2
    assert "row 2 (line 3), column a: it is missing" in capsys.readouterr().err
    assert run(rows, "-w", "2,1", "-o", out, "--on-bad-row", "nan") == 0
    np.testing.assert_array_equal(read(out)["z"], np.array([3, np.nan, 7, 9], np.float32))


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("at_the_end", [0, 1, 3])
def test_a_blank_line_between_rows_of_several_columns_is_a_row_and_at_the_end_it_is_none(
    at_the_end, ending, tmp_path, capsys
):
    rows, out = tmp_path / "rows.csv", tmp_path / "out.npy"
    lines = ["a,b", "1,2", "3,4", *[""] * at_the_end, ""]
    rows.write_bytes(ending.join(lines).encode())
    assert run(rows, "-w", W, "-o", out) == 0
    assert len(read(out)["f"]) == 2
    lines.insert(2, "")
    rows.write_bytes(ending.join(lines).encode())
    assert run(rows, "-w", W, "-o", out, "--overwrite") == 2
    assert "row 2 (line 3), column a: it is missing; expected finite numbers" in capsys.readouterr().err
    assert run(rows, "-w", W, "-o", out, "--overwrite", "--on-bad-row", "nan") == 0
    assert np.isnan(read(out)["f"]).tolist() == [False, True, False]


@pytest.mark.parametrize("sizes", [[3], [1, 1, 1], [2, 0, 1], [1, 2], []])
def test_without_its_last_rows_a_table_keeps_the_rest(sizes):
    numbers = pa.array(range(sum(sizes)))
    starts = np.cumsum([0, *sizes]).tolist()
    batches = [pa.record_batch([numbers.slice(s, n)], ["a"]) for s, n in zip(starts, sizes, strict=False)]
    for rows in range(5):
        kept = [value for batch in without_last(batches, rows) for value in batch.column(0).to_pylist()]
        assert kept == list(range(sum(sizes)))[: max(0, sum(sizes) - rows)]


def test_row_groups_that_do_not_make_up_the_rows_of_the_footer_are_an_error(tmp_path, capsys):
    rows = save(tmp_path / "rows.parquet", inputs(1000))
    content = bytearray(rows.read_bytes())
    length = int.from_bytes(content[-8:-4], "little")
    footer = content[-8 - length : -8]
    count = bytes([0x16, 0xD0, 0x0F])  # an i64 of 1000, as the footer has it first
    assert footer.count(count) == 1
    content[-8 - length : -8] = footer.replace(count, bytes([0x16, 0xD2, 0x0F]))
    rows.write_bytes(content)
    assert pq.ParquetFile(rows).metadata.num_rows == 1001
    assert run(rows, "-w", W, "-o", tmp_path / "out.npy") == 2
    assert "its row groups have 1000 rows, and its footer says 1001" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["longer", "shorter"])
def test_an_npy_file_of_another_length_than_its_header_says_is_an_error(change, tmp_path, capsys):
    rows = save(tmp_path / "rows.npy", inputs(100))
    content = rows.read_bytes()
    rows.write_bytes(content + content[-80:] if change == "longer" else content[:-80])
    assert run(rows, "-w", W, "-o", tmp_path / "out.npy") == 2
    assert "cannot be read as npy: " in capsys.readouterr().err


def test_a_stream_that_is_cut_between_two_batches_is_an_error(tmp_path, capsys):
    rows = tmp_path / "rows.arrow"
    table = pa.table({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    with pa.ipc.new_stream(rows, table.schema) as file:
        file.write_table(table)
    rows.write_bytes(rows.read_bytes()[:-8])
    assert run(rows, "-w", W, "-o", tmp_path / "out.npy") == 2
    assert "cannot be read as arrow: it is cut off: no mark is at its end" in capsys.readouterr().err


def test_offsets_of_an_arrow_file_that_lead_out_of_it_are_an_error(tmp_path, capsys):
    rows = tmp_path / "rows.arrow"
    numbers = pa.array(["1", "22", "333"] * 10).dictionary_encode()
    table = pa.table({"a": numbers, "b": numbers})
    with pa.ipc.new_file(rows, table.schema) as file:
        file.write_table(table)
    content = rows.read_bytes()
    offsets = np.array([0, 1, 3, 6], np.int32).tobytes()
    assert content.count(offsets) >= 1
    rows.write_bytes(content.replace(offsets, np.array([0, 1, 3, 1 << 30], np.int32).tobytes()))
    assert run(rows, "-w", W, "-o", tmp_path / "out.npy") == 2
    assert "cannot be read as arrow: " in capsys.readouterr().err


def test_rows_in_a_pipe_or_a_folder_are_an_error_and_do_not_hang(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.csv")
    assert run(tmp_path / "pipe.csv", "-w", W, "-o", tmp_path / "out.npy") == 2
    assert "is no regular file; expected rows of numbers in one" in capsys.readouterr().err


def overflowing(dtype):
    x = inputs(600).astype(dtype)
    x[450] = np.finfo(dtype).max
    return x


@pytest.mark.parametrize(
    ("dtype", "w"),
    [("float32", "10,-10,0"), ("float64", "10,-10,0"), ("float16", "10,10,0"), ("float32", "10,10,0")],
)
@pytest.mark.parametrize("keep", [pytest.param("z,f", marks=pytest.mark.deep), "f"])
def test_a_row_whose_z_overflows_is_a_bad_row(keep, dtype, w, tmp_path, capsys):
    """With w = 10, -10, 0 the truth for this row is z = 0 and f = 0.5; infinity, f would be 1."""
    x = overflowing(dtype)
    rows, out = tmp_path / "rows.npy", tmp_path / "out.npy"
    np.save(rows, x)
    arguments = (rows, "-w", w, "-o", out, "--batch-size", 100, "--keep", keep)
    assert run(*arguments) == 2
    text = f'"{rows}", row 451: its z, or a term of it, overflows {dtype}'
    assert f"{text}; expected finite numbers. Give --on-bad-row skip" in capsys.readouterr().err
    assert run(*arguments, "--on-bad-row", "skip", "--overwrite") == 0
    assert f"Bad rows: 1, the first: {text}." in capsys.readouterr().out
    assert len(read(out)["f"]) == 599
    assert run(*arguments, "--on-bad-row", "nan", "--overwrite") == 0
    found = read(out)
    assert list(found) == keep.split(",")
    assert np.flatnonzero(np.isnan(found["f"])).tolist() == [450]


def test_of_rows_that_are_bad_in_both_ways_the_first_is_named(tmp_path, capsys):
    x, w = overflowing("float32"), "10,-10,0"
    for bad in (10, 599):
        x[bad] = np.nan
    rows, out = tmp_path / "rows.npy", tmp_path / "out.npy"
    np.save(rows, x)
    assert run(rows, "-w", w, "-o", out, "--on-bad-row", "nan") == 0
    assert "Bad rows: 3, the first:" in (said := capsys.readouterr().out)
    assert "row 11, column x0: it is nan" in said
    x[10] = 0
    np.save(rows, x)
    assert run(rows, "-w", w, "-o", out, "--on-bad-row", "nan", "--overwrite") == 0
    assert "row 451: its z, or a term of it, overflows float32" in capsys.readouterr().out
