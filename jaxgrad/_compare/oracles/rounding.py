"""How far the rounding of a program may have each of its values and gradients off: stochastic arithmetic."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_flatten, tree_unflatten

from jaxgrad._compare.entries import Entry, of_record
from jaxgrad._compare.oracles.float64_call import to_numpy
from jaxgrad._compare.tolerance import roundoff
from jaxgrad._errors import InputError
from jaxgrad._program.jaxpr import opened
from jaxgrad._program.quick_jit import quick_jit
from jaxgrad._program.wide.perturbed import Perturbed, key, largest
from jaxgrad._record import Record
from jaxgrad._retain.arguments import differentiable
from jaxgrad._retain.retain import retain_grads
from jaxgrad._types import Jaxpr, P, PyTree, Value

Array = np.ndarray[Any, Any]

SIGMAS = 12.0  # of the draws' spread: two programs that round each in its own way are never further apart
_AMPLITUDE = 4.0  # roundings are drawn so many times as large, so that a kink nearby is met, and divided by it again
_NEIGHBOURS = 2.0  # draws that the mean of a row counts for: the spread of a few draws alone is now and then too small
_QUANTA = 4.0  # of the smallest subnormal: what underflow may take
_SPARE = 50_021  # random numbers more than the largest array has, so that each operation starts at another one
_MANY = 1 << 16  # elements of the largest array, from which on it is the arithmetic that costs


def with_rounding(
    fun: Callable[P, Any],
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    names: str | Iterable[str] | Mapping[str, str] | None = None,
    samples: int = 8,
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
      samples: how many times the program is evaluated beside the exact time; at least 2.

    Returns:
      A function of the same arguments that returns the `Record` of `retain_grads`, its `uncertainty` known, in NumPy's
      arrays. It compiles once for all arguments of the same shapes.

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

    @functools.wraps(fun, assigned=("__module__", "__name__", "__qualname__"), updated=())
    def with_grads(*args: P.args, **kwargs: P.kwargs) -> Record:
        leaves, structure = tree_flatten(args)
        varied = differentiable(args, argnums)
        given = [to_numpy(leaves[i]) for i in varied]

        def on_varied(*varied_leaves: Any) -> Record:
            by_leaf = dict(zip(varied, varied_leaves, strict=True))
            record = retained(*tree_unflatten(structure, [by_leaf.get(i, v) for i, v in enumerate(leaves)]), **kwargs)
            return replace(record, aux=None)

        closed, shape = jax.make_jaxpr(on_varied, return_shape=True)(*given)
        jaxpr, consts = opened(closed)
        spreads = _spreads(jaxpr, consts, given, _coarsest(shape), samples)
        found = of_record(tree_unflatten(jax.tree.structure(shape), spreads))
        record = retained(*args, **kwargs)
        known = {n: _bound(entry, found[n]) for n, entry in of_record(record).items() if entry.array is not None}
        return replace(record, uncertainty=known, uncertainty_is_rounding=True)

    return with_grads


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


def _coarsest(record: PyTree) -> float:
    """The largest unit among the dtypes of what is retained: what a program casts lower, it casts by mistake."""
    return max((roundoff(leaf.dtype) for leaf in jax.tree.leaves(record)), default=0.0)


def _spreads(jaxpr: Jaxpr, consts: Sequence[Any], given: list[Any], coarsest: float, samples: int) -> list[Array]:
    """The spread of each result of a program."""
    size = largest(jaxpr)
    noise = _noise(samples, size + _SPARE)
    drawn = _drawn if size < _MANY else _drawn_of_many
    with jax.enable_x64(True):
        program = _Traced(jaxpr, coarsest, (key(jaxpr), coarsest))
        found: list[Array] = jax.device_get(drawn(program, list(consts), given, noise))
    return [_smooth(spread, samples) for spread in found]


def _smooth(spread: Array, samples: int) -> Array:
    """Each spread drawn some way to the mean of its row."""
    if not spread.ndim or not spread.size:
        return spread
    row = np.mean(spread**2, axis=-1, keepdims=True)
    return np.asarray(np.sqrt((samples * spread**2 + _NEIGHBOURS * row) / (samples + _NEIGHBOURS)))


@functools.lru_cache(maxsize=2)
def _noise(samples: int, size: int) -> Array:
    """Random numbers of the amplitude, a row for each draw; the first row is 0, for the program undisturbed."""
    noise = np.random.default_rng(7).uniform(-_AMPLITUDE, _AMPLITUDE, (samples + 1, size)).astype(np.float32)
    noise[0] = 0
    return noise


@dataclass(frozen=True, eq=False)
class _Traced:
    """A program, for `jax.jit` to know again: the same as another whose key is the same."""

    jaxpr: Jaxpr
    coarsest: float
    key: Any

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Traced) and self.key == other.key


def _draw(program: _Traced, consts: list[Any], given: list[Any], noise: Value) -> list[Any]:
    """The spread of each result over the rows of `noise` about the first."""

    def evaluate(row: Value) -> list[Any]:
        def draw(number: int, shape: tuple[int, ...], step: Value) -> Value:
            size = int(np.prod(shape))
            start = (number * 7919 + step * 104_729) % (row.shape[0] - size)
            in_loop = isinstance(step, jax.Array)
            drawn = jax.lax.dynamic_slice(row, (start,), (size,)) if in_loop else row[start : start + size]
            return drawn.reshape(shape).astype(jnp.float64)

        return Perturbed(draw, program.coarsest).program(program.jaxpr, consts, given)

    return [_spread(results) for results in jax.vmap(evaluate)(noise)]


_drawn = quick_jit(_draw, static_argnums=0)
_drawn_of_many = jax.jit(_draw, static_argnums=0)  # twice as long to compile, and half as long to run


def _spread(results: Value) -> Value:
    if not jnp.issubdtype(results.dtype, jnp.inexact):
        return jnp.zeros(results.shape[1:])
    off = jnp.abs(results[1:] - results[0])
    return jnp.sqrt(jnp.mean(jnp.where(jnp.isfinite(off), off, 0) ** 2, axis=0)) / _AMPLITUDE
