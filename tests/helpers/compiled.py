"""Compiling for a test that calls what it compiles but once or twice."""

from jaxgrad._program.quick_jit import quick_jit


def once(fun):
    """`fun`, compiled without optimising."""
    return quick_jit(fun)
