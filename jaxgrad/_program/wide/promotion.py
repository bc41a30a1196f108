"""Wide numbers: an operation of a traced program done in float64 or complex128 in place of its own dtype."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxgrad._errors import OutputError
from jaxgrad._program.wide.analytic import HOLOMORPHIC, IN_PIECES, NaN_OUTSIDE
from jaxgrad._types import Aval, DType, Eqn, Value

# What reads or makes the bits of a number: it means something in its own dtype only.
_BITS = {"bitcast_convert_type", "nextafter", "reduce_precision", "random_bits", "random_gamma", "rng_bit_generator"}
# What hides its arithmetic from JAX, so that it has no other dtype than its own.
_OPAQUE = {"pure_callback", "io_callback", "ffi_call", "pallas_call", "custom_partitioning", "custom_call"}


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
        return lax.convert_element_type(value, aval.dtype)

    def keeps_dtype(self, eqn: Eqn) -> bool:
        """Does the operation mean something in its own dtype only?

        Raises:
          OutputError: it would lose a step in the imaginary direction.
        """
        if eqn.primitive.name not in _BITS:
            return False
        if self.is_complex and any(_is_inexact(atom.aval) for atom in eqn.invars):
            raise self.refusal(eqn)
        return True

    def apply(self, eqn: Eqn, operands: Sequence[Any]) -> Sequence[Any]:
        """The results of an operation.

        Raises:
          OutputError: it hides what it computes, or cannot be continued analytically to complex numbers.
        """
        name = eqn.primitive.name
        steps = self.is_complex and any(jnp.iscomplexobj(x) for x in operands)
        if name in _OPAQUE or (steps and name not in HOLOMORPHIC and name not in IN_PIECES):
            raise self.refusal(eqn)
        if steps and any(jnp.issubdtype(v.aval.dtype, jnp.complexfloating) for v in eqn.invars if name in IN_PIECES):
            raise self.refusal(eqn)  # it is complex by itself, where the pieces are not those of a real number
        if steps and name in IN_PIECES:
            return [self.cast(IN_PIECES[name](eqn, *operands))]
        params = eqn.primitive.get_bind_params(eqn.params)
        params = params | {key: self.kind(params[key]) for key in _DTYPES if params.get(key) is not None}
        try:
            results = eqn.primitive.bind(*operands, **params)
        except (TypeError, ValueError) as error:
            if not self.is_complex:
                raise
            raise self.refusal(eqn) from error
        if steps and name in NaN_OUTSIDE:
            results = jnp.where(NaN_OUTSIDE[name](jnp.real(operands[0])), results, complex(jnp.nan, jnp.nan))
        return results if eqn.primitive.multiple_results else [results]

    def refusal(self, eqn: Eqn) -> OutputError:
        """The error for an operation that cannot be done on these numbers."""
        name = eqn.primitive.name
        if self.is_complex:
            return OutputError(
                f'complex_step cannot follow the operation "{name}", which is not analytic or not defined for complex '
                "numbers; expected analytic operations. Use finite_difference."
            )
        return OutputError(
            f'the operation "{name}" keeps its arithmetic to itself, so that it cannot be evaluated in float64; '
            "expected operations that JAX can trace. Leave it out, or compare with a record of your own."
        )


_DTYPES = ("new_dtype", "preferred_element_type", "dtype")  # parameters that name the result's dtype


def _is_inexact(aval: Aval) -> bool:
    return hasattr(aval, "dtype") and bool(jnp.issubdtype(aval.dtype, jnp.inexact))
