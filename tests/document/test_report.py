"""The report: fits its terminal, shows every number, names what is wrong."""

import dataclasses
import json
import re

import numpy as np
import pytest

from helpers.document import PRINTED
from jaxgrad import reference
from jaxgrad._document import report, routes
from jaxgrad._document.check import check


@pytest.fixture(scope="module")
def checked():
    return check(reference.load())


@pytest.fixture(scope="module")
def lines(checked):
    return report.text(checked).splitlines()


def table_of(*numbers, **changes):
    numbers = tuple(reference.Number(label="a label:", **number) for number in numbers)
    return dataclasses.replace(reference.load(), numbers=numbers, **changes)


def test_the_report_fits_a_terminal_of_80_columns_in_ascii(lines):
    assert max(len(line) for line in lines) == 80
    assert "\n".join(lines).isascii()
    assert not any(line != line.rstrip() for line in lines)


def test_the_report_ends_with_what_was_checked(lines, checked):
    last = lines[-1]
    assert last.startswith("25 of 25 numbers agree on 5 routes, jitted and batched, 0 ULP: ")
    assert last.endswith(f"{checked.device}, JAX {report.version('jax')}")


def test_every_number_stands_under_its_cell_beside_what_each_route_gives(lines):
    text = "\n".join(lines)
    for part, cell, label, _, printed in PRINTED:
        start = text.index(f"Part {part}: ")
        section = text[text.index(f"In [{cell}]", start) :].split("\n\n")[0]
        row = re.search(rf"^{re.escape(label.removesuffix(':'))}(?: \[\d\])?\s+(.*)$", section, re.MULTILINE)
        digits, here, *ulps = row.group(1).split()
        assert digits == printed
        assert np.float32(here) == np.float32(printed)
        assert ulps == ["0"] * len(routes.ROUTES)


def test_the_report_points_out_the_two_wrong_labels(lines):
    assert "[1] The label says df/dk, but the number printed is dh/dk; df/dk is -0.25." in lines
    assert "[2] The label says df/dz, but the number printed is dk/dz; df/dz is 0.25." in lines
    assert next(line for line in lines if "[1]" in line).startswith("Gradient df/dk [1] ")
    assert next(line for line in lines if "[2]" in line).startswith("Gradient df/dz [2] ")


def test_the_report_multiplies_the_chain_rule_out(lines):
    assert "df/dw1 = df/dh * dh/dk * dk/dz * dz/dw1 = -0.25 * 1 * -1 * 2 = 0.5" in lines
    assert "df/dx1 = df/dh * dh/dk * dk/dz * dz/dx1 = -0.25 * 1 * -1 * -0.3 = -0.075" in lines


def test_the_batch_holds_the_documents_row_and_others(lines, checked):
    start = lines.index(f"A batch: {len(checked.rows)} rows through jit(vmap)")
    header, first = lines[start + 2].split(), lines[start + 3].split()
    assert header == ["x0", "x1", "z", "f", "df/dz", "df/dw0", "df/dw1", "df/dw2"]
    assert first == ["1", "2", "-2.24e-08", "0.5", "0.25", "0.25", "0.5", "0.25"]
    assert len(lines[start + 3 : lines.index("", start)]) == len(checked.rows) > 1


@pytest.mark.parametrize("index", range(25))
def test_a_number_that_differs_is_named_with_its_routes_and_values(index):
    table = reference.load()
    wrong = dataclasses.replace(table.numbers[index], printed="0.7")
    numbers = (*table.numbers[:index], wrong, *table.numbers[index + 1 :])
    checked = check(dataclasses.replace(table, numbers=numbers))
    lines = report.text(checked).splitlines()
    assert not checked.ok
    assert [line for line in lines if line.startswith("Does not agree")] == [
        f"Does not agree: {wrong.place}: every route."
    ]
    assert lines[-1].startswith("24 of 25 numbers agree")
    (difference,) = [line for line in lines if line.startswith("  ^ ")]
    assert difference.startswith(f"  ^ every route: {float(table.numbers[index].printed)}, ")


def test_routes_that_differ_are_named_one_by_one(checked):
    found = dict(checked.found)
    row = found["vjp", "jit(vmap)"][0]
    worse = dataclasses.replace(row, got=np.float32(0.50000006), ulp=1.0, ok=False)
    found["vjp", "jit(vmap)"] = (worse, *found["vjp", "jit(vmap)"][1:])
    lines = report.text(dataclasses.replace(checked, found=found)).splitlines()
    assert "  ^ vjp by jit(vmap): 0.5000000596046448, 1 ULP away" in lines
    assert 'Does not agree: part 1, cell 62, "Output f (sigmoid(z)):" (f = 0.5): vjp by jit(vmap).' in lines
    (line,) = [line for line in lines if line.startswith("Output f ") and "differ" in line]
    assert line.split()[-5:] == ["0", "0", "1", "0", "0"]  # hand grad vjp jvp retain


def test_data_is_the_whole_report_and_survives_json(checked):
    data = report.data(checked)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert (data["ok"], data["checked"], data["agreeing"], data["worst_ulp"]) == (True, 25, 25, 0.0)
    assert (data["dtype"], data["x"], len(data["w"])) == ("float32", [1.0, 2.0], 3)
    assert list(data["versions"]) == ["jaxgrad", "jax", "jaxlib", "numpy"]
    numbers = data["numbers"]
    assert [(n["part"], n["cell"], n["label"], n["quantity"], n["printed"]) for n in numbers] == PRINTED
    ways = [(route, call) for route in routes.ROUTES for call in ("jit", "jit(vmap)")]
    for number in numbers:
        assert [(r["route"], r["call"]) for r in number["routes"]] == ways
        assert {(r["got"], r["ulp"], r["ok"]) for r in number["routes"]} == {(float(number["printed"]), 0.0, True)}


def test_nan_and_infinity_are_strings_in_data():
    table = table_of(
        {"quantity": "z", "printed": "nan"}, {"quantity": "f", "printed": "0.5"}, x=np.float32([1, np.inf])
    )
    data = report.data(check(dataclasses.replace(table, w=np.float32([0.5, 0, 0.1]))))
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["x"] == [1.0, "inf"]
    assert data["worst_ulp"] == "inf"
    assert data["numbers"][0]["routes"][0] == {"route": "hand", "call": "jit", "got": "nan", "ulp": 0.0, "ok": True}


def test_a_table_without_parts_cells_or_claims_is_reported():
    lines = report.text(check(table_of({"quantity": "f", "printed": "0.5"}))).splitlines()
    assert "Numbers" in lines
    assert not any("In [" in line for line in lines)
    assert lines[-1].startswith("1 of 1 numbers agree")


def test_a_neuron_of_64_inputs_still_fits_the_terminal():
    x, w = np.ones(64, "float32"), np.zeros(65, "float32")
    table = table_of({"quantity": "df/dw64", "printed": "0.25", "part": 1, "cell": 1}, x=x, w=w)
    lines = report.text(check(table)).splitlines()
    assert max(len(line) for line in lines) == 80
    assert "... and 121 more." in lines
    assert "z = w0*x0 + ... + w64     k = exp(-z)     h = 1 + k     f = 1/h" in lines


def test_long_digits_take_the_room_they_need():
    digits = "0.5" + 90 * "0"
    lines = report.text(check(table_of({"quantity": "f", "printed": digits}))).splitlines()
    assert any(digits in line for line in lines)


def test_cells_that_print_nothing_say_what_they_became(lines):
    cells = reference.load().cells
    assert [(cell.part, cell.cell) for cell in cells] == [(1, 10), (1, 60), (1, 61), (2, 72), (2, 73), (2, 74), (2, 75)]
    for cell in cells:
        (line,) = [line for line in lines if line.startswith(f"In [{cell.cell}]")]
        assert line.split("->")[0].split(maxsplit=2)[2].strip() == cell.source
        assert line.endswith(f"->  {cell.here}")
