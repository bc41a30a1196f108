"""Compiling for a test that calls what it compiles but once or twice."""

import jax

from jaxgrad._compare.oracles.rounding import QUICKLY


def once(fun):
    """`fun`, compiled without optimising."""
    return jax.jit(fun, compiler_options=QUICKLY)
