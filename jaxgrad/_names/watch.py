"""Names of local variables and modules, read off a function as it is traced.

The interpreter tells of each line of a watched frame as it is done, and of the frame's end. A variable that the line
has assigned and that holds a new tracer is named there, by a tag that only names: JAX's program then has the name at
the variable itself, and all of its uses count, those within the line that assigns it too. So it is seen what Python
did: loops, unpacking, generators and exceptions need no rules of their own. A rewritten syntax tree would need the
source and one rule for each statement, and instruction positions would miss variables that are assigned twice from
one value.

Inner functions that JAX has in its caches would not run again and so not be seen: a user context of its own, which is
part of the caches' keys, has them traced anew.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, ModuleType
from typing import Any

import jax

from jaxgrad._errors import InputError
from jaxgrad._names.bound import watching
from jaxgrad._names.events import told
from jaxgrad._names.frames import LIBRARIES, Frames
from jaxgrad._names.modules import Paths
from jaxgrad._types import Leaf, P

Within = ModuleType | type | Callable[..., Any] | Iterable[ModuleType | type | Callable[..., Any]]
_retraced = jax.make_user_context(None)


def watch(fun: Callable[P, Any], within: Within | None = None) -> Callable[P, Any]:
    """Names the intermediates of `fun` as its own code does: the same function, with no tag to write.

    Each array bound to a local variable is named as by `tag`: `z = w * x` is "z". A variable assigned more than once is
    numbered, `h[0]`, `h[1]`; one of a function that `fun` calls is "helper.u"; one of a module's method has its
    path, "layers[0].h"; a module's output is the path. Arrays in lists, tuples and dicts are named by their place in
    them. Arguments are not named. Results are bitwise identical, and a compiled call costs nothing more.

    What is not named is said in `record.notes`: variables in the body of a function with its own derivative rule or
    wherever else no gradient can be known, calls of another module's functions, a module that nothing holds.

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
    module = getattr(fun, "__module__", None) or ""
    is_own = module.partition(".")[0] not in LIBRARIES  # `model.apply` is Flax's, and only the modules are of interest
    root = _code(fun) if is_own else None
    packages |= {module} if module and is_own else set()

    @functools.wraps(fun, updated=())
    def watched(*args: P.args, **kwargs: P.kwargs) -> Any:
        watching(getattr(fun, "__name__", type(fun).__name__))
        frames = Frames(root, packages, codes, Paths(fun, args, kwargs))
        with _retraced(object()):
            return told(frames, functools.partial(fun, *args, **kwargs))

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
