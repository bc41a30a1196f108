"""cut: a program cut at its nodes, so that its derivatives are those from one node to the next."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import tree_flatten, tree_map, tree_unflatten

from jaxgrad import program
from jaxgrad.naming import Source, argument_sources, free, size_of
from jaxgrad.retain import check_scalar

JACOBIAN = 128  # a local derivative is kept between nodes of up to so many elements ...
_ALL_JACOBIANS = 4_000_000  # ... or fewer, where all of them together would have more elements than this
_AT_ONCE = 1 << 24  # elements that the pulled-back one-hots of one batch may hold


@dataclass(frozen=True, eq=False)
class Plan:
    """A program cut at its nodes: all that is known before there are numbers, and what computes them.

    Attributes:
      traced: the program.
      sites: every intermediate, with a gradient or without.
      by_operation: are they operations, for want of tags?
      arguments: the arguments' arrays.
      output: name of the output.
      output_site: which of the sites is the output; None if none is.
    """

    traced: program.Program
    sites: tuple[program.Site, ...]
    by_operation: bool
    arguments: tuple[Source, ...]
    output: str
    output_site: int | None

    @cached_property
    def probed(self) -> list[int]:
        """The sites that have a gradient."""
        return [i for i, site in enumerate(self.sites) if site.note is None]

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """The arguments' arrays, then the intermediates that have a gradient."""
        sites = [self.sites[i] for i in self.probed]
        return (*self.arguments, *(Source(s.name, jax.eval_shape(s.present, s.probe()), ()) for s in sites))

    @cached_property
    def targets(self) -> dict[str, Any]:
        """Name of each node that is computed -> its type; the output is the last, or one of the intermediates."""
        found = {source.name: source.aval for source in self.sources[len(self.arguments) :]}
        return found if self.output_site is not None else {**found, self.output: self.traced.output}

    @cached_property
    def small(self) -> set[str]:
        """The nodes between which local derivatives are kept."""
        return _small(self.sources, self.targets)

    @cached_property
    def structure(self) -> dict[str, list[int]]:
        """Name of a target -> the sources that it is computed from: those that its cotangent reaches."""
        leaves = [jnp.zeros(source.aval.shape, source.aval.dtype) for source in self.arguments]
        cotangents = list(self._zeros(self.targets).values())

        def links(leaves: Sequence[Any], probes: dict[int, Any], cotangents: list[Any]) -> list[Any]:
            pullback = jax.vjp(self._step, leaves, probes, has_aux=True)[1]
            return self._pull_back(pullback, dict(zip(self.targets, cotangents, strict=True)))

        depends = program.dependence(links, leaves, self._probes(), cotangents)
        first = len(self.sources)
        return {name: [s for s, on in enumerate(depends) if first + t in on] for t, name in enumerate(self.targets)}

    @cached_property
    def forward(self) -> Callable[..., Any]:
        """Arguments -> output, values, reached, the gradient of each source, the pullback of the cut program."""

        def forward(leaves: Sequence[Any]) -> Any:
            _, pullback, (result, values, reached) = jax.vjp(self._step, leaves, self._probes(), has_aux=True)
            whole = jax.vjp(lambda *args: self.traced.run(self.sites, *args)[0], leaves, self._probes())[1]
            return result, values, reached, self._pull_back(whole, jnp.ones_like(result)), tree_map(_strong, pullback)

        return jax.jit(forward)

    @cached_property
    def locals(self) -> Callable[..., Any]:
        """Pullback -> for each small source, one row for each element of each small target."""
        targets = {name: aval for name, aval in self.targets.items() if name in self.small}
        large = [name for name in self.targets if name not in self.small]
        n_rows = sum(map(size_of, targets.values()))
        sizes = [size_of(var.aval) for eqn in self.traced.jaxpr.eqns for var in eqn.outvars]
        batch = max(1, _AT_ONCE // max([1, *sizes]))

        def locals_(pullback: Any) -> Any:
            def one_row(row: dict[str, Any]) -> list[Any]:
                bars = self._pull_back(pullback, {**self._zeros(large), **row})
                return [bar for bar, source in zip(bars, self.sources, strict=True) if source.name in self.small]

            rows = _one_hot(targets, n_rows)
            return jax.vmap(one_row)(rows) if n_rows <= batch else lax.map(one_row, rows, batch_size=batch)

        return jax.jit(locals_)

    @cached_property
    def pull(self) -> Callable[..., Any]:
        """(Pullback, gradients of the targets, which of them) -> its contribution to each source."""

        def pull(pullback: Any, bars: dict[str, Any], which: Any) -> list[Any]:
            one = {name: jnp.where(which == i, bars[name], 0) for i, name in enumerate(self.targets)}
            return self._pull_back(pullback, one)

        return jax.jit(pull)

    def _probes(self) -> dict[int, Any]:
        return {i: self.sites[i].probe() for i in self.probed}

    def _step(self, leaves: Sequence[Any], probes: dict[int, Any]) -> Any:
        """Every target, computed from the sources before it alone; beside them the output and all values."""
        result, _, (values, reached) = self.traced.run(self.sites, leaves, probes, cut=True)
        values = {i: site.present(values[i]) for i, site in enumerate(self.sites)}
        computed = {self.sites[i].name: values[i] for i in self.probed}
        if self.output_site is None:
            computed[self.output] = result
        return computed, (result, values, reached)

    def _pull_back(self, pullback: Any, cotangents: Any) -> list[Any]:
        """A cotangent pulled back to each source."""
        leaf_bars, probe_bars = pullback(cotangents)
        return [*leaf_bars, *(self.sites[i].present(probe_bars[i]) for i in self.probed)]

    def _zeros(self, names: Iterable[str]) -> dict[str, Any]:
        return {name: jnp.zeros(self.targets[name].shape, self.targets[name].dtype) for name in names}


def plan_of(
    fun: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    varied: list[int],
    patterns: tuple[str, ...] | None,
) -> Plan:
    leaves, structure = tree_flatten(args)

    @functools.wraps(fun, assigned=("__module__", "__name__", "__qualname__", "__doc__"), updated=())
    def flat(*varied_leaves: Any) -> tuple[Any, None]:
        given = dict(zip(varied, varied_leaves, strict=True))
        return fun(*tree_unflatten(structure, [given.get(i, leaf) for i, leaf in enumerate(leaves)]), **kwargs), None

    traced = program.trace(flat, [leaves[i] for i in varied])
    check_scalar(traced.output)
    by_operation = patterns is None and not any(site.by_tag for site in traced.sites)
    sites = traced.operations() if by_operation else traced.select(patterns)
    output_site = traced.output_site(sites)
    taken = {site.name for site in sites}
    output = sites[output_site].name if output_site is not None else free("output", taken, "result")
    arguments = argument_sources(fun, args, varied, {*taken, output})
    return Plan(traced, sites, by_operation, tuple(arguments), output, output_site)


def _one_hot(targets: Mapping[str, Any], n_rows: int) -> dict[str, Any]:
    """For each target the rows of an identity over all of their elements that are its own, of its shape."""
    rows, start = {}, 0
    for name, aval in targets.items():
        eye = jnp.eye(n_rows, size_of(aval), -start, dtype=aval.dtype)
        rows[name] = eye.reshape(n_rows, *aval.shape)
        start += size_of(aval)
    return rows


def _strong(residual: jax.Array) -> jax.Array:
    """Without JAX's weak type: a pullback with other numbers in it is of the same types, and not compiled again."""
    return lax.convert_element_type(residual, residual.dtype)


def _small(sources: Sequence[Source], targets: Mapping[str, Any]) -> set[str]:
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
