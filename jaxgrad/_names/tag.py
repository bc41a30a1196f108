"""An identity with a name."""

import functools
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.interpreters import ad, batching, mlir
from jax.tree_util import keystr, tree_flatten_with_path, tree_unflatten

from jaxgrad._errors import TagError
from jaxgrad._names.bound import location, observe
from jaxgrad._types import ARRAYS, NO_NUMBERS, Leaf, Primitive, PyTree, Value

T = TypeVar("T")


def tag(value: T, name: str) -> T:
    """Names an intermediate and changes nothing.

    The result is `value`, to the bit, and a compiled program that retains nothing is the same as without the tag.
    Use the result from here on, for gradients flow through it: `z = tag(z, "z")`.

    Args:
      value: an array of any shape and dtype, a number, or a pytree of them: each leaf gets the name and its path
        (`tag({"a": a}, "p")` names "p['a']").
      name: the name; need not be unique. A name used m times becomes `name[0]` to `name[m-1]`.

    Returns:
      `value`.

    Raises:
      TagError: the name is no string or is empty; a leaf is no array, or there is none.

    Example:
      >>> import jax, jax.numpy as jnp, jaxgrad
      >>> def loss(x):
      ...     y = jaxgrad.tag(x * x, "y")
      ...     return jnp.sum(jnp.sin(y))
      >>> jaxgrad.retain_grads(loss)(jnp.array([0.0, 1.0])).grads["y"]
      Array([1.        , 0.5403023], dtype=float32)
    """
    where = location(sys._getframe(1))
    _register_jet()
    if not isinstance(name, str) or not name:
        raise TagError(f'the name of the tag at {where} is {name!r}; expected a string that is not empty, as "z".')
    leaves, structure = tree_flatten_with_path(value)
    if not leaves:
        raise TagError(f'tag "{name}" ({where}) is on {value!r}, with no array in it; expected an array.')
    return tree_unflatten(structure, [_tag_leaf(leaf, name + keystr(path), where) for path, leaf in leaves])  # type: ignore[no-any-return]


def _tag_leaf(leaf: Leaf, name: str, where: str) -> Any:
    dtype = leaf.dtype if isinstance(leaf, (np.ndarray, np.generic)) else None
    if not isinstance(leaf, ARRAYS) or (dtype is not None and dtype.kind in NO_NUMBERS):
        kind = type(leaf).__name__ + (f" of {dtype}" if dtype else "")
        raise TagError(
            f'tag "{name}" ({where}) is on a {kind}, {leaf!r:.40}; expected an array of numbers. '
            "Tag the arrays in it, or leave it untagged."
        )
    named = tag_p.bind(leaf, name=name, where=where, axes=(), names_only=False)
    traced = isinstance(named, jax.core.Tracer)
    observe(name, where, traced)
    return named if traced else leaf  # nothing is traced: there is nothing to name


def name_operand(value: Value, name: str, where: str) -> None:
    """Names a traced value where it stands, for all of its uses: the tag's result is of no use."""
    tag_p.bind(value, name=name, where=where, axes=(), names_only=True)
    observe(name, where, isinstance(value, jax.core.Tracer), names_only=True)


# The primitive's `axes` are the axes of its operand that vmap has added, outermost vmap first. With `names_only` it
# is the operand that is retained, and not the result. Further operands are probes, of the value's shape: the result
# is the value, and for derivatives the sum of them all; so that a tag with a probe is one operation to trace.
tag_p = Primitive("tag")
tag_p.def_impl(lambda value, *probes, **_: value)
tag_p.def_abstract_eval(lambda aval, *probes, **_: aval)
mlir.register_lowering(tag_p, lambda ctx, value, *probes, **_: [value])


def _jvp(primals: PyTree, tangents: PyTree, **params: Any) -> Any:
    return tag_p.bind(*primals, **params), added(tangents)


def added(tangents: Sequence[Any]) -> Any:
    """The sum of tangents, those that are symbolic zeros left out."""
    moved = [dot for dot in tangents if type(dot) is not ad.Zero] or [*tangents[:1]]
    return functools.reduce(lax.add, moved)  # which asks not whether float64 is switched on


def _batch(operands: PyTree, batch_axes: PyTree, *, axes: tuple[int, ...], **params: Any) -> Any:
    if len(operands) > 1:
        return tag_p.bind(*leading(operands, batch_axes), axes=(0, *(axis + 1 for axis in axes)), **params), 0
    (new,) = batch_axes
    moved = tuple(axis + (axis >= new) for axis in axes)
    return tag_p.bind(*operands, axes=(new, *moved), **params), new


def leading(operands: Sequence[Any], batch_axes: Sequence[int | None]) -> list[Any]:
    """The operands with the batch axis in front, in those too that had none."""
    pairs = list(zip(operands, batch_axes, strict=True))
    (size, *_) = [x.shape[axis] for x, axis in pairs if axis is not None]
    return [lax.broadcast(x, (size,)) if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in pairs]


def _transpose(result_bar: PyTree, *_: Any, **__: Any) -> Any:
    return [result_bar]


def _jet(primals: PyTree, series: PyTree, **params: Any) -> Any:
    (value,), (terms,) = primals, series
    return tag_p.bind(value, **params), terms


def _register_jet() -> None:
    """Gives the tag a rule for `jax.experimental.jet`, where a program has imported that."""
    jet = sys.modules.get("jax.experimental.jet")
    if jet is not None and tag_p not in jet.jet_rules:
        jet.jet_rules[tag_p] = _jet


ad.primitive_jvps[tag_p] = _jvp
ad.primitive_transposes[tag_p] = _transpose
batching.primitive_batchers[tag_p] = _batch
