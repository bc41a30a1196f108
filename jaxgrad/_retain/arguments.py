"""Which arguments are differentiated, and what the output has to be."""

import operator
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad._errors import InputError, OutputError
from jaxgrad._types import Leaf, PyTree


def differentiable(args: tuple[Any, ...], argnums: int | Sequence[int] | None) -> list[int]:
    """Which of the leaves of `args` are differentiated."""
    chosen = _positions(argnums, len(args))
    varied, i = [], 0
    for j, arg in enumerate(args):
        for leaf in jax.tree.leaves(arg):
            if j in chosen and is_array(leaf):
                if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
                    varied.append(i)
                elif argnums is not None:
                    raise InputError(
                        f"argument {j} has a leaf of dtype {jnp.result_type(leaf)}, which has no gradient; expected "
                        "floating-point or complex. Leave the argument out of `argnums`, or cast it."
                    )
            i += 1
    return varied


def _positions(argnums: int | Sequence[int] | None, n: int) -> set[int]:
    if argnums is None:
        return set(range(n))
    positions = list(argnums) if isinstance(argnums, Iterable) else [argnums]
    for position in positions:
        if not isinstance(position, SupportsIndex) or not -n <= position < n:
            raise InputError(f"`argnums` has {position!r}, and the function was called with {n} positional arguments.")
    return {operator.index(position) % n for position in positions}


def is_array(leaf: Leaf) -> bool:
    if isinstance(leaf, np.ndarray):
        return leaf.dtype.kind not in "OSUMm" and leaf.dtype != jax.dtypes.float0
    return isinstance(leaf, (jax.Array, np.generic, bool, int, float, complex))


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
