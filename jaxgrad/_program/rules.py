"""Derivative rules that are Python functions: what they trace is in no program before they are called."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jax.interpreters import ad

from jaxgrad._names.bound import afresh
from jaxgrad._program.jaxpr import inner, opened, x64_as_traced
from jaxgrad._types import Aval, Eqn, Jaxpr

_CALLED = ("custom_jvp_call", "custom_vjp_call", "call_hi_primitive")
_PACKAGES = ("jax", "jaxlib", "jaxgrad")


def equations_with_rules(jaxpr: Jaxpr) -> frozenset[int]:
    """Which equations of a program call such a rule as they are differentiated, in programs inside them too."""
    known: dict[int, bool] = {}
    return frozenset(i for i, eqn in enumerate(jaxpr.eqns) if _calls_rule(eqn, known))


@contextmanager
def rules_of(eqn: Eqn) -> Iterator[None]:
    """Where the rules in an equation are called: their tags are seen, and 64 bits are on if it computes with them."""
    with afresh(), x64_as_traced(_types(eqn, set())):
        yield


def _types(eqn: Eqn, seen: set[int]) -> Iterator[Aval]:
    """The types of all that an equation computes with, in programs inside it too."""
    yield from (v.aval for v in (*eqn.invars, *eqn.outvars))
    bodies = [opened(body)[0] for body in inner(eqn)]
    for body in bodies:
        if id(body) not in seen:
            seen.add(id(body))
            for inside in body.eqns:
                yield from _types(inside, seen)


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
