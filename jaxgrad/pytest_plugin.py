"""Fixtures for equivalence tests: a record kept beside the test, which later runs are held to.

    def test_my_model(jaxgrad_reference):
        jaxgrad_reference(retain_grads(loss)(params, batch), seed=0)

pytest loads this file in every session, so JAX is imported only where the fixture is used.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from jaxgrad._record import Record

_RECORDED = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("jaxgrad").addoption(
        "--jaxgrad-update", action="store_true", help="record anew the references of the tests that run"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("jaxgrad_update") and in_ci():
        raise pytest.UsageError(
            "--jaxgrad-update would record whatever this run computes, and it runs in CI (the variable CI is set); "
            "expected it on a developer's machine only. Update there, look at the difference, and commit the files."
        )


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for path in config.stash.get(_RECORDED, []):
        terminalreporter.write_line(f"jaxgrad: recorded {path}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    to_controller = getattr(session.config, "workeroutput", None)  # in a worker of pytest-xdist
    if to_controller is not None:
        to_controller["jaxgrad_recorded"] = session.config.stash.get(_RECORDED, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    recorded = getattr(node, "workeroutput", {}).get("jaxgrad_recorded", [])
    node.config.stash.setdefault(_RECORDED, []).extend(recorded)


@pytest.fixture
def jaxgrad_reference(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Holds a record to the one kept beside the test; keeps it where there is none yet, but not in CI.

    Call it as `jaxgrad_reference(record, name=None, *, seed=None, ulp=None, rtol=None, atol=None)`: `name` tells apart
    several records of one test, `seed` is written down with them, the tolerances are those of `jaxgrad.compare`. The
    files are `references/<module>/<test>.toml`, for people, and `.npz`, with the arrays.
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

        path = _path(request, name)
        if path in used:
            pytest.fail(
                f"this test keeps two records in {path.name}; expected one. Give each its `name`.", pytrace=False
            )
        used.add(path)
        update = request.config.getoption("jaxgrad_update")
        if update or not path.exists():
            if in_ci():
                pytest.fail(
                    f"there is no reference {path}, and in CI none is recorded; expected it to be committed. Run the "
                    "test once on your machine, look at the file, and commit it.",
                    pytrace=False,
                )
            snapshot.write(path, record, seed=seed, test=request.node.nodeid)
            request.config.stash.setdefault(_RECORDED, []).append(str(path))
            return
        reference = snapshot.read(path)
        comparison = compare(record, reference, ulp=ulp, rtol=rtol, atol=atol)
        if not comparison.ok:
            causes = "\n".join(str(diagnosis) for diagnosis in comparison.diagnose())
            pytest.fail(
                f"{comparison}\n\n{causes}\n\nheld to {path} ({reference.provenance}); if the change is meant, run "
                "pytest --jaxgrad-update",
                pytrace=False,
            )

    return hold


def _path(request: pytest.FixtureRequest, name: str | None) -> Path:
    test = request.node.name if name is None else f"{request.node.name}-{name}"
    owner = [request.cls.__name__] if request.cls else []
    safe = re.sub(r"[^\w.\-\[\]]", "_", ".".join([*owner, test]))
    return Path(request.path.parent / "references" / request.path.stem / f"{safe}.toml")
