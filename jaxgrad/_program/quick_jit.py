"""Compiling a program that is run a few times only."""

from collections.abc import Callable
from typing import Any

import jax

# Compiling is what such a program costs, so most of it is left out. JAX 0.10 can leave out more of it than newer ones.
_OPTIONS: dict[str, bool | int] = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 11):
    _OPTIONS |= {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}


def quick_jit(fun: Callable[..., Any], *, static_argnums: int | tuple[int, ...] = ()) -> Callable[..., Any]:
    """`jax.jit(fun)`, which compiles two to three times as fast, to slower code."""
    return jax.jit(fun, static_argnums=static_argnums, compiler_options=_OPTIONS)
