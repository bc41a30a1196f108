"""The names of types that Python cannot spell out: what they stand for is said here, once."""

from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias

import jax
import numpy as np

if TYPE_CHECKING:
    from jax.extend.core import Primitive as Primitive
else:  # the same class; but jax.extend imports Pallas, which takes a quarter as long as all of jaxgrad
    Primitive = type(jax.lax.add_p)

P = ParamSpec("P")  # the parameters of the user's function, which a transformed one keeps

PyTree: TypeAlias = Any  # nested containers of leaves, as jax.tree has them
Leaf: TypeAlias = Any  # what stands at a leaf of a pytree: an array, a number, or anything static
Value: TypeAlias = Any  # an array or a number, of JAX's, NumPy's or Python's
DType: TypeAlias = Any  # what jnp.dtype takes: a NumPy dtype, or one of JAX's own
Aval: TypeAlias = Any  # an abstract value: shape, dtype, sharding
Jaxpr: TypeAlias = Any  # a jaxpr, closed or open: one class on JAX 0.12, two before
Eqn: TypeAlias = Any  # an equation of a jaxpr
Atom: TypeAlias = Any  # a variable or a literal of a jaxpr

ARRAYS = (jax.Array, np.ndarray, np.generic, bool, int, float, complex)  # what JAX takes for an array ...
NO_NUMBERS = "OSUMm"  # ... but for NumPy's of these kinds: objects, strings, times
