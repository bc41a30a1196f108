"""The document's neuron: z, k, h, f, and their gradients by hand and by autodiff.

    z = w0*x0 + w1*x1 + w2      k = exp(-z)      h = 1 + k      f = 1/h

`forward` and `chain_rule` are the document's chain, and part from the truth where k overflows. `sigmoid` and
`backprop` are the same mathematics, written to be right for every z. `jaxgrad.routes` and the document's report check
the chain, as it stands there.

Arithmetic is IEEE 754's in the dtype of the arguments: NaN gives NaN and infinities go where it sends them. The
one exception is XLA's own: on CPU it flushes subnormal float32 and float64 numbers to 0.
"""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxgrad import arguments, stable
from jaxgrad.record import Record
from jaxgrad.tags import tag

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
    x, w = arguments.row(x, w, arguments.INEXACT)
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
    return jnp.exp(-arguments.array("z", z))


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
    return 1 + arguments.array("k", k)


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
    return 1 / arguments.array("h", h)


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
    the result's. With an exp rounded correctly (XLA's is 1.0 off) these formulas have 1.61 and 2.31 still; less takes
    an exp of two words, which XLA has not. The second derivative has XLA's tanh in it, 4.5 off. Tried and worse:
    $1 / (1 + e^{-z})$ (value 2.48), $e / (1 + e)$ (2.4), $\sigma(z) \sigma(-z)$ (derivative 3.5), $p - p^2$ (3.2),
    the square of $e^{-|z|/2} / (1 + e)$ (5.7).

    Args:
      z: an array of any shape; float16, bfloat16, float32, float64 or complex, or a Python float. Complex z is for
        the complex-step derivative: accurate away from the poles at odd multiples of $i \pi$.

    Returns:
      An array of z's shape and dtype.

    Raises:
      InputError: z is no array or number, an integer, or would be narrowed.

    Example:
      >>> import jax
      >>> z = jnp.array([-60.0, 0.0, 60.0])
      >>> print(sigmoid(z))
      [8.756511e-27 5.000000e-01 1.000000e+00]
      >>> print(jax.vmap(jax.grad(sigmoid))(z))
      [8.756511e-27 2.500000e-01 8.756511e-27]

    Reference: N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., chapters 1 and 2.
    """
    z = arguments.array("z", z)
    return stable.sigmoid(stable.widened(z)).astype(z.dtype)


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
    x, w = arguments.row(x, w, arguments.REAL)
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
    x, w = arguments.row(x, w, arguments.REAL)
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


def quantities(record: Record) -> dict[str, Array]:
    """The neuron's record as columns, named as the document names them.

    Args:
      record: of the neuron, of one row or of a batch: `chain_rule`, `backprop` or any other route's.

    Returns:
      z, k, h, f, df/dz, df/dk, df/dh, df/dw0, ..., df/dx0, ..., and where the record has the local derivatives
      also dh/dk, dk/dz, dz/dw0, ..., dz/dx0, ...: name -> array of the batch's shape, () for one row.

    Example:
      >>> record = backprop(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1]))
      >>> print({name: f"{value:.3f}" for name, value in quantities(record).items() if "/" in name})
      {'df/dz': '0.250', 'df/dk': '-0.250', 'df/dh': '-0.250', 'df/dw0': '0.250', 'df/dw1': '0.500',
       'df/dw2': '0.250', 'df/dx0': '0.125', 'df/dx1': '-0.075'}
    """
    x_bar, w_bar = record.arg_grads
    columns = {name: record.values[name] for name in NAMES}
    columns |= {f"df/d{name}": record.grads[name] for name in ("z", "k", "h")}
    columns |= _elements("df/dw", w_bar) | _elements("df/dx", x_bar)
    if record.aux is not None:
        columns |= {name: record.aux[name] for name in ("dh/dk", "dk/dz")}
        columns |= _elements("dz/dw", record.aux["dz/dw"]) | _elements("dz/dx", record.aux["dz/dx"])
    return columns


def columns(record: Record) -> dict[str, Array]:
    """All quantities that a table may hold: those of `quantities`, and the document's last line, f * (1 - f).

    Where the record has no local derivatives they are quotients of its gradients, dh/dk = df/dk / df/dh.
    """
    found = quantities(record)
    f_, z_bar, k_bar, h_bar = (found[name] for name in ("f", "df/dz", "df/dk", "df/dh"))
    local = {"dh/dk": k_bar / h_bar, "dk/dz": z_bar / k_bar}
    return {**local, **found, "f * (1 - f)": f_ * (1 - f_)}


def _pull_back(z_dot: Array, z: Array) -> Array:
    """df/dz times dz/dv, for the v that `z_dot` is z's derivative of."""
    return stable.times_slope(stable.widened(z_dot), stable.widened(z)).astype(z.dtype)


def _elements(prefix: str, array: Array) -> dict[str, Array]:
    return {f"{prefix}{i}": array[..., i] for i in range(array.shape[-1])}
