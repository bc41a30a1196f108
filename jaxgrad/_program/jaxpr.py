"""A function as a traced program, and how such a program is read.

    trace(fun, leaves) -> Program

`find_sites` finds the tags in it, `liveness` says what depends on what, `interpreter` runs it. Only this file, `probe`,
`rules` and `tag` touch JAX's extension API.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import jax

from jaxgrad._names.bound import Bound, observing
from jaxgrad._types import Atom, Aval, Eqn, Jaxpr

Path = tuple[int, ...]  # where an equation stands: its index, then body and index for each program inside a program


@dataclass(frozen=True)
class Program:
    """A traced function of flat arrays.

    Attributes:
      jaxpr: the function, as JAX traced it.
      consts: what it closes over.
      output, aux: shapes and dtypes of what it returns, as pytrees.
      bound: each tag that was bound as it was traced, with where that was.
    """

    jaxpr: Any
    consts: Sequence[Any]
    output: Any
    aux: Any
    bound: Bound


def trace(fun: Callable[..., tuple[Any, Any]], leaves: Sequence[Any], key: Hashable = None) -> Program:
    """Traces `fun(*leaves)`, which returns (output, aux), pytrees of arrays; every error in `fun` is raised here.

    The derivative rules in the program are those that JAX has traced for this key, and for no other.
    """
    bound = Bound()
    try:
        with observing(bound, key):
            closed, (output, aux) = jax.make_jaxpr(fun, return_shape=True)(*leaves)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        error.add_note(
            "The arguments that are differentiated are traced, as under jax.jit. Write jnp.where or lax.cond in place "
            "of `if`, jnp in place of np, or leave the argument out of `argnums`."
        )
        raise
    return Program(*opened(closed), output, aux, bound)


def opened(jaxpr: Jaxpr) -> tuple[Any, Sequence[Any]]:
    """A jaxpr, open or closed, and its constants."""
    return getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())


def evaluated(closed: Jaxpr) -> Callable[..., list[Any]]:
    """A closed jaxpr as a function of its arguments, to its results."""
    from jax.extend.core import jaxpr_as_fun

    return jaxpr_as_fun(closed)  # type: ignore[no-any-return]


def is_literal(atom: Atom) -> bool:
    """Is an operand or result a number that is written in the program? Any other is a variable."""
    return hasattr(atom, "val")


def variables(atoms: Iterable[Any], chosen: Iterable[bool]) -> set[Any]:
    """The variables among the atoms that are chosen."""
    return {atom for atom, use in zip(atoms, chosen, strict=True) if use and not is_literal(atom)}


def inner(eqn: Eqn) -> list[Any]:
    """The programs in the parameters of an equation, and in the attributes of the objects among them."""
    from jax.extend.core import jaxprs_in_params  # here, for to import it takes long

    found = {id(body): body for body in jaxprs_in_params(eqn.params)}
    for value in eqn.params.values():
        attributes = getattr(value, "__dict__", None)
        if attributes and not hasattr(opened(value)[0], "eqns"):
            found |= {id(body): body for body in jaxprs_in_params(attributes)}
    return list(found.values())


def x64_as_traced(avals: Iterable[Aval]) -> AbstractContextManager[None]:
    """Switches 64 bits on where one of the types has them: they were on where the program was traced."""
    wide = any(str(getattr(aval, "dtype", "")) in ("float64", "complex128", "int64", "uint64") for aval in avals)
    return jax.enable_x64(True) if wide else nullcontext()


def scope_of(eqn: Eqn) -> AbstractContextManager[None]:
    """Puts what is bound in it into the named scopes, and the vmaps, that an equation was traced in."""
    from jax.extend import source_info_util

    stack = source_info_util.current_name_stack() + eqn.source_info.name_stack
    return source_info_util.user_context(None, name_stack=stack)


def bind(eqn: Eqn, operands: Sequence[Any]) -> Sequence[Any]:
    """The results of an equation on other operands."""
    with eqn.ctx.manager:
        results = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
    return results if eqn.primitive.multiple_results else [results]
