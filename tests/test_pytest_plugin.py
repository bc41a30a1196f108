"""The fixture records a record beside the test, holds later runs to it, and leaves no file half written."""

import dataclasses
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxgrad
from jaxgrad import InputError, Record, TableError, compare, neuron, retain_grads, tag
from jaxgrad._compare import snapshot

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
        'name = "z"\nkind = "gradient"',
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


def test_what_a_worker_records_and_what_is_stale_is_told(session):
    pytest.importorskip("xdist", reason="pytest-xdist is not installed: pip install '.[test]'")
    session(test=TWO)
    result = session("-n1", test=ONE)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["jaxgrad: recorded *references/test_model/test_c.toml"])
    assert [line.partition(":")[0] for line in stale(result)] == [
        "test_model/test_a-again.toml",
        "test_model/test_b.toml",
    ]


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


NEURON = """
import numpy as np
import pytest
from jaxgrad import neuron

def record(first=1.0):
    return neuron.backprop(np.float32([first, 2.0]), np.float32([0.5, -0.3, 0.1]))

"""


def test_a_first_run_says_loudly_that_nothing_was_compared(session):
    result = session("-q")
    result.stdout.fnmatch_lines(["*= jaxgrad recorded references: nothing was compared =*"])
    result.stdout.fnmatch_lines(["Look at them and commit them; the next run is held to them."])
    assert not re.search("jaxgrad:|jaxgrad recorded", session("-q").stdout.str())


def test_tests_whose_names_a_file_cannot_hold_never_share_one(session, pytester):
    names = ["a/b", "a_b", "a:b", "a b", "x" * 300, "x" * 299 + "y", "\\u00e9" * 200]
    test = NEURON + (
        f"@pytest.mark.parametrize('name', {names!r}, ids=str)\n"
        "def test_a(name, jaxgrad_reference):\n"
        f"    jaxgrad_reference(record(1 + {names!r}.index(name)))\n\n"
        "class TestA:\n    class TestB:\n        def test_a(self, jaxgrad_reference):\n"
        "            jaxgrad_reference(record(9))\n"
    )
    session(test=test).assert_outcomes(passed=8)
    found = files(pytester)
    assert len(found) == 16
    assert {"test_a[a_b].toml", "TestA.TestB.test_a.toml"} < set(found)
    assert max(len(name.encode()) for name in found) < 160
    result = session(test=test)
    result.assert_outcomes(passed=8)
    assert "jaxgrad:" not in result.stdout.str()


def test_a_file_of_another_test_is_refused(session, pytester):
    session()
    folder = pytester.path / "references/test_model"
    for end in (".toml", ".toml.npz"):
        (folder / f"test_the_neuron{end}").rename(folder / f"test_other{end}")
    for options in ((), ("--jaxgrad-update",)):
        result = session(*options, test=TEST.replace("test_the_neuron", "test_other"))
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*test_other.toml is the reference of test_model.py::test_the_neuron; expected *"])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("record(), rtol=-1", "rtol is -1; expected a number that is not negative"),
        ("record(), seed=1.5", "`seed` is 1.5; expected an integer, or None"),
        ("record(), seed=True", "`seed` is True; expected an integer, or None"),
        ("record(), 3", "`name` is 3; expected text that tells this test's records apart"),
        ("record(), ''", "`name` is ''; expected text"),
        ("{'z': 1}", "`got` is a dict; expected a Record"),
        ("record(), tolerance=1", "unexpected keyword argument 'tolerance'"),
    ],
)
def test_arguments_are_checked_before_anything_is_recorded(session, pytester, arguments, text):
    result = session(test=f"{NEURON}def test_a(jaxgrad_reference):\n    jaxgrad_reference({arguments})\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*{text}*"])
    assert files(pytester) == []


def test_a_record_of_nan_is_said(session):
    result = session(test=NEURON + "def test_a(jaxgrad_reference):\n    jaxgrad_reference(record(np.nan))\n")
    result.stdout.fnmatch_lines(["jaxgrad: recorded *test_a.toml: z, k, *z.grad* held NaN or infinity, to which*"])


TWO = (
    NEURON
    + """def test_a(jaxgrad_reference):
    jaxgrad_reference(record())
    jaxgrad_reference(record(), "again")

def test_b(jaxgrad_reference):
    jaxgrad_reference(record())
"""
)
ONE = TWO.replace('    jaxgrad_reference(record(), "again")\n', "").replace("test_b", "test_c")


def stale(result):
    return [line.partition("references/")[2] for line in result.stdout.lines if line.startswith("jaxgrad: stale")]


def test_stale_files_are_listed_and_removed_when_asked(session, pytester):
    session(test=TWO)
    assert stale(session(test=TWO)) == []
    result = session(test=ONE)
    expected = [
        "test_model/test_a-again.toml: test_model.py::test_a ran and did not ask for it",
        "test_model/test_b.toml: there is no test test_model.py::test_b any more",
    ]
    assert stale(result) == expected
    result.stdout.fnmatch_lines(["pytest --jaxgrad-prune removes them."])
    assert len(files(pytester)) == 8
    result = session("--jaxgrad-prune", test=ONE)
    result.stdout.fnmatch_lines(["*= jaxgrad removed stale references =*", "jaxgrad: removed *test_a-again.toml: *"])
    assert files(pytester) == ["test_a.toml", "test_a.toml.npz", "test_c.toml", "test_c.toml.npz"]
    assert stale(session(test=ONE)) == []


@pytest.mark.parametrize(
    "options", [("-k", "test_c"), ("test_model.py::test_c",), ("--deselect", "test_model.py::test_a")]
)
def test_what_only_was_not_run_is_not_stale(session, options):
    session(test=TWO)
    session(test=ONE)
    found = stale(session(*options, test=ONE))
    assert not any(name.startswith(("test_model/test_a", "test_model/test_c")) for name in found)


def test_the_files_of_a_module_that_is_gone_are_stale(session, pytester):
    session(test=TWO)
    pytester.makepyfile(test_other="def test_nothing():\n    pass\n")
    (pytester.path / "test_model.py").rename(pytester.path / "test_renamed.py")
    result = pytester.runpytest_inprocess("-p", "no:jaxgrad", "-p", "jaxgrad.pytest_plugin", "test_other.py")
    assert len(stale(result)) == 3
    assert all(line.endswith("test_model.py is gone") for line in stale(result))


def test_pruning_in_ci_is_refused(session, monkeypatch):
    monkeypatch.setenv("CI", "true")
    result = session("--jaxgrad-prune")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--jaxgrad-prune would remove files, and it runs in CI*"])


def test_a_fixture_of_a_module_is_told_why_it_cannot_hold_a_record(session):
    test = NEURON + (
        '@pytest.fixture(scope="module")\ndef held(jaxgrad_reference):\n    jaxgrad_reference(record())\n\n'
        "def test_a(held):\n    pass\n"
    )
    result = session(test=test)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*ScopeMismatch*function scoped fixture jaxgrad_reference with a module scoped*"])


def test_a_record_of_a_fixture_of_a_module_is_held_by_each_test(session, pytester):
    test = NEURON + (
        '@pytest.fixture(scope="module")\ndef made():\n    return record()\n\n'
        "@pytest.mark.parametrize('i', [0, 1])\ndef test_a(i, made, jaxgrad_reference):\n    jaxgrad_reference(made)\n"
    )
    session(test=test).assert_outcomes(passed=2)
    assert files(pytester)[::2] == ["test_a[0].toml", "test_a[1].toml"]


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "int32", "bool", "complex64"])
def test_arrays_come_back_to_the_bit(name, tmp_path):
    values = {"a": np.asarray(jnp.arange(12).reshape(3, 4).astype(name)), "b": np.asarray(jnp.ones((), name))}
    record = Record(np.float32(1), ("a", "b"), values, {"a": values["a"], "b": None}, ())
    snapshot.write(tmp_path / "r.toml", record)
    found = snapshot.read(tmp_path / "r.toml")
    for key, want in (("a", values["a"]), ("b", values["b"]), ("a.grad", values["a"])):
        assert found.entries[key].array.dtype == want.dtype
        np.testing.assert_array_equal(found.entries[key].array, want)
    assert compare(record, found).ok


def program(x):
    """A tag of each kind: an integer, a dead end, a branch, and a name that TOML must escape."""
    n = tag(jnp.arange(3), "n")
    tag(2 * x, "dead")
    x = lax.cond(x[0] > 0, lambda x: tag(jnp.sin(x), "up"), lambda x: tag(jnp.cos(x), 'down "\u2202\U0001f600\x7f"'), x)
    return jnp.sum(x * n)


def retained(x):
    return jax.device_get(retain_grads(lambda x: program(1 * x))(np.float32(x)))


@pytest.fixture
def of_program(tmp_path):
    """The program's record, and it as it comes back from a file."""
    record, path = retained([1, 2, 3]), tmp_path / "r.toml"
    snapshot.write(path, record)
    return record, snapshot.read(path)


def test_a_record_comes_back_with_its_notes_its_branches_and_its_names(of_program):
    record, found = of_program
    assert compare(record, found).ok
    assert list(found.entries) == [row.label for row in compare(record, record).rows]
    assert {name: found.entries[f"{name}.grad"].note for name in record.notes} == dict(record.notes)
    assert found.entries["up.reached"].array


def test_a_gradient_that_was_none_is_held_to_be_none(of_program):
    record, found = of_program
    grads = record.grads | {"dead": np.zeros(3, np.float32)}
    row = compare(dataclasses.replace(record, grads=grads, notes={}), found).first_divergence
    assert (row.label, row.why) == ("dead.grad", "`want` has no gradient: does not reach the output")
    row = compare(dataclasses.replace(record, grads=record.grads | {"up": None}), found).first_divergence
    assert (row.label, row.why) == ("up.grad", "`got` has no gradient")


def test_a_branch_that_was_taken_is_held_to_be_taken(of_program):
    record, found = of_program
    assert compare(retained([-1, 2, 3]), found).first_divergence.label == "dead"
    other = dataclasses.replace(record, reached=record.reached | {"up": np.False_})
    assert [row.label for row in compare(other, found).rows if not row.ok] == ["up.reached"]


def of_neuron():
    return neuron.backprop(np.float32([1, 2]), np.float32([0.5, -0.3, 0.1]))


def edited(old, new):
    def edit(path):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return edit


def without_arrays(path):
    """As a hand might forge it: the digest is right, and arrays are missing."""
    np.savez(path.with_suffix(".toml.npz"), a0=np.float32([1]))
    content = tomllib.loads(path.read_text())
    digest = snapshot._digest(content["provenance"], content["row"], path.with_suffix(".toml.npz").read_bytes())
    edited(content["sha256"], digest)(path)


def without_the_last_row(path):
    path.write_text(path.read_text().rpartition("\n[[row]]")[0])


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        (lambda path: path.write_text("a ="), "is no whole reference file"),
        (lambda path: path.write_text(path.read_text()[:200]), "is no whole reference file"),
        (lambda path: path.write_text(""), "is no whole reference file"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is no whole reference file"),
        (lambda path: path.write_text("a = " + 9999 * "["), "is no whole reference file"),
        (edited("format = 2", "format = 1"), "its format is 1; expected 2. Run pytest --jaxgrad-update"),
        (edited("sha256", "sha"), "is no whole reference file: KeyError"),
        (edited("[provenance]", "[provenances]"), "is no whole reference file: KeyError"),
        (without_arrays, "is no whole reference file: ValueError"),
        (without_the_last_row, "it and the arrays beside it are not as they were written together"),
        (edited('name = "z"', 'name = "y"'), "it and the arrays beside it are not as they were written together"),
        (edited('"gradient"', '"value"'), "it and the arrays beside it are not as they were written together"),
        (
            lambda path: path.with_suffix(".toml.npz").write_bytes(b"PK"),
            "it and the arrays beside it are not as they were written together",
        ),
        (lambda path: path.with_suffix(".toml.npz").unlink(), "cannot be read: No such file or directory"),
        (lambda path: path.unlink(), "cannot be read: No such file or directory"),
    ],
)
def test_a_reference_that_is_not_whole_is_an_error(harm, text, tmp_path):
    path = tmp_path / "r.toml"
    snapshot.write(path, of_neuron())
    harm(path)
    with pytest.raises(TableError, match=f"^{re.escape(str(path))}: {text}"):
        snapshot.read(path)


@pytest.mark.parametrize("call", [(os, "replace"), (os, "fsync")])
def test_a_write_that_fails_leaves_the_old_files_and_no_others(call, tmp_path, monkeypatch):
    path = tmp_path / "r.toml"
    snapshot.write(path, of_neuron())
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*call, full)
    with pytest.raises(OSError, match="No space left"):
        snapshot.write(path, retained([1, 2, 3]))
    assert before == {file: file.read_bytes() for file in tmp_path.iterdir()}


def test_an_empty_record_is_not_kept(tmp_path):
    with pytest.raises(InputError, match="the record is empty, so that anything would agree with it"):
        snapshot.write(tmp_path / "r.toml", Record((), ("a",), {"a": None}, {"a": None}, ()))
    assert list(tmp_path.iterdir()) == []


def test_the_wheel_makes_of_the_plugin_the_module_that_pytest_loads():
    # Pytest would import a plugin jaxgrad.pytest_plugin with its package, and so JAX, in every session.
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    module = project["project"]["entry-points"]["pytest11"]["jaxgrad"]
    forced = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert forced == {"jaxgrad/pytest_plugin.py": f"{module}.py"}


def test_the_plugin_loads_without_jax():
    source = Path(jaxgrad.__file__).with_name("pytest_plugin.py")
    code = (
        f"import importlib.util, sys\nspec = importlib.util.spec_from_file_location('plugin', {str(source)!r})\n"
        "spec.loader.exec_module(importlib.util.module_from_spec(spec))\n"
        "assert not {'jax', 'jaxgrad', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
