"""What the nodes of a ledger are called, each name once."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from jaxgrad._errors import InputError
from jaxgrad._retain.arguments import arg_label, narrowed
from jaxgrad._types import Aval

FEW = 16  # vectors are one node an element where they have up to so many elements together
Split = int | tuple[str, ...] | None  # arrays of up to so many elements, or those of these names; None for vectors


class Origin(NamedTuple):
    """Where edges start: an argument's array, or an intermediate."""

    name: str
    aval: Any
    elements: tuple[str, ...]  # names of its elements, where it is split; else empty
    note: str = ""

    @property
    def size(self) -> int:
        return int(np.prod(self.aval.shape, dtype=int))


def argument_sources(
    fun: Callable[..., Any], args: tuple[Any, ...], varied: list[int], taken: set[str], split: Split
) -> list[Origin]:
    """The arguments' arrays, named after their parameters; each name is used once."""
    parameters = _parameters(fun, len(args))
    paths = [(parameters[path[0].idx] + keystr(path[1:]), leaf) for path, leaf in tree_flatten_with_path(args)[0]]
    avals = {i: jax.ShapeDtypeStruct(np.shape(paths[i][1]), jnp.result_type(paths[i][1])) for i in varied}
    notes, labels = narrowed(args, varied), [arg_label(path) for path, _ in tree_flatten_with_path(args)[0]]
    apart = _split({paths[i][0]: aval for i, aval in avals.items()}, split)
    sources = []
    for i, aval in avals.items():
        name = paths[i][0]
        elements = _elements(name, aval.shape, taken) if name in apart else ()
        name = free(name, taken, "argument")
        taken |= {name, *elements}
        sources.append(Origin(name, aval, elements, notes.get(labels[i], "")))
    return sources


def _split(avals: Mapping[str, Any], split: Split) -> set[str]:
    """The names of the arguments whose elements are nodes of their own."""
    arrays = {name: size_of(aval) for name, aval in avals.items() if aval.shape and size_of(aval)}
    if isinstance(split, int):
        return {name for name, size in arrays.items() if size <= split}
    if split is not None:
        unknown = [name for name in split if name not in arrays]
        if unknown:
            raise InputError(f"`split` names {unknown[0]!r}, which is no array. Arrays: {', '.join(arrays) or 'none'}.")
        return set(split)
    vectors = {name: size for name, size in arrays.items() if len(avals[name].shape) == 1}
    return set(vectors) if sum(vectors.values()) <= FEW else set()


def _parameters(fun: Callable[..., Any], n: int) -> list[str]:
    """Names of the first n positional parameters."""
    try:
        found = list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):
        return [f"arg{i}" for i in range(n)]
    names = [p.name for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in found if p.kind is p.VAR_POSITIONAL), "arg")
    return (names + [f"{rest}[{i}]" for i in range(n)])[:n]


def _elements(name: str, shape: tuple[int, ...], taken: set[str]) -> tuple[str, ...]:
    places = list(np.ndindex(*shape))
    plain = [f"{name}{place[0]}" for place in places]
    if len(shape) == 1 and name.isidentifier() and not name[-1].isdigit() and not taken & set(plain):
        return tuple(plain)
    return tuple(free(f"{name}[{','.join(map(str, place))}]", taken, "argument") for place in places)


def free(name: str, taken: Iterable[str], kind: str) -> str:
    return f"{name} ({kind})" if name in taken else name


def size_of(aval: Aval) -> int:
    return int(np.prod(aval.shape, dtype=int))
