"""How far the rounding of a program may have each of its values and gradients off: stochastic arithmetic."""

import functools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_flatten, tree_unflatten

from jaxgrad._compare.entries import Entry, as_recorded, of_record
from jaxgrad._compare.oracles.draws import Followed, follow
from jaxgrad._compare.oracles.float64_call import to_numpy
from jaxgrad._compare.tolerance import roundoff
from jaxgrad._errors import InputError
from jaxgrad._record import Call, Record
from jaxgrad._retain.arguments import differentiable
from jaxgrad._retain.retain import retain_grads
from jaxgrad._types import P, PyTree

Array = np.ndarray[Any, Any]

SAMPLES = 8
SIGMAS = 12.0  # of the draws' spread: two programs that round each in its own way are never further apart
_QUANTA = 4.0  # of the smallest subnormal: what underflow may take


def with_rounding(
    fun: Callable[P, Any],
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    names: str | Iterable[str] | Mapping[str, str] | None = None,
    samples: int = SAMPLES,
    *,
    forced: Record | Mapping[Any, Any] | None = None,
) -> Callable[P, Record]:
    r"""Transforms `fun` as `retain_grads` does, and finds how far rounding may have each number off.

    The traced program and its reverse pass are evaluated in float64, `samples` times, each time with the result of
    each operation moved at random by the error that its own dtype may make there: a unit roundoff $u$ of a single
    number, of a sum by its length and its summands. With $\sigma$ the spread of the draws, `record.uncertainty` is
    $12 (\sigma + u |v| / 2)$ for each value and gradient $v$. `compare` holds a record that has it to that, and to
    nothing else: it passes a difference that cancelled sums explain, and no other.

    Args:
      fun, argnums, has_aux, names, forced: as for `retain_grads`. With `forced` each piece from tag to tag has its own
        rounding alone.
      samples: how many times the program is evaluated; at least 2.

    Returns:
      A function of the same arguments that returns the `Record` of `retain_grads`, its `uncertainty` known, in NumPy's
      arrays. As by `jax.jit`, it is traced and compiled once for all arguments of the same shapes, where those are
      arrays that are differentiated; it is traced at each call where there are others, or keywords, or `has_aux`.

    Raises:
      OutputError: an operation cannot be evaluated in float64: it has an effect, or hides what it computes.
      InputError: `samples` is below 2; an argument is traced.
      TagError, OutputError, InputError: as for `retain_grads`.

    Example:
      >>> from jaxgrad import neuron
      >>> record = with_rounding(neuron.forward)(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1]))
      >>> bool(abs(record.values["z"]) <= record.uncertainty["z"] < 1e-6)
      True

    Reference: Vignes, A stochastic arithmetic for reliable scientific computation, Math. Comput. Simul. 35, 1993.
    """
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 2:
        raise InputError(f"`samples` is {samples!r}; expected an integer of at least 2, for a spread is to be seen.")
    patterns = names if names is None or isinstance(names, (str, Mapping)) else tuple(names)
    retained: Callable[..., Record] = retain_grads(fun, argnums, has_aux, patterns, forced=forced)

    traced: dict[Hashable, Followed] = {}

    @functools.wraps(fun, assigned=("__module__", "__name__", "__qualname__"), updated=())
    def with_grads(*args: P.args, **kwargs: P.kwargs) -> Record:
        types = None if has_aux or kwargs else _types(args, differentiable(args, argnums))
        if types is None:
            record = retained(*args, **kwargs)
            program, given = _followed(retained, args, kwargs, argnums)
        else:
            given = jax.tree.leaves(args)
            program = traced[types] if types in traced else _followed(retained, args, kwargs, argnums)[0]
            record = traced.setdefault(types, program).run(*given)
        return with_spread(record, program.draws([to_numpy(leaf) for leaf in given], samples)[1])

    return with_grads


def rounding_of_call(call: Call, record: Record) -> Record:
    """The record of a call of `retain_grads`, its uncertainty known."""
    retained = retain_grads(call.fun, **call.options)
    with as_recorded(record):
        program, given = _followed(retained, call.args, call.kwargs, call.options["argnums"])
    program.refuse_large(SAMPLES)
    return with_spread(record, program.draws(given, SAMPLES)[1])


def with_spread(record: Record, spread: Record) -> Record:
    """The record, as far off as the spread of its numbers lets each be."""
    found = of_record(spread)
    known = {name: _bound(entry, found[name]) for name, entry in of_record(record).items() if entry.array is not None}
    return replace(record, uncertainty=known, uncertainty_is_rounding=True)


def _types(args: tuple[Any, ...], varied: Sequence[int]) -> Hashable | None:
    """What a program is traced for: the types of its arguments, if they are all arrays that are differentiated."""
    leaves, structure = tree_flatten(args)
    plain = all(isinstance(leaf, (np.ndarray, jax.Array)) and not _is_odd(leaf) for leaf in leaves)
    if not plain or len(varied) < len(leaves):
        return None
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves), jax.config.jax_enable_x64  # type: ignore[attr-defined]


def _is_odd(leaf: Any) -> bool:
    """Has it more of a type than shape and dtype, or is it another one in JAX?"""
    if isinstance(leaf, jax.core.Tracer) or leaf.dtype != jax.dtypes.canonicalize_dtype(leaf.dtype):
        return True
    return isinstance(leaf, jax.Array) and (leaf.weak_type or len(leaf.devices()) > 1)


def _followed(
    retained: Callable[..., Record],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    argnums: int | Sequence[int] | None,
) -> tuple[Followed, list[Array]]:
    """A retained function of the arrays that are differentiated, and these."""
    leaves, structure = tree_flatten(args)
    varied = differentiable(args, argnums)
    given = [to_numpy(leaves[i]) for i in varied]

    def on_varied(*arrays: PyTree) -> Record:
        by_leaf = dict(zip(varied, arrays, strict=True))
        return retained(*tree_unflatten(structure, [by_leaf.get(i, v) for i, v in enumerate(leaves)]), **kwargs)

    return follow(on_varied, given), given


def _bound(entry: Entry, spread: Entry) -> Array:
    """How far off a number of an entry may be."""
    assert entry.array is not None
    assert spread.array is not None
    dtype = entry.array.dtype
    if not jnp.issubdtype(dtype, jnp.inexact):
        return np.zeros(entry.array.shape)
    with np.errstate(all="ignore"):
        size = np.abs(entry.array.astype(np.complex128 if np.iscomplexobj(entry.array) else np.float64))
        rounded = np.where(np.isfinite(size), size, 0) * (roundoff(dtype) / 2)
    return np.asarray(SIGMAS * (spread.array + rounded) + _QUANTA * float(jnp.finfo(dtype).smallest_subnormal))
