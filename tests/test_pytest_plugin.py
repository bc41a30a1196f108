"""The fixture records a record beside the test, holds later runs to it, and leaves no file half written."""

import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import Record, TableError, compare, kept, neuron

pytest_plugins = ["pytester"]

TEST = """
import numpy as np
from jaxgrad import neuron

FACTOR = 1.0

def test_the_neuron(jaxgrad_reference):
    x, w = np.float32([FACTOR, 2.0]), np.float32([0.5, -0.3, 0.1])
    jaxgrad_reference(neuron.backprop(x, w), seed=7)
"""


@pytest.fixture
def session(pytester, monkeypatch):
    """Runs pytest in the plugin's presence, with what the module's factor is."""
    monkeypatch.delenv("CI", raising=False)

    def run(*options, factor="1.0", test=TEST):
        pytester.makepyfile(test_model=test.replace("FACTOR = 1.0", f"FACTOR = {factor}"))
        # The installed plugin gives way to the one of this tree.
        return pytester.runpytest_inprocess("-p", "no:jaxgrad", "-p", "jaxgrad.pytest_plugin", *options)

    return run


def files(pytester):
    return sorted(path.name for path in pytester.path.glob("references/test_model/*"))


def test_the_first_run_records_and_later_ones_are_held_to_it(session, pytester):
    result = session()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["jaxgrad: recorded *references/test_model/test_the_neuron.toml"])
    assert files(pytester) == ["test_the_neuron.toml", "test_the_neuron.toml.npz"]
    text = (pytester.path / "references/test_model/test_the_neuron.toml").read_text()
    for line in (
        'device = "cpu"',
        'dtype = "float32"',
        "seed = 7",
        'name = "z.grad"',
        'test = "test_model.py::test_the_neuron"',
    ):
        assert line in text
    session().assert_outcomes(passed=1)

    result = session(factor="1.5")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*rows differ: the first value to differ is z, the first gradient to differ is h.grad*",
            "*pytest --jaxgrad-update*",
        ]
    )


def test_an_update_writes_anew(session):
    session()
    session("--jaxgrad-update", factor="1.5").assert_outcomes(passed=1)
    session(factor="1.5").assert_outcomes(passed=1)
    session(factor="1.0").assert_outcomes(failed=1)


def test_an_update_in_ci_is_refused(session, pytester, monkeypatch):
    session()
    before = {path: path.read_bytes() for path in pytester.path.glob("references/test_model/*")}
    monkeypatch.setenv("CI", "true")
    result = session("--jaxgrad-update", factor="1.5")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--jaxgrad-update would record whatever this run computes, and it runs in CI*"])
    assert before == {path: path.read_bytes() for path in before}


def test_in_ci_nothing_is_recorded(session, pytester, monkeypatch):
    monkeypatch.setenv("CI", "true")
    result = session()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*there is no reference *, and in CI none is recorded*"])
    assert files(pytester) == []


def test_two_records_of_one_test_need_names(session, pytester):
    twice = TEST + "    jaxgrad_reference(neuron.backprop(x, w){})\n"
    session(test=twice.format(', "again"')).assert_outcomes(passed=1)
    assert "test_the_neuron-again.toml" in files(pytester)
    result = session(test=twice.format(""))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*this test keeps two records in test_the_neuron.toml; expected one.*"])


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "int32", "bool", "complex64"])
def test_arrays_come_back_to_the_bit(name, tmp_path):
    values = {"a": np.asarray(jnp.arange(12).reshape(3, 4).astype(name)), "b": np.asarray(jnp.ones((), name))}
    record = Record(np.float32(1), ("a", "b"), values, {"a": values["a"], "b": None}, ())
    kept.write(tmp_path / "r.toml", record)
    found = kept.read(tmp_path / "r.toml").record
    for key, want in (("a", values["a"]), ("b", values["b"]), ("a.grad", values["a"])):
        assert found[key].dtype == want.dtype
        np.testing.assert_array_equal(found[key], want)
    assert compare(record, found).ok


def of_neuron():
    return neuron.backprop(np.float32([1, 2]), np.float32([0.5, -0.3, 0.1]))


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        (lambda path: path.write_text("a ="), "is no whole reference file"),
        (lambda path: path.write_text(path.read_text()[:200]), "is no whole reference file"),
        (
            lambda path: path.write_text(path.read_text().replace("format = 1", "format = 2")),
            "its format is 2; expected 1",
        ),
        (lambda path: path.with_suffix(".toml.npz").write_bytes(b"PK"), "the arrays beside it are not those"),
        (lambda path: path.with_suffix(".toml.npz").unlink(), "cannot be read: No such file or directory"),
    ],
)
def test_a_reference_that_is_not_whole_is_an_error(harm, text, tmp_path):
    path = tmp_path / "r.toml"
    kept.write(path, of_neuron())
    harm(path)
    with pytest.raises(TableError, match=text):
        kept.read(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "r.toml"
    kept.write(path, of_neuron())
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        kept.write(path, of_neuron())
    assert before == {file: file.read_bytes() for file in tmp_path.iterdir()}


def test_the_plugin_loads_without_jax():
    source = Path(kept.__file__).with_name("pytest_plugin.py")
    code = (
        f"import importlib.util, sys\nspec = importlib.util.spec_from_file_location('plugin', {str(source)!r})\n"
        "spec.loader.exec_module(importlib.util.module_from_spec(spec))\n"
        "assert not {'jax', 'jaxgrad', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
