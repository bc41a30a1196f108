"""A program run with a probe at its sites, on its own numbers or on wide ones.

The probe at a site is an argument that is added to the intermediate for derivatives only: the gradient with
respect to the probe is the gradient with respect to the intermediate, and the values are those of the program
without it, to the bit. Where the program is `cut` there, the probe is the value that what comes after is computed
from, so that the program is one piece from each site to the next.
"""

import operator
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxgrad._names.tag import tag_p
from jaxgrad._program.control_flow.control import Body, Probes, TagResults
from jaxgrad._program.control_flow.parameters import is_plain, is_ref
from jaxgrad._program.control_flow.table import CONTROLS
from jaxgrad._program.jaxpr import Path, Program, bind, inner, is_literal, opened, scope_of, x64_as_traced
from jaxgrad._program.probe import Forced, joined, replaced
from jaxgrad._program.rules import rules_of
from jaxgrad._program.sites import Site
from jaxgrad._program.wide import bodies
from jaxgrad._program.wide.promotion import Wide
from jaxgrad._types import Atom, Eqn, Jaxpr, Value

Join = Callable[[Any, Any], Any]  # (value, probe) -> what stands for the value from there on


def run(
    program: Program,
    sites: Sequence[Site],
    leaves: Sequence[Any],
    probes: Probes,
    *,
    cut: bool = False,
    wide: Wide | None = None,
    rules: frozenset[int] = frozenset(),
) -> tuple[Any, Any, TagResults]:
    """Evaluates a program with a probe at the sites.

    Args:
      sites: from `tagged` or `operations`.
      leaves: the program's arguments.
      probes: index into `sites` -> probe; a site without one gets no gradient.
      cut: are the probes values, that what comes after their sites is computed from?
      wide: numbers in which to evaluate it instead of its own; there the probes are added to the values too.
      rules: which equations of the program call derivative rules whose tags are to be seen.

    Returns:
      output, aux, and index into `sites` -> value, index into `sites` -> was it reached.
    """
    inside: dict[Path, dict[int, Site]] = {}
    for i, site in enumerate(sites):
        for depth in range(1, len(site.path) + 1, 2):
            inside.setdefault(site.path[:depth], {})[i] = site
    join = operator.add if wide else replaced if cut else joined
    results, found = _Run(inside, join, wide, rules).program(program.jaxpr, program.consts, leaves, probes, ())
    output, aux = jax.tree.unflatten(jax.tree.structure((program.output, program.aux)), map(_array, results))
    return output, aux, found


@dataclass(frozen=True)
class _Run:
    """How a program is evaluated, equation by equation.

    Attributes:
      inside: where an equation stands -> the sites at and within it.
      join: what stands for a value that has a probe.
      wide: the numbers, if they are not the program's own.
      rules: which equations of the outermost program call derivative rules whose tags are to be seen.
      in_jit: is it inside a `jit` that is rebuilt?
    """

    inside: dict[Path, dict[int, Site]]
    join: Join
    wide: Wide | None
    rules: frozenset[int] = frozenset()
    in_jit: bool = False

    def program(
        self, jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[Any], probes: Probes, path: Path
    ) -> tuple[list[Any], TagResults]:
        given = [*consts, *arguments]
        if self.wide:
            given = [value if is_ref(jax.typeof(value)) else self.wide.cast(value) for value in given]
        env: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], given, strict=True))
        values: dict[int, Any] = {}
        reached: dict[int, Any] = {}
        named = self.named(jaxpr, path)
        self.join_named(named, list(env), env, probes, values)
        for i, eqn in enumerate(jaxpr.eqns):
            operands = [self.read(env, atom) for atom in eqn.invars]
            with scope_of(eqn), rules_of(eqn) if not path and i in self.rules else nullcontext():
                results, (new_values, new_reached) = self.equation(eqn, operands, probes, (*path, i))
            values |= new_values
            reached |= new_reached
            env.update(zip(eqn.outvars, results, strict=True))
            self.join_named(named, eqn.outvars, env, probes, values)
        return [self.read(env, atom) for atom in jaxpr.outvars], (values, reached)

    def named(self, jaxpr: Jaxpr, path: Path) -> dict[Any, list[int]]:
        """Variable -> the sites that name it by a tag whose result is of no use, in this program."""
        found: dict[Any, list[int]] = {}
        for i, eqn in enumerate(jaxpr.eqns):
            here = (*path, i)
            for k, site in self.inside.get(here, {}).items():
                if site.names_only and site.path == here and not is_literal(eqn.invars[0]):
                    found.setdefault(eqn.invars[0], []).append(k)
        return found

    def join_named(
        self,
        named: dict[Any, list[int]],
        variables: Sequence[Any],
        env: dict[Any, Any],
        probes: Probes,
        values: dict[int, Any],
    ) -> None:
        """Gives variables that are named the probes of their sites, from where they are computed on."""
        for var in variables if named else ():
            for i in named.get(var, ()):
                values[i] = env[var] = _array(env[var])
                if i in probes:
                    env[var] = self.join(values[i], probes[i])

    def read(self, env: dict[Any, Any], atom: Atom) -> Any:
        if not is_literal(atom):
            return env[atom]
        # A constant of the program is what it was when rounded to the program's dtype.
        return self.wide.cast(jnp.asarray(atom.val, atom.aval.dtype)) if self.wide else atom.val

    def equation(
        self, eqn: Eqn, operands: Sequence[Any], probes: Probes, here: Path
    ) -> tuple[Sequence[Any], TagResults]:
        sites = self.inside.get(here, {})
        at_it = any(site.path == here for site in sites.values())
        if at_it:
            if eqn.params.get("names_only") and not is_literal(eqn.invars[0]):
                return operands, ({}, {})
            at_tag = [probes[i] for i in sites if i in probes]
            if self.join is joined and eqn.primitive is tag_p and at_tag and not isinstance(at_tag[0], Forced):
                results = bind(eqn, [*operands, *at_tag])
                return results, (dict.fromkeys(sites, _array(results[0])), {})
            with eqn.ctx.manager:
                return self.joined(list(operands[:1] if self.wide else bind(eqn, operands)), sites, probes)
        if eqn.primitive.name in CONTROLS and (sites or self.wide):
            own = {i: probes[i] for i in sites if i in probes}
            avals = {i: site.aval for i, site in sites.items()}
            if eqn.primitive.name == "jit" and self.in_jit and is_plain(eqn):  # each rebuilt costs JAX 15 frames
                return self.program(*opened(eqn.params["jaxpr"]), operands, own, (*here, 0))
            types = [v.aval for v in (*eqn.invars, *eqn.outvars)]
            with eqn.ctx.manager, x64_as_traced([*types, *avals.values()]):
                return CONTROLS[eqn.primitive.name].rebuild(eqn, operands, self.bodies(eqn, here), own, avals)
        return bind_wide(eqn, operands, self.wide) if self.wide else bind(eqn, operands), ({}, {})

    def joined(self, results: list[Any], sites: dict[int, Site], probes: Probes) -> tuple[list[Any], TagResults]:
        """An equation's results, with the probes of the sites at it."""
        values = {i: _array(results[site.result]) for i, site in sites.items()}
        for i, site in sites.items():
            if i in probes:
                results[site.result] = self.join(values[i], probes[i])
        return results, (values, {})

    def bodies(self, eqn: Eqn, here: Path) -> list[Body]:
        inside = replace(self, in_jit=self.in_jit or eqn.primitive.name == "jit")

        def body(j: int, jaxpr: Jaxpr) -> Body:
            def run(operands: Sequence[Any], probes: Probes) -> tuple[list[Any], TagResults]:
                return inside.program(*opened(jaxpr), operands, probes, (*here, j))

            return run

        return [body(j, jaxpr) for j, jaxpr in enumerate(CONTROLS[eqn.primitive.name].bodies(eqn))]


def _array(result: Value) -> Any:
    """A literal of the program as an array; any other result as it is."""
    return result if isinstance(result, jax.Array) else jnp.asarray(result)


def bind_wide(eqn: Eqn, operands: Sequence[Any], wide: Wide) -> Sequence[Any]:
    """An operation on wide numbers; one that depends on its dtype is done in that, and its results are cast."""
    name = eqn.primitive.name
    if name in ("tag", "probed"):
        return operands[:1]
    if name in ("custom_jvp_call", "custom_vjp_call"):
        return _custom_wide(eqn, operands, wide)
    if wide.keeps_dtype(eqn):
        operands = [wide.uncast(x, v.aval) for x, v in zip(operands, eqn.invars, strict=True)]
        return [wide.cast(result) for result in bind(eqn, operands)]
    with eqn.ctx.manager:
        if name in bodies.REBUILD:
            return _with_body(eqn, operands, wide)
        if inner(eqn):
            raise wide.refusal(eqn)
        return wide.apply(eqn, operands)


def _with_body(eqn: Eqn, operands: Sequence[Any], wide: Wide) -> Sequence[Any]:
    """An operation with a body of its own, its body evaluated on wide numbers too."""
    if wide.is_complex and eqn.primitive.name in bodies.NOT_ANALYTIC:
        raise wide.refusal(eqn)

    def evaluate(jaxpr: Jaxpr, consts: Sequence[Any], operands: Sequence[Any]) -> list[Any]:
        opened_, more = opened(jaxpr)
        return _Run({}, operator.add, wide).program(opened_, [*more, *consts], operands, {}, ())[0]

    return bodies.REBUILD[eqn.primitive.name](eqn, operands, evaluate)


def _custom_wide(eqn: Eqn, operands: Sequence[Any], wide: Wide) -> Sequence[Any]:
    """A function with a derivative rule of its own: its body, and its rule, each evaluated on wide numbers."""
    body, *_ = inner(eqn)
    smooth = [i for i, v in enumerate(eqn.invars) if jnp.issubdtype(v.aval.dtype, jnp.inexact)]

    def at_smooth(values: Iterable[Any], others: Sequence[Any]) -> list[Any]:
        """For each operand, its value if it is smooth, else what `others` has."""
        given = dict(zip(smooth, values, strict=True))
        return [given.get(i, other) for i, other in enumerate(others)]

    def evaluate(jaxpr: Jaxpr, operands: Sequence[Any]) -> list[Any]:
        return _Run({}, operator.add, wide).program(*opened(jaxpr), operands, {}, ())[0]

    @jax.custom_vjp
    def call(*operands: Any) -> list[Any]:
        return evaluate(body, operands)

    def rule(operands: Sequence[Any], cotangents: Sequence[Any]) -> Any:
        def of_smooth(*values: Any) -> Any:
            return bind(eqn, at_smooth(values, operands))

        _, pullback = jax.vjp(of_smooth, *(operands[i] for i in smooth))
        return pullback(list(cotangents))

    def backward(operands: Sequence[Any], cotangents: Sequence[Any]) -> tuple[Any, ...]:
        shapes = [[jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in vs] for vs in (eqn.invars, eqn.outvars)]
        bars = evaluate(jax.make_jaxpr(rule)(*shapes), [*operands, *cotangents])
        return tuple(at_smooth(bars, [None] * len(operands)))

    call.defvjp(lambda *operands: (call(*operands), operands), backward)
    return call(*operands)
