"""Every route to the neuron's gradients: by hand, by each of JAX's transformations, by tags."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxgrad import neuron
from jaxgrad._record import Record
from jaxgrad._retain.retain import retain_grads
from jaxgrad.neuron._chain import f, forward, h, k, z

Route = Callable[[ArrayLike, ArrayLike], Record]
Gradient = Callable[..., tuple[Array, ...]]


def _by_grad(fun: Callable[..., Array], *primals: ArrayLike) -> tuple[Array, ...]:
    return jax.grad(fun, argnums=tuple(range(len(primals))))(*primals)  # type: ignore[no-any-return]


def _by_vjp(fun: Callable[..., Array], *primals: ArrayLike) -> tuple[Array, ...]:
    output, pullback = jax.vjp(fun, *primals)
    return pullback(jnp.ones_like(output))  # type: ignore[no-any-return]


def _by_jvp(fun: Callable[..., Array], *primals: ArrayLike) -> tuple[Array, ...]:
    return jax.jacfwd(fun, argnums=tuple(range(len(primals))))(*primals)  # type: ignore[no-any-return]


def _by_tags(fun: Callable[..., Array], *primals: ArrayLike) -> tuple[Array, ...]:
    return retain_grads(fun, names=())(*primals).arg_grads


def _route(gradient: Gradient) -> Route:
    """A route that differentiates what follows each intermediate, and each local step, by `gradient`."""

    def route(x: ArrayLike, w: ArrayLike) -> Record:
        z_ = z(x, w)
        k_ = k(z_)
        h_ = h(k_)
        f_ = f(h_)
        (df_dh,) = gradient(f, h_)
        (df_dk,) = gradient(lambda k_: f(h(k_)), k_)
        (df_dz,) = gradient(lambda z_: f(h(k(z_))), z_)
        return Record(
            output=f_,
            names=neuron.NAMES,
            values={"z": z_, "k": k_, "h": h_, "f": f_},
            grads={"z": df_dz, "k": df_dk, "h": df_dh, "f": jnp.ones_like(f_)},
            arg_grads=gradient(forward, x, w),
            aux=_local_derivatives(gradient, x, w, z_, k_, h_),
        )

    return route


def _retain(x: ArrayLike, w: ArrayLike) -> Record:
    """The document's part 2: one pass over the tagged neuron."""
    record = retain_grads(forward)(x, w)
    z_, k_, h_ = (record.values[name] for name in ("z", "k", "h"))
    return replace(record, aux=_local_derivatives(_by_tags, x, w, z_, k_, h_))


def _local_derivatives(
    gradient: Gradient, x: ArrayLike, w: ArrayLike, z_: Array, k_: Array, h_: Array
) -> dict[str, Array]:
    (df_dh,) = gradient(f, h_)
    (dh_dk,) = gradient(h, k_)
    (dk_dz,) = gradient(k, z_)
    dz_dx, dz_dw = gradient(z, x, w)
    return {"df/dh": df_dh, "dh/dk": dh_dk, "dk/dz": dk_dz, "dz/dx": dz_dx, "dz/dw": dz_dw}


ROUTES: dict[str, Route] = {
    "hand": neuron.chain_rule,
    "grad": _route(_by_grad),
    "vjp": _route(_by_vjp),
    "jvp": _route(_by_jvp),
    "retain": _retain,
}


def run(x: ArrayLike, w: ArrayLike) -> dict[str, Record]:
    """Runs every route on one row, all in one `jit`: to compile once is most of the time.

    Args:
      x: inputs, shape (n,).
      w: weights with the bias last, shape (n+1,), of x's dtype.

    Returns:
      Name of the route -> its Record.

    Raises:
      InputError: as `neuron.chain_rule`.

    Example:
      >>> records = run(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1]))
      >>> print({name: record.grads["z"].item() for name, record in records.items()})
      {'hand': 0.25, 'grad': 0.25, 'vjp': 0.25, 'jvp': 0.25, 'retain': 0.25}
    """
    return _in_order(_run_row(x, w))


def run_batch(rows: ArrayLike, w: ArrayLike) -> dict[str, Record]:
    """Runs every route over a batch of rows, all in one `jit(vmap)`.

    Args:
      rows: inputs, shape (m, n).
      w: weights with the bias last, shape (n+1,), of the rows' dtype.

    Returns:
      Name of the route -> its Record; the batch axis, m, leads in every array.

    Raises:
      InputError: as `neuron.chain_rule`.

    Example:
      >>> records = run_batch(jnp.array([[1.0, 2.0], [0.2, 0.0]]), jnp.array([0.5, -0.3, -0.1]))
      >>> print([f"{value:.4f}" for value in records["vjp"].grads["z"]])
      ['0.2475', '0.2500']
    """
    return _in_order(_run_rows(rows, w))


def _run_all(x: Array, w: Array) -> dict[str, Record]:
    return {name: route(x, w) for name, route in ROUTES.items()}


def _in_order(records: dict[str, Record]) -> dict[str, Record]:
    """The records in the order of `ROUTES`: jit sorts the keys of a dict."""
    return {name: records[name] for name in ROUTES}


_run_row = jax.jit(_run_all)  # made once, so that a second call does not compile
_run_rows = jax.jit(jax.vmap(_run_all, in_axes=(0, None)))
