"""The shipped notebooks: run as a reader runs them, and held to the document's lines."""

import json
import os
import warnings
from importlib.resources import files

import pytest

from helpers.document import PRINTED
from jaxgrad.__main__ import main

SHIPPED = sorted(file.name for file in files("jaxgrad").joinpath("notebooks").iterdir())


def text_of(name):
    return files("jaxgrad").joinpath("notebooks", name).read_text(encoding="utf-8")


def stored(name):
    return json.loads(text_of(name))


def printed(cell):
    """What a cell prints; a picture is no text."""
    return "".join("".join(output.get("text", "")) for output in cell["outputs"])


NEEDS_TORCH = {"port_a_model.ipynb"}
PARAMS = [pytest.param(name, marks=pytest.mark.torch) if name in NEEDS_TORCH else name for name in SHIPPED]


@pytest.fixture(scope="module", params=PARAMS)
def executed(request):
    if request.param in NEEDS_TORCH and os.environ.get("JAXGRAD_REQUIRE_TORCH") != "1":
        pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the kernel's sockets and event loop, none of them ours
        notebook = nbformat.reads(text_of(request.param), as_version=4)
        nbformat.validate(notebook)
        return request.param, nbclient.NotebookClient(notebook, timeout=300, record_timing=False).execute()


def test_each_cell_prints_what_is_stored_in_it(executed):
    name, notebook = executed
    for ran, kept in zip(notebook.cells, stored(name)["cells"], strict=True):
        if ran.cell_type == "code":
            assert not [output for output in ran.outputs if output.get("name") == "stderr"]
            assert printed(ran) == printed(kept), ran.id


def test_the_document_is_printed_line_by_line(executed):
    name, notebook = executed
    if name != "chain_rule.ipynb":
        pytest.skip("it is no port of the document")
    for cell in (62, 66, 79, 80):
        want = [f"{label} {digits}" for _, place, label, _, digits in PRINTED if place == cell]
        (ran,) = [ran for ran in notebook.cells if ran.id == f"jax-{cell}"]
        assert printed(ran).splitlines() == want


def test_both_mistakes_of_the_port_are_found_by_name(executed):
    name, notebook = executed
    if name != "port_a_model.ipynb":
        pytest.skip("it ports nothing")
    found = {cell.id: printed(cell) for cell in notebook.cells if cell.cell_type == "code"}
    assert found["parted"] == "the first to differ: act\n"
    assert found["forced"] == "['act', 'out']\n"
    assert found["right"] == "True\n"


def test_every_cell_of_the_document_stands_before_the_one_that_it_became():
    ids = [cell["id"] for cell in stored("chain_rule.ipynb")["cells"]]
    for number in (10, 60, 61, 62, 66, 72, 73, 74, 75, 79, 80):
        assert ids[ids.index(f"jax-{number}") - 1] == f"torch-{number}"


def test_a_notebook_shows_one_picture_of_the_ledger(executed):
    name, notebook = executed
    if name != "chain_rule.ipynb":
        pytest.skip("it has no picture")
    (cell,) = [cell for cell in notebook.cells if cell.id == "picture"]
    (output,) = cell.outputs
    assert sum(text.count("<svg") for text in output["data"].values()) == 1


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_stored_is_the_same_wherever_it_was_made(name):
    notebook = stored(name)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    for cell in notebook["cells"]:
        assert cell["metadata"] == {}
        assert {output["output_type"] for output in cell.get("outputs", [])} <= {"stream"}


def test_the_command_hands_it_out(tmp_path, capsys):
    path = tmp_path / "mine.ipynb"
    assert main(["notebook", "-o", str(path)]) == 0
    assert capsys.readouterr().out == f"Wrote {path}. Open it with: jupyter lab {path}\n"
    assert json.loads(path.read_text(encoding="utf-8")) == stored("chain_rule.ipynb")
    assert main(["notebook"]) == 0
    assert capsys.readouterr().out == path.read_text(encoding="utf-8")
    assert main(["notebook", "--list"]) == 0
    assert capsys.readouterr().out.split() == [name.removesuffix(".ipynb") for name in SHIPPED]


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["chain"], "there is no notebook 'chain'. There are: chain_rule"),
        (["-o", "{there}"], "{there} is there already; expected a new file."),
        (["-o", "{folder}/none/a.ipynb"], "none/a.ipynb cannot be written: No such file or directory."),
    ],
)
def test_a_notebook_that_cannot_be_handed_out_is_one_line(argv, text, tmp_path, capsys):
    there = tmp_path / "there.ipynb"
    there.write_text("mine")
    places = {"there": there, "folder": tmp_path}
    assert main(["notebook", *(argument.format(**places) for argument in argv)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jaxgrad: ")
    assert text.format(**places) in err
    assert err.count("\n") == 1
    assert there.read_text() == "mine"
