"""The shipped table holds what the document prints; any other table is read or refused with a reason."""

import contextlib
import re
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.document import PRINTED
from jaxgrad import JaxgradError, TableError, reference

SHIPPED = files("jaxgrad._document").joinpath("reference.toml").read_text(encoding="utf-8")
KEYS = "cell, dtype, function, number, rounded, title, w, x"
ONE = '[[number]]\nlabel = "f:"\nquantity = "f"\nprinted = "0.5"\n'
SMALL = 'title = "t"\nfunction = "neuron"\ndtype = "float32"\nx = [1.0]\nw = [0.5, 0.1]\nrounded = false\n'


@pytest.fixture
def table(tmp_path):
    """Writes a table and gives its path."""

    def write(text):
        path = tmp_path / "table.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_the_shipped_table_holds_the_25_numbers_as_the_document_prints_them():
    table = reference.load()
    assert [(n.part, n.cell, n.label, n.quantity, n.printed) for n in table.numbers] == PRINTED
    assert len(table.numbers) == 25
    assert not table.rounded
    assert table.function == "neuron"
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table.x, np.float32([1.0, 2.0]))
    np.testing.assert_array_equal(table.w, np.float32([0.5, -0.3, 0.1]))


def test_the_shipped_table_names_the_two_wrong_labels_and_their_truth():
    wrong = {(n.label, n.claims, n.quantity) for n in reference.load().numbers if n.claims}
    assert wrong == {("Gradient df/dk:", "df/dk", "dh/dk"), ("Gradient df/dz:", "df/dz", "dk/dz")}


def test_a_label_that_names_a_gradient_claims_it_or_is_it():
    for number in reference.load().numbers:
        named = re.search(r"d\w/d\w+|(?<=Output of )\w|(?<=Output )f", number.label).group()
        assert named in (number.claims, number.quantity) or number.quantity == "f * (1 - f)", number


def test_a_small_table_is_read_with_what_it_leaves_out(table):
    read = reference.load(str(table(SMALL + ONE)))
    assert read.numbers == (reference.Number(label="f:", quantity="f", printed="0.5"),)
    assert read.numbers[0].place == '"f:" (f = 0.5)'
    assert (read.title, read.dtype, read.x.tolist()) == ("t", np.float32, [1.0])


def test_whole_numbers_infinities_and_nan_are_inputs_in_every_dtype(dtype, table):
    text = SMALL.replace("[1.0]", "[1, inf]").replace("[0.5, 0.1]", "[nan, -inf, 2]").replace("float32", dtype.name)
    read = reference.load(table(text + ONE))
    assert read.x.dtype == read.w.dtype == dtype
    np.testing.assert_array_equal(read.x.astype(float), [1, np.inf])
    np.testing.assert_array_equal(read.w.astype(float), [np.nan, -np.inf, 2])


HUGE = "0x" + "f" * 5000  # TOML has no bound for it, Python writes out no more than 4300 digits
THOUSANDS = "a number of thousands of digits"


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (SMALL, "", "has no function; expected a string."),
        ("title =", "titel =", f'has "titel"; expected {KEYS}.'),
        *[
            (line, "", f"has no {key}; expected {kind}.")
            for line, key, kind in [
                ('title = "t"\n', "title", "a string"),
                ('function = "neuron"\n', "function", "a string"),
                ('dtype = "float32"\n', "dtype", "a string"),
                ("x = [1.0]\n", "x", "an array"),
                ("w = [0.5, 0.1]\n", "w", "an array"),
                ("rounded = false\n", "rounded", "true or false"),
                (ONE, "number", "an array"),
            ]
        ],
        ('"t"', "1", "title is 1; expected a string."),
        ('"t"', HUGE, f"title is {THOUSANDS}; expected a string."),
        ('"t"', "1979-05-27", "title is datetime.date(1979, 5, 27); expected a string."),
        ('"t"', '"a\\nb"', "title is 'a\\nb'; expected one line of printable text."),
        ('"t"', '"\\u001b[2J"', "title is '\\x1b[2J'; expected one line of printable text."),
        ('"t"', f"[{'1, ' * 50}]", f"title is [{'1, ' * 12}...; expected a string."),
        ('"neuron"', '"perceptron"', 'function is "perceptron"; expected "neuron", the one that it can check.'),
        ('"float32"', '"int32"', 'dtype is "int32"; expected one of float16, bfloat16, float32, float64.'),
        ("x = [1.0]", "x = 1.0", "x is 1.0; expected an array."),
        ("x = [1.0]", 'x = ["1.0"]', "x[0] is '1.0'; expected a number."),
        ("x = [1.0]", "x = [true]", "x[0] is True; expected a number."),
        ("x = [1.0]", "x = [[1.0]]", "x[0] is [1.0]; expected a number."),
        ("[0.5, 0.1]", "[0.5, 1e39]", "w[1] is 1e+39; expected a number that float32 can hold."),
        ("[0.5, 0.1]", f"[0.5, {HUGE}]", f"w[1] is {THOUSANDS}; expected a number that float32 can hold."),
        *[
            (
                old,
                new,
                f"x has {x} numbers and w has {w}; expected n >= 1 inputs and n + 1 weights, the bias last.",
            )
            for old, new, x, w in [
                ("x = [1.0]", "x = []", 0, 2),
                ("x = [1.0]", "x = [1.0, 2.0]", 2, 2),
                ("[0.5, 0.1]", "[0.5]", 1, 1),
                ("[0.5, 0.1]", "[]", 1, 0),
            ]
        ],
        ("false", '"no"', "rounded is 'no'; expected true or false."),
        ("false", "0", "rounded is 0; expected true or false."),
        (ONE, "number = []", "no [[number]] in it; expected at least one."),
        (ONE, "number = 1", "number is 1; expected an array."),
        (ONE, "number = [1]", "[[number]] 1: is 1; expected a table with label, quantity and printed."),
        (
            ONE,
            ONE + "value = 1",
            '[[number]] 1: has "value"; expected cell, claims, label, part, printed, quantity.',
        ),
        ('label = "f:"\n', "", "[[number]] 1: has no label; expected a string."),
        ('quantity = "f"\n', "", "[[number]] 1: has no quantity; expected a string."),
        ('printed = "0.5"\n', "", "[[number]] 1: has no printed; expected a string."),
        ('"0.5"', "0.5", "[[number]] 1: printed is 0.5; expected a string."),
        ('"0.5"', '"half"', '[[number]] 1: printed is "half", which is no number; expected digits.'),
        ('"0.5"', '""', '[[number]] 1: printed is "", which is no number; expected digits.'),
        ('"0.5"', '"0,5"', '[[number]] 1: printed is "0,5", which is no number; expected digits.'),
        ('"0.5"', '"sNaN"', '[[number]] 1: printed is "sNaN", which is no number; expected digits.'),
        ('"f:"', '"a\\tb"', "[[number]] 1: label is 'a\\tb'; expected one line of printable text."),
        (ONE, ONE + 'part = "1"', "[[number]] 1: part is '1'; expected a whole number of 64 bits."),
        (ONE, ONE + "part = true", "[[number]] 1: part is True; expected a whole number of 64 bits."),
        (ONE, ONE + "cell = 1.0", "[[number]] 1: cell is 1.0; expected a whole number of 64 bits."),
        (ONE, ONE + f"cell = {HUGE}", f"[[number]] 1: cell is {THOUSANDS}; expected a whole number of 64 bits."),
        (ONE, ONE + "claims = 1", "[[number]] 1: claims is 1; expected a string."),
        (ONE, ONE + "[[cell]]\npart = 1\ncell = 2\nhere = 'a'", "[[cell]] 1: has no source; expected a string."),
        (ONE, ONE + "[[cell]]\nlabel = 'a'", '[[cell]] 1: has "label"; expected cell, here, part, source.'),
        (
            "[[number]]",
            "cell = [1]\n[[number]]",
            "[[cell]] 1: is 1; expected a table with part, cell, source and here.",
        ),
        (ONE, ONE + ONE.replace('"f"', "1"), "[[number]] 2: quantity is 1; expected a string."),
    ],
)
def test_a_malformed_table_is_an_error_that_says_what_was_expected(old, new, text, table):
    assert (SMALL + ONE).count(old) == 1
    path = table((SMALL + ONE).replace(old, new))
    with pytest.raises(TableError, match=f"^{re.escape(f'{path}: {text}')}$"):
        reference.load(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = ", r"Invalid value \(at end of document\)\."),
        ("x = 1\nx = 2\n", r"Cannot overwrite a value \(at line 2, column 6\)\."),
        (b"title = '\xff'", r"'utf-8' codec can't decode byte 0xff in position 9: invalid start byte\."),
        ("x = " + "1" * 5000, r"Exceeds the limit \(4300 digits\) for integer string conversion.*"),
        ("x = " + "[" * 5000, r"maximum recursion depth exceeded.*|TOML inline arrays/tables are nested more than .*"),
        (b"\x7fELF\x00\x00", r"Invalid statement \(at line 1, column 1\)\."),
    ],
)
def test_what_is_no_toml_in_utf8_is_an_error_with_the_reason(text, reason, table):
    path = table(text)
    with pytest.raises(TableError, match=f"^{re.escape(str(path))}: is no TOML file in UTF-8: {reason}$"):
        reference.load(path)


@pytest.mark.parametrize(("name", "reason"), [("missing.toml", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_an_error_with_the_reason(name, reason, tmp_path):
    path = tmp_path / name
    with pytest.raises(TableError, match=f"^{re.escape(f'{path}: cannot be read: {reason}. Expected a TOML file.')}$"):
        reference.load(path)


def test_table_errors_are_jaxgrad_errors_and_value_errors():
    assert issubclass(TableError, JaxgradError)
    assert issubclass(TableError, ValueError)


@given(at=st.integers(0, len(SHIPPED)), cut=st.integers(0, 30), put=st.text(max_size=10))
def test_a_mutated_table_is_read_or_refused(at, cut, put, tmp_path_factory):
    path = tmp_path_factory.mktemp("mutated") / "table.toml"
    path.write_text(SHIPPED[:at] + put + SHIPPED[at + cut :], encoding="utf-8", errors="surrogatepass")
    with contextlib.suppress(TableError):
        table = reference.load(path)
        assert table.w.size == table.x.size + 1 >= 2
