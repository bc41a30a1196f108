"""A record of the neuron as columns, named as the document names them."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxgrad._errors import InputError
from jaxgrad._record import Record
from jaxgrad._text import listed, short
from jaxgrad.neuron._backprop import backprop
from jaxgrad.neuron._chain import NAMES


def quantities(record: Record) -> dict[str, Array]:
    """The neuron's record as columns, named as the document names them.

    Args:
      record: of the neuron, of one row or of a batch: `chain_rule`, `backprop` or any other route's.

    Returns:
      z, k, h, f, df/dz, df/dk, df/dh, df/dw0, ..., df/dx0, ..., and where the record has the local derivatives
      also dh/dk, dk/dz, dz/dw0, ..., dz/dx0, ...: name -> array of the batch's shape, () for one row.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgrad import neuron
      >>> record = neuron.backprop(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1]))
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


def chosen(w: ArrayLike, keep: Sequence[str] | None) -> tuple[str, ...]:
    """Those of the quantities that `keep` has, in the document's order; all if it is None.

    Raises:
      InputError: there is no such quantity.
    """
    names = _names(len(np.asarray(w)) - 1)
    if keep is None:
        return tuple(names)
    for pattern in keep:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f'there is no quantity "{short(pattern)}"; expected names or globs of {listed(names)}.')
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in keep))


@cache
def _names(inputs: int) -> tuple[str, ...]:
    x, w = (jax.ShapeDtypeStruct((n,), np.float32) for n in (inputs, inputs + 1))
    # Of NumPy arrays, which are taken apart faster than JAX traces it.
    return tuple(quantities(jax.tree.map(lambda found: np.empty(found.shape), jax.eval_shape(backprop, x, w))))


def _elements(prefix: str, array: Array) -> dict[str, Array]:
    return {f"{prefix}{i}": array[..., i] for i in range(array.shape[-1])}
