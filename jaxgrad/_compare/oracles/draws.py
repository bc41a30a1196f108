"""Draws of the rounding errors of a retained program: how far they spread each of its numbers."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import tree_unflatten

from jaxgrad._compare.tolerance import roundoff
from jaxgrad._errors import InputError
from jaxgrad._program.jaxpr import evaluated, opened
from jaxgrad._program.quick_jit import quick_jit
from jaxgrad._program.wide.perturbed import Perturbed, key, largest
from jaxgrad._record import NOWHERE, Record
from jaxgrad._types import Jaxpr, Value

Array = np.ndarray[Any, Any]

_AMPLITUDE = 4.0  # roundings are drawn so many times as large, so that a kink nearby is met, and divided by it again
_NEIGHBOURS = 2.0  # draws that the mean of a row counts for: the spread of a few draws alone is now and then too small
_MOST = 3.0  # times its own spread that a number gets from its row: a small one is not as far off as a large one
_LARGE = 2.0**32  # bytes of an array's draws: a comparison that takes more is not asked for by default
_SPARE = 50_021  # random numbers more than the largest array has, so that each operation starts at another one


@dataclass(frozen=True, eq=False)
class Followed:
    """A traced function of arrays that returns a record; `jax.jit` knows it again by its text and its constants.

    Attributes:
      closed: the function as it was traced.
      structure: of the record, without auxiliary data.
      coarsest: the largest unit among the dtypes of what is retained: what is cast lower is cast by mistake.
    """

    closed: Any
    structure: Any
    coarsest: float

    @functools.cached_property
    def key(self) -> Any:
        return key(self.jaxpr), self.coarsest

    @property
    def jaxpr(self) -> Jaxpr:
        return opened(self.closed)[0]

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Followed) and self.key == other.key

    def refuse_large(self, samples: int) -> None:
        """Raises an InputError where the draws of one array would take more memory than one expects of a comparison."""
        size = largest(self.jaxpr)
        if size * samples * 8 > _LARGE:
            raise InputError(
                f"its largest array has {size:,} elements, of which {samples} draws take {size * samples / 2**27:.1f} "
                f"GiB; expected {_LARGE / 2**30:g} at most. Call with_rounding(fun)(...) yourself, with fewer samples."
            )

    @functools.cached_property
    def run(self) -> Callable[..., Record]:
        """The function itself, compiled."""
        flat: Callable[..., list[Any]] = quick_jit(evaluated(self.closed))
        return lambda *given: self.record(jax.device_get(flat(*given)))

    def record(self, leaves: Sequence[Any]) -> Record:
        record: Record = tree_unflatten(self.structure, leaves)
        return replace(record, _origin=NOWHERE)

    def draws(self, given: Sequence[Array], samples: int) -> tuple[Record, Record]:
        """The mean of each number over the draws, in its own dtype, and its spread."""
        noise = _noise(samples, largest(self.jaxpr) + _SPARE)
        with jax.enable_x64(True):
            drawn = jax.device_get(_drawn(self, list(opened(self.closed)[1]), list(given), noise))
        with np.errstate(all="ignore"):
            found = [_spread(each) for each in drawn]
            means = [mean.astype(aval.dtype) for (mean, _), aval in zip(found, self.closed.out_avals, strict=True)]
        return self.record(means), self.record([spread for _, spread in found])


def follow(retained: Callable[..., Record], given: Sequence[Any]) -> Followed:
    """Traces a function of arrays that returns a record."""
    closed, shape = jax.make_jaxpr(lambda *arrays: replace(retained(*arrays), aux=None), return_shape=True)(*given)
    coarsest = max((roundoff(leaf.dtype) for leaf in jax.tree.leaves(shape)), default=0.0)
    return Followed(closed, jax.tree.structure(shape), coarsest)


@functools.lru_cache(maxsize=2)
def _noise(samples: int, size: int) -> jax.Array:
    """Random numbers of the amplitude, a row for each draw."""
    noise = np.random.default_rng(7).uniform(-_AMPLITUDE, _AMPLITUDE, (samples, size))
    return jnp.asarray(noise, jnp.float32)


def _draw(program: Followed, consts: list[Any], given: list[Any], noise: Value) -> list[Value]:
    """Each result for each row of `noise`."""

    def evaluate(row: Value) -> list[Any]:
        def draw(number: int, shape: tuple[int, ...], step: Value) -> Value:
            size = int(np.prod(shape))
            start = (number * 7919 + step * 104_729) % (row.shape[0] - size)
            in_loop = isinstance(step, jax.Array)
            drawn = lax.dynamic_slice(row, (start,), (size,)) if in_loop else lax.slice(row, (start,), (start + size,))
            return lax.convert_element_type(lax.reshape(drawn, shape), jnp.float64)

        return Perturbed(draw, program.coarsest).program(program.jaxpr, consts, given)

    return jax.vmap(evaluate)(noise)


_drawn = quick_jit(_draw, static_argnums=0)


def _spread(drawn: Array) -> tuple[Array, Array]:
    """The mean of a few draws and their spread about it, each spread drawn some way to the mean of its row.

    In NumPy: compiled, this would take longer than the program.
    """
    n = len(drawn)
    if not np.issubdtype(drawn.dtype, np.inexact):
        return drawn[0], np.zeros(drawn.shape[1:])
    mean = np.asarray(np.add.reduce(drawn) / n)
    variance = np.asarray(sum(_square(each - mean) for each in drawn) / (n - 1))
    if variance.ndim:
        row = np.mean(variance, axis=-1, keepdims=True)
        variance = np.minimum((n * variance + _NEIGHBOURS * row) / (n + _NEIGHBOURS), _MOST**2 * variance)
    return mean, np.sqrt(variance) / _AMPLITUDE


def _square(off: Array) -> Array:
    """The squares of the sizes, 0 for what is not finite."""
    squares = np.square(off.real) + np.square(off.imag) if np.iscomplexobj(off) else np.square(off)
    return squares if np.isfinite(np.sum(squares)) else np.where(np.isfinite(off), squares, 0)
