"""The rules of the house hold, and each of them is reported where a source tree breaks it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxgrad
from helpers import architecture
from helpers.architecture import RULES

PACKAGE = Path(jaxgrad.__file__).parent
INIT = '''"""A package."""

from typing import TYPE_CHECKING

__version__ = "1"

__all__ = ["__version__", "f"]

_HOME = {"f": "a"}

if TYPE_CHECKING:
    from pkg.a import f
else:

    def __getattr__(name):
        pass
'''
CYCLE, FLOOR, EQUATIONS, SRC, EXTENSION, PRINTS, IMPORTS, PUBLIC, SMALL = RULES


@pytest.fixture
def plant(tmp_path):
    """Plants a package `pkg` of the given files, on top of a sound one."""

    def planted(**files):
        package = tmp_path / "pkg"
        package.mkdir()
        for name, text in {"__init__": INIT, "a": "import jax\n\ndef f():\n    return jax.numpy\n", **files}.items():
            path = package / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return package

    return planted


@pytest.fixture(autouse=True)
def pkg_may_import_itself_and_has_floors(monkeypatch):
    floors = architecture.FLOORS
    monkeypatch.setattr(architecture, "FLOORS", (*floors[:3], {"b", "c"}, {"a"}, *floors[3:]))
    monkeypatch.setattr(architecture, "MAY_BE_IMPORTED", architecture.MAY_BE_IMPORTED | {"pkg"})


@pytest.mark.parametrize("rule", RULES)
def test_the_house_is_in_order(rule):
    assert RULES[rule](PACKAGE) == []


def test_no_two_test_files_have_one_name():
    assert architecture.namesakes(Path(__file__).parent) == []


def test_two_test_files_of_one_name_are_reported(tmp_path):
    for name in ("a/test_x.py", "b/test_x.py", "b/test_y.py", "test_z.py", "a/helper.py", "b/helper.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert architecture.namesakes(tmp_path) == ["a/test_x.py and b/test_x.py have one name"]


def test_the_top_level_holds_what_belongs_there():
    assert architecture.stray_at_top_level(PACKAGE.parent) == []


@pytest.mark.parametrize("rule", RULES)
def test_a_sound_tree_breaks_no_rule(rule, plant):
    package = plant(
        __main__="import sys\nfrom pkg import a\nprint(a)\nsys.exit(0)\n",
        **{"_names/tag": "from jax.extend import core\nfrom jax.interpreters import ad\nprint_ = core.primitive\n"},
        **{"_program/jaxpr": "def g(eqn):\n    return eqn.params, eqn.primitive, eqn.eqns\n"},
        b='"""Not jax._src, not jax.extend."""\nfrom pkg.a import f\ndef g(lines):\n    lines.extend(f())\n',
        c="def plot():\n    import matplotlib\n",
    )
    assert RULES[rule](package) == []


@pytest.mark.parametrize(
    ("rule", "files", "found"),
    [
        (CYCLE, {"a": "from pkg import b", "b": "from pkg import a"}, "a <- b <- a|b <- a <- b"),
        (CYCLE, {"a": "def f():\n    from pkg.b import g", "b": "import pkg.a"}, "a <- b <- a|b <- a <- b"),
        (CYCLE, {"a": "from . import b", "b": "from .a import f"}, "a <- b <- a|b <- a <- b"),
        (CYCLE, {"a": "from pkg import f"}, "a <- __init__ <- a|__init__ <- a <- __init__"),
        (CYCLE, {"a": "import pkg.a"}, "a <- a"),
        (CYCLE, {"_a/b": "from pkg._a import c", "_a/c": "from pkg._a.b import f"}, r"_a\.. <- _a\.. <- _a\.."),
        (CYCLE, {"_a/b": "from .c import f", "_a/c": "from .b import f"}, r"_a\.. <- _a\.. <- _a\.."),
        (CYCLE, {"_a/b": "from ..c import f", "c": "from pkg._a.b import f"}, r"_a\.b <- c <- _a\.b|c <- _a\.b <- c"),
        (
            FLOOR,
            {"_program/c": "", "_names/b": "from pkg._program.c import f"},
            r"_names\.b:1: imports _program\.c, .*",
        ),
        (
            FLOOR,
            {"_names/c": "", "_graph/b": "def f():\n    from pkg._names import c"},
            r"_graph\.b:2: imports _names\.c, .*",
        ),
        (FLOOR, {"_names/c": "", "_graph/b": "from .._names.c import f"}, r"_graph\.b:1: imports _names\.c, .*"),
        (FLOOR, {"_errors": "from pkg import f"}, "_errors:1: imports __init__, which is not below _errors"),
        (FLOOR, {"shed/b": "x = 1"}, "shed is on no floor"),
        *[
            (EQUATIONS, {where: text}, rf"{where}\.py:1: reads \.{attribute}")
            for where, text, attribute in [
                ("b", "f = lambda jaxpr: jaxpr.eqns", "eqns"),
                ("_names/watch", "f = lambda eqn: eqn.primitive", "primitive"),
                ("_retain/b", "f = lambda eqn: eqn.params", "params"),
            ]
        ],
        *[
            (SRC, {"b": text}, r"b\.py:\d: uses (jax\._src|_src)")
            for text in [
                "import jax._src.core",
                "import jax._src as private",
                "from jax._src import core",
                "from jax._src.core import Primitive",
                "from jax import _src",
                "from jax import _src as private",
                "import jax\njax._src.core",
                "import jax as j\nx = j._src",
                "import jax.numpy\njax._src",
                "import jax\ngetattr(jax, '_src')",
                "import importlib\nimportlib.import_module('jax._src.core')",
                "__import__('jax._src')",
            ]
        ],
        *[
            (EXTENSION, {"b": text}, r"b\.py:\d: uses jax\.(extend|interpreters)")
            for text in [
                "import jax.extend",
                "import jax.extend.core as core",
                "from jax import extend as jex",
                "from jax.extend.core import Primitive",
                "from jax import interpreters",
                "from jax.interpreters import ad, batching",
                "import jax\njax.interpreters.ad",
                "import jax as j\nj.extend.core",
                "def f():\n    from jax.interpreters import mlir",
                "import jax\ngetattr(jax, 'extend')",
                "import importlib\nimportlib.import_module('jax.interpreters.ad')",
            ]
        ],
        *[
            (PRINTS, {"b": text}, rf"b\.py:\d: uses {word}")
            for text, word in [
                ("print(1)", "print"),
                ("def f():\n    print(1)", "print"),
                ("say = print", "print"),
                ("exit()", "exit"),
                ("quit()", "quit"),
                ("raise SystemExit(1)", "SystemExit"),
                ("import sys\nsys.exit(1)", r"sys\.exit"),
                ("from sys import exit as leave\nleave()", r"sys\.exit"),
                ("import sys\nsys.stdout.write('a')", r"sys\.stdout"),
                ("from sys import stderr", r"sys\.stderr"),
                ("import os\nos._exit(1)", r"os\._exit"),
            ]
        ],
        *[
            (IMPORTS, {"b": text}, rf"b\.py:\d: imports {word}")
            for text, word in [
                ("import torch", "torch"),
                ("from scipy.special import expit", r"scipy\.special\.expit"),
                ("try:\n    import rich\nexcept ImportError:\n    rich = None", "rich"),
                ("if True:\n    import chex", "chex"),
                ("class A:\n    import pandas", "pandas"),
            ]
        ],
        (PUBLIC, {"__init__": INIT + "import os\n"}, r"__init__\.py:17: is no public name: import os"),
        (PUBLIC, {"__init__": INIT + "def g(): pass\n"}, r"__init__\.py:17: is no public name: def g.*"),
        (PUBLIC, {"__init__": INIT + "x = 1\n"}, r"__init__\.py:17: is no public name: x = 1"),
        (PUBLIC, {"__init__": INIT + "    x = 1\n"}, r"__init__\.py:17: is no public name: x = 1"),
        (PUBLIC, {"__init__": INIT.replace("pkg.a import f", "os import f")}, r".*:12: is no public name: from os.*"),
        (PUBLIC, {"__init__": re.sub(r"\bf\b", "_f", INIT)}, ".*_f is private"),
        *[
            (PUBLIC, {"__init__": INIT.replace(old, new)}, f".*: {name} is not alike in __all__, in _HOME and .*")
            for old, new, name in [
                (', "f"]', "]", "f"),
                (', "f"]', ', "f", "g"]', "g"),
                ("import f", "import h", "f"),
                ('{"f": "a"}', '{"f": "b"}', "f"),
                ('{"f": "a"}', "{}", "f"),
            ]
        ],
        (SMALL, {f"room/m{i}": "" for i in range(13)}, "room has 13 files, and 12 at most are meant"),
        (SMALL, {f"m{i}": "" for i in range(21)}, "pkg has 23 entries, and 22 at most are meant"),
        (SMALL, {"long": "x = 1\n" * 301}, r"long\.py has 301 lines, and 300 at most are meant"),
    ],
)
def test_a_broken_rule_is_reported(rule, files, found, plant):
    package = plant(**files)
    violations = RULES[rule](package)
    assert violations
    assert re.fullmatch(found, violations[0], re.DOTALL), violations


def test_what_is_stray_at_the_top_is_reported(tmp_path):
    (tmp_path / ".gitignore").write_text("dist/\n*.egg-info/\n", encoding="utf-8")
    for name in (*architecture.TOP_LEVEL, "dist", "jaxgrad.egg-info", ".ci"):
        (tmp_path / name).mkdir()
    assert architecture.stray_at_top_level(tmp_path) == []
    (tmp_path / "notes.txt").touch()
    (tmp_path / "docs").mkdir()
    assert architecture.stray_at_top_level(tmp_path) == ["docs", "notes.txt"]


FIRST_USE = """
import sys
import jaxgrad
assert "jax" not in sys.modules
assert set(jaxgrad.__all__) < set(dir(jaxgrad))
import jax
print(jax.make_jaxpr(lambda x: ([getattr(jaxgrad, name) for name in jaxgrad.__all__], x)[1])(1.0))
print(jaxgrad.retain_grads(lambda x: jaxgrad.tag(x, "a") ** 2)(3.0).grads)
"""


def test_a_name_may_be_used_first_while_a_function_is_traced():
    """Nothing of what is then imported becomes a part of the program, and JAX is not imported before."""
    run = subprocess.run([sys.executable, "-c", FIRST_USE], capture_output=True, text=True, timeout=120, check=True)
    program, grads = run.stdout.splitlines()
    assert re.fullmatch(r"\{ lambda ; a:f32\[\]\. let\s+in \(a,\) \}", program)
    assert "6." in grads


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'jaxgrad' has no attribute 'retain_grad'"):
        jaxgrad.retain_grad  # noqa: B018
