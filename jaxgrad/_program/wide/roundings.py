"""How far one rounding, or the roundings inside one operation, may take its result from the exact one.

An operation on single numbers is off by a unit $u$ of its result, a transcendental one by a few. A sum of products is
off by $u$ times the root of the sum of their squares, times a factor that grows slowly with its length: the summands
are added in an order nobody knows, and roundings go up as often as down. What only moves or picks numbers is exact.

Reference: Higham and Mary, A new approach to probabilistic rounding error analysis, SIAM J. Sci. Comput. 41, 2019.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from jaxgrad._program.wide.bodies import REBUILD
from jaxgrad._program.wide.promotion import Wide
from jaxgrad._types import Eqn, Value

# fmt: off
_EXACT = frozenset(
    {
        "abs", "all_gather", "all_to_all", "argmax", "argmin", "broadcast_in_dim", "ceil", "clamp", "complex",
        "concatenate", "conj", "copy", "copy_p", "create_token", "cummax", "cummin", "dynamic_slice",
        "dynamic_update_slice", "expand_dims", "floor", "gather", "imag", "iota", "is_finite", "max", "min", "name",
        "neg", "optimization_barrier", "pad", "pcast", "ppermute", "probed", "pvary", "real", "reduce_max",
        "reduce_min", "reduce_precision", "reduce_window_max", "reduce_window_min", "reshape", "rev", "round",
        "scatter", "select_and_gather_add", "select_and_scatter_add", "select_n", "sign", "slice", "sort", "split",
        "squeeze", "stop_gradient", "tag", "tile", "top_k", "transpose",
    }
)
_TRANSCENDENTAL = frozenset(
    {
        "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "cos", "cosh", "digamma", "erf", "erf_inv",
        "erfc", "exp", "exp2", "expm1", "igamma", "igammac", "lgamma", "log", "log1p", "logistic", "pow", "rsqrt",
        "sin", "sinh", "tan", "tanh",
    }
)
_SINGLE = frozenset(
    {
        "add", "add_any", "convert_element_type", "div", "integer_pow", "mul", "nextafter", "psum", "rem", "sqrt",
        "square", "sub",
    }
)
_SUMS = frozenset(
    {
        "conv_general_dilated", "cumsum", "dot_general", "psum", "psum_invariant", "reduce_sum", "reduce_window_sum",
        "scatter-add",
    }
)
# fmt: on
_OF_TRANSCENDENTAL = 3.0  # units: XLA's and PyTorch's exp, log and tanh are within 2 of the truth in float32


def unit(dtype: Any, coarsest: float) -> float:
    """u of a dtype, the largest relative error of one rounding; never above `coarsest`."""
    return min(float(jnp.finfo(dtype).eps) / 2, coarsest)


@dataclass(frozen=True)
class Rounding:
    """How far a result may be off: `relative` times itself, and `absolute`, a number or an array of its shape."""

    relative: float
    absolute: Value

    def moved(self, result: Value, noise: Value) -> Value:
        """The result, off by so much times `noise`; what is infinite stays so."""
        if isinstance(self.absolute, float):  # half a subnormal, nothing beside the result, and infinity needs no care
            return result * (1 + self.relative * noise) + self.absolute * noise
        off = (self.relative * jnp.abs(result) + self.absolute) * noise  # of either sign as far
        return lax.select(lax.is_finite(jnp.abs(result)), result + off, result)


def of_operation(eqn: Eqn, operands: Sequence[Any], result: Value, dtype: Any, coarsest: float) -> Rounding | None:
    """The rounding of a result of an operation; None where it is exact."""
    name = eqn.primitive.name
    u = unit(dtype, coarsest)
    least = float(jnp.finfo(dtype).smallest_subnormal) / 2
    if name in _EXACT or (name == "convert_element_type" and not _narrows(eqn)):
        return None
    if name in _SUMS:
        return Rounding(u, u * _of_length(_length(eqn)) * _of_first(_root_of_squares, eqn, operands) + least)
    if name in _TRANSCENDENTAL or name in _SINGLE or not jnp.ndim(result):
        return Rounding((_OF_TRANSCENDENTAL if name in _TRANSCENDENTAL else 1) * u, least)
    # A factorisation, a solve, a transform: each number is made of its whole row, and may be off by a part of that.
    row = jnp.max(jnp.abs(result), axis=-1, keepdims=True)
    return Rounding(u, jnp.broadcast_to(u * math.sqrt(result.shape[-1]) * row + least, result.shape))


def _narrows(eqn: Eqn) -> bool:
    old, new = eqn.invars[0].aval.dtype, eqn.outvars[0].aval.dtype
    if not jnp.issubdtype(old, jnp.inexact):
        return jnp.issubdtype(old, jnp.integer) and jnp.iinfo(old).bits > jnp.finfo(new).nmant
    return bool(jnp.finfo(new).nmant < jnp.finfo(old).nmant)


def _of_length(n: int) -> float:
    """A sum of `n` in units of the root of the sum of its squares: by pairs or blocks, somewhat worse than by pairs."""
    return math.sqrt(1 + math.log2(n)) + math.sqrt(n) / 32


def _of_first(size: Callable[[Eqn, Sequence[Any]], Value], eqn: Eqn, operands: Sequence[Any]) -> Value:
    """`size` of the operands; under vmap of the first of its rows, for all of them: it is a size, and costs a sum."""

    @custom_vmap
    def shared(*operands: Any) -> Value:
        return size(eqn, operands)

    @shared.def_vmap
    def of_first(_: int, batched: list[bool], *operands: Any) -> tuple[Value, bool]:
        return shared(*(x[0] if has else x for x, has in zip(operands, batched, strict=True))), False

    return shared(*operands)


def _root_of_squares(eqn: Eqn, operands: Sequence[Any]) -> Value:
    squares = [jnp.abs(x) ** 2 if jnp.issubdtype(jnp.result_type(x), jnp.inexact) else x for x in operands]
    return jnp.sqrt(jnp.maximum(jnp.real(_sum(eqn, squares)), 0))


def _sum(eqn: Eqn, operands: Sequence[Any]) -> Value:
    if eqn.primitive.name == "scatter-add":
        return REBUILD["scatter-add"](eqn, operands, lambda *_: [])[0]
    return Wide(jnp.float64).apply(eqn, operands)[0]


def _length(eqn: Eqn) -> int:
    """How many summands a sum has, 2 at least."""
    first, out = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        n = math.prod(first[i] for i in contracted)
    elif eqn.primitive.name == "conv_general_dilated":  # the root of a * b / o counts the products of one output
        other = eqn.invars[1].aval.shape
        n = math.isqrt(math.prod(first) * math.prod(other) // max(1, math.prod(out)))
    elif eqn.primitive.name == "reduce_sum":
        n = math.prod(first) // max(1, math.prod(out))
    elif eqn.primitive.name == "cumsum":
        n = first[eqn.params["axis"]]
    elif eqn.primitive.name == "reduce_window_sum":
        n = math.prod(eqn.params["window_dimensions"])
    elif eqn.primitive.name == "scatter-add":
        n = math.prod(eqn.invars[2].aval.shape) // max(1, math.prod(out))
    else:
        n = 2
    return max(2, int(n))
