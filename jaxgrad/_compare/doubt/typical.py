"""What rounding does in a program whose arguments are not known: seen by arguments that stand in for them.

A record that comes out of `jit` or `vmap` knows its program by `Origin`, but not what it was called with. Where the
program leaves nothing but rounding at an element whatever it is given, as the gradient of a softmax over one element
does, it does so there too. And how far rounding has an array off as a whole, in parts of its norm, is much the same
for all arguments of the usual size.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad._compare.entries import largest, of_record
from jaxgrad._compare.oracles.draws import Followed, follow
from jaxgrad._compare.oracles.rounding import SAMPLES, with_spread
from jaxgrad._program.jaxpr import x64_as_traced
from jaxgrad._record import Origin, Record
from jaxgrad._retain.call import TracedCall
from jaxgrad._retain.retain import record_of
from jaxgrad._types import Value

Array = np.ndarray[Any, Any]

_STAND_INS = 3  # sets of arguments: normal, and one that is positive, for programs that take roots and logarithms


@dataclass(frozen=True, eq=False)
class Typical:
    """What rounding does in a program for each of its stand-ins.

    Attributes:
      cancels: label -> the elements at which nothing but rounding is left, of the shape that one example has.
      share: label -> how far off rounding has the array, in parts of its norm, at most.
      part: label -> how far off it has any of its elements, in parts of the largest number of its kind.
    """

    cancels: Mapping[str, Array]
    share: Mapping[str, float]
    part: Mapping[str, float]


def typical_of(origin: Origin) -> Typical:
    """What rounding does in the program of a record; found once for all records of one traced function."""
    if origin.found is None:
        traced: TracedCall = origin.traced
        types = [*traced.program.consts, *traced.leaves]
        open_ = [i for i, leaf in enumerate(types) if isinstance(leaf, jax.ShapeDtypeStruct)]
        floats = [i for i in open_ if jnp.issubdtype(types[i].dtype, jnp.inexact)]

        def retained(*arrays: Value) -> Record:
            given = {i: _first(types[i]) for i in open_} | dict(zip(floats, arrays, strict=True))
            leaves = [given.get(i, leaf) for i, leaf in enumerate(types)]
            n = len(traced.program.consts)
            program = replace(traced.program, consts=leaves[:n])
            return record_of(traced._replace(program=program, leaves=leaves[n:]))

        with x64_as_traced(types):
            program = follow(retained, [types[i] for i in floats])
            program.refuse_large(SAMPLES)
            sets = [_stand_ins([types[i] for i in floats], seed) for seed in range(_STAND_INS)]
            origin.found = _typical(program, sets)
    found: Typical = origin.found
    return found


def _first(aval: jax.ShapeDtypeStruct) -> Value:
    """What stands in for integers, booleans and keys: they pick and switch, and any will do."""
    if jnp.issubdtype(aval.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), aval.shape) if aval.shape else jax.random.key(0)
    return jnp.zeros(aval.shape, aval.dtype)


def _stand_ins(types: list[jax.ShapeDtypeStruct], seed: int) -> list[Array]:
    """Random arguments: those that have a matrix's shape, such that a product with it keeps the size of a row."""
    rng = np.random.default_rng(seed)
    drawn = [rng.standard_normal(t.shape) / np.sqrt(t.shape[-2] if len(t.shape) > 1 else 1) for t in types]
    return [
        np.asarray(np.abs(a) if seed == _STAND_INS - 1 else a).astype(t.dtype)
        for a, t in zip(drawn, types, strict=True)
    ]


def _typical(program: Followed, sets: list[list[Array]]) -> Typical:
    """What is found at each set; the last one is for what is NaN at the others."""
    cancels: dict[str, Array] = {}
    share: dict[str, float] = {}
    part: dict[str, float] = {}
    for i, given in enumerate(sets):
        mean, spread = program.draws(given, SAMPLES)
        bounds, spreads = with_spread(mean, spread).uncertainty, of_record(spread)
        entries = of_record(mean)
        for name, entry in entries.items():
            is_known = i == _STAND_INS - 1 and name in share
            if is_known or entry.array is None or not np.all(np.isfinite(entry.array)):
                continue
            with np.errstate(all="ignore"):
                left = (np.abs(entry.array) <= bounds[name]) & (np.asarray(spreads[name].array) > 0)
                of_norm = float(np.linalg.norm(bounds[name]) / np.linalg.norm(entry.array))
                of_kind = float(np.max(bounds[name], initial=0) / largest(entries, entry.kind))
            cancels[name] = cancels.get(name, True) & left
            share[name] = max(share.get(name, 0.0), of_norm if np.isfinite(of_norm) else 0.0)
            part[name] = max(part.get(name, 0.0), of_kind if np.isfinite(of_kind) else 0.0)
    return Typical(cancels, share, part)
