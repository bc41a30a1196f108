"""Wide numbers: an operation of a traced program done in float64 or complex128 in place of its own dtype."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxgrad._errors import OutputError
from jaxgrad._types import Aval, DType, Eqn, Value

# What reads or makes the bits of a number: it means something in its own dtype only.
_BITS = {"bitcast_convert_type", "nextafter", "reduce_precision", "random_bits", "random_gamma", "rng_bit_generator"}


@dataclass(frozen=True)
class Wide:
    """Numbers in which to evaluate a program: float64, or complex128 for a step in the imaginary direction."""

    dtype: Any

    @property
    def is_complex(self) -> bool:
        return bool(jnp.issubdtype(self.dtype, jnp.complexfloating))

    def cast(self, value: Value) -> Any:
        """`value` in this dtype, if it is floating-point; what is complex already is complex128."""
        dtype = jnp.result_type(value)
        if not jnp.issubdtype(dtype, jnp.inexact):
            return value
        return lax.convert_element_type(value, self.kind(dtype))

    def kind(self, dtype: DType) -> Any:
        """What stands for `dtype`."""
        if not jnp.issubdtype(dtype, jnp.inexact):
            return dtype
        return jnp.complex128 if jnp.issubdtype(dtype, jnp.complexfloating) else self.dtype

    def uncast(self, value: Value, aval: Aval) -> Any:
        if not jnp.issubdtype(aval.dtype, jnp.inexact):
            return value
        if self.is_complex and not jnp.issubdtype(aval.dtype, jnp.complexfloating):
            value = jnp.real(value)
        return lax.convert_element_type(value, aval.dtype)

    def keeps_dtype(self, eqn: Eqn) -> bool:
        return eqn.primitive.name in _BITS

    def apply(self, eqn: Eqn, operands: Sequence[Any]) -> Sequence[Any]:
        """The results of an operation.

        Raises:
          OutputError: it has no analytic counterpart on complex numbers.
        """
        name = eqn.primitive.name
        if self.is_complex and name in _ANALYTIC:
            return [self.cast(_ANALYTIC[name](eqn, *operands))]
        params = eqn.primitive.get_bind_params(eqn.params)
        params = params | {key: self.kind(params[key]) for key in _DTYPES if params.get(key) is not None}
        try:
            if self.is_complex and name in _NOT_ANALYTIC:
                raise TypeError(name)
            results = eqn.primitive.bind(*operands, **params)
        except TypeError as error:
            if not self.is_complex:
                raise
            raise OutputError(
                f'complex_step cannot follow the operation "{name}", which is not analytic or not defined for complex '
                "numbers; expected analytic operations. Use finite_difference."
            ) from error
        return results if eqn.primitive.multiple_results else [results]


_DTYPES = ("new_dtype", "preferred_element_type", "dtype")  # parameters that name the result's dtype
_NOT_ANALYTIC = {"conj", "real", "imag", "complex", "sort", "cumax", "cummin", "reduce_prod", "erf", "erfc"}


def _convert(eqn: Eqn, x: Value) -> Any:
    new = eqn.params["new_dtype"]
    return x if jnp.issubdtype(new, jnp.inexact) and jnp.iscomplexobj(x) else lax.convert_element_type(_re(x), new)


def _re(x: Value) -> Any:
    return jnp.real(x) if jnp.iscomplexobj(x) else x


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


# Operations that are analytic in pieces: the real part says in which piece, the imaginary part is carried along.
_ANALYTIC: dict[str, Callable[..., Any]] = {
    "convert_element_type": _convert,
    "abs": lambda eqn, x: jnp.where(_re(x) < 0, -x, x),
    "max": lambda eqn, a, b: jnp.where(_re(a) >= _re(b), a, b),
    "min": lambda eqn, a, b: jnp.where(_re(a) <= _re(b), a, b),
    "clamp": _clamp,
    "reduce_max": _extreme(True),
    "reduce_min": _extreme(False),
    "logistic": lambda eqn, x: 1 / (1 + jnp.exp(-x)),
    **dict.fromkeys(
        ("lt", "le", "gt", "ge", "eq", "ne", "sign", "floor", "ceil", "round", "is_finite", "argmax", "argmin"),
        _on_real_part,
    ),
}
