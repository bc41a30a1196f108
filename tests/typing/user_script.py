"""A user's script, for type checkers: each wrong call is marked, and a mark without its error is an error itself."""

import jax
import jax.numpy as jnp

from jaxgrad import Ledger, Record, complex_step, finite_difference, in_float64, ledger, retain_grads, tag


def loss(w: jax.Array, x: jax.Array, *, scale: float = 1.0) -> jax.Array:
    h: jax.Array = tag(jnp.tanh(w @ x), "h")
    return jnp.sum(h) * scale


w, x = jnp.eye(2), jnp.ones(2)

record: Record = retain_grads(loss)(w, x, scale=2.0)
retain_grads(loss)(w, x, scail=2.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
retain_grads(loss)(w)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
retain_grads(loss)(w, "x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

found: Ledger = ledger(loss)(w, x)
ledger(loss)(w, x, scail=2.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

for oracle in (finite_difference, complex_step, in_float64):
    oracle(loss)(w, x, scale=2.0).grads["h"]

in_float64(loss)(w, x, scail=2.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
