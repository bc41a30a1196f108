"""Many files of rows into a folder: each output is that of its file alone, whole or absent, and in the manifest."""

import json
import os
import re
import resource
import signal
import subprocess
import sys

import fsspec
import numpy as np
import pytest

from helpers.row_files import FORMATS, files_of, inputs, read, run, save
from jaxgrad.__main__ import main
from jaxgrad._evaluate.data_sets import data_set, together
from jaxgrad._evaluate.data_sets.listing import listed

W = ("-w", "0.5,-0.3,0.1")
NAMES = ["year=2024/a", "year=2025/a", "year=2025/b"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A partitioned folder, of another number of rows in each file."""
    folder = tmp_path_factory.mktemp("rows")
    for i, name in enumerate(NAMES):
        (folder / name).parent.mkdir(exist_ok=True)
        save(folder / f"{name}.npy", inputs(300 + 100 * i, i))
    for beside in ("_SUCCESS", ".hidden.npy", "year=2024/_temporary.npy"):
        (folder / beside).touch()
    return folder


def outputs(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def manifest(folder, name="manifest.json"):
    return json.loads((folder / name).read_text())["jaxgrad"]


def contents(folder):
    return {name: (folder / name).read_bytes() for name in outputs(folder)}


@pytest.mark.parametrize("ending", FORMATS)
def test_each_output_is_that_of_its_file_alone(tmp_path, rows, ending, capsys):
    out = tmp_path / "out"
    assert run(rows, *W, "-o", out, "--format", ending) == 0
    assert capsys.readouterr().out == f"Read 1200 rows of 3 files, wrote 1200 rows to {out}.\n"
    seals = [f"{name}{ending}.seal.json" for name in NAMES] if ending in (".npy", ".csv") else []
    assert outputs(out) == sorted(["manifest.json", *seals, *(f"{name}{ending}" for name in NAMES)])
    found = manifest(out)
    assert (found["read"], found["written"], found["bad"]) == (1200, 1200, 0)
    for name, listed_ in zip(NAMES, found["files"], strict=True):
        alone = tmp_path / f"alone{ending}"
        assert run(rows / f"{name}.npy", *W, "-o", alone, "--overwrite") == 0
        assert (out / f"{name}{ending}").read_bytes() == alone.read_bytes()
        assert (listed_["rows"], listed_["out"]) == (str(rows / f"{name}.npy"), f"{name}{ending}")
        assert listed_["read"] == len(np.load(rows / f"{name}.npy"))


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["{0}"], [f"{name}.npy" for name in NAMES]),
        (["{0}/year=2025/*.npy"], ["a.npy", "b.npy"]),
        (["{0}/*/a.npy"], ["year=2024/a.npy", "year=2025/a.npy"]),
        (["{0}/**/[b].npy"], ["year=2025/b.npy"]),
        (["{0}/year=2025/b.npy", "{0}/year=2024/a.npy"], ["b.npy", "a.npy"]),
        (["{0}/year=2025/b.npy", "{0}/year=2024"], ["b.npy", "a.npy"]),
    ],
)
def test_files_are_named_matched_or_in_a_folder(rows, given, names):
    assert [file.name for file in listed([text.format(rows) for text in given])] == names


def test_resume_makes_what_is_missing_and_keeps_the_rest(tmp_path, rows, capsys):
    out = tmp_path / "out"
    assert run(rows, *W, "-o", out) == 0
    whole, kept = contents(out), (out / f"{NAMES[0]}.npy").stat().st_mtime_ns
    (out / f"{NAMES[1]}.npy").unlink()
    assert run(rows, *W, "-o", out, "--resume") == 0
    assert "of 3 files, 2 of them earlier, wrote" in capsys.readouterr().out
    assert contents(out) == whole
    assert (out / f"{NAMES[0]}.npy").stat().st_mtime_ns == kept
    assert run(rows, *W, "-o", out) == 2
    assert f'{NAMES[0]}.npy" exists, and was kept. Give --resume to go on' in capsys.readouterr().err
    assert run(rows, "-w", "1,1,1", "-o", out, "--resume") == 2
    assert "it was made with weights" in capsys.readouterr().err
    assert not (out / "manifest.json").exists()  # until all are there again
    assert run(rows, "-w", "1,1,1", "-o", out, "--overwrite") == 0
    assert contents(out).keys() == whole.keys()
    assert contents(out)[f"{NAMES[2]}.npy"] != whole[f"{NAMES[2]}.npy"]


def test_a_bad_row_stops_there_and_what_was_whole_stays(tmp_path, rows, capsys):
    x = inputs(50)
    x[7, 0] = np.nan
    bad = save(tmp_path / "z.npy", x)
    asked = (rows / "year=2025", bad, *W, "-o", tmp_path / "out")
    assert run(*asked) == 2
    assert f'"{bad}", row 8, column x0: it is nan' in capsys.readouterr().err
    assert [name for name in outputs(tmp_path / "out") if "seal" not in name] == ["a.npy", "b.npy"]
    assert run(*asked, "--resume", "--on-bad-row", "skip") == 2  # another task than that of the two
    assert run(*asked, "--overwrite", "--on-bad-row", "skip") == 0
    assert f'Bad rows: 1, the first: "{bad}", row 8' in capsys.readouterr().out
    assert (tmp_path / "out" / "z.npy.skipped.csv").read_text() == "row\n8\n"


def test_large_files_go_block_by_block(tmp_path, rows):
    small, blocks = tmp_path / "small", tmp_path / "blocks"
    assert run(rows, *W, "-o", blocks, "--batch-size", 128) == 0
    assert run(rows, *W, "-o", small) == 0
    for name in NAMES:
        assert read(blocks / f"{name}.npy")["f"].tobytes() == read(small / f"{name}.npy")["f"].tobytes()


def test_small_outputs_are_published_in_groups(tmp_path, rows, monkeypatch):
    published, publish = [], data_set.Local.publish
    monkeypatch.setattr(data_set, "GROUP", 30_000)
    monkeypatch.setattr(data_set.Local, "publish", lambda *a: (published.append([*a[1]]), publish(*a)))
    assert run(rows, *W, "-o", tmp_path / "out", "--format", ".parquet") == 0
    assert published.pop() == ["manifest.json"]  # when all others are there
    assert sorted(published) == [["year=2024/a.parquet", "year=2025/a.parquet"], ["year=2025/b.parquet"]]


def small_files(folder, count, rows):
    """Files of few rows each, of another number each."""
    folder.mkdir()
    for i in range(count):
        save(folder / f"{i:04}.npy", inputs(rows + i % 7, i))
    return folder


def test_many_small_files_do_not_run_out_of_open_files(tmp_path):
    rows, (soft, hard) = small_files(tmp_path / "rows", 300, 2), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 250, hard))
    try:
        assert run(rows, *W, "-o", tmp_path / "out") == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert manifest(tmp_path / "out")["written"] == sum(2 + i % 7 for i in range(300))


@pytest.mark.parametrize("ending", [".npy", ".csv"])
def test_rows_of_several_files_are_computed_together(tmp_path, ending, monkeypatch):
    """In blocks of as many files as fit; what overflows is found in the file that it is in."""
    rows, computed = small_files(tmp_path / "rows", 20, 50), []
    batched = together.batched_columns
    monkeypatch.setattr(together, "ROWS", 256)
    monkeypatch.setattr(
        together, "batched_columns", lambda *a: lambda x, w: (computed.append(len(x)), batched(*a)(x, w))[1]
    )
    x = np.load(rows / "0007.npy").astype("f4")
    x[3] = [3e38, -3e38]
    save(rows / "0007.npy", x)
    options = ["-w", "10,-10,0", "--on-bad-row", "skip", "--format", ending]
    assert run(rows, *options, "-o", tmp_path / "out") == 0
    assert computed == [256] * 5  # four files of 50 to 56 rows each
    for i in (0, 7, 19):
        alone = tmp_path / f"alone{ending}"
        assert run(rows / f"{i:04}.npy", *options[:-2], "-o", alone, "--overwrite") == 0
        for name in (alone.name, *files_of(alone), f"{alone.name}.skipped.csv"):
            other = tmp_path / "out" / name.replace("alone", f"{i:04}")
            assert other.read_bytes() == (tmp_path / name).read_bytes()
    assert (tmp_path / "out" / f"0007{ending}.skipped.csv").read_text() == "row\n4\n"
    assert run(rows, "-w", "10,-10,0", "-o", tmp_path / "stops") == 2
    there = [name for name in outputs(tmp_path / "stops") if "seal" not in name]
    assert there == [f"{i:04}.npy" for i in range(7)]  # those before it


def test_text_of_few_rows_is_small_too(tmp_path, monkeypatch):
    """Whose rows are counted only when it is read; what turns out to have many goes block by block."""
    folder, large = tmp_path / "rows", []
    folder.mkdir()
    evaluate = data_set.evaluate
    monkeypatch.setattr(
        data_set, "evaluate", lambda task, *a, **k: (large.append(task.source.path.name), evaluate(task, *a, **k))
    )
    for name, rows in {"a": 100, "b": 300, "c": 128}.items():
        save(folder / f"{name}.csv", inputs(rows))
    assert run(folder, *W, "--batch-size", 128, "-o", tmp_path / "out") == 0
    assert large == ["b.csv"]
    assert [file["written"] for file in manifest(tmp_path / "out")["files"]] == [100, 300, 128]


def test_parts_of_the_files_need_no_coordinator_and_their_manifests_are_joined(tmp_path, rows, capsys):
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert run(rows, *W, "-o", whole) == 0
    assert run(rows, *W, "-o", out, "--part", "1/2") == 0
    assert main(["merge", str(out)]) == 2
    assert 'manifest-00000-of-00002.json" is missing; expected 2. Run part 0/2 with --resume' in capsys.readouterr().err
    assert run(rows, *W, "-o", out, "--part", "0/2") == 0
    assert main(["merge", str(out)]) == 0
    assert "Joined the manifests of 2 parts, 3 files of 1200 rows." in capsys.readouterr().out
    assert manifest(out) == manifest(whole)
    assert main(["merge", str(out)]) == 2
    assert 'manifest.json" exists, and was kept. Give --overwrite' in capsys.readouterr().err
    (out / f"{NAMES[0]}.npy").unlink()
    assert main(["merge", str(out), "--overwrite"]) == 2
    assert f'{NAMES[0]}.npy" is missing; expected it, as a manifest lists it' in capsys.readouterr().err


def test_manifests_of_other_tasks_are_not_joined(tmp_path, rows, capsys):
    out = tmp_path / "out"
    assert run(rows, *W, "-o", out, "--part", "0/2") == 0
    assert run(rows, "-w", "1,1,1", "-o", out, "--part", "1/2") == 0
    assert main(["merge", str(out)]) == 2
    assert "part 1 was made with weights [1.0, 1.0, 1.0], and now it is" in capsys.readouterr().err
    (out / "manifest-00001-of-00002.json").write_bytes((out / "manifest-00000-of-00002.json").read_bytes())
    assert main(["merge", str(out)]) == 2
    assert "two parts have one output" in capsys.readouterr().err
    (out / "manifest-00001-of-00002.json").write_text("{}")
    assert main(["merge", str(out)]) == 2
    assert "cannot be read as a manifest. Run part 1/2 again." in capsys.readouterr().err
    (out / "manifest-00001-of-00003.json").write_text("{}")
    assert main(["merge", str(out)]) == 2
    assert "has manifests of [2, 3] parts; expected one number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "options", "text"),
    [
        (["{rows}"], ["-o", "{rows}/out"], r'out" is in the folder of rows '),
        (["{rows}/year=2024/a.npy"], ["-o", "{rows}/year=2024"], r'year=2024" is a folder of rows; expected another'),
        (["{rows}/year=2024/a.npy", "{rows}/year=2025/a.npy"], [], r'would have one output, "a.npy"; .*other names'),
        (["{rows}/year=2023"], ["-o", "{rows}/../o/"], r"there is no file "),
        (["{rows}/*.npy"], [], r"there is no file of rows in "),
        (["{tmp}"], [], r'notes.txt" is no file of rows; expected only such that end in .csv'),
        (["{rows}"], ["-o", "{tmp}/o.npy"], r"of several files, and the output is .*o.npy.; expected a folder"),
        (["{rows}"], ["--part", "0/4"], r"there are 3 files for 4 parts; expected one for each at least"),
        (["{rows}"], ["--limit", "3"], r"--limit and --dry-run are for a single file"),
        (["{rows}/**/*.npy", "{wide}"], [], r'a.npy" has dtype .float32., and now it is .float64. in .*wide.npy'),
        (["{rows}/**/*.npy", "{named}"], [], r"has columns \[.x0., .x1.\], and now it is \[.a., .b.\] in .*named.csv"),
        (["{named}", "{tmp}/named.parquet"], ["--format", ".npy"], r"would have the output .named.npy"),
        (["nothing://here/x.npy"], [], r'"nothing://here" is of no file system that pyarrow or fsspec has'),
        (["s3://b/x.npy?endpoint_override=127.0.0.1:9&scheme=http&allow_bucket_creation=x"], [], r"cannot be reached"),
    ],
)
def test_what_is_no_data_set_is_one_error(tmp_path, rows, capsys, given, options, text):
    save(tmp_path / "wide.npy", inputs(3).astype(float))
    save(tmp_path / "named.csv", inputs(3))
    save(tmp_path / "named.parquet", inputs(3))
    (tmp_path / "notes.txt").touch()
    places = {"rows": rows, "tmp": tmp_path, "wide": tmp_path / "wide.npy", "named": tmp_path / "named.csv"}
    options = ["-o", "{tmp}/out", *options]
    before = outputs(rows)
    assert run(*(text.format(**places) for text in (*given, *W, *options))) == 2
    said = capsys.readouterr().err
    assert re.search(text, said), said
    assert outputs(rows) == before
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.fixture
def memory(rows):
    """A file system that is not this machine's, as fsspec knows many."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.put(f"{rows}/", "/bucket/rows/", recursive=True)
    return system


def test_rows_and_outputs_may_be_on_another_file_system(memory, tmp_path, rows, capsys):
    here = tmp_path / "here"
    carry = ("--carry", "year", "--row-number", "row")
    assert run(rows, *W, "-o", here, *carry) == 0
    assert run("memory://bucket/rows", *W, "-o", "memory://bucket/out", *carry) == 0
    there = {name.removeprefix("/bucket/out/"): memory.cat(name) for name in memory.find("/bucket/out")}
    assert there.keys() == contents(here).keys()
    assert {k: v for k, v in there.items() if k != "manifest.json"} == {
        k: v for k, v in contents(here).items() if k != "manifest.json"
    }
    assert "memory://bucket/rows/year=2024/a.npy" in there["manifest.json"].decode()
    memory.rm(f"/bucket/out/{NAMES[0]}.npy")
    capsys.readouterr()
    assert run("memory://bucket/rows/**/*.npy", *W, "-o", "memory://bucket/out", *carry) == 2
    assert f'"memory://bucket/out/{NAMES[1]}.npy" exists, and was kept' in capsys.readouterr().err
    assert run("memory://bucket/rows/**/*.npy", *W, "-o", "memory://bucket/out", *carry, "--resume") == 0
    assert "2 of them earlier" in capsys.readouterr().out
    assert memory.cat(f"/bucket/out/{NAMES[0]}.npy") == contents(here)[f"{NAMES[0]}.npy"]
    assert run("memory://bucket/rows/year=2024/a.npy", *W, "-o", "memory://bucket/rows/year=2024") == 2
    assert "is in a folder of rows" in capsys.readouterr().err


def test_large_outputs_are_put_on_another_file_system_when_they_are_whole(memory, tmp_path, rows):
    blocks = ("--batch-size", 128, "--format", ".csv")
    assert run(rows, *W, *blocks, "-o", tmp_path / "here") == 0
    assert run(rows, *W, *blocks, "-o", "memory://bucket/out") == 0
    there = {name.removeprefix("/bucket/out/"): memory.cat(name) for name in memory.find("/bucket/out")}
    assert there == contents(tmp_path / "here")
    memory.rm(f"/bucket/out/{NAMES[0]}.csv")
    assert run(rows, *W, *blocks, "-o", "memory://bucket/out", "--resume") == 0
    assert memory.cat(f"/bucket/out/{NAMES[0]}.csv") == there[f"{NAMES[0]}.csv"]


def test_errors_name_the_file_as_the_user_does(memory, tmp_path, capsys):
    x = inputs(600)
    x[500, 1] = np.inf
    with memory.open("/bucket/bad/x.npy", "wb") as file:
        np.save(file, x)
    assert run("memory://bucket/bad/x.npy", *W, "-o", tmp_path / "out", "--batch-size", 128) == 2
    said = capsys.readouterr().err
    assert '"memory://bucket/bad/x.npy", row 501, column x1: it is inf' in said
    assert "/tmp" not in said.replace(str(tmp_path), "")
    memory.pipe("/bucket/bad/x.npy", b"no rows")
    assert run("memory://bucket/bad/x.npy", *W, "-o", tmp_path / "out") == 2
    assert '"memory://bucket/bad/x.npy" cannot be read as npy' in capsys.readouterr().err


@pytest.mark.parametrize("kills", [2, pytest.param(25, marks=pytest.mark.deep)])
def test_killed_anywhere_it_is_resumed_to_the_same_bytes(tmp_path, kills):
    folder = tmp_path / "rows"
    folder.mkdir()
    for i in range(60):
        save(folder / f"{i:02}.npy", inputs(500, i))
    assert run(folder, *W, "-o", tmp_path / "whole") == 0
    code = (
        "import os, sys, signal, random, jaxgrad._files as f, jaxgrad._evaluate.data_sets.data_set as d\n"
        "from jaxgrad.__main__ import main\n"
        "d.GROUP = 50_000; left = random.Random(int(sys.argv[1])).randrange(150)\n"
        "def until(event, args):\n"
        "    global left\n"
        "    if event in ('os.rename', 'os.link', 'open', 'os.remove') and 'out' in str(args):\n"
        "        left -= 1\n"
        "        if left < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(until)\n"
        "sys.exit(main(sys.argv[2:]))\n"
    )
    out, killed = tmp_path / "out", 0
    asked = ["evaluate", folder, *W, "-o", out, "--resume"]
    whole = contents(tmp_path / "whole")
    for seed in range(kills):
        done = subprocess.run(
            [sys.executable, "-c", code, str(seed), *map(str, asked)], capture_output=True, check=False
        )
        killed += done.returncode == -signal.SIGKILL
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        for name in outputs(out) if out.exists() else ():
            if name.endswith(".npy"):  # there, and so whole
                assert (out / name).read_bytes() == whole[name]
    assert killed
    assert run(*asked[1:]) == 0
    assert contents(out) == whole
