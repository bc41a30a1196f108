"""Names of what a PyTorch function computes: its modules by path, its local variables by frame."""

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import CodeType, FrameType
from typing import Any

from jaxgrad._compare.entries import is_tensor

Module = Any  # torch.nn.Module
Add = Callable[[str, Any], None]  # (name, tensor or container of tensors)

_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")


def module_paths(fun: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[Module, str]:
    """Module -> its path, "" for the model itself; with several models each path begins with its variable's name."""
    roots = _roots(fun, args, kwargs)
    found: dict[Module, str] = {}
    for name, root in roots.items():
        for path, module in root.named_modules():
            found.setdefault(module, _path(name if len(roots) > 1 else "", path))
    return found


def _path(root: str, path: str) -> str:
    """ "layers[0].norm" of "layers.0.norm"."""
    return re.sub(r"(?:^|\.)(\d+)(?=\.|$)", r"[\1]", f"{root}.{path}".strip("."))


def _roots(fun: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Module]:
    """The models: `fun` itself, or those among its arguments, in its closure and among the globals that it uses."""
    import torch

    given: dict[str, Any] = {}
    while isinstance(fun, functools.partial):
        args, kwargs, fun = (*fun.args, *args), {**fun.keywords, **kwargs}, fun.func
    if isinstance(fun, torch.nn.Module):
        return {"model": fun}
    given |= {"self": fun.__self__} if inspect.ismethod(fun) else {}
    function = inspect.unwrap(fun.__func__ if inspect.ismethod(fun) else fun)
    if inspect.isfunction(function):
        closure = inspect.getclosurevars(function)
        given |= {**closure.globals, **closure.nonlocals}
    given |= {f"arg{i}": arg for i, arg in enumerate(args)} | kwargs
    modules = {name: item for name, item in given.items() if isinstance(item, torch.nn.Module)}
    inside = {id(part) for item in modules.values() for part in item.modules() if part is not item}
    return {name: item for name, item in modules.items() if id(item) not in inside}


@contextmanager
def outputs_hooked(paths: dict[Module, str], add: Add) -> Iterator[None]:
    """Names the output of each module that has a path."""
    with ExitStack() as hooks:
        for module, path in paths.items():
            if path:

                def name(_: Module, __: Any, output: Any, path: str = path) -> None:
                    add(path, output)

                hooks.callback(module.register_forward_hook(name).remove)
        yield


@contextmanager
def frames_watched(fun: Callable[..., Any], paths: dict[Module, str], add: Add) -> Iterator[None]:
    """Names the local variables of `fun`, of functions of its file that it calls, and of its modules' methods.

    A frame is looked at after each of its lines. Code of PyTorch itself is not watched.
    """
    code = _code(fun)
    files = {code.co_filename} if code else set()
    files |= {own.co_filename for module in paths if (own := _code(type(module).forward)) and not _is_torch(module)}
    watched = _Frames(code, files, paths, add)
    before = sys.gettrace()
    sys.settrace(watched.enter)
    try:
        yield
    finally:
        sys.settrace(before)


def _is_torch(module: Module) -> bool:
    return type(module).__module__.partition(".")[0] == "torch"


def _code(fun: Callable[..., Any]) -> CodeType | None:
    while isinstance(fun, functools.partial):
        fun = fun.func
    return getattr(inspect.unwrap(getattr(fun, "__func__", fun)), "__code__", None)


class _Frames:
    """What was last seen in each frame that is watched."""

    def __init__(self, root: CodeType | None, files: set[str], paths: dict[Module, str], add: Add):
        self.root, self.files, self.paths, self.add = root, files, paths, add
        self.seen: dict[FrameType, dict[str, Any]] = {}

    def enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        if code.co_filename not in self.files or code.co_name in _COMPREHENSIONS:
            return None
        self.seen[frame] = {name: _identity(value) for name, value in frame.f_locals.items()}
        return self.step

    def step(self, frame: FrameType, event: str, arg: Any) -> Any:
        last = self.seen.setdefault(frame, {})
        for name, value in list(frame.f_locals.items()):
            identity = _identity(value)
            if identity and last.get(name) != identity:
                self.add(self.prefix(frame) + name, value)
            last[name] = identity
        if event == "return":
            self.seen.pop(frame, None)
        return self.step

    def prefix(self, frame: FrameType) -> str:
        """The path of the module whose method it is; the name of a function that is called, and a dot."""
        code = frame.f_code
        owner = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if (path := _get(self.paths, owner)) is not None:
            return f"{path}." if path else ""
        return "" if code is self.root else f"{code.co_name}."


def _get(paths: dict[Module, str], owner: Any) -> str | None:
    try:
        return paths.get(owner)
    except TypeError:  # unhashable, and so no module
        return None


def _identity(value: Any) -> tuple[Any, ...]:
    """What changes when a variable has another tensor, or a tensor is modified in place; () if it holds none."""
    if is_tensor(value):
        return (id(value), value._version, value)  # holding it, lest another take its id
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)) and len(value) <= 64:
        inner = tuple(_identity(item) for item in value)
        return inner if any(inner) else ()
    return ()
