"""The path of each module that a function can reach: "layers[0].norm", as its code would write it."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxgrad._types import Leaf, PyTree

_PLAIN = (jax.Array, np.ndarray, np.generic, str, bytes, int, float, complex, bool, type(None), type)


class Paths:
    """Module -> its path. The model itself has the path "" if it is the only one, else its variable's name."""

    def __init__(self, fun: Callable[..., Any], args: tuple[PyTree, ...], kwargs: Mapping[str, PyTree]):
        roots = {name: item for name, item in _reachable(fun, args, kwargs) if _is_module(item)}
        inside = {id(part) for root in roots.values() for _, part in _parts("", root, set()) if part is not root}
        roots = {name: root for name, root in roots.items() if id(root) not in inside}
        self._found: dict[int, tuple[Any, str]] = {}
        for name, root in roots.items():
            for path, part in _parts(name if len(roots) > 1 else "", root, set()):
                self._found.setdefault(id(part), (part, path.removeprefix(".")))

    def __call__(self, item: Leaf) -> str | None:
        """The path of a module; None if it has none."""
        found = self._found.get(id(item))
        if found is not None:
            return found[1]
        return _linen_path(item)


def _linen_path(item: Leaf) -> str | None:
    """The path that Flax Linen keeps in a module that is bound: ("encoder", "layers_0")."""
    if type(item).__module__.startswith("jax") or getattr(item, "scope", None) is None:
        return None  # of no Linen module, or of one that is not bound, which has no path to be asked for
    path = getattr(item, "path", None)
    return ".".join(path) if isinstance(path, tuple) and all(isinstance(part, str) for part in path) else None


def _reachable(
    fun: Callable[..., Any], args: tuple[PyTree, ...], kwargs: Mapping[str, PyTree]
) -> Iterator[tuple[str, Any]]:
    """What a function can reach by name: itself, its arguments, its closure and the globals that it uses."""
    if _is_module(fun):
        yield "model", fun
        return
    owner = getattr(fun, "__self__", None)
    if owner is not None:
        yield "self", owner
    function = inspect.unwrap(getattr(fun, "__func__", fun))
    yield from ((f"arg{i}", arg) for i, arg in enumerate(args))
    yield from kwargs.items()
    if inspect.isfunction(function):
        closure = inspect.getclosurevars(function)
        yield from (*closure.nonlocals.items(), *closure.globals.items())


def _is_module(item: Leaf) -> bool:
    """Is it an object of a class that has attributes, and can be called or has methods of its own?"""
    if isinstance(item, (*_PLAIN, list, tuple, dict)) or inspect.isroutine(item) or inspect.ismodule(item):
        return False
    return hasattr(item, "__dict__") and type(item).__module__.partition(".")[0] not in ("builtins", "jax", "jaxlib")


def _parts(path: str, item: Leaf, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """The modules in an object, itself first, each with its path."""
    if id(item) in seen:
        return
    seen.add(id(item))
    if isinstance(item, (list, tuple)):
        for i, part in enumerate(item):
            yield from _parts(f"{path}[{i}]", part, seen)
    elif isinstance(item, Mapping):
        for key, part in item.items():
            yield from _parts(f"{path}[{key!r}]", part, seen)
    elif _is_module(item):
        yield path, item
        for name, part in vars(item).items():
            yield from _parts(f"{path}.{name}", part, seen)
