"""Bad input, 200 kinds of it: one line of error, nothing lost, nothing left, no row that appears or vanishes.

Each case is run in this process, so that it is cheap; what can only be seen from outside is in `test_command.py`.
"""

import csv
import gzip
import io
import os
import random
import struct
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from helpers.row_files import W, inputs, read, run, save
from jaxgrad._evaluate.formats import quotes
from jaxgrad._evaluate.formats.csv_text import line_of_record

ROWS = 12


def npy(header, data=b"", version=(1, 0)):
    """A .npy file with this text as its header."""
    text = header if isinstance(header, bytes) else header.encode("latin1")
    length = struct.pack("<H" if version[0] == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + data


def header(shape="(12, 2)", descr="'<f4'", order="False"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


DATA = inputs(ROWS).tobytes()
NPY = {  # the content of rows.npy -> what the error says
    "a shape that overflows": (npy(header("(9999999999999999999999, 2)"), DATA), "cannot be read as npy"),
    "a shape whose product overflows": (npy(header("(4611686018427387904, 4)"), DATA), "cannot be read as npy"),
    "a product that wraps around": (npy(header("(9223372036854775820, 2)"), DATA), "cannot be read as npy"),
    "a negative shape": (npy(header("(-12, 2)"), DATA), "cannot be read as npy"),
    "a boolean shape": (npy(header("(True, 2)"), DATA[:8]), ""),
    "a shape of floats": (npy(header("(12.0, 2)"), DATA), "cannot be read as npy"),
    "a shape of text": (npy(header("'12'"), DATA), "cannot be read as npy"),
    "a shape that is a list": (npy(header("[12, 2]"), DATA), "cannot be read as npy"),
    "no shape": (npy("{'descr': '<f4', 'fortran_order': False}\n", DATA), "cannot be read as npy"),
    "a shape of no axes": (npy(header("()"), DATA[:4]), "holds an array of shape ()"),
    "a shape of three axes": (npy(header("(3, 4, 2)"), DATA), "holds an array of shape (3, 4, 2)"),
    "no columns": (npy(header("(12, 0)")), "has no columns"),
    "no rows": (npy(header("(0, 2)")), "has no rows"),
    "an order that is no boolean": (npy(header(order="'no'"), DATA), "cannot be read as npy"),
    "a literal that is broken": (npy("{'descr': '<f4', 'fortran_order'", DATA), "cannot be read as npy"),
    "a literal that is no dict": (npy("[1, 2, 3]\n", DATA), "cannot be read as npy"),
    "a literal that is a call": (npy("__import__('os').getcwd()\n", DATA), "cannot be read as npy"),
    "a string without end": (npy("{'descr': '<f4\n", DATA), "cannot be read as npy"),
    "brackets without end": (npy("(" * 3000, DATA), "cannot be read as npy"),
    "a header of zeros": (npy(bytes(64), DATA), "cannot be read as npy"),
    "a header that is no ASCII": (npy(b"\xff\xfe" * 32, DATA), "cannot be read as npy"),
    "no header": (npy("", DATA), "cannot be read as npy"),
    "a header longer than the file": (b"\x93NUMPY\x01\x00\xff\xff", "cannot be read as npy"),
    "a header of 4 GB": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}", "cannot be read as npy"),
    "an unknown version": (npy(header(), DATA, (9, 9)), "cannot be read as npy"),
    "only the magic": (b"\x93NUMPY", "cannot be read as npy"),
    "half of the magic": (b"\x93NU", "cannot be read as npy"),
    "an unknown type": (npy(header(descr="'<q9'"), DATA), "cannot be read as npy"),
    "a type that is a number": (npy(header(descr="7"), DATA), "cannot be read as npy"),
    "objects": (npy(header(descr="'|O'"), DATA), "cannot be read as npy"),
    "durations": (npy(header("(6, 2)", "'<m8[s]'"), DATA), "column x0: it is of dtype timedelta64[s]; expected real"),
    "dates": (npy(header("(6, 2)", "'<M8[D]'"), DATA), "column x0: it is of dtype datetime64[D]; expected real"),
    "complex numbers": (npy(header("(6, 2)", "'<c8'"), DATA + DATA), "cannot be read as npy"),
    "bytes": (npy(header("(12, 2)", "'|S4'"), DATA), "column x0: it is of dtype |S4; expected real numbers"),
    "nothing": (npy(header("(12, 2)", "'|V4'"), DATA), "column x0: it is of dtype |V4; expected real numbers"),
    "fields of the same name": (
        npy(header("(12,)", "[('a', '<f4'), ('a', '<f4')]"), DATA), "cannot be read as npy"),
    "fields within fields": (
        npy(header("(12,)", "[('a', [('b', '<f4')]), ('c', '<f4')]"), DATA), "column a: it is of dtype"),
    "a field of many": (npy(header("(6,)", "[('a', '<f4', (3,)), ('c', '<f4')]"), DATA), "column a: it is of dtype"),
    "a byte too few": (npy(header(), DATA[:-1]), "cannot be read as npy"),
    "a byte too many": (npy(header(), DATA + b"\0"), "bytes long; its header, of shape (12, 2), says"),
    "a row too many": (npy(header(), DATA + DATA[:8]), "bytes long; its header, of shape (12, 2), says"),
}  # fmt: skip

CSV = {  # the content of rows.csv -> what the error says, or how many rows there are
    "one cell too few": (b"a,b\n1,2\n3\n", "row 2 (line 3): it has 1 columns; expected 2"),
    "one cell too many": (b"a,b\n1,2\n3,4,5\n", "row 2 (line 3): it has 3 columns; expected 2"),
    "one too many after a cell of three lines": (
        b'a,b\n"1\n\n",2\n3,4,5\n', "row 2 (line 5): it has 3 columns; expected 2"),
    "one too many after names of two lines": (
        b'a,"b\nx"\n1,2\n3,4,5\n', "row 2 (line 4): it has 3 columns; expected 2"),
    "a bad cell after a quote within a cell": (
        b'a,b,"c\n"\n1,2,3"4\n3,x,5\n', "there are 3 weights and 3 columns"),
    "an escape": (b"a,b\n1,2\n3,\x1b[31mred\x07\n", r'row 2 (line 3), column b: it is "\x1b[31mred\x07"; expected'),
    "a long cell": (b"a,b\n1,2\n3," + b"9x" * 50_000 + b"\n", f'column b: it is "{"9x" * 30}..."; expected'),
    "a name with an escape": (b"a,\x1b[2Jb\n1,2\n3,q\n", r'column \x1b[2Jb: it is "q"; expected finite numbers'),
    "a right-to-left mark": ("a,b\n1,\u202e2\n".encode(), r'it is "\u202e2"; expected finite numbers'),
    "no UTF-8 in a cell": (b"a,b\n1,\xff\xfe\n", "cannot be read as csv"),
    "no UTF-8 in a name": (b"a,\xff\xfe\n1,2\n", "cannot be read as csv"),
    "UTF-16": ("a,b\n1,2\n".encode("utf-16"), "cannot be read as csv"),
    "zeros": (bytes(1000), "there are 3 weights and 1 columns"),
    "a zero in a cell": (b"a,b\n1,2\n3,4\0\n", r'it is "4\x00"; expected finite numbers'),
    "a quote without end": (b'a,b\n1,2\n3,"4\n5,6\n', "line 3: a cell begins with a quote that is never closed, and"),
    "a quote within a cell": (b'a,b\n1,2\n3,4"5\n', 'column b: it is "4"5"; expected finite numbers'),
    "hexadecimal": (b"a,b\n1,0x10\n", 'it is "0x10"; expected finite numbers'),
    "an underscore": (b"a,b\n1,1_0\n", 'it is "1_0"; expected finite numbers'),
    "a decimal comma": (b'a,b\n1,"1,5"\n', 'it is "1,5"; expected finite numbers'),
    "semicolons": (b"a;b\n1;2\n", "there are 3 weights and 1 columns of inputs (a;b)"),
    "complex": (b"a,b\n1,1+2j\n", 'it is "1+2j"; expected finite numbers'),
    "a duration": (b"a,b\n1,1:30\n", 'it is "1:30"; expected finite numbers'),
    "a date": (b"a,b\n1,2020-01-01\n", 'it is "2020-01-01"; expected finite numbers'),
    "infinity": (b"a,b\n1,Infinity\n", "it is inf; expected finite numbers"),
    "too large": (b"a,b\n1,1e39\n", "it is 1e+39, too large for float32"),
    "too large for a double": (b"a,b\n1,1e999\n", "it is inf; expected finite numbers"),
    "a missing cell": (b"a,b\n1,\n", "row 1 (line 2), column b: it is missing"),
    "NA": (b"a,b\n1,NA\n", "row 1 (line 2), column b: it is missing"),
    "spaces": (b"a,b\n1,   \n", "row 1 (line 2), column b: it is missing"),
    "only spaces": (b"   \n", "may be names or a row"),
    "only line ends": (b"\n\n\n", "may be names or a row"),
    "only a comma": (b",\n", "may be names or a row"),
    "only names": (b"a,b\n", "has no rows"),
    "only names, no line end": (b"a,b", "cannot be read as csv"),
    "names twice": (b"a,a\n1,2\n", 'has two columns "a"'),
    "a year for a name": (b"2020,b\n1,2\n", "may be names or a row; expected to be told. Give --header yes or"),
    "a long first line that may be either": (
        b"1," + b"b" * 5000 + b"\n1,2\n", f"its first line, 1,{'b' * 58}..., may be names"),
    "a cell of 3 MB": (b"a,b\n1,2\n1," + b"x" * 3_000_000 + b"\n", ""),
    "true and false": (b"a,b\n1,true\n0,False\n", 2),
    "no line end": (b"a,b\n1,2\n3,4", 2),
    "a byte order mark": ("\ufeffa,b\n1,2\n3,4\n".encode(), 2),
    "a name over two lines": (b'"a\nx",b\n1,2\n3,4\n', 2),
    "quoted numbers": (b'a,b\n"1","2"\n"3","4"\n', 2),
    "line ends of DOS": (b"a,b\r\n1,2\r\n3,4\r\n", 2),
    "line ends of old Macs": (b"a,b\r1,2\r3,4\r", 2),
    "spaces around": (b"a, b\n 1, 2 \n3 ,4\n", 2),
    "tabs around": (b"a,b\n\t1,2\t\n3,4\n", 2),
    "a plus": (b"a,b\n+1,+2\n3,4\n", 2),
    "blank lines at the end": (b"a,b\n1,2\n3,4\n\n\n", 2),
}  # fmt: skip

SAID = {  # arguments -> what the error says
    ("-w", ""): 'is ""; expected numbers',
    ("-w", ",,"): 'is ",,"; expected numbers',
    ("-w", "1,2,"): 'is "1,2,"; expected numbers',
    ("-w", "1;2;3"): 'is "1;2;3"; expected numbers',
    ("-w", "1,2,inf"): "weight 2 is not a finite float32",
    ("-w", "1,2,1e39"): "weight 2 is not a finite float32",
    ("-w", "1,2,0x3"): 'is "1,2,0x3"; expected numbers',
    ("-w", "1,2,3_0"): 'is "1,2,3_0"; expected numbers',
    ("-w", "1,2,3j"): 'is "1,2,3j"; expected numbers',
    ("-w", "1"): "there are 1 weights and 2 columns",
    ("-w", "1,2,3,4"): "there are 4 weights and 2 columns",
    ("-w", "\x1b[2J"): r'is "\x1b[2J"; expected numbers',
    ("-w", "\udcff"): r'is "\udcff"; expected numbers',
    ("-w", "x" * 10_000): f'is "{"x" * 60}..."; expected numbers',
    ("-w", "."): 'is "."; expected numbers',
    ("-w", "none.txt"): 'is "none.txt"; expected numbers',
    ("-w", "pipe"): 'is "pipe"; expected numbers',
    ("-w", "a\0b"): 'is "a\\x00b"; expected numbers',
    ("--columns", ""): 'has no column ""',
    ("--columns", "x0"): "there are 3 weights and 1 columns",
    ("--columns", "x0,x1,x1"): "there are 3 weights and 3 columns",
    ("--columns", "x0,X1"): 'has no column "X1"',
    ("--columns", "0,2"): 'has no column "2"; expected one of x0, x1, or a number from 0 to 1',
    ("--columns", "0,-1"): 'has no column "-1"',
    ("--columns", "0,1.0"): 'has no column "1.0"',
    ("--columns", "0,\u00b2"): 'has no column "\u00b2"',
    ("--columns", "0,\x1b"): r'has no column "\x1b"',
    ("--columns", "0,9" * 100): 'has no column "9',
    ("--keep", ""): 'there is no quantity ""',
    ("--keep", "f,g"): 'there is no quantity "g"',
    ("--keep", "df/dw3"): 'there is no quantity "df/dw3"',
    ("--keep", "F"): 'there is no quantity "F"',
    ("--keep", "["): 'there is no quantity "["',
    ("--batch-size", "0"): "--batch-size is 0; expected a positive number of rows",
    ("--batch-size", "-5"): "--batch-size is -5; expected a positive number of rows",
    ("--limit", "0"): "--limit is 0; expected a positive number of rows",
    ("--limit", "-1"): "--limit is -1; expected a positive number of rows",
    ("--row-group-size", "0"): "--row-group-size is 0; expected a positive number of rows",
    ("--compression", "zstd"): '--compression and --row-group-size are of .parquet files, and the output is "out.npy"',
    ("--row-group-size", "5"): "--compression and --row-group-size are of .parquet files",
    ("-o", "out"): 'the output is "out"; expected a file that ends in .npy, .parquet',
    ("-o", "out.csv.gz"): 'the output is "out.csv.gz"; expected a file that ends in',
    ("-o", ""): "expected a file that ends in",
    ("-o", "."): "is a folder of rows; expected another",
    ("-o", "none/out.npy"): 'there is no folder "none" to write "out.npy" in',
    ("-o", "rows.npy/out.npy"): 'there is no folder "rows.npy" to write',
    ("-o", "rows.npy", "--overwrite"): '"rows.npy" holds the rows; expected another file',
    ("-o", "rows.npy"): '"rows.npy" holds the rows; expected another file',
    ("-o", "ROWS.NPY/../out.npy"): "to write",
    ("-o", "x" * 300 + ".npy"): "File name too long",
    ("--process", "0"): "--processes and --process are given without --coordinator",
    ("--processes", "2"): "--processes and --process are given without --coordinator",
    ("--coordinator", "h:1"): "--coordinator is given without --processes or --process",
    ("--coordinator", "h:1", "--processes", "0", "--process", "0"): "--processes is 0; expected how many",
    ("--coordinator", "h:1", "--processes", "-2", "--process", "0"): "--processes is -2; expected how many there are",
    ("--coordinator", "h:1", "--processes", "2", "--process", "2"): "--process is 2 of 2; expected a number",
    ("--coordinator", "h:1", "--processes", "2", "--process", "-1"): "--process is -1 of 2; expected a number from 0",
    ("--coordinator", "h.invalid:1", "--processes", "2", "--process", "1"): 'there is no host "h.invalid"',
    ("--coordinator", f"{'h' * 70}:1", "--processes", "2", "--process", "1"): "there is no host",
}  # fmt: skip

SAID |= {
    (
        "--coordinator",
        address,
        "--processes",
        "2",
        "--process",
        "1",
    ): f'"{address}"; expected host:port, the port from 1'
    for address in ("bad", ":", ":1", "h:", "h:0", "h:65536", "h:99999", "h:-1", "h:x", "h:1.5", "h:\u0661")
}

WEIGHTS = {  # the name of a file of weights -> its content, and what the error says, or None
    "w.npy": (npy(header("(3,)"), np.array([0.5, -0.3, 0.1], "f4").tobytes()), None),
    "w.NPY": (npy(header("(1, 3)"), np.array([0.5, -0.3, 0.1], "f4").tobytes()), None),
    "w.csv": (b"0.5,-0.3,0.1\n", None),
    "w.CSV": (b"w0,w1,w2\n0.5,-0.3,0.1\n", None),
    "w.csv.gz": (gzip.compress(b"0.5\n-0.3\n0.1\n"), None),
    "w": (b"0.5 -0.3 0.1", None),
    "w.Txt": (b"\xef\xbb\xbf0.5\t-0.3\n0.1", None),
    "overflows.npy": (npy(header("(99999999999999999999,)"), b""), "cannot be read"),
    "boolean.npy": (npy(header("True"), b""), "cannot be read"),
    "literal.npy": (npy("{'descr'", b""), "cannot be read"),
    "huge.npy": (npy(header("(1000000000000,)"), b"1234"), "cannot be read"),
    "square.npy": (npy(header("(2, 2)"), DATA[:16]), "its shape is (2, 2); expected one row or one column"),
    "fields.npy": (npy(header("(1,)", "[('a', '<f4'), ('b', '<f4')]"), DATA[:8]), "cannot be read"),
    "durations.npy": (npy(header("(3,)", "'<m8[s]'"), DATA[:24]), "cannot be read"),
    "empty.npy": (b"", "cannot be read"),
    "empty.txt": (b"", "there are 0 weights and 2 columns"),
    "latin.txt": (b"0.5 \xe9 0.1", "cannot be read"),
    "words.txt": (b"0.5 half 0.1", "cannot be read"),
    "names.csv": (b"w0,w1,w2\n", "there are 0 weights and 2 columns"),
    "bad.csv.gz": (b"\x1f\x8b broken", "cannot be read"),
    "bad.parquet": (b"PAR1 broken PAR1", "cannot be read as parquet"),
    "bad.arrow": (b"ARROW1", "cannot be read as arrow"),
    "escape.txt": (b"\x1b[2J", r"\x1b[2J"),
}

LEFT = {  # what is there already: name -> content, and what the error says without --overwrite
    "a log that is no UTF-8": ({"out.npy.part.log": b"\xff\xfe\xff\xfe\n"}, "is left of a run that was broken off"),
    "a log of zeros": ({"out.npy.part.log": bytes(100), "out.npy.part": b"x"}, "is left of a run that was broken off"),
    "a log of JSON that is none of ours": ({"out.npy.part.log": b'{"a": [1, 2]}\n'}, "is left of a run"),
    "a part without a log": ({"out.npy.part": b"mine"}, "no log beside it says what it is; it was kept"),
    "an output": ({"out.npy": b"mine"}, "exists, and was kept"),
    "a seal that is none": ({"out.npy.seal.json": b"mine"}, "it is no seal of an output"),
    "a seal that is no UTF-8": ({"out.npy.seal.json": b"\xff\xfe"}, "it is no seal of an output"),
    "a seal of many brackets": ({"out.npy.seal.json": b"[" * 100_000}, "it is no seal of an output"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def everything():
    return {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}


def refused(capsys, text, *arguments):
    """The command ends with status 2, soon, with one line that says so, and all files are as they were."""
    before, began = everything(), time.monotonic()
    capsys.readouterr()
    assert run(*arguments) == 2
    out, error = capsys.readouterr()
    assert time.monotonic() - began < 5
    assert out == ""
    assert error.startswith("jaxgrad: ")
    assert error.count("\n") == 1
    assert error[:-1].isprintable()
    assert len(error) < 3000
    assert "jaxgrad: unexpected" not in error
    assert text in error
    assert everything() == before


@pytest.mark.parametrize("what", NPY)
def test_a_bad_npy_file(what, capsys):
    content, text = NPY[what]
    Path("rows.npy").write_bytes(content)
    refused(capsys, text, "rows.npy", "-w", W, "-o", "out.npy")


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("what", CSV)
def test_a_csv_file_of_an_odd_kind(what, packed, capsys):
    content, found = CSV[what]
    name = f"Rows.CSV{packed}"
    Path(name).write_bytes(gzip.compress(content) if packed else content)
    if isinstance(found, int):
        assert run(name, "-w", W, "-o", "out.npy") == 0
        np.testing.assert_allclose(read(Path("out.npy"))["z"], read_z(content), atol=1e-6)  # float32
        assert len(read_z(content)) == found
    else:
        refused(capsys, found, name, "-w", W, "-o", "out.npy")


def read_z(content):
    """z of the rows, by Python's own reader of CSV."""
    import csv

    text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    rows = [row for row in csv.reader(text.splitlines(keepends=True)) if row][1:]
    words = {"true": "1", "false": "0"}
    x = [[float(words.get(cell.strip().lower(), cell)) for cell in row] for row in rows]
    return [0.5 * a - 0.3 * b + 0.1 for a, b in x]


@pytest.mark.parametrize("arguments", SAID, ids=lambda arguments: " ".join(arguments)[:60].encode("ascii", "replace"))
def test_bad_arguments(arguments, capsys):
    save(Path("rows.npy"), inputs(ROWS))
    os.mkfifo("pipe")
    rest = ("-w", W, "-o", "out.npy")
    given = [*(rest[:2] if "-w" not in arguments else ()), *(rest[2:] if "-o" not in arguments else ()), *arguments]
    refused(capsys, SAID[arguments], "rows.npy", *given)


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_in_a_file(name, capsys):
    content, text = WEIGHTS[name]
    save(Path("rows.npy"), inputs(ROWS))
    Path(name).write_bytes(content)
    if text is None:
        assert run("rows.npy", "-w", name, "-o", "out.npy") == 0
        assert run("rows.npy", "-w", W, "-o", "want.npy") == 0
        np.testing.assert_array_equal(np.load("out.npy"), np.load("want.npy"))
    else:
        refused(capsys, text, "rows.npy", "-w", name, "-o", "out.npy")


@pytest.mark.parametrize("name", ["w.parquet", "w.ARROW", "down.Parquet"])
def test_weights_in_a_table(name):
    save(Path("rows.npy"), inputs(ROWS))
    numbers = [0.5, -0.3, 0.1]
    table = pa.table({"w": numbers} if "down" in name else {f"w{i}": [number] for i, number in enumerate(numbers)})
    if name.endswith("ARROW"):
        with pa.ipc.new_file(name, table.schema) as file:
            file.write_table(table)
    else:
        pq.write_table(table, name)
    assert run("rows.npy", "-w", name, "-o", "out.npy") == 0
    assert run("rows.npy", "-w", W, "-o", "want.npy") == 0
    np.testing.assert_array_equal(np.load("out.npy"), np.load("want.npy"))


@pytest.mark.parametrize("what", LEFT)
def test_what_is_there_already(what, capsys):
    save(Path("rows.npy"), inputs(ROWS))
    files, text = LEFT[what]
    for name, content in files.items():
        Path(name).write_bytes(content)
    refused(capsys, text, "rows.npy", "-w", W, "-o", "out.npy")


COLUMNS = {
    "durations": pa.array([1, 2], pa.duration("s")),
    "dates": pa.array([1, 2], pa.date32()),
    "times": pa.array([1, 2], pa.timestamp("us")),
    "bytes": pa.array([b"1", b"2"]),
    "lists": pa.array([[1.0], [2.0]]),
    "structures": pa.array([{"a": 1.0}, {"a": 2.0}]),
    "a dictionary of dates": pa.array([1, 2], pa.date32()).dictionary_encode(),
}


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
@pytest.mark.parametrize("what", COLUMNS)
def test_columns_of_what_is_no_number_are_an_error_in_every_format(what, ending, capsys):
    write(f"rows{ending}", pa.table({"a": [1.0, 2.0], "b": COLUMNS[what]}))
    refused(capsys, "column b: it is of type ", f"rows{ending}", "-w", W, "-o", "out.npy")


def write(name, table):
    if name.endswith(".parquet"):
        pq.write_table(table, name)
    else:
        with pa.ipc.new_file(name, table.schema) as file:
            file.write_table(table)


NUMBERS = {
    "booleans": pa.array([True, False]),
    "whole numbers": pa.array([1, 0], pa.int8()),
    "decimals": pa.array(["1.00", "0.00"]).cast(pa.decimal128(5, 2)),
    "text": pa.array(["1", "0"]),
    "text of booleans": pa.array(["True", "false"]),
    "a dictionary of text": pa.array(["1", "0"]).dictionary_encode(),
    "large text": pa.array(["1", "0"], pa.large_string()),
    "half floats": pa.array(np.array([1, 0], np.float16)),
}


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
@pytest.mark.parametrize("what", NUMBERS)
def test_columns_that_are_numbers_are_so_in_every_format(what, ending):
    write(f"rows{ending}", pa.table({"a": [1.0, 2.0], "b": NUMBERS[what]}))
    assert run(f"rows{ending}", "-w", W, "-o", "out.npy", "--dtype", "float32") == 0
    # Float32, three roundings.
    np.testing.assert_allclose(np.load("out.npy")["z"], [0.5 - 0.3 + 0.1, 1.0 + 0.1], rtol=1e-6)


def test_a_missing_boolean_is_missing(capsys):
    write("rows.parquet", pa.table({"a": [1.0, 2.0], "b": [True, None]}))
    refused(capsys, "row 2, column b: it is missing", "rows.parquet", "-w", W, "-o", "out.npy")


@pytest.mark.parametrize("damage", ["cut", "flipped", "zeroed"])
@pytest.mark.parametrize("ending", [".parquet", ".arrow", ".csv.gz", ".npy"])
def test_damage_ends_in_an_error_or_in_as_many_rows(damage, ending, capsys):
    """A flipped bit in a number is another number to a format without checksums; rows never vanish."""
    x = inputs(600)
    name = f"rows{ending}"
    if ending == ".csv.gz":
        save(Path("rows.csv"), x)
        Path(name).write_bytes(gzip.compress(Path("rows.csv").read_bytes(), mtime=0))
    else:
        save(Path(name), x)
    whole = Path(name).read_bytes()
    draw = np.random.default_rng(len(ending) + ord(damage[0]))
    for place in draw.integers(0, len(whole), 12):
        match damage:
            case "cut":
                changed = whole[:place]
            case "flipped":
                changed = whole[:place] + bytes([whole[place] ^ (1 << int(draw.integers(8)))]) + whole[place + 1 :]
            case "zeroed":
                changed = whole[:place] + bytes(len(whole[place : place + 64])) + whole[place + 64 :]
        Path(name).write_bytes(changed)
        status = run(name, "-w", W, "-o", "out.npy", "--overwrite", "--batch-size", 600)
        error = capsys.readouterr().err
        assert status in (0, 2)
        if status == 0:
            assert len(np.load("out.npy")) == 600
        else:
            assert error.count("\n") == 1
            assert "jaxgrad: unexpected" not in error


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_the_line_of_a_record_is_that_of_pythons_own_reader(ending):
    """Quotes open a cell at its start only; a doubled quote is one; a cell may go over many lines, and many blocks."""
    cells = ["1", 'a"b', '"a\n\nb"', '"x""\ny"', "", '" , "', '"' + "long\n" * 20_000 + '"', '"\n"']
    draw = np.random.default_rng(0)
    records = [",".join(cells[i] for i in draw.integers(0, len(cells), 3)) for _ in range(40)]
    text = (ending.join(records) + ending).encode()
    reader = csv.reader(io.StringIO(text.decode(), newline=""))
    want = []
    for record in range(len(records)):
        want.append(reader.line_num + 1)
        next(reader)
        if record % 7 == 0:
            assert line_of_record(io.BytesIO(text), record) == want[-1]


@pytest.mark.parametrize("read", [1, 3, 1 << 20])
def test_a_quote_that_is_never_closed_is_found_as_pythons_own_reader_would(read, monkeypatch):
    """It has read a line that is put after the text as one of its own, or as more of the last cell."""
    monkeypatch.setattr(quotes, "READ", read)
    draw = random.Random(read)
    found = set()
    for _ in range(1500):
        text = "".join(draw.choices(['"', ",", "\n", "a", '""', '\n"'], k=draw.randint(0, 9)))
        *_, last = csv.reader(io.StringIO(f"{text}\nEND", newline=""))
        line = None if last == ["END"] else f"{text}\nEND".count("\n") + 1 - last[-1].count("\n")
        for mark in (b"", b"\xef\xbb\xbf"):
            assert quotes.line_of_open_quote(lambda: io.BytesIO(mark + text.encode())) == line, text  # noqa: B023
        found.add(line)
    assert found >= {None, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("mode", ["error", "skip", "nan"])
@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
@pytest.mark.parametrize("columns", ["a,b", "a,c"])
def test_a_quote_that_is_never_closed_swallows_no_rows(columns, ending, mode, tmp_path, capsys):
    rows = tmp_path / f"x{ending}"
    text = b'a,b,c\n1,2,"x"\n3,4,5"\n5,6,"7\n8,9,10\n'
    rows.write_bytes(gzip.compress(text) if ending.endswith("gz") else text)
    options = ["--columns", columns, "--on-bad-row", mode, "-o", tmp_path / "o.npy"]
    assert run(rows, "-w", W, *options) == 2
    assert f'"{rows}", line 4: a cell begins with a quote that is never closed' in capsys.readouterr().err
    assert os.listdir(tmp_path) == [rows.name]


def test_there_are_two_hundred_cases():
    assert len(NPY) + 2 * len(CSV) + len(SAID) + len(WEIGHTS) + len(LEFT) + 2 * len(COLUMNS) >= 200
