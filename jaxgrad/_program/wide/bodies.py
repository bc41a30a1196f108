"""Operations with a body of their own (scatter, reduce, linear solves), done again on wide numbers.

Their body was traced in the program's dtype. Each is rebuilt by the function of `jax.lax` that made it, with its body
evaluated on wide numbers, so that nothing on the way is rounded to the program's dtype, and its derivative is wide too.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

from jax import lax

from jaxgrad._types import Eqn, Jaxpr

Evaluate = Callable[[Jaxpr, Sequence[Any], Sequence[Any]], list[Any]]  # (jaxpr, its constants, operands) -> results


def _scatter(by: Callable[..., Any]) -> Callable[[Eqn, Sequence[Any], Evaluate], list[Any]]:
    def rebuild(eqn: Eqn, operands: Sequence[Any], evaluate: Evaluate) -> list[Any]:
        return [by(*operands, **_addressing(eqn))]

    return rebuild


def _scatter_or_apply(eqn: Eqn, operands: Sequence[Any], evaluate: Evaluate) -> list[Any]:
    body, consts = eqn.params["update_jaxpr"], eqn.params["update_consts"]
    if body is None:
        return [lax.scatter(*operands, **_addressing(eqn))]

    def apply(x: Any) -> Any:
        return evaluate(body, consts, [x, x])[0]

    operand, indices, updates = operands
    return [lax.scatter_apply(operand, indices, apply, update_shape=updates.shape, **_addressing(eqn))]


def _addressing(eqn: Eqn) -> dict[str, Any]:
    return {key: eqn.params[key] for key in ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")}


def _reduce(eqn: Eqn, operands: Sequence[Any], evaluate: Evaluate) -> list[Any]:
    arrays, starts = operands[: len(operands) // 2], operands[len(operands) // 2 :]

    def combine(a: Sequence[Any], b: Sequence[Any]) -> list[Any]:
        return evaluate(eqn.params["jaxpr"], (), [*a, *b])

    return lax.reduce(list(arrays), list(starts), combine, eqn.params["dimensions"])  # type: ignore[no-any-return]


def _reduce_window(eqn: Eqn, operands: Sequence[Any], evaluate: Evaluate) -> list[Any]:
    arrays, starts = operands[: len(operands) // 2], operands[len(operands) // 2 :]
    keys = ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")

    def combine(a: Sequence[Any], b: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(evaluate(eqn.params["jaxpr"], eqn.params["consts"], [*a, *b]))

    return list(lax.reduce_window(tuple(arrays), tuple(starts), combine, **{key: eqn.params[key] for key in keys}))


def _linear_solve(eqn: Eqn, operands: Sequence[Any], evaluate: Evaluate) -> list[Any]:
    jaxprs, lengths = eqn.params["jaxprs"], eqn.params["const_lengths"]
    starts = [0, *accumulate(lengths)]
    consts = [operands[start:end] for start, end in pairwise(starts)]
    right = list(operands[starts[-1] :])
    has_aux = len(jaxprs.solve.out_avals) > len(right)

    def call(jaxpr: Jaxpr, given: Sequence[Any], x: Sequence[Any]) -> Any:
        found = evaluate(jaxpr, (), [*given, *x])
        return (found[: len(right)], found[len(right) :]) if len(found) > len(right) else found

    matvec, vecmat, solve, transposed = zip(jaxprs, consts, strict=True)
    found = lax.custom_linear_solve(
        lambda x: call(*matvec, x),
        right,
        lambda _, b: call(*solve, b),
        None if transposed[0] is None else lambda _, b: call(*transposed, b),
        symmetric=vecmat[0] is matvec[0],
        has_aux=has_aux,
    )
    return [*found[0], *found[1]] if has_aux else list(found)


REBUILD: dict[str, Callable[[Eqn, Sequence[Any], Evaluate], list[Any]]] = {
    "scatter": _scatter_or_apply,
    "scatter-add": _scatter(lax.scatter_add),
    "scatter-sub": _scatter(lax.scatter_sub),
    "scatter-mul": _scatter(lax.scatter_mul),
    "scatter-min": _scatter(lax.scatter_min),
    "scatter-max": _scatter(lax.scatter_max),
    "reduce": _reduce,
    "reduce_window": _reduce_window,
    "custom_linear_solve": _linear_solve,
}

NOT_ANALYTIC = frozenset({"scatter-min", "scatter-max"})  # they compare complex numbers by more than the real part
