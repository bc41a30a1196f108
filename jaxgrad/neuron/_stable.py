r"""The sigmoid and its derivatives, in arithmetic that neither overflows nor cancels.

With $e = e^{-|z|}$ and $p = e / (1 + e)$: $\sigma = 1 - p$ or $e - e p$, $\sigma' = e / (1 + e)^2$,
$\sigma'' = -\sigma' \tanh(z / 2)$. A factor is multiplied in before $\sigma'$ can underflow: it is scaled up by
$1 / r^2$, and each $r$ comes off on another side of the product.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# Where |z| is beyond twice a step, exp(-step) is taken out of each side of exp(-|z|), see `_scale`. The first is just
# short of where exp(-|z|) underflows; all are numbers whose exp(-step) is exact to 0.02 ULP.
_STEPS = {"float32": (39.5, 55.5), "float64": (336.5, 460.5)}


@jax.custom_jvp
def sigmoid(z: Array) -> Array:
    e = jnp.exp(_minus_abs(z))
    numerator = jnp.where(z.real < 0, e, 1)
    return numerator - numerator * (e / (1 + e))


@jax.custom_jvp
def _raised_slope(z: Array) -> Array:
    r"""$\sigma'(z) / r^2$, with r of `_scale(z)`."""
    r, minus_2_log_r = _scale(z)
    raised = jnp.exp(minus_2_log_r + _minus_abs(z))  # an exact sum
    e = r * raised * r
    return raised / (1 + e * (2 + e))


# The derivatives, each beside what it is the derivative of. r is a constant between one step and the next.
sigmoid.defjvps(lambda z_dot, f, z: times_slope(z_dot, z))
_raised_slope.defjvps(lambda z_dot, slope, z: -jnp.tanh(z / 2) * slope * z_dot)


def times_slope(v: Array, z: Array) -> Array:
    r"""$v \sigma'(z)$, where $\sigma'(z)$ alone might underflow: no product leaves the range from v to the result."""
    r, _ = _scale(z)
    return v * r * _raised_slope(z) * r


def _scale(z: Array) -> tuple[Array, Array]:
    r"""A step function $r \le 1$ of |z| for which $e^{-|z|} / r^2$ is a normal number, and $-2 \log r$."""
    r, minus_2_log_r = jnp.ones_like(z.real), jnp.zeros_like(z.real)
    for step in _STEPS[z.real.dtype.name]:
        beyond = abs(z.real) > 2 * step
        r = jnp.where(beyond, np.exp(-step).astype(r.dtype), r)
        minus_2_log_r = jnp.where(beyond, 2 * step, minus_2_log_r)
    return r, minus_2_log_r


def _minus_abs(z: Array) -> Array:
    """-|z|; of complex z and -z the one whose real part is not positive, a function that is analytic."""
    return jnp.where(z.real < 0, z, -z)


def widened(array: Array) -> Array:
    """float32 for the dtypes of 16 bits, whose results then have no rounding but the last."""
    return array.astype(jnp.float32) if array.dtype.itemsize == 2 else array
