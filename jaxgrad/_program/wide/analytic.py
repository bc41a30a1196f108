"""What becomes of a step in the imaginary direction in each operation: the list of those that are known.

A real function continued analytically takes $a + i s$ to $f(a) + i s f'(a)$, up to $s^2$. An operation that conjugates
its operand, takes its modulus, or drops its imaginary part does not, and nothing in the result shows it. So only
operations that are named here are let through.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxgrad._types import Eqn, Value

_HOLOMORPHIC = """
    add add_any sub mul div neg square integer_pow
    exp exp2 sin cos tan sinh tanh asinh atan log log1p sqrt rsqrt asin acos acosh atanh
    reduce_sum cumsum cumprod reduce_window_sum triangular_solve lu
    reshape broadcast_in_dim tile transpose squeeze slice dynamic_slice dynamic_update_slice gather
    concatenate pad rev select_n copy split stack unstack stop_gradient optimization_barrier device_put tag name pvary
    sharding_constraint reshard layout_constraint
    psum psum_invariant all_gather all_gather_invariant all_to_all ppermute reduce_scatter
    new_ref get swap addupdate freeze
"""

# JAX's own continuation is the analytic one: arithmetic, entire functions, linear maps and moves of elements.
HOLOMORPHIC = frozenset(_HOLOMORPHIC.split())

# Where a real function ends, a complex one goes on: there the real one is NaN.
NaN_OUTSIDE: dict[str, Callable[[Any], Any]] = {
    "log": lambda x: x >= 0,
    "log1p": lambda x: x >= -1,
    "sqrt": lambda x: x >= 0,
    "rsqrt": lambda x: x >= 0,
    "asin": lambda x: abs(x) <= 1,
    "acos": lambda x: abs(x) <= 1,
    "atanh": lambda x: abs(x) <= 1,
    "acosh": lambda x: x >= 1,
}


_NAN = complex(jnp.nan, jnp.nan)


def _re(x: Value) -> Any:
    return jnp.real(x) if jnp.iscomplexobj(x) else x


def _convert(eqn: Eqn, x: Value) -> Any:
    new = eqn.params["new_dtype"]
    return x if jnp.issubdtype(new, jnp.inexact) and jnp.iscomplexobj(x) else lax.convert_element_type(_re(x), new)


def _extreme(largest: bool) -> Callable[..., Any]:
    """Max or min along axes; where several are it, their mean."""

    def reduce(eqn: Eqn, x: Value) -> Any:
        axes = eqn.params["axes"]
        extreme = (jnp.max if largest else jnp.min)(_re(x), axes, keepdims=True)
        is_it = _re(x) == extreme
        return jnp.sum(jnp.where(is_it, x, 0), axes) / jnp.sum(is_it, axes)

    return reduce


def _on_real_part(eqn: Eqn, *operands: Any) -> Any:
    return eqn.primitive.bind(*(_re(x) for x in operands), **eqn.primitive.get_bind_params(eqn.params))


def _clamp(eqn: Eqn, low: Value, x: Value, high: Value) -> Any:
    return jnp.where(_re(x) < _re(low), low, jnp.where(_re(x) > _re(high), high, x))


def _pow(eqn: Eqn, x: Value, y: Value) -> Any:
    """$x^y$; of a negative x, which has no real logarithm, by that of -x where y is whole, else NaN."""
    x_re, y_re = _re(x), jnp.asarray(_re(y), float)
    whole, odd = y_re == jnp.round(y_re), y_re % 2 == 1
    size = jnp.exp(y * jnp.log(jnp.where(x_re < 0, -x, jnp.where(x_re == 0, 1, x))))
    at_zero = jnp.where(y_re == 1, x, lax.pow(jnp.zeros_like(x_re), y_re))  # x to the second or more is flat at 0
    return jnp.select([x_re > 0, x_re == 0, whole & odd, whole], [size, at_zero, -size, size], _NAN)


def _bilinear(eqn: Eqn, a: Value, b: Value) -> Any:
    """A product of arrays by its real parts: libraries form complex products by sums in which a small step is lost."""
    params = eqn.primitive.get_bind_params(eqn.params) | {"preferred_element_type": None}

    def product(a: Value, b: Value) -> Any:
        return eqn.primitive.bind(jnp.asarray(a, float), jnp.asarray(b, float), **params)

    step = product(jnp.real(a), jnp.imag(b)) + product(jnp.imag(a), jnp.real(b))
    return lax.complex(product(jnp.real(a), jnp.real(b)), step)


def _to_first_order(function: Callable[[Any], Any], slope: Callable[[Any], Any]) -> Callable[..., Any]:
    """$f(a) + i s f'(a)$, where the complex function of XLA cancels: expm1 far below 0, cosh close to it."""
    return lambda eqn, x: lax.complex(function(_re(x)), jnp.imag(x) * slope(_re(x)))


def _prod(eqn: Eqn, x: Value) -> Any:
    return jnp.prod(x, eqn.params["axes"])


def _rem(eqn: Eqn, x: Value, y: Value) -> Any:
    return x - y * jnp.trunc(_re(x) / _re(y))


# Operations that are analytic in pieces: the real part says in which piece, the imaginary part is carried along.
IN_PIECES: dict[str, Callable[..., Any]] = {
    "convert_element_type": _convert,
    "abs": lambda eqn, x: jnp.where(_re(x) < 0, -x, x),
    "max": lambda eqn, a, b: jnp.where(_re(a) >= _re(b), a, b),
    "min": lambda eqn, a, b: jnp.where(_re(a) <= _re(b), a, b),
    "clamp": _clamp,
    "dot_general": _bilinear,
    "conv_general_dilated": _bilinear,
    "reduce_max": _extreme(True),
    "reduce_min": _extreme(False),
    "reduce_prod": _prod,
    "expm1": _to_first_order(jnp.expm1, jnp.exp),
    "cosh": _to_first_order(jnp.cosh, jnp.sinh),
    "logistic": lambda eqn, x: 1 / (1 + jnp.exp(-x)),
    "log2": lambda eqn, x: jnp.where(_re(x) >= 0, jnp.log(x) / jnp.log(2.0), _NAN),
    "one_minus_square": lambda eqn, x: (1 - x) * (1 + x),
    "polynomial": lambda eqn, x, *factors: functools.reduce(lambda y, factor: y * x + factor, factors[::-1]),
    "pow": _pow,
    "rem": _rem,
    **dict.fromkeys(
        ("lt", "le", "gt", "ge", "eq", "ne", "sign", "floor", "ceil", "round", "is_finite", "argmax", "argmin"),
        _on_real_part,
    ),
}
