"""The document's chain: z, k, h, f, and their gradients by hand."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxgrad._names.tag import tag
from jaxgrad._record import Record
from jaxgrad.neuron import _arguments

NAMES = ("z", "k", "h", "f")


def z(x: ArrayLike, w: ArrayLike) -> Array:
    r"""The neuron's linear part, $z = w_{0:n} \cdot x + w_n$.

    The dot product accumulates in float32 or wider on every device (`precision="highest"`).

    Args:
      x: inputs, shape (n,) with n >= 1; float16, bfloat16, float32, float64 or complex.
      w: weights with the bias last, shape (n+1,), of x's dtype.

    Returns:
      An array of shape () and x's dtype.

    Raises:
      InputError: a wrong shape, an integer dtype, or dtypes that would silently widen or narrow the result.

    Example:
      >>> print(z(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1])).item())
      -2.2351741790771484e-08
    """
    x, w = _arguments.row(x, w, _arguments.INEXACT)
    return jnp.dot(w[:-1], x, precision="highest") + w[-1]


def k(z: ArrayLike) -> Array:
    r"""$k = e^{-z}$, elementwise.

    Overflows to infinity below z = -88.72 in float32 (-11.09 in float16, -709.78 in float64), where the chain's
    gradient becomes 0 times infinity, NaN.

    Args:
      z: an array of any shape, of a dtype that `neuron.z` takes, or a Python float.

    Returns:
      An array of z's shape and dtype.

    Raises:
      InputError: z is no array or number, an integer, or would be narrowed.

    Example:
      >>> print(k(jnp.array([0.0, 1.0])))
      [1.         0.36787945]
    """
    return jnp.exp(-_arguments.array("z", z))


def h(k: ArrayLike) -> Array:
    r"""$h = 1 + k$, elementwise.

    Args:
      k: an array of any shape, of a dtype that `neuron.z` takes, or a Python float.

    Returns:
      An array of k's shape and dtype.

    Raises:
      InputError: k is no array or number, an integer, or would be narrowed.

    Example:
      >>> print(h(1.0))
      2.0
    """
    return 1 + _arguments.array("k", k)


def f(h: ArrayLike) -> Array:
    r"""$f = 1 / h$, elementwise.

    Args:
      h: an array of any shape, of a dtype that `neuron.z` takes, or a Python float.

    Returns:
      An array of h's shape and dtype.

    Raises:
      InputError: h is no array or number, an integer, or would be narrowed.

    Example:
      >>> print(f(2.0))
      0.5
    """
    return 1 / _arguments.array("h", h)


def forward(x: ArrayLike, w: ArrayLike) -> Array:
    r"""The document's chain, $f(h(k(z(x, w))))$: a sigmoid neuron, its intermediates tagged "z", "k", "h", "f".

    Its value is right for every z, and so is its gradient for z above 0. Far below 0 the gradient is not: $h^{-2}$
    underflows, a false 0, and further down k overflows, and infinity times 0 is NaN.

    | dtype | gradient is 0 below z = | where the truth is | and NaN below z = |
    |---|---|---|---|
    | float16 | -5.54 | 3.9e-03 | -11.09 |
    | bfloat16, float32 | -43.67 | 1.1e-19 | -88.72 |
    | float64 | -354.2 | 1.5e-154 | -709.78 |

    For gradients that are right there, use `backprop`, or `sigmoid(z(x, w))`.

    Args:
      x: inputs, shape (n,) with n >= 1; float16, bfloat16, float32, float64 or complex.
      w: weights with the bias last, shape (n+1,), of x's dtype.

    Returns:
      An array of shape () and x's dtype.

    Raises:
      InputError: as `neuron.z`.

    Example:
      >>> import jax
      >>> x, w = jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1])
      >>> print(forward(x, w))
      0.5
      >>> print(jax.grad(forward, argnums=1)(x, w))
      [0.25 0.5  0.25]
    """
    z_ = tag(z(x, w), "z")
    k_ = tag(k(z_), "k")
    h_ = tag(h(k_), "h")
    return tag(f(h_), "f")


def chain_rule(x: ArrayLike, w: ArrayLike) -> Record:
    r"""Part 1 of the document: local derivatives multiplied by hand, no autodiff; wrong where `forward` says so.

    $$\frac{\partial f}{\partial w_i} = \frac{\partial f}{\partial h} \frac{\partial h}{\partial k}
      \frac{\partial k}{\partial z} \frac{\partial z}{\partial w_i}, \quad
      \frac{\partial f}{\partial h} = -\frac{1}{h^2}, \
      \frac{\partial h}{\partial k} = 1, \
      \frac{\partial k}{\partial z} = -e^{-z}, \
      \frac{\partial z}{\partial w_i} = x_i \ (1 \text{ for the bias}), \
      \frac{\partial z}{\partial x_i} = w_i$$

    Args:
      x: inputs, shape (n,) with n >= 1; float16, bfloat16, float32 or float64.
      w: weights with the bias last, shape (n+1,), of x's dtype.

    Returns:
      A `Record` of z, k, h, f; `arg_grads` are those of x, shape (n,), and w, shape (n+1,); `aux` holds the five
      local derivatives, "df/dh", "dh/dk", "dk/dz", "dz/dx" and "dz/dw".

    Raises:
      InputError: as `neuron.z`, and for complex arguments.

    Example:
      >>> record = chain_rule(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1]))
      >>> print(record.aux["df/dh"], record.aux["dh/dk"], record.aux["dk/dz"], record.aux["dz/dw"])
      -0.25 1.0 -1.0 [1. 2. 1.]
      >>> print(record.arg_grads[1])
      [0.25 0.5  0.25]
    """
    x, w = _arguments.row(x, w, _arguments.REAL)
    z_ = z(x, w)
    k_ = k(z_)
    h_ = h(k_)
    f_ = f(h_)

    df_dh = -1 / (h_ * h_)
    dh_dk = jnp.ones_like(k_)
    dk_dz = -jnp.exp(-z_)
    dz_dx = w[:-1]
    dz_dw = jnp.append(x, jnp.ones_like(x, shape=1))

    df_dk = df_dh * dh_dk
    df_dz = df_dh * dh_dk * dk_dz
    return Record(
        output=f_,
        names=NAMES,
        values={"z": z_, "k": k_, "h": h_, "f": f_},
        grads={"z": df_dz, "k": df_dk, "h": df_dh, "f": jnp.ones_like(f_)},
        arg_grads=(df_dz * dz_dx, df_dz * dz_dw),
        aux={"df/dh": df_dh, "dh/dk": dh_dk, "dk/dz": dk_dz, "dz/dx": dz_dx, "dz/dw": dz_dw},
    )
