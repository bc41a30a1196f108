"""Parts of a task, each run alone, and their shards joined: the bytes of the whole, or an error."""

import os
import shutil

import numpy as np
import pytest

from helpers.row_files import FORMATS, files_of, inputs, read, run, save
from jaxgrad import InputError
from jaxgrad.__main__ import main
from jaxgrad._evaluate.evaluate import evaluate
from jaxgrad._evaluate.merge import merge
from jaxgrad._evaluate.output import skipped
from jaxgrad._evaluate.processes.processes import shard_of
from jaxgrad._evaluate.task import plan_task

ROWS = 1700
BAD = [3, 256, 257, 300, 566, 567, 1699]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    x = inputs(ROWS)
    x[BAD, 1] = np.nan
    folder = tmp_path_factory.mktemp("rows")
    return {ending: save(folder / f"x{ending}", x) for ending in (".npy", ".csv")}


def part(rows, out, share, weights="0.5,-0.3,0.1", **options):
    options = {"batch_size": 256, "on_bad_row": "skip", "keep": ["f", "df/dw1"]} | options
    evaluate(plan_task(rows, weights, share=share, **options), shard_of(out, *share))


def parts(rows, out, count, **options):
    for i in range(count):
        part(rows, out, (i, count), **options)


def content(out):
    return {name: (out.parent / name).read_bytes() for name in files_of(out)}


@pytest.mark.parametrize("out", FORMATS)
@pytest.mark.parametrize(("count", "on_bad_row", "ending"), [(3, "skip", ".npy"), (2, "nan", ".csv")])
def test_shards_joined_are_the_whole_to_the_byte(tmp_path, rows, out, count, on_bad_row, ending):
    for folder in ("whole", "parts"):
        (tmp_path / folder).mkdir()
    whole, joined = tmp_path / "whole" / f"o{out}", tmp_path / "parts" / f"o{out}"
    part(rows[ending], whole, (0, 1), on_bad_row=on_bad_row)
    parts(rows[ending], joined, count, on_bad_row=on_bad_row)
    done = merge(joined)
    assert (done.shards, done.read, done.written) == (count, ROWS, ROWS - len(BAD) * (on_bad_row == "skip"))
    assert content(joined) == content(whole)
    if on_bad_row == "skip":
        assert skipped.beside(joined).read_bytes() == skipped.beside(whole).read_bytes()
        assert skipped.read(skipped.beside(whole)).tolist() == BAD
    evaluate(plan_task(rows[ending], "0.5,-0.3,0.1", batch_size=256, on_bad_row=on_bad_row, keep=["f", "df/dw1"]),
             joined, resume=True)  # fmt: skip  # and passes for it


@pytest.fixture
def shards(tmp_path, rows):
    out = tmp_path / "o.parquet"
    parts(rows[".npy"], out, 3)
    return out


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def of_others(rows, shard, **options):
    other = shard.with_name("other.parquet")
    part(rows, other, (1, 3), **options)
    os.replace(shard_of(other, 1, 3), shard)


@pytest.mark.parametrize(
    ("break_it", "text"),
    [
        (lambda s, r: s[1].unlink(), r'o-00001-of-00003.parquet" is missing; expected 3 shards. Run its part, 1/3,'),
        (lambda s, r: s[2].rename(f"{s[2]}.part"), r'o-00002-of-00003.parquet" is missing, and is unfinished'),
        (lambda s, r: [p.unlink() for p in s], r"there is no shard of .*, such as .o-00000-of-00002.parquet"),
        (lambda s, r: shutil.copy(s[0], s[0].with_name("o-00000-of-00004.parquet")), r"of 3 and of 4 parts"),
        (lambda s, r: flip(s[1]), r'o-00001-of-00003.parquet" is damaged'),
        (lambda s, r: s[1].write_bytes(b"PAR1"), r"nothing in .*o-00001-of-00003.parquet. or beside it says"),
        (lambda s, r: shutil.copy(s[0], s[1]), r"ends at row 566 and .* begins at row 1; expected the next one"),
        (lambda s, r: shutil.copy(s[1], s[0]), r"begins at row 567; expected the first row"),
        (lambda s, r: of_others(r, s[1], weights="1,1,1"), r"was made with weights \[1.0, 1.0, 1.0\], .*one task"),
        (lambda s, r: of_others(r, s[1], keep=["z"]), r"was made with keep \['z'\]"),
        (lambda s, r: skipped.beside(s[1]).unlink(), r"skipped.csv. cannot be read as the list"),
        (lambda s, r: skipped.beside(s[1]).write_text("row\n"), r"does not list the 2 rows that"),
        (lambda s, r: skipped.beside(s[1]).write_text("row\n1\n567\n"), r"does not list the 2 rows that"),
        (lambda s, r: skipped.beside(s[0]).write_text("row\n9\n4\n5\n6\n7\n"), r"not ascending from 1"),
        (lambda s, r: skipped.beside(s[0]).write_text("row\n4\n4\n5\n6\n7\n"), r"not ascending from 1"),
        (lambda s, r: skipped.beside(s[0]).write_text("row\n0\n4\n5\n6\n7\n"), r"not ascending from 1"),
        (lambda s, r: skipped.beside(s[0]).write_text("3\n"), r"it does not begin with the line row"),
    ],
)  # fmt: skip
def test_shards_that_are_not_one_whole_are_an_error(shards, rows, break_it, text):
    break_it([shard_of(shards, i, 3) for i in range(3)], rows[".npy"])
    with pytest.raises(InputError, match=text):
        merge(shards)
    assert not shards.exists()
    assert not shards.with_name("o.parquet.part").exists()


def test_shards_in_a_folder_that_is_not_there_are_missing(tmp_path):
    with pytest.raises(InputError, match=r"there is no shard of"):
        merge(tmp_path / "none" / "o.parquet")


def test_an_output_that_is_there_is_kept_unless_it_may_be_written_over(shards):
    shards.write_text("mine")
    with pytest.raises(InputError, match=r'o.parquet" exists, and was kept'):
        merge(shards)
    assert shards.read_text() == "mine"
    merge(shards, overwrite=True)
    assert len(read(shards)["f"]) == ROWS - len(BAD)


def test_a_list_of_rows_never_takes_the_name_of_another_file(tmp_path, rows):
    out = tmp_path / "o.npy"
    skipped.beside(out).write_text("mine")
    with pytest.raises(InputError, match=r'o.npy.skipped.csv" exists, and was kept'):
        part(rows[".npy"], out, (0, 1))
    with pytest.raises(InputError, match=r"expected a file that ends in"):
        merge(tmp_path / "o.txt")


def test_parts_are_run_and_joined_from_the_command_line(tmp_path, rows, capsys):
    out, whole = tmp_path / "o.csv", tmp_path / "whole.csv"
    asked = (rows[".csv"], "-w", "0.5,-0.3,0.1", "--on-bad-row", "nan")
    assert run(*asked, "-o", whole) == 0
    for i in (1, 0):
        assert main(["merge", str(out)]) == 2
        assert run(*asked, "-o", out, "--part", f"{i}/2") == 0
    assert main(["merge", str(out)]) == 0
    assert out.read_bytes() == whole.read_bytes()
    said = capsys.readouterr()
    assert said.out.endswith(f"Joined 2 shards of 1700 rows, wrote 1700 rows to {out}.\n")
    assert "Run its part, 0/2, with --resume." in said.err
    assert run(*asked, "-o", out, "--part", "0/3") == 2
    assert "is of 2 shards, and now there are 3" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["2/2", "-1/2", "1", "a/b", "1/2/3", "0/0"])
def test_a_part_that_cannot_be_is_an_error(tmp_path, rows, capsys, text):
    with pytest.raises(SystemExit) as stopped:
        run(rows[".npy"], "-w", "1,1,1", "-o", tmp_path / "o.npy", f"--part={text}")
    assert stopped.value.code == 2
    assert f"expected I/N with I from 0 to N-1, as 0/2 and 1/2, and not '{text}'" in capsys.readouterr().err


def test_a_part_needs_no_coordinator(tmp_path, rows, capsys):
    assert run(rows[".npy"], "-w", "1,1,1", "-o", tmp_path / "o.npy", "--part", "0/2", "--process", 0) == 2
    assert "--part needs no other process, and --coordinator" in capsys.readouterr().err
