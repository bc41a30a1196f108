"""ledger: the chain rule of a function on the page, each local derivative with its number."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import keystr, tree_flatten, tree_flatten_with_path, tree_map, tree_unflatten

from jaxgrad import draw, program
from jaxgrad.errors import InputError
from jaxgrad.explain import explain, summary
from jaxgrad.grade import Answer, Grade, grade
from jaxgrad.graph import Edge, Graph, Node
from jaxgrad.retain import check_scalar, differentiable, name_patterns

SPLIT = 16  # an argument of up to so many elements is one node an element
JACOBIAN = 128  # a local derivative is kept between nodes of up to so many elements ...
_ALL_JACOBIANS = 4_000_000  # ... or fewer, where all of them together would have more elements than this
_AT_ONCE = 1 << 24  # elements that the pulled-back one-hots of one batch may hold

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Ledger:
    r"""A computation at one input: every node's value and gradient, every edge's local derivative.

    For $y = f(a)$ with named intermediates $v_i$ an edge from $s$ to $t$ carries the local derivative
    $\partial t / \partial s$, every other node held fixed, and its contribution $\bar t \, \partial t / \partial s$.
    The contributions of the edges out of a node sum to its gradient: that is the chain rule.

    Attributes:
      graph: the nodes and edges as plain data.
      elsewhere: makes the graph of the same function at a nearby input.
    """

    graph: Graph
    elsewhere: Callable[[], Graph]

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Name -> node, in program order: arguments, intermediates, the output."""
        return self.graph.nodes

    @property
    def edges(self) -> Mapping[tuple[str, str], Edge]:
        """(source, target) -> edge."""
        return self.graph.edges

    @property
    def output(self) -> str:
        """Name of the node that is the output."""
        return self.graph.output

    def __str__(self) -> str:
        return summary(self.graph)

    def explain(self, name: str, *, style: str = "plain") -> str:
        r"""The chain rule of one node's gradient, in symbols and in numbers.

        Every path to the output and their sum. Where a node feeds itself (a scan), or more than 8 paths lead to the
        output, it is one step: the gradients of the nodes that are computed from it, times the local derivatives.
        Every factor holds the other nodes fixed.

        Args:
          name: the node.
          style: "plain", "unicode" or "latex" (what goes inside an `align*`).

        Returns:
          Text of one or more lines.

        Raises:
          InputError: there is no such node, or no such style.

        Example:
          >>> from jaxgrad import neuron
          >>> found = ledger(neuron.forward)(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1]))
          >>> print(found.explain("w1"))
          df/dw1 = df/dh * dh/dk * dk/dz * dz/dw1 = -0.25 * 1 * -1 * 2 = 0.5
        """
        return explain(self.graph, name, style=style)

    def save(self, path: str | PathLike[str]) -> None:
        """Draws it into a file, in the format of its ending; whole or not at all.

        Args:
          path: .svg and .html are in light or dark as their viewer is; .png needs matplotlib
            (`pip install 'jaxgrad[draw]'`); .dot and .mmd (Mermaid) are text for other tools to draw; .json has every
            number in full. In .svg, .png and .html, of more than 40 nodes those in the middle are one box.

        Raises:
          InputError: any other ending, or the file cannot be written.
        """
        draw.save(self.graph, path)

    def _repr_svg_(self) -> str:
        return draw.svg(self.graph)

    def _repr_html_(self) -> str:
        return draw.svg(self.graph)

    def grade(self, answers: Mapping[tuple[str, str], Answer], *, rtol: float | None = None) -> Grade:
        r"""Marks a learner's local derivatives.

        An answer is a number, or a function whose parameters name nodes (`lambda z: ...`, `lambda h, k: ...`; a
        single parameter of any other name is the source). A function that is right here is tried at a nearby input
        too, where a factor that is 1 here is no longer 1.

        Args:
          answers: (source, target) -> local derivative $\partial t / \partial s$.
          rtol: relative error that still counts as right; None for 1e-3 for numbers, the square root of the
            dtype's epsilon for functions.

        Returns:
          A `Grade`: `ok`, `wrong`, `marks`; printed, it names the wrong factors and, where one fits, the mistake.

        Raises:
          InputError: there is no such edge, or the answer is no number of its shape.

        Example:
          >>> from jaxgrad import neuron
          >>> found = ledger(neuron.forward)(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1]))
          >>> print(found.grade({("z", "k"): lambda z: jnp.exp(-z), ("h", "f"): lambda h: -1 / h**2}))
          dk/dz = 1 is wrong, it is -1: a minus is missing
          df/dh = -0.25: right
          1 of 2 factors are right.
        """
        return grade(self.graph, answers, self.elsewhere, rtol=rtol)


def ledger(fun: Callable[..., Any], names: str | Iterable[str] | None = None) -> Callable[..., Ledger]:
    r"""Transforms `fun` to return its ledger: values, gradients, and every local derivative between them.

    Nodes are the arguments (a scalar has its parameter's name; an array of up to 16 elements is one node an
    element, `w0, w1, ...` or `w[0,1]`; a larger one is one node), the tags, and the output, which has its tag's name
    or "output". A function without tags gets one node for each operation of its jaxpr, named after it: `mul[0]`.
    A tag in `scan` or `vmap` is one node of stacked values; it may have an edge to itself.

    The program is cut at its nodes: $G(a, v) = (t_1, \dots, t_m, y)$ computes every node from those before it, all
    of them independent, so that its Jacobian holds exactly the local derivatives. They are kept between nodes of
    up to 128 elements (fewer if there are very many); past that an edge has its contribution, and a note.

    It compiles once for arguments of the same shapes and dtypes; as `jax.jit`, it does not see a change in what
    `fun` reads from outside. Arguments that are not floating-point are constants of the compiled program.

    Args:
      fun: pure function of pytrees that returns a real scalar.
      names: names or globs of the tags that become nodes, None for all: as for `retain_grads`.

    Returns:
      A function of the same arguments that returns a `Ledger`. Keyword arguments are passed on and are no nodes.

    Raises:
      InputError: an argument is traced: a ledger is for reading, take it outside of jit, vmap and grad.
      TagError, OutputError: as `retain_grads`.

    Example:
      >>> from jaxgrad import neuron
      >>> found = ledger(neuron.forward)(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1]))
      >>> print(list(found.nodes))
      ['x0', 'x1', 'w0', 'w1', 'w2', 'z', 'k', 'h', 'f']
      >>> print(found.edges["h", "f"].local, found.edges["z", "k"].local, found.nodes["w1"].grad)
      -0.25 -1.0 0.5
    """
    patterns = name_patterns(names)
    plans: dict[Any, _Plan] = {}

    @functools.wraps(fun, assigned=("__module__", "__name__", "__qualname__"), updated=())
    def read(*args: Any, **kwargs: Any) -> Ledger:
        leaves, structure = tree_flatten((args, kwargs))
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            raise InputError(
                "an argument of a ledger is traced; expected concrete arrays, for a ledger is for reading. Take it "
                "outside of jit, vmap and grad, or use retain_grads there."
            )
        varied = differentiable(args, None)
        rest = [leaf for i, leaf in enumerate(leaves) if i not in set(varied)]
        key = (structure, tuple(varied), tuple(_type(leaves[i]) for i in varied), tuple(map(_constant, rest)))
        if key not in plans:
            plans[key] = _plan(fun, args, kwargs, varied, patterns)
        plan, varied_leaves = plans[key], [leaves[i] for i in varied]
        return Ledger(_read(plan, varied_leaves), lambda: _read(plan, [_nearby(leaf) for leaf in varied_leaves]))

    return read


def _nearby(leaf: Any) -> Any:
    """An input at which nothing is 0, 1 or equal to another by chance."""
    rng = np.random.default_rng(1)
    array = np.asarray(leaf)
    moved = array * rng.uniform(0.75, 0.95, array.shape) + rng.uniform(0.05, 0.15, array.shape)
    if isinstance(leaf, float):
        return float(moved)
    return jnp.asarray(moved, jnp.result_type(leaf))


def _type(leaf: Any) -> tuple[Any, ...]:
    return np.shape(leaf), jnp.result_type(leaf), getattr(jax.typeof(leaf), "weak_type", False)


def _constant(leaf: Any) -> Any:
    """What tells a constant of one compiled program from that of another."""
    if isinstance(leaf, (np.ndarray, np.generic)) or (
        isinstance(leaf, jax.Array) and not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)
    ):
        return np.shape(leaf), str(leaf.dtype), np.asarray(leaf).tobytes()
    if isinstance(leaf, (bool, int, float, complex, str, bytes)):
        return type(leaf), repr(leaf)
    return _ById(leaf)


@dataclass(frozen=True, eq=False)
class _ById:
    """Any other constant: only itself is the same. It is kept alive, so that its `id` stays its own."""

    leaf: Any

    def __hash__(self) -> int:
        return id(self.leaf)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and self.leaf is other.leaf


class _Source(NamedTuple):
    """Where edges start: an argument's array, or an intermediate."""

    name: str
    aval: Any
    elements: tuple[str, ...]  # names of its elements, where it is split; else empty

    @property
    def size(self) -> int:
        return int(np.prod(self.aval.shape, dtype=int))


@dataclass(frozen=True, eq=False)
class _Plan:
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
    arguments: tuple[_Source, ...]
    output: str
    output_site: int | None

    @cached_property
    def probed(self) -> list[int]:
        """The sites that have a gradient."""
        return [i for i, site in enumerate(self.sites) if site.note is None]

    @cached_property
    def sources(self) -> tuple[_Source, ...]:
        """The arguments' arrays, then the intermediates that have a gradient."""
        sites = [self.sites[i] for i in self.probed]
        return (*self.arguments, *(_Source(s.name, jax.eval_shape(s.present, s.probe()), ()) for s in sites))

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
        n_rows = sum(map(_size, targets.values()))
        sizes = [_size(var.aval) for eqn in self.traced.jaxpr.eqns for var in eqn.outvars]
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


def _plan(
    fun: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    varied: list[int],
    patterns: tuple[str, ...] | None,
) -> _Plan:
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
    output = sites[output_site].name if output_site is not None else _free("output", taken, "result")
    arguments = _argument_sources(fun, args, varied, {*taken, output})
    return _Plan(traced, sites, by_operation, tuple(arguments), output, output_site)


def _one_hot(targets: Mapping[str, Any], n_rows: int) -> dict[str, Any]:
    """For each target the rows of an identity over all of their elements that are its own, of its shape."""
    rows, start = {}, 0
    for name, aval in targets.items():
        eye = jnp.eye(n_rows, _size(aval), -start, dtype=aval.dtype)
        rows[name] = eye.reshape(n_rows, *aval.shape)
        start += _size(aval)
    return rows


def _strong(residual: jax.Array) -> jax.Array:
    """Without JAX's weak type: a pullback with other numbers in it is of the same types, and not compiled again."""
    return lax.convert_element_type(residual, residual.dtype)


def _size(aval: Any) -> int:
    return int(np.prod(aval.shape, dtype=int))


def _small(sources: Sequence[_Source], targets: Mapping[str, Any]) -> set[str]:
    """The nodes between which local derivatives are kept."""
    avals = {source.name: source.aval for source in sources} | dict(targets)
    real = {name: _size(aval) for name, aval in avals.items() if not jnp.issubdtype(aval.dtype, jnp.complexfloating)}
    most = JACOBIAN
    while True:
        small = {name for name, size in real.items() if size <= most}
        rows = sum(real[name] for name in targets if name in small)
        columns = sum(real[source.name] for source in sources if source.name in small)
        if rows * columns <= _ALL_JACOBIANS or most == 1:
            return small
        most //= 2


def _argument_sources(
    fun: Callable[..., Any], args: tuple[Any, ...], varied: list[int], taken: set[str]
) -> list[_Source]:
    """The arguments' arrays, named after their parameters; each name is used once."""
    parameters = _parameters(fun, len(args))
    paths = [(parameters[path[0].idx] + keystr(path[1:]), leaf) for path, leaf in tree_flatten_with_path(args)[0]]
    sources = []
    for i in varied:
        name, leaf = paths[i]
        aval = jax.ShapeDtypeStruct(np.shape(leaf), jnp.result_type(leaf))
        split = aval.shape and 0 < _size(aval) <= SPLIT
        elements = _elements(name, aval.shape, taken) if split else ()
        name = _free(name, taken, "argument")
        taken |= {name, *elements}
        sources.append(_Source(name, aval, elements))
    return sources


def _parameters(fun: Callable[..., Any], n: int) -> list[str]:
    """Names of the first n positional parameters."""
    try:
        found = list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):
        return [f"arg{i}" for i in range(n)]
    names = [p.name for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in found if p.kind is p.VAR_POSITIONAL), "arg")
    return (names + [f"{rest}[{i}]" for i in range(n)])[:n]


def _elements(name: str, shape: tuple[int, ...], taken: set[str]) -> tuple[str, ...]:
    places = list(np.ndindex(*shape))
    plain = [f"{name}{place[0]}" for place in places]
    if len(shape) == 1 and name.isidentifier() and not name[-1].isdigit() and not taken & set(plain):
        return tuple(plain)
    return tuple(_free(f"{name}[{','.join(map(str, place))}]", taken, "argument") for place in places)


def _free(name: str, taken: Iterable[str], kind: str) -> str:
    return f"{name} ({kind})" if name in taken else name


def _read(plan: _Plan, leaves: Sequence[Any]) -> Graph:
    """The ledger's numbers, by compiled programs, and its graph."""
    output, values, reached, grads, pullback = plan.forward(leaves)
    blocks = _blocks(plan, plan.locals(pullback))
    one = jnp.ones_like(output)
    intermediates = dict(zip(plan.targets, grads[len(plan.arguments) :], strict=False))
    bars = {name: intermediates.get(name, one) for name in plan.targets}
    pulled = _pulled(plan, pullback, bars)
    output, values, reached, grads, bars = jax.device_get((output, values, reached, grads, bars))
    edges = {}
    used = _used_elements(plan, pullback, blocks)
    for target, linked in plan.structure.items():
        for s in linked:
            local = blocks.get((s, target))
            contribution = _contribution(bars[target], local) if local is not None else pulled[target][s]
            for edge in _edges(plan, s, target, local, np.asarray(contribution), used):
                edges[edge.source, edge.target] = edge
    nodes = _nodes(plan, jax.device_get(list(leaves)), grads, values, reached, output)
    if plan.by_operation:
        nodes, edges = _on_the_way(plan, nodes, edges)
    return Graph(nodes, edges, plan.output)


def _blocks(plan: _Plan, rows: Sequence[Any]) -> dict[tuple[int, str], Array]:
    """(source, target) -> local derivative of shape target.shape + source.shape."""
    small = [s for s, source in enumerate(plan.sources) if source.name in plan.small]
    arrays = dict(zip(small, jax.device_get(rows), strict=True))
    blocks, start = {}, 0
    for target, linked in plan.structure.items():
        if target in plan.small:
            shape = plan.targets[target].shape
            stop = start + _size(plan.targets[target])
            for s in linked:
                if s in arrays:
                    blocks[s, target] = arrays[s][start:stop].reshape(shape + plan.sources[s].aval.shape)
            start = stop
    return blocks


def _contribution(bar: Array, local: Array) -> Array:
    """The upstream gradient times the local derivative, summed over the target's elements."""
    upstream = bar.reshape(bar.shape + (1,) * (local.ndim - bar.ndim))
    with np.errstate(all="ignore"):  # 0 times infinity is what the chain rule says there
        return np.sum(upstream * local, axis=tuple(range(bar.ndim)))  # type: ignore[no-any-return]


def _pulled(plan: _Plan, pullback: Any, bars: dict[str, Any]) -> dict[str, dict[int, Any]]:
    """The contributions of the edges whose local derivative is not kept."""
    found = {}
    for i, (target, linked) in enumerate(plan.structure.items()):
        large = [s for s in linked if target not in plan.small or plan.sources[s].name not in plan.small]
        if large:
            all_ = plan.pull(pullback, bars, i)
            found[target] = {s: all_[s] for s in large}
    return found


def _used_elements(plan: _Plan, pullback: Any, blocks: Mapping[tuple[int, str], Array]) -> dict[tuple[int, str], Array]:
    """For each split argument, which of its elements a target is computed from.

    The pullback is linear, and its residuals are the numbers in it: with any others in their place, what is still
    zero is zero by the program's structure, not by the numbers of this input.
    """
    split = {s for s, source in enumerate(plan.sources) if source.elements}
    if all(block.all() for (s, _), block in blocks.items() if s in split):
        return {}
    rng = np.random.default_rng(0)

    def other(residual: Any) -> Any:
        if not jnp.issubdtype(residual.dtype, jnp.floating):
            return residual
        return jnp.asarray(rng.uniform(0.5, 1.5, residual.shape), residual.dtype)

    elsewhere = _blocks(plan, plan.locals(jax.tree.map(other, pullback)))
    return {
        (s, target): (elsewhere[s, target] != 0) | (block != 0) for (s, target), block in blocks.items() if s in split
    }


def _edges(
    plan: _Plan,
    s: int,
    target: str,
    local: Array | None,
    contribution: Array,
    used: Mapping[tuple[int, str], Array],
) -> Iterable[Edge]:
    """The edges from a source, one for each element where it is split."""
    source, aval = plan.sources[s], plan.targets[target]
    note = "" if local is not None else _why_no_local(source, aval)
    if not source.elements:
        yield Edge(source.name, target, None if local is None else local[()], contribution[()], note)
        return
    columns = None if local is None else local.reshape(*aval.shape, source.size)
    uses = np.ones(source.size, bool)
    if (s, target) in used:
        uses = np.any(used[s, target].reshape(-1, source.size), axis=0)
    for i, name in enumerate(source.elements):
        if uses.item(i):
            share = contribution.reshape(-1)[i]
            yield Edge(name, target, None if columns is None else columns[..., i][()], share, note)


def _why_no_local(source: _Source, aval: Any) -> str:
    if jnp.issubdtype(source.aval.dtype, jnp.complexfloating) or jnp.issubdtype(aval.dtype, jnp.complexfloating):
        return "complex: the local derivative is no one array; the contribution is pulled back"
    rows, columns = _size(aval), source.size
    return f"the local derivative would be {rows} by {columns} and is not kept; the contribution is pulled back"


def _nodes(
    plan: _Plan, leaves: Sequence[Any], grads: Sequence[Any], values: Any, reached: Any, output: Any
) -> dict[str, Node]:
    nodes: dict[str, Node] = {}
    for source, value, grad in zip(plan.sources, leaves, grads, strict=False):
        if not source.elements:
            nodes[source.name] = Node(source.name, "argument", np.asarray(value, source.aval.dtype)[()], grad[()])
        for name, v, g in zip(source.elements, np.ravel(value), np.ravel(grad), strict=False):
            nodes[name] = Node(name, "argument", v, g)
    bars = {source.name: grad for source, grad in zip(plan.sources, grads, strict=True)}
    kind = "operation" if plan.by_operation else "tag"
    for i, site in enumerate(plan.sites):
        grad = bars[site.name][()] if site.name in bars else None
        untaken = i in reached and not np.any(reached[i])
        note = site.note or ("its branch is not taken" if untaken else "")
        nodes[site.name] = Node(site.name, kind, values[i][()], grad, note, bool(site.nest))
    if plan.output not in nodes:
        nodes[plan.output] = Node(plan.output, "output", output[()], np.ones_like(output)[()])
    return nodes


def _on_the_way(
    plan: _Plan, nodes: dict[str, Node], edges: dict[tuple[str, str], Edge]
) -> tuple[dict[str, Node], dict[tuple[str, str], Edge]]:
    """The nodes that the output is computed from, and the arguments: without tags nobody asked for the others."""
    reaching, open_ = {plan.output}, [plan.output]
    while open_:
        at = open_.pop()
        new = {source for source, target in edges if target == at} - reaching
        reaching |= new
        open_ += new
    kept = {name: node for name, node in nodes.items() if name in reaching or node.kind == "argument"}
    return kept, {ends: edge for ends, edge in edges.items() if ends[1] in kept and ends[0] in kept}
