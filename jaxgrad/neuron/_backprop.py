"""The neuron to use on data, right for every z."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxgrad._record import Record
from jaxgrad.neuron import _arguments, _stable
from jaxgrad.neuron._chain import NAMES, h, k, z
from jaxgrad.neuron._sigmoid import sigmoid


def backprop(x: ArrayLike, w: ArrayLike) -> Record:
    r"""The neuron to use on data: every value and every gradient, accurate for every z.

    Part 2 of the document keeps the gradient of each intermediate; so does this, written so that no step
    overflows or underflows before its result does:

    $$\frac{\partial f}{\partial h} = \frac{\partial f}{\partial k} = -\frac{1}{h^2} = -f^2, \quad
      \frac{\partial f}{\partial z} = \sigma'(z), \quad
      \frac{\partial f}{\partial w_i} = x_i \sigma'(z) \ (\sigma'(z) \text{ for the bias}), \quad
      \frac{\partial f}{\partial x_i} = w_i \sigma'(z)$$

    Given z, each is accurate to a few units in its last place wherever its true value is a normal number of the
    dtype, and 0 or a subnormal of the right sign where that is smaller. k and h are infinite where they overflow.
    Finite arguments with a finite z never give NaN. z itself has the rounding errors of a dot product.

    f and df/dz are `sigmoid`'s; in float32 k and h are off by at most 1.0 and 1.5, 5.51 where exp nearly overflows
    (z < -88.5), and df/dh by 4.37; df/dw and df/dx have one rounding more than df/dz.

    Args:
      x: inputs, shape (n,) with n >= 1; float16, bfloat16, float32 or float64.
      w: weights with the bias last, shape (n+1,), of x's dtype.

    Returns:
      A `Record` of z, k, h, f; `arg_grads` are those of x, shape (n,), and w, shape (n+1,).

    Raises:
      InputError: as `neuron.z`, and for complex arguments.

    Example:
      >>> import jax
      >>> x, w = jnp.array([[1.0, 2.0], [-300.0, 200.0]]), jnp.array([0.5, -0.3, 0.1])
      >>> record = jax.jit(jax.vmap(backprop, in_axes=(0, None)))(x, w)
      >>> print(record.grads["z"].shape, record.arg_grads[0].shape, record.arg_grads[1].shape)
      (2,) (2, 2) (2, 3)
      >>> print(record.values["k"][1], record.arg_grads[0][0])
      inf [ 0.125 -0.075]
    """
    x, w = _arguments.row(x, w, _arguments.REAL)
    z_ = z(x, w)
    k_ = k(z_)
    h_ = h(k_)
    f_ = sigmoid(z_)

    h_bar = -f_ * f_  # not -1 / h**2, nor z_bar by -k * h_bar: h**2 and k overflow
    z_bar = _pull_back(jnp.ones_like(z_), z_)
    x_bar = _pull_back(w[:-1], z_)
    w_bar = jnp.append(_pull_back(x, z_), z_bar)
    return Record(
        output=f_,
        names=NAMES,
        values={"z": z_, "k": k_, "h": h_, "f": f_},
        grads={"z": z_bar, "k": h_bar, "h": h_bar, "f": jnp.ones_like(f_)},
        arg_grads=(x_bar, w_bar),
    )


def _pull_back(z_dot: Array, z: Array) -> Array:
    """df/dz times dz/dv, for the v that `z_dot` is z's derivative of."""
    return _stable.times_slope(_stable.widened(z_dot), _stable.widened(z)).astype(z.dtype)
