"""When two operations of traced programs are the same: equal in all but the numbers they are given."""

from collections.abc import Hashable, Sequence
from typing import Any

import jax
import numpy as np

from jaxgrad._program.jaxpr import opened
from jaxgrad._types import Atom, Aval, Eqn, Jaxpr, Value

_SMALL = 64  # a constant of up to so many elements is told from others by its elements, a larger one by itself
NAMES = ("tag", "probed", "name")  # operations whose parameters only name their operand


class Same:
    """Something that is like itself alone. It is kept alive, so that its `id` stays its own."""

    def __init__(self, value: Value):
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value


def of_operation(eqn: Eqn) -> Hashable:
    """A key that two operations share only if they compute the same of the same operands."""
    if eqn.primitive.name in NAMES:
        return ("name",)
    alone = Same(eqn) if eqn.effects else None
    params = tuple((name, _of(value)) for name, value in sorted(eqn.params.items()))
    return eqn.primitive, params, _of(eqn.ctx), alone


def of_aval(aval: Aval) -> Hashable:
    """A type, with what a program can depend on: JAX's weak types too."""
    return str(aval), aval.dtype, getattr(aval, "weak_type", False), _of(getattr(aval, "sharding", None))


def of_constant(value: Value) -> Hashable:
    """A number or array of a program; -0.0 is not 0.0, nor is 1 True."""
    if isinstance(value, (bool, int, float, complex, str, bytes, type(None))):
        return type(value), repr(value)
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.size <= _SMALL):
        return type(value), value.dtype, np.shape(value), value.tobytes()
    return Same(value)


def _of(value: Value) -> Hashable:
    if isinstance(value, (tuple, list)):
        return type(value), tuple(map(_of, value))
    if isinstance(value, dict):
        return dict, tuple((repr(key), _of(value[key])) for key in sorted(value, key=repr))
    if hasattr(opened(value)[0], "eqns"):
        return _of_jaxpr(*opened(value))
    if isinstance(value, (np.ndarray, np.generic, bool, int, float, complex, str, bytes, jax.Array)):
        return of_constant(value)
    try:
        hash(value)
    except TypeError:
        return Same(value)
    return type(value), value


def _of_jaxpr(jaxpr: Jaxpr, consts: Sequence[Any]) -> Hashable:
    numbers: dict[Any, int] = {}

    def defined(variables: Sequence[Any]) -> tuple[Hashable, ...]:
        for variable in variables:
            numbers[variable] = len(numbers)
        return tuple(of_aval(variable.aval) for variable in variables)

    def read(atom: Atom) -> Hashable:
        return ("literal", of_constant(atom.val), of_aval(atom.aval)) if hasattr(atom, "val") else numbers[atom]

    given = defined([*jaxpr.constvars, *jaxpr.invars])
    body = tuple((of_operation(eqn), tuple(map(read, eqn.invars)), defined(eqn.outvars)) for eqn in jaxpr.eqns)
    return given, tuple(map(Same, consts)), body, tuple(map(read, jaxpr.outvars))
