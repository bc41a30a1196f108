"""What is read off an operation's parameters, or a variable's type, in more than one place."""

from typing import Any

import jax
from jax.ref import AbstractRef

from jaxgrad._types import Aval, Eqn


def scan_sizes(eqn: Eqn) -> tuple[int, int]:
    """How many of a scan's operands are constants, and how many are carried."""
    if "ft_in" in eqn.params:  # JAX 0.11 and later
        constants, carry, _ = eqn.params["ft_in"].unpack()
        return len(constants), len(carry)
    return eqn.params["num_consts"], eqn.params["num_carry"]


def is_plain(eqn: Eqn) -> bool:
    """Is a `jit` without shardings and compiler options, which inside of another does nothing?"""
    shardings = (*eqn.params["in_shardings"], *eqn.params["out_shardings"])
    return not any(map(specified, shardings)) and not eqn.params["compiler_options_kvs"]


def specified(sharding: Any) -> bool:
    return isinstance(sharding, jax.sharding.Sharding)


def is_ref(aval: Aval) -> bool:
    """Is a variable a ref (`jax.new_ref`), that operations read and write?"""
    return isinstance(aval, AbstractRef)
