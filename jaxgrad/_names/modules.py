"""The path of each module that a function can reach: "layers[0].norm", as its code would write it."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxgrad._types import Leaf, PyTree

_PLAIN = (jax.Array, np.ndarray, np.generic, str, bytes, int, float, complex, bool, type(None), type)

_MADE_ANEW = {("equinox", "Module"), ("flax", "Module"), ("flax", "Pytree")}  # library, class


class Paths:
    """Module -> its path. The model itself has the path "" if it is the only one, else its variable's name."""

    def __init__(self, fun: Callable[..., Any], args: tuple[PyTree, ...], kwargs: Mapping[str, PyTree]):
        roots = {name: item for name, item in _reachable(fun, args, kwargs) if _is_module(item)}
        inside = {id(part) for root in roots.values() for _, part in _parts("", root, set()) if part is not root}
        roots = {name: root for name, root in roots.items() if id(root) not in inside and _is_model(root)}
        self._found: dict[int, tuple[Any, str]] = {}
        self._roots: list[Any] = list(roots.values())
        self._adopted: dict[tuple[str, type], str] = {}  # variable and class of a model made inside -> its prefix
        self._homeless: dict[tuple[int, bool], Any] = {}
        for name, root in roots.items():
            self._enter(name if len(roots) > 1 else "", root)

    def _enter(self, prefix: str, root: Leaf) -> None:
        for path, part in _parts(prefix, root, set()):
            self._found.setdefault(id(part), (part, path.removeprefix(".")))

    def __call__(self, item: Leaf) -> str | None:
        """The path of a module; None if it has none."""
        found = self._found.get(id(item))
        if found is not None:
            return found[1]
        return _own_path(item)

    def may_adopt(self, item: Leaf, *, is_called: bool) -> bool:
        """Is it a module of Equinox or NNX, which are made anew as a function is traced, that has no path so far?"""
        return (id(item), is_called) not in self._homeless and _is_made_anew(item)

    def adopt(self, item: Leaf, around: Iterable[Mapping[str, Any]], *, is_called: bool) -> str | None:
        """The path of a module that was made in the function; None if it has none.

        The first model that is made has the paths of the one model, if no other kind of model is known; of each later
        one its variable's name leads. Under the same name a model is the same one, traced again.

        Args:
          around: the variables of the functions that it is called from, innermost first.
          is_called: does it run itself, and not a method of it?
        """
        held = (found for variables in around for name, value in variables.items() for found in _roots_in(name, value))
        for name, root in (*held, *([("", item)] if is_called else [])):
            if any(part is item for _, part in _parts("", root, set())) and (name or _has_parts(root)):
                self._enter(self._prefix(name, root), root)
                return self._found[id(item)][1]
        self._homeless[id(item), is_called] = item
        return None

    def _prefix(self, name: str, root: Leaf) -> str:
        kind = type(root)
        if (name, kind) not in self._adopted:
            is_only = not self._adopted and _has_parts(root) and all(type(other) is kind for other in self._roots)
            self._adopted[name, kind] = "" if is_only else name or kind.__name__
        return self._adopted[name, kind]


def _is_made_anew(item: Leaf) -> bool:
    if not any((base.__module__.partition(".")[0], base.__name__) in _MADE_ANEW for base in type(item).__mro__):
        return False
    package, _, rest = type(item).__module__.partition(".")
    return package not in ("equinox", "flax") or "nn" in rest.split(".")  # the libraries' own wrappers are no layers


def _has_parts(root: Leaf) -> bool:
    return any(part is not root and _is_model(part) for _, part in _parts("", root, set()))


def _roots_in(name: str, value: Leaf) -> Iterator[tuple[str, Any]]:
    """The modules in a variable that are part of no other in it, each with its place."""
    if _is_module(value):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _roots_in(f"{name}[{i}]", item)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _roots_in(f"{name}[{key!r}]", item)


def _own_path(item: Leaf) -> str | None:
    """The path that a module of Flax Linen or Haiku keeps itself."""
    if type(item).__module__.partition(".")[0] in ("jax", "jaxlib", "builtins", "numpy"):
        return None
    if any(base.__module__ == "haiku._src.module" for base in type(item).__mro__):
        name = getattr(item, "module_name", None)
        return ".".join(part for part in name.split("/") if part != "~") if isinstance(name, str) else None
    if getattr(item, "scope", None) is None:
        return None  # of no Linen module, or of one that is not bound, which has no path to be asked for
    path = getattr(item, "path", None)
    return _linen_path(item) if isinstance(path, tuple) and all(isinstance(part, str) for part in path) else None


def _linen_path(item: Leaf) -> str:
    """ "encoder.layers[0]" of the module that Linen calls ("encoder", "layers_0") and keeps in the list `layers`."""
    parts: list[str] = []
    while item.name is not None and item.scope is not None:
        parent = item.parent
        base, _, number = item.name.rpartition("_")
        held = vars(parent).get(base) if base and hasattr(parent, "__dict__") else None
        if isinstance(held, (list, tuple)) and number.isdigit():
            parts.append(f"{base}[{number}]")
        elif isinstance(held, Mapping) and number in held:
            parts.append(f"{base}[{number!r}]")
        else:
            parts.append(item.name)
        if getattr(parent, "scope", None) is None:
            break
        item = parent
    return ".".join(reversed(parts))


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


def _is_model(item: Leaf) -> bool:
    """Can it, or a part of it, be called?"""
    return any(callable(part) or hasattr(type(part), "forward") for _, part in _parts("", item, set()))


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
            yield from _parts(f"{path}[{name}]" if name.isdigit() else f"{path}.{name}", part, seen)
