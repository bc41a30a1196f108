"""Names of local variables and modules, read off a function as it is traced.

A frame tracer (`sys.settrace`) looks at each watched frame before each of its lines and as it returns. A variable that
holds a new tracer is named there, by a tag that only names: JAX's program then has the name at the variable itself, and
all of its uses count, those within the line that assigns it too. A tracer of frames sees what Python did: loops,
unpacking, generators and exceptions need no rules of their own; a rewritten syntax tree would need the source and one
rule for each statement, and instruction positions would miss variables that are assigned twice from one value. The
events are the same on every Python, and settrace is the thread's own, where `sys.monitoring` is the interpreter's.

Inner functions that JAX has in its caches would not run again and so not be seen: a user context of its own, which is
part of the caches' keys, has them traced anew.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import CodeType, FrameType, ModuleType
from typing import Any

import jax
from jax.tree_util import keystr, tree_flatten_with_path

from jaxgrad._errors import InputError
from jaxgrad._names.bound import location
from jaxgrad._names.modules import Paths
from jaxgrad._names.tag import name_operand
from jaxgrad._types import Leaf, P

Within = ModuleType | type | Callable[..., Any] | Iterable[ModuleType | type | Callable[..., Any]]
_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")
_OUTPUTS = ("__call__", "forward")
_LIBRARIES = {"jax", "equinox", "flax", "haiku"}  # only the outputs of their modules are of interest
_retraced = jax.make_user_context(None)


def watch(fun: Callable[P, Any], within: Within | None = None) -> Callable[P, Any]:
    """Names the intermediates of `fun` as its own code does: the same function, with no tag to write.

    Each array bound to a local variable is named as by `tag`: `z = w * x` is "z". A variable assigned more than once is
    numbered, `h[0]`, `h[1]`; one of a function that `fun` calls is "helper.u"; one of a module's method has its
    path, "layers[0].h"; a module's output is the path. Arrays in lists, tuples and dicts are named by their place in
    them. Arguments are not named. Results are bitwise identical, and a compiled call costs nothing more.

    Args:
      fun: any function that `retain_grads`, `ledger` or an oracle takes.
      within: modules, packages, classes or functions whose code is watched too. Functions of `fun`'s own module, and
        the methods of modules that it reaches, always are; of library modules the outputs alone.

    Returns:
      A function of the same arguments.

    Raises:
      InputError: `fun` cannot be called; `within` has something without Python code.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgrad import retain_grads
      >>> def loss(w, x):
      ...     h = jnp.tanh(w * x)
      ...     return h * h
      >>> print(f"{retain_grads(watch(loss))(2.0, 0.5).grads['h']:.3f}")
      1.523
    """
    if not callable(fun):
        raise InputError(f"watch is given a {type(fun).__name__}, {fun!r:.40}; expected a function.")
    packages, codes = _within(within)
    root = _code(fun)
    packages |= {module} if (module := getattr(fun, "__module__", None)) else set()

    @functools.wraps(fun, updated=())
    def watched(*args: P.args, **kwargs: P.kwargs) -> Any:
        frames = _Frames(root, packages, codes, Paths(fun, args, kwargs))
        before = sys.gettrace()
        with _retraced(object()):
            sys.settrace(frames.enter)
            try:
                return fun(*args, **kwargs)
            finally:
                sys.settrace(before)

    return watched


def _within(within: Within | None) -> tuple[set[str], set[CodeType]]:
    """Names of modules, and the code of functions, that are to be watched."""
    packages: set[str] = set()
    codes: set[CodeType] = set()
    given: Iterable[Leaf] = within if isinstance(within, (list, tuple, set, frozenset)) else (within,)
    for item in given if within is not None else ():
        if isinstance(item, ModuleType) and str(getattr(item, "__file__", "")).endswith(".py"):
            packages.add(item.__name__)
        elif isinstance(item, type) and (own := {*filter(None, map(_code, vars(item).values()))}):
            codes |= own
        elif (code := _code(item)) is not None:
            codes |= {code, *_nested(code)}
        else:
            raise InputError(
                f"`within` has {item!r:.60}, which has no Python code to watch; expected modules, packages, functions "
                "or classes that are written in Python."
            )
    return packages, codes


def _nested(code: CodeType) -> Iterator[CodeType]:
    """The code of the functions that are defined in a function."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _nested(constant)


def _code(fun: Leaf) -> CodeType | None:
    while isinstance(fun, functools.partial):
        fun = fun.func
    fun = getattr(fun, "__func__", fun)
    return getattr(inspect.unwrap(fun) if callable(fun) else fun, "__code__", None)


class _Frames:
    """What was last seen in each frame that is watched."""

    def __init__(self, root: CodeType | None, packages: set[str], codes: set[CodeType], paths: Paths):
        self.root, self.packages, self.codes, self.paths = root, packages, codes, paths
        self.seen: dict[FrameType, dict[str, Any]] = {}
        self.others: dict[int, CodeType] = {}  # known not to be watched; by id, for the hash of code is slow

    def enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Called as a frame begins; answers with what to call at each of its lines, None for a frame not watched."""
        code = frame.f_code
        if id(code) in self.others:
            return None
        if code.co_name in _COMPREHENSIONS or self.is_jax(frame, code):
            self.others[id(code)] = code  # JAX itself runs thousands of functions for each of the user's lines
            return None
        if not self.is_watched(frame, code):
            return self.output if code.co_name in _OUTPUTS and self.path(frame) else None
        self.seen[frame] = dict(_arrays(frame))
        return self.step

    def is_jax(self, frame: FrameType, code: CodeType) -> bool:
        module = str(frame.f_globals.get("__name__", ""))
        return _in(module, {"jax"}) and not _in(module, self.packages) and code not in self.codes

    def is_watched(self, frame: FrameType, code: CodeType) -> bool:
        module = str(frame.f_globals.get("__name__", ""))
        if code is self.root or code in self.codes or _in(module, self.packages):
            return True
        if _in(module, _LIBRARIES) or self.path(frame) is None:
            return False
        owner = frame.f_locals[code.co_varnames[0]]
        return any(base.__module__ == module for base in type(owner).__mro__)

    def path(self, frame: FrameType) -> str | None:
        """The path of the module whose method runs in a frame; None if it is no method of a module."""
        code = frame.f_code
        return self.paths(frame.f_locals.get(code.co_varnames[0])) if code.co_argcount else None

    def step(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Names what has changed in a frame since its last line."""
        if event == "exception":
            return self.step
        last = self.seen.setdefault(frame, {})
        now = dict(_arrays(frame))
        for name, value in now.items():
            if last.get(name) is not value:
                _name(value, self.prefix(frame) + name, location(frame))
        self.seen[frame] = now
        if event == "return":
            del self.seen[frame]
            self.output(frame, event, arg)
        return self.step

    def output(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Names what a module returns by its path."""
        if event == "return" and frame.f_code.co_name in _OUTPUTS and (path := self.path(frame)):
            for name, value in _leaves(path, arg):
                _name(value, name, location(frame))
        return self.output

    def prefix(self, frame: FrameType) -> str:
        path = self.path(frame)
        if path is not None:
            return f"{path}." if path else ""
        return "" if frame.f_code is self.root else f"{frame.f_code.co_name}."


def _in(module: str, packages: set[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _arrays(frame: FrameType) -> Iterator[tuple[str, Any]]:
    """Name -> traced array, of the variables of a frame's own, those in containers by their place."""
    free = frame.f_code.co_freevars
    for name, value in list(frame.f_locals.items()):
        if name not in free:
            yield from _leaves(name, value)


def _leaves(name: str, value: Leaf) -> Iterator[tuple[str, Any]]:
    if isinstance(value, jax.core.Tracer):
        yield name, value
    elif isinstance(value, (list, tuple, dict)):
        for path, leaf in tree_flatten_with_path(value)[0]:
            if isinstance(leaf, jax.core.Tracer):
                yield name + keystr(path), leaf


def _name(value: Leaf, name: str, where: str) -> None:
    with suppress(jax.errors.UnexpectedTracerError):  # of a trace that has ended: it is in no program any more
        name_operand(value, name, where)
