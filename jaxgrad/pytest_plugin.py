"""Fixtures for equivalence tests: a record kept beside the test, which later runs are held to.

    def test_my_model(jaxgrad_reference):
        jaxgrad_reference(retain_grads(loss)(params, batch), seed=0)

pytest loads this file in every session, so JAX is imported only where the fixture is used.
"""

import hashlib
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from jaxgrad._record import Record

# What a session knows: lists of text, for workers of pytest-xdist to send.
_RECORDED, _USED, _COLLECTED, _PASSED = "recorded", "used", "collected", "passed"
_KNOWN = pytest.StashKey[dict[str, list[str]]]()
_SENT = "jaxgrad"
_LONGEST = 120  # bytes of a file's name, of the 255 that a file system has


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("jaxgrad")
    group.addoption("--jaxgrad-update", action="store_true", help="record anew the references of the tests that run")
    group.addoption(
        "--jaxgrad-prune",
        action="store_true",
        help="remove the references that no test of the modules that run holds to",
    )


def pytest_configure(config: pytest.Config) -> None:
    for option, does in (("update", "record whatever this run computes"), ("prune", "remove files")):
        if config.getoption(f"jaxgrad_{option}") and in_ci():
            raise pytest.UsageError(
                f"--jaxgrad-{option} would {does}, and it runs in CI (the variable CI is set); expected it on a "
                "developer's machine only. Run it there, look at the difference, and commit the files."
            )
    known: dict[str, list[str]] = {key: [] for key in (_RECORDED, _USED, _COLLECTED, _PASSED)}
    config.stash[_KNOWN] = known


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def pytest_itemcollected(item: pytest.Item) -> None:
    # Before -k and -m leave items out; of an argument with :: the rest of the module is not collected.
    if not any("::" in argument for argument in item.config.args):
        item.config.stash[_KNOWN][_COLLECTED].append(f"{item.path.parent}\n{_test_of(item)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if call.when == "call" and report.passed:
        item.config.stash[_KNOWN][_PASSED].append(f"{item.path.parent}\n{_test_of(item)}")
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    to_controller = getattr(session.config, "workeroutput", None)  # in a worker of pytest-xdist
    if to_controller is not None:
        to_controller[_SENT] = session.config.stash[_KNOWN]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for key, found in getattr(node, "workeroutput", {}).get(_SENT, {}).items():
        node.config.stash[_KNOWN][key].extend(found)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    known = config.stash[_KNOWN]
    if known[_RECORDED]:
        terminalreporter.section("jaxgrad recorded references: nothing was compared", yellow=True)
        for line in known[_RECORDED]:
            terminalreporter.write_line(f"jaxgrad: recorded {line}")
        terminalreporter.write_line("Look at them and commit them; the next run is held to them.")
    stale = sorted(_stale(known))
    if stale:
        removed = config.getoption("jaxgrad_prune")
        terminalreporter.section("jaxgrad removed stale references" if removed else "jaxgrad found stale references")
        for path, why in stale:
            for file in (path, path.with_suffix(".toml.npz")) if removed else ():
                file.unlink(missing_ok=True)
            terminalreporter.write_line(f"jaxgrad: {'removed' if removed else 'stale'} {path}: {why}")
        if not removed:
            terminalreporter.write_line("pytest --jaxgrad-prune removes them.")


def _stale(known: dict[str, list[str]]) -> Iterator[tuple[Path, str]]:
    """The references that no test holds to, of the modules that were collected whole, and why that is known."""
    collected, passed, used = (set(known[key]) for key in (_COLLECTED, _PASSED, _USED))
    modules = {(folder, test.partition("::")[0]) for folder, _, test in (each.partition("\n") for each in collected)}
    for path in sorted({path for folder, _ in modules for path in Path(folder).glob("references/*/*.toml")}):
        folder, test = path.parents[2], _recorded_by(path)
        module = test.partition("::")[0]
        if not test:
            continue
        if not (folder / module).exists():
            yield path, f"{module} is gone"
        elif (str(folder), module) in modules and f"{folder}\n{test}" not in collected:
            yield path, f"there is no test {test} any more"
        elif f"{folder}\n{test}" in passed and str(path) not in used:
            yield path, f"{test} ran and did not ask for it"


def _recorded_by(path: Path) -> str:
    """The test that a file says to be of; "" if it does not say it."""
    try:
        return str(tomllib.loads(path.read_text(encoding="utf-8"))["provenance"]["test"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


@pytest.fixture
def jaxgrad_reference(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Holds a record to the one kept beside the test; keeps it where there is none yet, but not in CI.

    Call it as `jaxgrad_reference(record, name=None, *, seed=None, ulp=None, rtol=None, atol=None)`: `name` tells apart
    several records of one test, `seed` is written down with them, the tolerances are those of `jaxgrad.compare`. The
    files are `references/<module>/<test>.toml`, for people, and `.npz`, with the arrays. It is of one test's scope, by
    which its files are named: a fixture of a module or session returns the record, and each test gives it to this.
    """
    used: set[Path] = set()

    def hold(
        record: "Record",
        name: str | None = None,
        *,
        seed: int | None = None,
        ulp: float | None = None,
        rtol: float | None = None,
        atol: float | None = None,
    ) -> None:
        from jaxgrad._compare import snapshot
        from jaxgrad._compare.compare import compare

        compare(record, record, ulp=ulp, rtol=rtol, atol=atol)  # every argument is checked before anything is kept
        _check(name, seed)
        path, known = _path(request.node, name), request.config.stash[_KNOWN]
        if path in used:
            pytest.fail(
                f"this test keeps two records in {path.name}; expected one. Give each its `name`.", pytrace=False
            )
        used.add(path)
        known[_USED].append(str(path))
        test = _test_of(request.node)
        owner = _recorded_by(path) if path.exists() else ""
        if owner not in ("", test):
            pytest.fail(
                f"{path} is the reference of {owner}; expected that of {test}. Rename one of the two.", pytrace=False
            )
        if request.config.getoption("jaxgrad_update") or not path.exists():
            if in_ci():
                pytest.fail(
                    f"there is no reference {path}, and in CI none is recorded; expected it to be committed. Run the "
                    "test once on your machine, look at the file, and commit it.",
                    pytrace=False,
                )
            nonfinite = snapshot.write(path, record, seed=seed, test=test)
            says = f": {', '.join(nonfinite)} held NaN or infinity, to which later runs are held" if nonfinite else ""
            known[_RECORDED].append(f"{path}{says}")
            return
        reference = snapshot.read(path)
        comparison = compare(record, reference, ulp=ulp, rtol=rtol, atol=atol)
        if not comparison.ok:
            pytest.fail(
                f"{comparison}\n\nheld to {path} ({reference.provenance}); if the change is meant, run pytest "
                "--jaxgrad-update",
                pytrace=False,
            )

    return hold


def _check(name: str | None, seed: int | None) -> None:
    from jaxgrad._errors import InputError

    if name is not None and not (isinstance(name, str) and name):
        raise InputError(f"`name` is {name!r}; expected text that tells this test's records apart, or None.")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise InputError(f"`seed` is {seed!r}; expected an integer, or None.")


def _test_of(item: Any) -> str:
    """The node id of a test from its file's name on: wherever pytest is started, it is the same."""
    return f"{item.path.name}::{item.nodeid.partition('::')[2]}"


def _path(item: Any, name: str | None) -> Path:
    """The file of a test: its whole id, readable; with a digest of it where a file system cannot have it so."""
    test = _test_of(item).partition("::")[2].replace("::", ".") + ("" if name is None else f"-{name}")
    safe = re.sub(r"[^\w.\-\[\]]", "_", test)
    if safe != test or len(safe.encode()) > _LONGEST:
        digest = hashlib.sha256(test.encode()).hexdigest()[:12]
        safe = f"{safe.encode()[:_LONGEST].decode(errors='ignore')}-{digest}"
    return Path(item.path.parent / "references" / item.path.stem / f"{safe}.toml")
