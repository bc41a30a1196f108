"""A traced program evaluated in float64, each operation's result moved by a draw of its rounding error."""

import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxgrad._errors import OutputError
from jaxgrad._program.control_flow.control import Probes, TagResults
from jaxgrad._program.control_flow.parameters import is_ref, scan_sizes
from jaxgrad._program.control_flow.table import CONTROLS
from jaxgrad._program.fingerprint import Same
from jaxgrad._program.interpreter import bind_wide
from jaxgrad._program.jaxpr import inner, is_literal, opened
from jaxgrad._program.wide import bodies
from jaxgrad._program.wide.promotion import Wide
from jaxgrad._program.wide.roundings import of_operation
from jaxgrad._types import Atom, Eqn, Jaxpr, Value

Draw = Callable[[int, tuple[int, ...], Value], Value]  # (number of the operation, shape, step of the loops) -> noise
_WIDE = Wide(jnp.float64)
_CUSTOM = ("custom_jvp_call", "custom_vjp_call", "custom_lin")


@dataclass(frozen=True)
class Perturbed:
    """How a program is evaluated.

    Attributes:
      draw: random numbers of order 1, other ones for each operation and each step.
      coarsest: the largest unit that counts as rounding: what is cast below it is not.
    """

    draw: Draw
    coarsest: float
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def program(self, jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[Any], step: Value = 0) -> list[Any]:
        """The results of a program, in float64.

        Raises:
          OutputError: an operation has an effect, hides what it computes, or is not defined in float64.
        """
        given = [value if is_ref(jax.typeof(value)) else _WIDE.cast(value) for value in (*consts, *arguments)]
        env: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], given, strict=True))
        for eqn in jaxpr.eqns:
            results = self._equation(eqn, [_read(env, atom) for atom in eqn.invars], step)
            env.update(zip(eqn.outvars, results, strict=True))
        return [_read(env, atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Eqn, operands: Sequence[Any], step: Value) -> Sequence[Any]:
        name = eqn.primitive.name
        if name == "scan":
            return self._scan(eqn, operands, step)
        if name == "shard_map":

            def inside(operands: Sequence[Any], probes: Probes) -> tuple[list[Any], TagResults]:
                return self._body(eqn.params["jaxpr"], operands, step), ({}, {})

            return CONTROLS[name].rebuild(eqn, operands, [inside], {}, {})[0]
        if name == "cond":
            index, *shared = operands
            branches = [lambda *given, b=b: self._body(b, given, step) for b in eqn.params["branches"]]
            return lax.switch(index, branches, *shared)  # type: ignore[no-any-return]
        if name == "while":
            return self._while(eqn, operands, step)
        if name in ("linear_solve", "custom_linear_solve"):  # there is no derivative to be taken any more
            solve, lengths = eqn.params["jaxprs"].solve, eqn.params["const_lengths"]
            first = lengths.matvec + lengths.vecmat
            right = operands[first + lengths.solve + lengths.transpose_solve :]
            return self._body(solve, [*operands[first : first + lengths.solve], *right], step)
        if name in CONTROLS or name in _CUSTOM:
            return self._body(inner(eqn)[0], operands, step)
        if eqn.effects:
            raise OutputError(
                f'with_rounding cannot follow the operation "{name}", which has an effect ({_effects(eqn)}); expected '
                "a pure function. Leave it out, or give compare a tolerance."
            )
        if name in bodies.REBUILD:

            def evaluate(body: Jaxpr, consts: Sequence[Any], given: Sequence[Any]) -> list[Any]:
                body, more = opened(body)
                return self.program(body, [*more, *consts], given, step)

            results: Sequence[Any] = bodies.REBUILD[name](eqn, operands, evaluate)
        else:
            results = _bind(eqn, operands)
        return [self._moved(eqn, operands, r, v.aval, step) for r, v in zip(results, eqn.outvars, strict=True)]

    def _moved(self, eqn: Eqn, operands: Sequence[Any], result: Value, aval: Any, step: Value) -> Value:
        """A result, as far off as rounding may have it."""
        if not hasattr(aval, "dtype") or not jnp.issubdtype(aval.dtype, jnp.inexact):
            return result
        rounding = of_operation(eqn, operands, result, aval.dtype, self.coarsest)
        if rounding is None:
            return result
        noise = self.draw(next(self.numbers), jnp.shape(result), step)
        if jnp.iscomplexobj(result):
            noise = lax.complex(noise, self.draw(next(self.numbers), jnp.shape(result), step))
        return rounding.moved(result, noise)

    def _body(self, body: Jaxpr, operands: Sequence[Any], step: Value) -> list[Any]:
        return self.program(*opened(body), operands, step)

    def _scan(self, eqn: Eqn, operands: Sequence[Any], outer: Value) -> list[Any]:
        n_constants, n_carry = scan_sizes(eqn)
        constants, start = operands[:n_constants], operands[n_constants : n_constants + n_carry]
        length = eqn.params["length"]

        def step(state: Any, xs: list[Any]) -> Any:
            i, carry = state
            results = self._body(eqn.params["jaxpr"], [*constants, *carry, *xs], outer * length + i)
            return (i + 1, results[:n_carry]), results[n_carry:]

        xs = list(operands[n_constants + n_carry :])
        settings = {name: eqn.params[name] for name in ("length", "reverse")}
        (_, carry), stacked = lax.scan(step, (jnp.int32(1), list(start)), xs, **settings)
        return [*carry, *stacked]

    def _while(self, eqn: Eqn, operands: Sequence[Any], outer: Value) -> list[Any]:
        n_condition, n_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        of_condition, of_body = operands[:n_condition], operands[n_condition : n_condition + n_body]

        def going(state: Any) -> Any:
            return self._body(eqn.params["cond_jaxpr"], [*of_condition, *state[1]], outer)[0]

        def step(state: Any) -> Any:
            i, carry = state
            return i + 1, self._body(eqn.params["body_jaxpr"], [*of_body, *carry], outer * 101 + i)

        start = (jnp.int32(1), list(operands[n_condition + n_body :]))
        return lax.while_loop(going, step, start)[1]


def key(jaxpr: Jaxpr) -> Hashable:
    """What two programs share only if they compute the same of the same constants and arguments."""
    return str(jaxpr), tuple(_constants(jaxpr))


def largest(jaxpr: Jaxpr) -> int:
    """The number of elements of the largest array that is computed."""
    sizes = [math.prod(getattr(v.aval, "shape", ())) for eqn in jaxpr.eqns for v in eqn.outvars]
    return max([1, *sizes, *(largest(opened(body)[0]) for eqn in jaxpr.eqns for body in inner(eqn))])


def _constants(jaxpr: Jaxpr) -> Iterator[Hashable]:
    """The numbers that are written in a program, to the bit, and the constants of the programs in it."""
    for eqn in jaxpr.eqns:
        yield from (np.asarray(atom.val).tobytes() for atom in eqn.invars if is_literal(atom))
        for body in inner(eqn):
            yield from map(Same, opened(body)[1])
            yield from _constants(opened(body)[0])


def _read(env: dict[Any, Any], atom: Atom) -> Any:
    return _WIDE.cast(jnp.asarray(atom.val, atom.aval.dtype)) if is_literal(atom) else env[atom]


def _bind(eqn: Eqn, operands: Sequence[Any]) -> Sequence[Any]:
    if eqn.primitive.name in ("tag", "probed", "name", "reduce_precision"):
        return operands[:1]
    try:
        return bind_wide(eqn, operands, _WIDE)
    except OutputError:
        raise
    except (TypeError, ValueError, NotImplementedError) as error:
        raise OutputError(
            f'with_rounding cannot follow the operation "{eqn.primitive.name}", which cannot be done in float64: '
            f"{error}; expected operations that JAX can trace. Leave it out, or give compare a tolerance."
        ) from error


def _effects(eqn: Eqn) -> str:
    return ", ".join(sorted(type(effect).__name__ for effect in eqn.effects))
