"""Which arguments are differentiated, and what the output has to be."""

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from jaxgrad._errors import InputError, OutputError
from jaxgrad._types import ARRAYS, NO_NUMBERS, Leaf, PyTree


def differentiable(args: tuple[Any, ...], argnums: int | Sequence[int] | None) -> list[int]:
    """Which of the leaves of `args` are differentiated.

    A Python number that an object holds (a module's rate of dropout, its number of heads) is a setting of that object
    and stays what it is; one that is an argument, or stands in a dict, list or tuple, is a number to differentiate.
    """
    chosen = _positions(argnums, len(args))
    varied: list[int] = []
    i = 0
    for j, arg in enumerate(args):
        before, dtypes = len(varied), set[str]()
        for leaf, is_setting in _leaves(arg):
            if j in chosen and not is_setting and is_array(leaf):
                dtypes.add(str(jnp.result_type(leaf)))
                if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
                    varied.append(i)
            i += 1
        if argnums is not None and j in chosen and dtypes and len(varied) == before:
            raise InputError(
                f"argument {j} has leaves of dtype {', '.join(sorted(dtypes))}, which have no gradient; expected "
                "floating-point or complex ones among them. Leave the argument out of `argnums`, or cast it."
            )
    return varied


def arg_label(path: Sequence[Any]) -> str:
    """The label of an argument's leaf, by its path in the tuple of arguments: "arg[0]['w']"."""
    return f"arg[{path[0].idx}]{keystr(tuple(path[1:]))}"


def narrowed(args: tuple[Any, ...], varied: Sequence[int]) -> dict[str, str]:
    """ "arg[0]" -> that it is narrowed, for each differentiated leaf of NumPy's that JAX holds in fewer bits."""
    leaves, _ = tree_flatten_with_path(args)
    notes = {}
    for path, leaf in (leaves[i] for i in varied):
        if isinstance(leaf, (np.ndarray, np.generic)) and leaf.dtype != jnp.result_type(leaf):
            notes[arg_label(path)] = (
                f"NumPy's {leaf.dtype} is narrowed to {jnp.result_type(leaf)}, as by jax.grad; for all of its bits "
                "switch on jax.config.update('jax_enable_x64', True)"
            )
    return notes


def _leaves(arg: PyTree) -> Iterator[tuple[Leaf, bool]]:
    """Each leaf of an argument, and whether it is a Python number that an object holds."""
    for outer in jax.tree.leaves(arg, is_leaf=lambda node: not isinstance(node, (Mapping, list, tuple))):
        for leaf in jax.tree.leaves(outer):
            is_number = isinstance(leaf, (bool, int, float, complex)) and not isinstance(leaf, np.generic)
            yield leaf, is_number and leaf is not outer


def _positions(argnums: int | Sequence[int] | None, n: int) -> set[int]:
    if argnums is None:
        return set(range(n))
    positions = list(argnums) if isinstance(argnums, Iterable) else [argnums]
    for position in positions:
        if not isinstance(position, SupportsIndex) or not -n <= position < n:
            raise InputError(f"`argnums` has {position!r}, and the function was called with {n} positional arguments.")
    return {operator.index(position) % n for position in positions}


def is_array(leaf: Leaf) -> bool:
    if isinstance(leaf, (np.ndarray, np.generic)):
        return leaf.dtype.kind not in NO_NUMBERS and leaf.dtype != jax.dtypes.float0
    return isinstance(leaf, ARRAYS)


def check_scalar(output: PyTree) -> None:
    leaves = jax.tree.leaves(output)
    if len(leaves) != 1 or leaves[0] is not output:
        raise OutputError(
            f"the output of fun is {jax.tree.structure(output)}; expected one real scalar. For (output, aux) give "
            "has_aux=True; for several outputs use retain_vjp."
        )
    if output.shape or not jnp.issubdtype(output.dtype, jnp.floating):
        raise OutputError(
            f"the output of fun is {output.dtype}{list(output.shape)}; expected a real scalar, of shape () and "
            "floating-point. Use retain_vjp for any other, or reduce it, as by jnp.sum."
        )
