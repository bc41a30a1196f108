"""The neuron in closed formulas, in NumPy's widest floats: an oracle that shares no code with the package.

Beside each value stands how far rounding can take a computation in a given dtype from it, so that no tolerance is
a guess. `u` is the dtype's unit roundoff: one operation on exact operands is off by a factor of at most 1 + u.

Reference: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgrad import Record

Arrays = dict[str, np.ndarray[Any, Any]]


def random_neurons(n: int, dtype: Any, rows: int = 8) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """x of shape (rows, n) and w of shape (rows, n+1), the same on every run; most |z| are below 3."""
    rng = np.random.default_rng(n)
    x = rng.uniform(-1, 1, (rows, n))
    w = rng.uniform(-1, 1, (rows, n + 1)) * 3 / np.sqrt(n)
    return x.astype(dtype), w.astype(dtype)


def arrays(record: Record) -> Arrays:
    """A batch's record under the names that the oracle has: each array of shape (rows, ...)."""
    x_bar, w_bar = record.arg_grads
    grads = {f"df/d{name}": grad for name, grad in record.grads.items() if name != "f"}
    return {**record.values, **grads, "df/dx": x_bar, "df/dw": w_bar, **(record.aux or {})}


def labelled(found: Arrays) -> Arrays:
    """The values and gradients among the arrays, by the labels that `jaxgrad.compare` knows them by."""
    values = {name: found[name] for name in ("z", "k", "h", "f")}
    grads = {f"{name}.grad": found[f"df/d{name}"] for name in ("h", "k", "z")}
    return values | grads | {"arg[0].grad": found["df/dx"], "arg[1].grad": found["df/dw"]}


def neuron(x: Any, w: Any) -> Arrays:
    """Every quantity of a batch of neurons: scalars of shape (rows,), "df/dx" of shape (rows, n), ..."""
    x, w = (np.asarray(a).astype(np.longdouble) for a in (x, w))
    z = np.sum(w[:, :-1] * x, axis=1) + w[:, -1]
    k = np.exp(-z)
    h = 1 + k
    dz_dx, dz_dw = w[:, :-1], np.append(x, np.ones_like(x, shape=(len(x), 1)), axis=1)
    values = {"z": z, "k": k, "h": h, "f": 1 / h}
    local = {"df/dh": -1 / h**2, "dh/dk": np.ones_like(k), "dk/dz": -k, "dz/dx": dz_dx, "dz/dw": dz_dw}
    df_dz = k / h**2
    chained = {"df/dk": -1 / h**2, "df/dz": df_dz, "df/dx": df_dz[:, None] * dz_dx, "df/dw": df_dz[:, None] * dz_dw}
    return {**values, **local, **chained}


def rounding(x: Any, w: Any, dtype: Any) -> Arrays:
    """How far each of `neuron`'s arrays can be off when it is computed in `dtype`, as an absolute error."""
    u = float(jnp.finfo(dtype).eps) / 2
    exact = neuron(x, w)
    k, h = exact["k"], exact["h"]

    x, w = (np.asarray(a).astype(np.longdouble) for a in (x, w))
    size = np.sum(abs(w[:, :-1] * x), axis=1) + abs(w[:, -1])
    # Summands may cancel, so z's error goes with their size, not with z. A summand meets at most n + 1 roundings;
    # in 16 bits the dot product rounds in float32, then to 16 bits, and once more as the bias is added.
    narrow = jnp.finfo(dtype).bits == 16
    z_error = size * (x.shape[1] + 1) * (2.0**-24 if narrow else u) + size * 2 * u * narrow

    k_error = np.expm1(z_error) + 4 * u  # exp(z + e) = exp(z) * exp(e); and exp itself is off by 2 ULP at most
    h_error = k_error * k / h + u
    df_dh_error = 2 * h_error + 3 * u  # a square, a division and a product
    df_dz_error = df_dh_error + k_error + u
    relative = {"k": k_error, "h": h_error, "f": h_error + u, "df/dh": df_dh_error, "df/dk": df_dh_error}
    relative |= {"dk/dz": k_error, "df/dz": df_dz_error, "dh/dk": np.zeros_like(k)}
    relative |= {"df/dx": (df_dz_error + u)[:, None], "df/dw": (df_dz_error + u)[:, None]}
    relative |= {"dz/dx": np.zeros((1, 1)), "dz/dw": np.zeros((1, 1))}

    # 1.1: the products of two errors, left out above. tiny: what may be lost where a result is subnormal.
    tiny = float(jnp.finfo(dtype).tiny)
    return {"z": z_error * 1.1 + tiny} | {name: 1.1 * r * abs(exact[name]) + tiny for name, r in relative.items()}


def assert_close(got: Mapping[str, Any], x: Any, w: Any, dtype: Any, times: int = 1) -> None:
    """Asserts that `got`, as `arrays` names it, is as near to the truth as rounding, `times` over, allows."""
    exact, error = neuron(x, w), rounding(x, w, dtype)
    for name, values in got.items():
        values = np.asarray(values)
        assert (values.dtype, values.shape) == (dtype, exact[name].shape), f"{name}: {values.dtype}{values.shape}"
        far = ~(abs(values.astype(np.longdouble) - exact[name]) <= times * error[name])  # NaN is far from anything
        assert not far.any(), (
            f"{name} of {len(x[0])} inputs is {values[far][0]}; expected {exact[name][far][0]} "
            f"within {times * error[name][far][0]:.2}"
        )
