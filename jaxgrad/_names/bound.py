"""Seeing each tag as it is bound: by this a tag is known that is in no program."""

import os
import sys
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import NamedTuple

import jax

Observer = Callable[[str, str, bool, bool], None]  # (name, where, is its value traced?, is it a name only?)

_local = threading.local()
_seen_by = jax.make_user_context(default_value=None)  # JAX keeps apart what it has traced under different values


@contextmanager
def observing(observer: Observer, key: Hashable = None) -> Iterator[None]:
    """Calls `observer` at each tag that this thread binds, until a trace inside of this one observes for itself.

    A tag in what JAX takes from its cache is not bound: of what it traced under another key, it takes nothing.
    """
    before = getattr(_local, "observer", None)
    _local.observer = observer
    try:
        with _seen_by(key):
            yield
    finally:
        _local.observer = before


def afresh() -> AbstractContextManager[None]:
    """Has JAX trace anew what no observer equal to this thread's, which is hashable, has seen in such a context."""
    return _seen_by(getattr(_local, "observer", None))  # type: ignore[no-any-return]


def observe(name: str, where: str, traced: bool, *, names_only: bool = False) -> None:
    observer = getattr(_local, "observer", None)
    if observer is not None:
        observer(name, where, traced, names_only)


def remark(name: str, text: str) -> None:
    """Says of something in the function that is traced that it has no name in the program, and why."""
    observer = getattr(_local, "observer", None)
    if isinstance(observer, Bound):
        observer.remarks[name] = text


def watching(name: str) -> None:
    """Says that a function is watched, in the function that is traced."""
    observer = getattr(_local, "observer", None)
    if isinstance(observer, Bound):
        observer.watched = observer.watched or name


class Origin(NamedTuple):
    """Where a tag was bound: in how many scans at least, and in which other functions of JAX, innermost first."""

    scans: int
    functions: str
    names_only: bool


class Bound(dict[tuple[str, str], Origin]):
    """(name, where) of each tag bound on a traced value -> where that was.

    Attributes:
      remarks: what is not named and why, by the name that it would have.
      watched: name of the function that is watched, "" if there is none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.remarks: dict[str, str] = {}
        self.watched = ""

    def __call__(self, name: str, where: str, traced: bool, names_only: bool) -> None:
        calls = list(_calls(sys._getframe(1))) if traced else []
        if traced and not any(call.startswith("eval_shape ") for call in calls):  # which throws its program away
            names = [call.split(" ", 1)[0] for call in calls]
            scans = sum(called in _SCANS for called in names)
            others = [call for call, called in zip(calls, names, strict=True) if called not in _FOLLOWED]
            before = self.get((name, where), Origin(scans, ", ".join(others), names_only))
            self[name, where] = before._replace(scans=min(scans, before.scans))


_SCANS = {"scan", "fori_loop", "map"}
_FOLLOWED = {"jit", "cond", "switch", "vmap_f", "fun_remat", *_SCANS}  # rebuilt with their tags


_PUBLIC = {"cache_miss": "jit", "make_jaxpr_f": "make_jaxpr"}


def _calls(frame: FrameType | None) -> Iterator[str]:
    """Each call of a function of JAX by code that is not JAX's, "custom_root (model.py:12)", innermost first."""
    entered = ""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("jax."):
            name = frame.f_code.co_name
            entered = entered if module.endswith("traceback_util") else _PUBLIC.get(name, name)
        else:
            if module == "jaxgrad._program.jaxpr":
                return
            if entered:
                yield f"{entered} ({location(frame)})"
            entered = ""
        frame = frame.f_back


def location(frame: FrameType, line: int | None = None) -> str:
    """A frame's file and line, "model.py:12"."""
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno if line is None else line}"
