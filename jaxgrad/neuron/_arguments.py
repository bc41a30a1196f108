"""The neuron's arguments, checked: a shape or dtype that would give a wrong result is an error that says so."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from jaxgrad._errors import InputError
from jaxgrad._types import Value

REAL = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)
INEXACT = (*REAL, jnp.complex64, jnp.complex128)  # complex: what the complex-step oracle needs


def row(x: ArrayLike, w: ArrayLike, dtypes: tuple[DTypeLike, ...]) -> tuple[Array, Array]:
    """x and w as arrays, checked: one row of n >= 1 inputs and n + 1 weights of one dtype."""
    x, w = array("x", x, dtypes), array("w", w, dtypes)
    for name, vector, shape in (("x", x, "(n,), one row of inputs"), ("w", w, "(n+1,), the bias last")):
        if vector.ndim != 1:
            raise InputError(
                f"{name} has shape {vector.shape}; expected {shape}. "
                "For many rows write jax.vmap(fun, in_axes=(0, None))(x, w)."
            )
    if not x.size:
        raise InputError("x has shape (0,), no input at all; expected (n,) with n >= 1. Give it at least one input.")
    if w.size != x.size + 1:
        raise InputError(
            f"w has shape {w.shape} and x has shape {x.shape}; expected w of shape ({x.size + 1},): a weight for "
            "each input and the bias last. For a neuron without bias write jnp.append(w, jnp.zeros_like(w[0]))."
        )
    if x.dtype != w.dtype:
        with jax.numpy_dtype_promotion("standard"):
            promoted = jnp.result_type(x, w)
        raise InputError(
            f"x is {x.dtype} and w is {w.dtype}, and the result would silently be {promoted}; "
            "expected one dtype. Write w.astype(x.dtype) or x.astype(w.dtype)."
        )
    return x, w


def array(name: str, value: Value, dtypes: tuple[DTypeLike, ...] = INEXACT) -> Array:
    """`value` as an array, its dtype checked and kept."""
    if not isinstance(value, (Array, np.ndarray, np.generic, int, float, complex)):
        raise InputError(
            f"{name} is a {type(value).__name__}; expected a JAX or NumPy array. Write jnp.asarray({name})."
        )
    dtype = value.dtype if hasattr(value, "dtype") else jnp.result_type(value)
    if dtype not in dtypes:
        raise InputError(
            f"{name} has dtype {dtype}; expected one of {', '.join(np.dtype(d).name for d in dtypes)}: only "
            f"these have the gradients asked for. Write jnp.asarray({name}, jnp.float32)."
        )
    kept = jax.dtypes.canonicalize_dtype(dtype)
    if kept != dtype:
        raise InputError(
            f"{name} is {dtype}, which JAX would silently narrow to {kept}; expected a dtype that it keeps. Write "
            f'{name}.astype("{kept}"), or jax.config.update("jax_enable_x64", True) at the start of the program.'
        )
    return jnp.asarray(value)
