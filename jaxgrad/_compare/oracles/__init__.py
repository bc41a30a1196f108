"""Oracles: a function's gradients by a method that shares no code with automatic differentiation, each a Record.

All evaluate the program that JAX traced, its constants as they are, in float64 or complex128 whatever the global
setting and the arguments' dtypes, so that what is left of rounding is the function's own. They are for checking: they
run outside of `jit`, and cost two evaluations or one for each element of every argument and tag.
"""
