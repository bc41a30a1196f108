"""The command line: its exit status, what it prints where, and never a traceback."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import jax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxgrad
from jaxgrad import __main__, reference
from jaxgrad.__main__ import main
from jaxgrad._document import report
from jaxgrad._document.check import check

SHIPPED = files("jaxgrad._document").joinpath("reference.toml").read_text(encoding="utf-8")
PRINTED = list(re.finditer(r'(?<=printed = ")[^"]+', SHIPPED))
ROOT = Path(jaxgrad.__file__).parents[1]


def with_digit_changed(number, at):
    """The shipped table with one digit of one printed number changed: the digit's place in the number is `at`."""
    at += PRINTED[number].start()
    return f"{SHIPPED[:at]}{(int(SHIPPED[at]) + 1) % 10}{SHIPPED[at + 1 :]}"


def run(*argv):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(argv)
    return status, out.getvalue(), err.getvalue()


def test_the_documents_table_ends_in_success():
    status, out, err = run()
    assert (status, err) == (0, "")
    assert out == report.text(check(reference.load())) + "\n"
    assert "\n25 of 25 numbers agree" in out


@pytest.mark.parametrize("digits", ["the last", pytest.param("every", marks=pytest.mark.deep)])
@pytest.mark.parametrize("number", range(25))
def test_any_digit_changed_ends_in_1_and_names_the_row(number, digits, tmp_path):
    path = tmp_path / "table.toml"
    places = [i for i, character in enumerate(PRINTED[number].group()) if character.isdigit()]
    for at in places[-1:] if digits == "the last" else places:
        path.write_text(with_digit_changed(number, at), encoding="utf-8")
        status, out, err = run("--table", str(path))
        assert (status, err) == (1, "")
        wrong = reference.load(path).numbers[number]
        assert [line for line in out.splitlines() if line.startswith("Does not agree")] == [
            f"Does not agree: {wrong.place}: every route."
        ]
        assert "\n24 of 25 numbers agree" in out


def test_json_is_the_reports_data():
    status, out, err = run("--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == report.data(check(reference.load()))


def test_json_ends_in_1_too(tmp_path):
    path = tmp_path / "table.toml"
    path.write_text(with_digit_changed(3, 1), encoding="utf-8")
    status, out, _ = run("--json", "--table", str(path))
    assert status == 1
    assert [i for i, number in enumerate(json.loads(out)["numbers"]) if not number["ok"]] == [3]


def test_a_table_that_cannot_be_read_ends_in_2_with_one_line(tmp_path):
    status, out, err = run("--table", str(tmp_path / "none.toml"))
    assert (status, out) == (2, "")
    assert (
        err == f"jaxgrad: {tmp_path / 'none.toml'}: cannot be read: No such file or directory. Expected a TOML file.\n"
    )


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_check_is_the_option_table(options, tmp_path):
    path = tmp_path / "table.toml"
    path.write_text(with_digit_changed(3, 1), encoding="utf-8")
    status, out, err = run("check", str(path), *options)
    assert (status, out, err) == run("--table", str(path), *options) == run(*options, "check", str(path))
    assert status == 1
    assert json.loads(out)["ok"] is False if options else "Does not agree" in out
    assert run("check", str(tmp_path))[0] == 2


def test_an_unknown_quantity_ends_in_2_with_the_nearest_name(tmp_path):
    path = tmp_path / "table.toml"
    path.write_text(SHIPPED.replace('"df/dw0"', '"df/dw00"'), encoding="utf-8")
    status, _, err = run("--table", str(path))
    assert status == 2
    assert 'there is no quantity "df/dw00". Did you mean "df/dw0"?' in err


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float64", *(pytest.param(d, marks=pytest.mark.deep) for d in ("float16", "float32"))]
)
def test_a_table_of_any_dtype_is_checked_in_it(dtype, tmp_path):
    path = tmp_path / "table.toml"
    heading = f'title = "t"\nfunction = "neuron"\ndtype = "{dtype}"\nx = [0.0]\nw = [3.0, 0.0]\nrounded = false\n'
    path.write_text(heading + '[[number]]\nlabel = "g"\nquantity = "df/dx0"\nprinted = "0.75"\n', encoding="utf-8")
    status, out, err = run("--table", str(path))
    assert (status, err) == (0, ""), out
    assert dtype in out


@pytest.mark.parametrize(
    ("argv", "status"), [(["--version"], 0), (["--help"], 0), (["--nope"], 2), (["--table"], 2), (["check"], 2)]
)
def test_options_end_as_options_do(argv, status, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == status
    assert "Traceback" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (RuntimeError("no device\nat all"), 2, "jaxgrad: JAX cannot compute it: no device at all\n"),
        (MemoryError("17 GB"), 2, "jaxgrad: there is not enough memory: 17 GB\n"),
        (FloatingPointError("nan"), 2, "jaxgrad: JAX cannot compute it: nan\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_stops_the_check_ends_without_a_traceback(error, status, text, monkeypatch):
    def stopped(table):
        raise error

    monkeypatch.setattr(__main__, "check", stopped)
    assert run() == (status, "", text)


@settings(max_examples=30)
@given(at=st.integers(0, len(SHIPPED)), cut=st.integers(0, 8), put=st.text('0123456789.-+einfa"[]=\n', max_size=4))
def test_a_mutated_table_ends_in_0_1_or_2(at, cut, put, tmp_path_factory):
    path = tmp_path_factory.mktemp("mutated") / "table.toml"
    path.write_text(SHIPPED[:at] + put + SHIPPED[at + cut :], encoding="utf-8")
    status, out, err = run("--table", str(path))
    assert status in (0, 1, 2)
    assert bool(err) == (status == 2) == (not out)
    assert err.count("\n") <= 1


# A process takes what the tests have compiled already.
COMPILED = {
    "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def start(*argv, **options):
    environment = os.environ | COMPILED | options.pop("env", {})
    return subprocess.Popen(
        [sys.executable, "-m", "jaxgrad", *argv], cwd=ROOT, env=environment, stderr=subprocess.PIPE, **options
    )


def finish(process):
    out, err = process.communicate(timeout=120)
    assert b"Traceback" not in err
    return process.returncode, (out or b"").decode(), err.decode()


def test_the_process_prints_the_report_and_ends_in_success():
    status, out, _ = finish(start(stdout=subprocess.PIPE))
    assert status == 0
    assert "\n25 of 25 numbers agree" in out


class Ascii(io.TextIOWrapper):
    """A terminal that has ASCII only."""

    def __init__(self):
        super().__init__(io.BytesIO(), encoding="ascii")

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode("ascii")


def test_what_the_terminal_cannot_show_is_escaped(tmp_path, monkeypatch):
    path = tmp_path / "table.toml"
    path.write_text(SHIPPED.replace("Output of h:", "Sortie de h, d\xe9riv\xe9e \u2202:"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", Ascii())
    assert main(["--table", str(path)]) == 0
    assert "Sortie de h, d\\xe9riv\\xe9e \\u2202" in sys.stdout.text()


def test_the_process_says_when_jax_has_no_such_device():
    status, out, err = finish(start(stdout=subprocess.PIPE, env={"JAX_PLATFORMS": "nonsense"}))
    assert (status, out) == (2, "")
    assert "jaxgrad: JAX cannot compute it: Unable to initialize backend 'nonsense'" in err


def test_a_folder_is_no_table(tmp_path):
    status, out, err = run("--table", str(tmp_path))
    assert (status, out) == (2, "")
    assert f"jaxgrad: {tmp_path}: cannot be read: Is a directory. Expected a TOML file.\n" in err


def test_the_process_ends_quietly_when_its_reader_leaves():
    process = start(stdout=subprocess.PIPE)
    process.stdout.close()
    process.stdout = None
    status, _, err = finish(process)
    assert status == 2
    assert "jaxgrad:" not in err


def test_the_process_says_when_the_disk_is_full():
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full, the disk that is always full")
    with full.open("w") as disk:
        status, _, err = finish(start(stdout=disk))
    assert status == 2
    assert "jaxgrad: the report cannot be written: No space left on device.\n" in err


def test_the_process_runs_without_a_standard_output():
    # The shell closes it; `exec` leaves the process itself.
    command = f'exec "{sys.executable}" -m jaxgrad >&-'
    process = subprocess.Popen(["sh", "-c", command], cwd=ROOT, stderr=subprocess.PIPE)
    status, _, _ = finish(process)
    assert status == 0


# explain

EXPLAIN = ("explain", "-x", "1,2", "-w", "0.5,-0.3,0.1")


def test_explain_prints_the_chain_rule_of_the_document():
    status, out, err = run(*EXPLAIN)
    assert (status, err) == (0, "")
    assert out.startswith("z = w0*x0 + w1*x1 + w2     k = exp(-z)     h = 1 + k     f = 1/h\n")
    assert "df/dw0 = ∂f/∂h · ∂h/∂k · ∂k/∂z · ∂z/∂w0 = -0.25 · 1 · -1 · 1 = 0.25\n" in out
    assert "df/dx1 = ∂f/∂h · ∂h/∂k · ∂k/∂z · ∂z/∂x1 = -0.25 · 1 · -1 · -0.3 = -0.075\n" in out
    assert "∂k/∂z = -exp(-z) = -1" in out
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "Note" not in out


def test_explain_is_ascii_where_the_terminal_is(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Ascii())
    assert main([*EXPLAIN]) == 0
    out = sys.stdout.text()
    assert "df/dw0 = df/dh * dh/dk * dk/dz * dz/dw0 = -0.25 * 1 * -1 * 1 = 0.25\n" in out
    assert "\\u" not in out


@pytest.mark.parametrize(
    ("x", "gradient", "accurate"), [("-118", "0", "2.38e-26"), ("-178", "nan", "0"), ("-80", "4.249e-18", "")]
)
def test_explain_says_where_the_chain_overflows_and_backprop_does_not(x, gradient, accurate):
    status, out, _ = run("explain", "-x", x, "-w", "0.5,0")
    assert status == 0
    note = out.partition("Note: ")[2]
    assert bool(note) == bool(accurate)
    if accurate:
        assert f"overflows in float32, and its df/dz is {gradient}.\nneuron.backprop has df/dz = {accurate}: " in note


MODULE = """
import jax.numpy as jnp
from jaxgrad import tag

def loss(w, x):
    h = tag(w * x, "h")
    return tag(jnp.sum(h**2), "L")

def broken(x):
    raise KeyError("inside")

three = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "a_users_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "a_users_module"
    sys.modules.pop("a_users_module", None)


def test_explain_writes_out_any_function(module):
    status, out, err = run("explain", f"{module}:loss", "-a", "-2.0", "--argument", "1,2")
    assert (status, err) == (0, "")
    assert "h = w*x" in out
    assert "dL/dw = ∂L/∂h · ∂h/∂w = [-4 -8] · [1 2] = -20" in out
    assert "Note" not in out


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["nothing:f"], "\"nothing\" cannot be imported: ModuleNotFoundError: No module named 'nothing'"),
        (["{module}"], 'the function is "a_users_module"; expected module:function'),
        (["{module}:los"], '"a_users_module" has no "los". Did you mean "loss"?'),
        (["{module}:three"], '"a_users_module:three" is a int; expected a function.'),
        (["{module}:broken", "-a", "1"], "a_users_module:broken raised KeyError: 'inside'"),
        (["{module}:loss", "-a", "1"], "a_users_module:loss raised TypeError: "),
        (["{module}:loss", "-a", "q"], '-a is "q"; expected numbers'),
        (["{module}:loss", "-x", "1"], "-x and -w are the neuron's"),
        (["-x", "1"], "expected -x and -w for the neuron, or module:function"),
        ([], "expected -x and -w for the neuron, or module:function"),
    ],
)
def test_a_function_that_cannot_be_explained_ends_in_2_with_one_line(argv, text, module):
    status, out, err = run("explain", *(argument.format(module=module) for argument in argv))
    assert (status, out) == (2, "")
    assert text in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("argv", [("-w", "-1,.5"), ("-w=-1,.5",), ("-w-1,.5",), ("-w", "-1e0, 0.5")])
def test_explain_takes_numbers_that_start_with_a_minus(argv):
    status, out, _ = run("explain", "-x", "-2", *argv)
    assert status == 0
    assert " · -2 = " in " ".join(out.split())


@pytest.mark.parametrize("ending", ["svg", "dot", "mmd", "html", "json"])
def test_explain_draws_into_a_file(ending, tmp_path):
    path = tmp_path / f"graph.{ending}"
    status, out, err = run(*EXPLAIN, "-o", str(path))
    assert (status, err) == (0, "")
    assert out.endswith(f"\n\nWrote {path}.\n")
    assert "-0.25" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (("explain", "-x", "1,q", "-w", "1,2"), '-x is "1,q"; expected numbers with commas between them, as 1,2.'),
        (("explain", "-x", "", "-w", "1,2"), '-x is ""; expected numbers with commas'),
        (("explain", "-x", "1,2", "-w", "1,2"), "expected w of shape (3,)"),
        ((*EXPLAIN, "-o", "graph.gif"), 'graph.gif ends in ".gif"; expected a path that ends in .svg, .png'),
        ((*EXPLAIN, "-o", "/none/graph.svg"), "/none/graph.svg cannot be written: No such file or directory"),
    ],
)
def test_explain_that_cannot_be_done_ends_in_2_with_one_line(argv, text):
    status, out, err = run(*argv)
    assert (status, out) == (2, "")
    assert err.startswith("jaxgrad: ")
    assert text in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "status"), [(["explain", "--nope"], 2), (["explain", "--help"], 0), (["explain", "-x"], 2), (["nope"], 2)]
)
def test_options_of_explain_end_as_options_do(argv, status, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == status
    assert "Traceback" not in "".join(capsys.readouterr())


def test_numbers_that_overflow_are_explained_all_the_same():
    status, out, _ = run("explain", "-x", "100", "-w", "-1,0")
    assert status == 0
    assert "nan" in out or "inf" in out
