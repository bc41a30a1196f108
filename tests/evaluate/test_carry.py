"""What passes through: columns of the rows, their numbers, keys of their path; each beside the row that it is of."""

import csv
import datetime
import decimal
import json
import re
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from helpers.broken_off import broken_off
from helpers.row_files import FORMATS, W, inputs, quantities, run, save
from jaxgrad.__main__ import main

ROWS = 700
X = inputs(ROWS)
BAD = [3, 256, 699]
NAMES = [None if i % 7 == 0 else ["", "NA", "ä,\"b\"", "two\nlines", " x "][i % 5] for i in range(ROWS)]  # fmt: skip
IDS = [(i * 7919 - 5) % (1 << 53) for i in range(ROWS)]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The same rows in files of each format; some are bad, and some have no name."""
    folder = tmp_path_factory.mktemp("rows") / "year=2025" / "place=a%20b"
    folder.mkdir(parents=True)
    x = X.copy()
    x[BAD, 1] = np.nan
    table = pa.table({"a": x[:, 0], "id": pa.array(IDS, pa.int64()), "b": x[:, 1], "name": NAMES})
    pq.write_table(table, folder / "x.parquet", row_group_size=300)
    with pa.ipc.new_file(folder / "x.arrow", table.schema) as file:
        file.write_table(table, 300)
    pyarrow.csv.write_csv(table, folder / "x.csv")
    np.save(folder / "x.npy", np.array(list(zip(x[:, 0], IDS, x[:, 1], strict=True)), "f4,i8,f4"))
    named = np.load(folder / "x.npy")
    named.dtype.names = ("a", "id", "b")
    np.save(folder / "x.npy", named)
    return folder


def content(path):
    """The columns of an output as Python's own values; by the csv module, where it is one."""
    match path.suffix:
        case ".npy":
            table = np.load(path)
            return {name: table[name].tolist() for name in table.dtype.names}
        case ".parquet":
            return pq.read_table(path).to_pydict()
        case ".arrow":
            return pa.ipc.open_file(path).read_all().to_pydict()
    with path.open(newline="", encoding="utf-8") as file:
        names, *lines = csv.reader(file)
    return dict(zip(names, map(list, zip(*lines, strict=True)), strict=True))


def bytes_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def asked(rows, out, carry=None, mode="skip"):
    """Arguments that carry all that a format has a place for."""
    if carry is None:
        numeric = rows.suffix == ".npy" or out.suffix == ".npy"
        carry = "id" if numeric else "name,id"
        carry += ",year" if numeric else ",year,place"
    return [rows, "-w", W, "--columns", "a,b", "--on-bad-row", mode, "--batch-size", 128, "--carry", carry,
            "--row-number", "row", "-o", out]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "ending", "mode"),
    [
        pytest.param(given, ending, mode, marks=[] if mode == "skip" or given == ending else pytest.mark.deep)
        for given, ending in product(FORMATS, FORMATS)
        if (given, ending) != (".csv", ".npy")  # text has no place
        for mode in ("skip", "nan")
    ],
)
def test_each_row_keeps_what_is_carried(tmp_path, rows, given, ending, mode):
    out = tmp_path / f"o{ending}"
    assert run(*asked(rows / f"x{given}", out, mode=mode)) == 0
    found, stay = content(out), [i for i in range(ROWS) if mode == "nan" or i not in BAD]
    numeric = ".npy" in (given, ending)
    names = ["row", *([] if numeric else ["name"]), "id", "year", *([] if numeric else ["place"])]
    assert list(found)[: len(names)] == names
    text = str if ending == ".csv" else int
    id_text = str if ".csv" in (given, ending) else int
    assert found["row"] == [text(i + 1) for i in stay]
    assert found["id"] == [id_text(IDS[i]) for i in stay]
    assert found["year"] == [text(2025)] * len(stay)
    if not numeric:
        missing = "" if ".csv" in (given, ending) else None
        assert found["name"] == [missing if NAMES[i] is None else NAMES[i] for i in stay]
        assert found["place"] == ["a b"] * len(stay)
    f = np.array(found["f"], float).astype("f4")
    want = quantities(X[stay])["f"]
    want[[i for i, row in enumerate(stay) if row in BAD]] = np.nan
    np.testing.assert_array_equal(f, want)


@pytest.mark.parametrize("ending", FORMATS)
def test_broken_off_it_is_resumed_to_the_same_bytes(tmp_path, rows, ending, monkeypatch):
    """Blocks that are whole are not computed again, whatever the length of the text in them."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    whole.mkdir()
    out.mkdir()
    given = rows / ("x.npy" if ending == ".npy" else "x.parquet")
    assert run(*asked(given, whole / f"o{ending}")) == 0
    with broken_off(monkeypatch, after=3):
        run(*asked(given, out / f"o{ending}"))
    assert not (out / f"o{ending}").exists()
    assert run(*asked(given, out / f"o{ending}"), "--resume", "--json") == 0
    assert bytes_of(out) == bytes_of(whole)


@pytest.mark.parametrize("ending", FORMATS)
def test_parts_are_joined_to_the_bytes_of_the_whole(tmp_path, rows, ending):
    given = rows / ("x.npy" if ending == ".npy" else "x.arrow")
    for folder in ("whole", "parts"):
        (tmp_path / folder).mkdir()
    assert run(*asked(given, tmp_path / "whole" / f"o{ending}")) == 0
    joined = tmp_path / "parts" / f"o{ending}"
    for i in range(3):
        assert run(*asked(given, joined), "--part", f"{i}/3") == 0
    assert main(["merge", str(joined)]) == 0
    whole = bytes_of(tmp_path / "whole")
    assert {name: data for name, data in bytes_of(tmp_path / "parts").items() if "-of-" not in name} == whole


def test_what_is_carried_is_of_the_task(tmp_path, rows, capsys):
    out = tmp_path / "o.parquet"
    assert run(*asked(rows / "x.arrow", out)) == 0
    assert run(*asked(rows / "x.arrow", out), "--resume") == 0
    assert run(*asked(rows / "x.arrow", out, carry="id"), "--resume") == 2
    assert "it was made with carried [['row', 'int64'], ['name', 'string'], " in capsys.readouterr().err
    assert run(*asked(rows / "x.arrow", out)[:-4], "-o", out, "--resume") == 2
    assert "it was made with carried [['row', 'int64']" in capsys.readouterr().err


VALUES = {
    "seconds": (pa.timestamp("s", "UTC"), datetime.datetime(2025, 1, 2, tzinfo=datetime.UTC)),
    "nanoseconds": (pa.timestamp("ns"), datetime.datetime(2025, 1, 2, 3, 4, 5)),
    "day": (pa.date32(), datetime.date(2025, 1, 2)),
    "time": (pa.time32("s"), datetime.time(3, 4, 5)),
    "decimal": (pa.decimal128(12, 2), decimal.Decimal("1234567890.12")),
    "large text": (pa.large_string(), "ä"),
    "boolean": (pa.bool_(), True),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), "red"),
    "bytes": (pa.binary(), b"\xff"),
    "list": (pa.list_(pa.int64()), [1, 2]),
    "struct": (pa.struct([("u", pa.int64()), ("v", pa.string())]), {"u": 1, "v": "w"}),
    "whole number": (pa.uint64(), (1 << 64) - 1),
    "half": (pa.float16(), np.float16(0.1)),
    "interval": (pa.month_day_nano_interval(), None),
    "nested": (pa.list_(pa.dictionary(pa.int8(), pa.string())), ["red"]),
    "nothing": (pa.null(), None),
}
CANNOT = {
    ".npy": {*VALUES} - {"boolean", "whole number", "half"},
    ".csv": {"bytes", "list", "struct", "interval", "nested"},
    ".parquet": {"interval", "nested"},
    ".arrow": {"nested"},
}


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("what", VALUES)
def test_a_column_of_any_type_is_carried_or_an_error(tmp_path, what, ending, capsys):
    kind, value = VALUES[what]
    column = pa.array([value, value if ending == ".npy" else None, value], kind)
    table = pa.table({"a": X[:3, 0], "b": X[:3, 1], "c": column})
    rows, out = tmp_path / "x.arrow", tmp_path / f"o{ending}"
    with pa.ipc.new_file(rows, table.schema) as file:
        file.write_table(table)
    status = run(rows, "-w", W, "--columns", "a,b", "--carry", "c", "--keep", "f", "-o", out)
    if what in CANNOT[ending]:
        assert status == 2
        said = capsys.readouterr().err
        assert re.search(r'column "?c"?.* cannot be carried', said), said
        assert not out.exists()
        return
    assert status == 0, capsys.readouterr().err
    found = content(out)["c"]
    if ending == ".csv":
        assert found[1] == "" and found[0] == found[2] != ("" if value is not None else None)  # noqa: PT018
    else:
        assert found == column.to_pylist()
    if ending in (".arrow", ".parquet"):
        schema = pa.ipc.open_file(out).schema if ending == ".arrow" else pq.read_schema(out)
        stored = {"seconds": pa.timestamp("ms", "UTC"), "time": pa.time32("ms")} if ending == ".parquet" else {}
        assert schema.field("c").type == stored.get(what, kind.value_type if what == "dictionary" else kind)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--carry", "nme"], r'x.parquet" has no column "nme" to carry; expected one of .*, a key of its path \(year,'),
        (["--carry", ""], r'has no column "" to carry'),
        (["--carry", "4"], r'has no column "4" to carry; .*, or a number from 0 to 3'),
        (["--carry", "id,id"], r'two columns "id" would be carried; expected each once'),
        (["--carry", "id,1"], r'two columns "id" would be carried'),
        (["--carry", "year", "--row-number", "year"], r'two columns "year" would be carried'),
        (["--row-number", "f"], r'"f" would be carried beside the quantity of that name; .* Leave the .* by --keep'),
        (["--row-number", ""], r"--row-number is empty; expected a name for the column"),
        (["--carry", "name", "-o", "{tmp}/o.npy"], r'"name" cannot be carried to .npy: it is of type string, and .npy'),
        (["--carry", "place", "-o", "{tmp}/o.npy"], r'"place" cannot be carried to .npy: it is of type string'),
        (["--row-number", "名", "-o", "{tmp}/o.npy"], r"cannot be carried to .npy: its name cannot be one of NumPy's"),
    ],
)
def test_what_cannot_be_carried_is_one_error(tmp_path, rows, options, text, capsys):
    options = [option.format(tmp=tmp_path) for option in options]
    asked = [rows / "x.parquet", "-w", W, "--columns", "a,b", "--on-bad-row", "nan", "-o", tmp_path / "o.parquet"]
    assert run(*asked, *options) == 2
    said = capsys.readouterr().err
    assert re.search(text, said), said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_column_may_be_an_input_too_and_be_called_by_its_number(tmp_path):
    rows, out = tmp_path / "x.csv", tmp_path / "o.csv"
    rows.write_text('a,b\n1.50,2\n"3",NA\n')
    assert run(rows, "-w", W, "--carry", "1,0", "--keep", "f", "--on-bad-row", "skip", "-o", out) == 0
    assert {name: content(out)[name] for name in "ba"} == {"b": ["2"], "a": ["1.50"]}  # to the letter


def test_a_quantity_that_is_left_out_leaves_its_name_free(tmp_path):
    rows, out = tmp_path / "x.parquet", tmp_path / "o.parquet"
    pq.write_table(pa.table({"a": X[:9, 0], "z": X[:9, 1]}), rows)
    assert run(rows, "-w", W, "--carry", "z", "--keep", "f", "-o", out) == 0
    assert content(out)["z"] == X[:9, 1].tolist()


@pytest.mark.parametrize("mode", ["error", "nan", "skip"])
def test_a_number_that_is_missing_has_no_place_in_npy(tmp_path, mode, capsys):
    x = X[:4].copy()
    x[1, 0] = np.nan if mode == "skip" else 0
    rows, out = tmp_path / "x.parquet", tmp_path / "o.npy"
    pq.write_table(pa.table({"a": x[:, 0], "b": x[:, 1], "id": [1, None, 3, None if mode == "nan" else 4]}), rows)
    options = [rows, "-w", W, "--columns", "a,b", "--carry", "id", "--on-bad-row", mode, "-o", out]
    if mode == "skip":  # the row that has none is left out
        assert run(*options) == 0
        assert content(out)["id"] == [1, 3, 4]
        return
    assert run(*options) == 2
    assert f'"{rows}", row 2, column id: it is missing, and .npy has no place for that' in capsys.readouterr().err
    assert not out.exists()


def test_numbers_of_any_kind_of_an_array_are_carried(tmp_path):
    """Of any order of bytes and of memory."""
    dtypes = ["<i2", ">i4", "u1", "?", ">f8", "f2"]
    kinds = [("a", "f4"), ("b", "f4"), *((f"c{i}", kind) for i, kind in enumerate(dtypes))]
    table = np.array([(*x, *np.arange(i, i + 6) % 2) for i, x in enumerate(X[:5])], kinds)
    np.save(tmp_path / "x.npy", table)
    for ending in FORMATS:
        out = tmp_path / f"o{ending}"
        carry = ",".join(f"c{i}" for i in range(6))
        assert run(tmp_path / "x.npy", "-w", W, "--columns", "a,b", "--carry", carry, "-o", out) == 0
        for i in range(6):
            found = [float(json.loads(str(v).lower())) for v in content(out)[f"c{i}"]]
            assert found == table[f"c{i}"].astype(float).tolist()
    np.save(tmp_path / "y.npy", np.asfortranarray(X[:5]))
    assert run(tmp_path / "y.npy", "-w", W, "--carry", "x1", "-o", tmp_path / "y.parquet") == 0
    assert content(tmp_path / "y.parquet")["x1"] == X[:5, 1].tolist()


def test_what_is_no_number_in_an_array_is_not_carried(tmp_path, capsys):
    table = np.array([(1, 2, "t", 3)], [("a", "f4"), ("b", "f4"), ("t", "U1"), ("g", np.longdouble)])
    np.save(tmp_path / "x.npy", table)
    for name in "tg":
        options = ["--columns", "a,b", "--carry", name, "-o", tmp_path / "o.parquet"]
        assert run(tmp_path / "x.npy", "-w", W, *options) == 2
        assert re.search(rf"column {name}: .* cannot be carried; expected numbers of 64 bits", capsys.readouterr().err)


@pytest.mark.parametrize("ending", [".parquet", ".npy", ".csv"])
def test_keys_of_a_partitioned_folder_are_columns(tmp_path, ending):
    """Whole numbers where all are; a file's rows are numbered on their own, and bad ones left out."""
    keys = ["2024/week=07", "2025/week=8", "__HIVE_DEFAULT_PARTITION__/week=9"]
    for i, key in enumerate(keys[: 2 if ending == ".npy" else 3]):
        (tmp_path / "rows" / f"year={key}").mkdir(parents=True)
        x = X[: 3 + i].copy()
        x[1, 0] = np.nan
        save(tmp_path / "rows" / f"year={key}" / "a.npy", x)
    options = ["--carry", "year" if ending == ".npy" else "year,week", "--row-number", "row", "--keep", "f"]
    arguments = [tmp_path / "rows", "-w", W, *options, "--on-bad-row", "skip", "--format", ending]
    assert run(*arguments, "-o", tmp_path / "out") == 0
    whole = bytes_of(tmp_path / "out")
    found = [content(path) for path in sorted((tmp_path / "out").rglob(f"*{ending}")) if "skipped" not in path.name]
    number = str if ending == ".csv" else int
    assert [c["row"] for c in found][:2] == [[number(n) for n in of] for of in ([1, 3], [1, 3, 4])]
    if ending == ".npy":
        assert [c["year"] for c in found] == [[2024] * 2, [2025] * 3]
    else:
        assert [c["year"][0] for c in found] == ["2024", "2025", "" if ending == ".csv" else None]
        assert [c["week"][0] for c in found] == ["07", "8", "9"]
    for i in range(2):  # the keys' types are those of all files, not of a part
        assert run(*arguments, "-o", tmp_path / "parts", "--part", f"{i}/2") == 0
    assert main(["merge", str(tmp_path / "parts")]) == 0
    parts = {name: data for name, data in bytes_of(tmp_path / "parts").items() if "-of-" not in name}
    assert {**parts, "manifest.json": b""} == {**whole, "manifest.json": b""}
    (tmp_path / "out" / f"year=2024/week=07/a{ending}").unlink()
    assert run(*arguments, "-o", tmp_path / "out", "--resume") == 0
    assert bytes_of(tmp_path / "out") == whole


def test_files_of_a_data_set_carry_columns_of_one_type(tmp_path, capsys):
    for i, kind in enumerate([pa.int64(), pa.string()]):
        table = pa.table({"a": X[:3, 0], "b": X[:3, 1], "id": pa.array([1, 2, 3]).cast(kind)})
        pq.write_table(table, tmp_path / f"{i}.parquet")
    options = ["-w", W, "--columns", "a,b", "--carry", "id", "-o", tmp_path / "out"]
    assert run(tmp_path / "0.parquet", tmp_path / "1.parquet", *options) == 2
    assert "0.parquet\" has carried [['id', 'int64']], and now it is [['id', 'string']] in" in capsys.readouterr().err


def test_a_dry_run_names_what_is_carried(tmp_path, rows, capsys):
    assert run(*asked(rows / "x.arrow", tmp_path / "o.csv", carry="id"), "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["columns"][:3] == ["row", "id", "z"]
