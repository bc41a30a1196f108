"""A program cut at its nodes, so that its derivatives are those from one node to the next."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from jaxgrad._graph.derivative import local
from jaxgrad._graph.formula import Formula, written
from jaxgrad._ledger.jacobians import JacobianSpec, dependence, derivatives
from jaxgrad._ledger.node_names import Origin, Split, argument_sources, free, size_of
from jaxgrad._names.bound import afresh, observing
from jaxgrad._program.find_sites import operations, output_site, tagged
from jaxgrad._program.formulas.formula import formulas
from jaxgrad._program.formulas.written import argument
from jaxgrad._program.interpreter import run
from jaxgrad._program.jaxpr import Program
from jaxgrad._program.quick_jit import quick_jit
from jaxgrad._program.refs import IN_LEDGER, refuse_refs
from jaxgrad._program.segments import Kind, Piece, segments
from jaxgrad._program.sites import Site
from jaxgrad._retain.call import TracedCall, trace_call
from jaxgrad._retain.selection import select
from jaxgrad._types import Value

JACOBIAN = 128  # a local derivative is kept between nodes of up to so many elements ...
_ALL_JACOBIANS = 4_000_000  # ... or fewer, where all of them together would have more elements than this


@dataclass(frozen=True, eq=False)
class LedgerPlan:
    """A program cut at its nodes: all that is known before there are numbers, and what computes them.

    Attributes:
      call: the traced call; its sites are the intermediates, with a gradient or without.
      by_operation: are they operations, for want of tags?
      arguments: the arguments' arrays.
      output: name of the output.
      output_site: which of the sites is the output; None if none is.
    """

    call: TracedCall
    by_operation: bool
    arguments: tuple[Origin, ...]
    output: str
    output_site: int | None

    @property
    def sites(self) -> Sequence[Site]:
        return self.call.sites

    @cached_property
    def probed(self) -> list[int]:
        """The sites that have a gradient."""
        return [i for i, site in enumerate(self.sites) if site.note is None]

    @cached_property
    def sources(self) -> tuple[Origin, ...]:
        """The arguments' arrays, then the intermediates that have a gradient."""
        sites = [self.sites[i] for i in self.probed]
        return (*self.arguments, *(Origin(s.name, jax.eval_shape(s.present, s.probe()), ()) for s in sites))

    @cached_property
    def targets(self) -> dict[str, Any]:
        """Name of each node that is computed -> its type; the output is the last, or one of the intermediates."""
        found = {source.name: source.aval for source in self.sources[len(self.arguments) :]}
        return found if self.output_site is not None else {**found, self.output: self.call.program.output}

    @cached_property
    def small(self) -> set[str]:
        """The nodes between which local derivatives are kept."""
        return _small(self.sources, self.targets)

    @cached_property
    def kinds(self) -> list[tuple[Kind, JacobianSpec]]:
        """The pieces from node to node, by their kind; and what is wanted of each."""
        return [(kind, self._wanted(kind.pieces[0])) for kind in self._segments[0]]

    @cached_property
    def structure(self) -> dict[str, list[int]]:
        """Name of a target -> the sources that it is computed from: those that its cotangent reaches."""
        names, avals = list(self.targets), [*(s.aval for s in self.sources), *self._segments[1]]
        found: dict[str, list[int]] = {name: [] for name in names}
        for kind, wanted in self.kinds:
            piece = kind.pieces[0]
            outputs = [self.targets[names[o]] for o in piece.outputs]
            depends = dependence(kind, wanted, [avals[i] for i in piece.inputs], outputs)
            for piece in kind.pieces:
                for k, on in zip(wanted.varied, depends, strict=True):
                    for o in on:
                        found[names[piece.outputs[o]]].append(piece.inputs[k])
        return {name: sorted(sources) for name, sources in found.items()}

    @cached_property
    def formulas(self) -> dict[str, Formula]:
        """Name of each node that is computed -> what it is computed by."""
        given = [argument(source.name, source.aval.shape, source.elements) for source in self.arguments]
        return {
            target: found.whole for target, found in formulas(self.call.program, self.sites, given, self.output).items()
        }

    @cached_property
    def texts(self) -> dict[str, str]:
        """Name of each node that is computed -> its formula as text."""
        return {name: written(formula) for name, formula in self.formulas.items()}

    def rule(self, source: str, target: str, shape: tuple[int, ...]) -> str:
        """The local derivative between two nodes in symbols; `shape` is the source's. Read once."""
        if (source, target) not in self._rules:
            formula = self.formulas.get(target)
            text = "" if formula is None else local(formula, (source, target), shape, self.output)
            self._rules[source, target] = text
        return self._rules[source, target]

    @cached_property
    def _rules(self) -> dict[tuple[str, str], str]:
        return {}

    @cached_property
    def compute(self) -> Callable[..., Any]:
        """(Arguments, numbers) -> output, aux, values, reached, the gradient of each source, derivatives of each kind.

        The gradients are those of the whole program, found without the local derivatives; see `derivatives`.
        """
        kinds, (_, constants) = self.kinds, self._segments

        def compute(leaves: Sequence[Any], numbers: Value) -> Any:
            probes = {i: self.sites[i].probe() for i in self.probed}
            with observing(self.call.refuse):
                result, pullback, (aux, values, reached) = jax.vjp(self._whole, leaves, probes, has_aux=True)
                with afresh():
                    leaf_bars, probe_bars = pullback(jnp.ones_like(result))
            grads = [*leaf_bars, *(self.sites[i].present(probe_bars[i]) for i in self.probed)]
            arrays = [*leaves, *(values[i] for i in self.probed), *constants]
            bars = [*grads[len(leaves) :], jnp.ones_like(result)]
            found = [derivatives(*kind, arrays, bars, numbers) for kind in kinds]
            return result, aux, values, reached, grads, found

        return quick_jit(compute)

    def _whole(self, leaves: Sequence[Any], probes: dict[int, Any]) -> Any:
        result, aux, (values, reached) = self.call.run(leaves, probes)
        return result, (aux, {i: site.present(values[i]) for i, site in enumerate(self.sites)}, reached)

    @cached_property
    def _segments(self) -> tuple[list[Kind], list[Any]]:
        kinds, constants = segments(self._step, [source.aval for source in self.sources], self._wanted)
        return [kind for kind in kinds if self._wanted(kind.pieces[0]).varied], constants

    def _step(self, *sources: Any) -> list[Any]:
        """Every target, computed from the sources before it alone."""
        leaves, given = sources[: len(self.arguments)], sources[len(self.arguments) :]
        probes = {i: self.sites[i].raw(value) for i, value in zip(self.probed, given, strict=True)}
        result, _, (values, _) = run(self.call.program, self.sites, leaves, probes, cut=True)
        computed = [self.sites[i].present(values[i]) for i in self.probed]
        return computed if self.output_site is not None else [*computed, result]

    def _wanted(self, piece: Piece) -> JacobianSpec:
        names, sources = list(self.targets), self.sources
        varied = tuple(k for k, i in enumerate(piece.inputs) if i < len(sources))
        small = tuple(k for k in varied if sources[piece.inputs[k]].name in self.small)
        return JacobianSpec(varied, small, tuple(o for o, i in enumerate(piece.outputs) if names[i] in self.small))


def plan_ledger(
    fun: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    varied: list[int],
    patterns: tuple[str, ...] | None,
    split: Split,
    *,
    has_aux: bool,
) -> LedgerPlan:
    """Traces a call and cuts it at its tags, or, where it has none and none is asked for, at its operations."""
    by_operation = False

    def choose(program: Program) -> Sequence[Site]:
        nonlocal by_operation
        found = tagged(program)
        by_operation = patterns is None and not any(site.by_tag for site in found)
        return operations(program) if by_operation else select(found, patterns, program.bound)

    call = trace_call(fun, args, kwargs, has_aux=has_aux, names=patterns, choose=choose)
    refuse_refs(call.program, IN_LEDGER)
    at = output_site(call.program, call.sites)
    taken = {site.name for site in call.sites}
    output = call.sites[at].name if at is not None else free("output", taken, "result")
    arguments = argument_sources(fun, args, varied, {*taken, output}, split)
    return LedgerPlan(call, by_operation, tuple(arguments), output, at)


def _small(sources: Sequence[Origin], targets: Mapping[str, Any]) -> set[str]:
    """The nodes between which local derivatives are kept."""
    avals = {source.name: source.aval for source in sources} | dict(targets)
    real = {name: size_of(aval) for name, aval in avals.items() if not jnp.issubdtype(aval.dtype, jnp.complexfloating)}
    most = JACOBIAN
    while True:
        small = {name for name, size in real.items() if size <= most}
        rows = sum(real[name] for name in targets if name in small)
        columns = sum(real[source.name] for source in sources if source.name in small)
        if rows * columns <= _ALL_JACOBIANS or most == 1:
            return small
        most //= 2
