"""The frames that are watched, and what is named in each."""

import sys
from contextlib import suppress
from types import CodeType, FrameType
from typing import Any

import jax

from jaxgrad._names.bound import location, remark
from jaxgrad._names.events import Listen
from jaxgrad._names.modules import Paths
from jaxgrad._names.tag import name_operand
from jaxgrad._names.variables import Stores, Variables, arrays, stores
from jaxgrad._types import Leaf

_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")
_OUTPUTS = ("__call__", "forward")
LIBRARIES = frozenset({"equinox", "flax", "haiku"})  # only the outputs of their modules are of interest
WELL_KNOWN = frozenset({"jax", "jaxlib", "numpy", "jaxgrad", *LIBRARIES, *sys.stdlib_module_names})


class Frames:
    """Names what the watched frames of one call assign and return.

    Args:
      root: the function's own code, whose variables have names without a prefix.
      packages: the modules, by name, whose functions are watched.
      codes: other functions that are.
      paths: of the modules that are within reach.
    """

    def __init__(self, root: CodeType | None, packages: set[str], codes: set[CodeType], paths: Paths):
        self.root, self.packages, self.codes, self.paths = root, packages, codes, paths
        self._seen: dict[FrameType, Variables] = {}
        self._stores: dict[int, tuple[CodeType, Stores]] = {}  # by id, for the hash of code is slow
        self.deaf: dict[int, CodeType] = {}
        self.to_libraries = bool(codes) or any(package.partition(".")[0] in WELL_KNOWN for package in packages)

    def begin(self, frame: FrameType) -> Listen:
        """What is to be told of a frame that begins, or goes on."""
        if frame in self._seen:
            return "lines"
        code = frame.f_code
        if code.co_name in _COMPREHENSIONS or self._is_library(frame, code):
            self.deaf[id(code)] = code  # JAX itself runs thousands of functions for each of the user's lines
            return None
        path = self._path(frame)
        if not self._is_watched(frame, code, path):
            self._say_unwatched(frame)
            return "end" if path and code.co_name in _OUTPUTS else None
        prefix = "" if code is self.root else f"{code.co_name}."
        if path is not None:
            prefix = f"{path}." if path else ""
        self._seen[frame] = Variables(frame, prefix, self._stores_of(code))
        return "lines"

    def line(self, frame: FrameType, line: int) -> None:
        """Names what the last line has assigned."""
        variables = self._seen.get(frame)
        if variables is not None:
            for name, value in variables.after_line(frame):
                _name(value, variables.prefix + name, location(frame, variables.line))
            variables.line = line

    def end(self, frame: FrameType, result: Any) -> None:
        """Names what the last line has assigned, and what a module returns by its path."""
        variables = self._seen.pop(frame, None)
        for name, value in variables.at_end(frame) if variables is not None else ():
            assert variables is not None
            _name(value, variables.prefix + name, location(frame, variables.line))
        if frame.f_code.co_name in _OUTPUTS and (path := self._path(frame)):
            for name, value in arrays(path, result):
                _name(value, name, location(frame))

    def _is_library(self, frame: FrameType, code: CodeType) -> bool:
        """Is it code of JAX, or of a library and no module's call?"""
        module = _module(frame)
        if code is self.root or code in self.codes or _in(module, self.packages):
            return False
        package = module.partition(".")[0]
        return package in WELL_KNOWN and not (package in LIBRARIES and code.co_name in _OUTPUTS)

    def _is_watched(self, frame: FrameType, code: CodeType, path: str | None) -> bool:
        module = _module(frame)
        if code is self.root or code in self.codes or _in(module, self.packages):
            return True
        if path is None or _in(module, LIBRARIES):
            return False
        owner = frame.f_locals[code.co_varnames[0]]
        return any(base.__module__ == module for base in type(owner).__mro__)

    def _path(self, frame: FrameType) -> str | None:
        """The path of the module whose method runs in a frame; None if it is no method of a module."""
        code = frame.f_code
        if not code.co_argcount:
            return None
        owner = frame.f_locals.get(code.co_varnames[0])
        path = self.paths(owner)
        is_called = code.co_name in _OUTPUTS
        if path is None and self.paths.may_adopt(owner, is_called=is_called):
            path = self.paths.adopt(owner, self._variables_around(frame), is_called=is_called)
            if path is None and is_called:
                kind = type(owner).__name__
                remark(kind, f"its output has no name: no variable holds the {kind} that is called; bind it to one")
        return path

    def _variables_around(self, frame: FrameType) -> list[dict[str, Any]]:
        """The variables of the watched frames that a frame was called from, innermost first."""
        found = []
        caller = frame.f_back
        while caller is not None:
            if caller in self._seen:
                found.append(dict(caller.f_locals))
            caller = caller.f_back
        return found

    def _stores_of(self, code: CodeType) -> Stores:
        if id(code) not in self._stores:
            self._stores[id(code)] = code, stores(code)
        return self._stores[id(code)][1]

    def _say_unwatched(self, frame: FrameType) -> None:
        """Says of a function that is given arrays by a watched one that its variables have no names."""
        module, caller = _module(frame), frame.f_back
        if caller is None or caller not in self._seen or module.partition(".")[0] in WELL_KNOWN:
            return
        if any(isinstance(value, jax.core.Tracer) for value in frame.f_locals.values()):
            remark(
                f"{module}.{frame.f_code.co_name}",
                f"not watched: it is called at {location(caller)} and is code of another module; "
                f"watch(fun, within={module}) names its variables",
            )


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _in(module: str, packages: set[str] | frozenset[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _name(value: Leaf, name: str, where: str) -> None:
    with suppress(jax.errors.UnexpectedTracerError):  # of a trace that has ended: it is in no program any more
        name_operand(value, name, where)
