"""Derivative rules that are Python functions: what they trace is in no program before they are called."""

import functools
from collections.abc import Callable
from typing import Any

from jax.interpreters import ad

from jaxgrad._program.jaxpr import inner, opened
from jaxgrad._types import Eqn, Jaxpr

_CALLED = ("custom_jvp_call", "custom_vjp_call", "call_hi_primitive")
_PACKAGES = ("jax", "jaxlib", "jaxgrad")


def equations_with_rules(jaxpr: Jaxpr) -> frozenset[int]:
    """Which equations of a program call such a rule as they are differentiated, in programs inside them too."""
    known: dict[int, bool] = {}
    return frozenset(i for i, eqn in enumerate(jaxpr.eqns) if _calls_rule(eqn, known))


def _calls_rule(eqn: Eqn, known: dict[int, bool]) -> bool:
    return _has_rule(eqn) or any(_any_calls_rule(opened(body)[0], known) for body in inner(eqn))


def _any_calls_rule(jaxpr: Jaxpr, known: dict[int, bool]) -> bool:
    if id(jaxpr) not in known:
        known[id(jaxpr)] = any(_calls_rule(eqn, known) for eqn in jaxpr.eqns)
    return known[id(jaxpr)]


def _has_rule(eqn: Eqn) -> bool:
    tables = ad.primitive_jvps, ad.primitive_transposes
    return eqn.primitive.name in _CALLED or any(_is_foreign(table.get(eqn.primitive)) for table in tables)


def _is_foreign(rule: Callable[..., Any] | None) -> bool:
    """Is it a rule of another package than JAX's own?"""
    while isinstance(rule, functools.partial):
        rule = rule.func
    return rule is not None and str(getattr(rule, "__module__", "")).split(".")[0] not in _PACKAGES
