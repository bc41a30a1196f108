"""reading: the numbers of a cut program at one input, as a graph."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad.cut import Plan
from jaxgrad.graph import Edge, Graph, Node
from jaxgrad.naming import Source, size_of

Array = np.ndarray[Any, Any]


def read_graph(plan: Plan, leaves: Sequence[Any]) -> Graph:
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


def _blocks(plan: Plan, rows: Sequence[Any]) -> dict[tuple[int, str], Array]:
    """(source, target) -> local derivative of shape target.shape + source.shape."""
    small = [s for s, source in enumerate(plan.sources) if source.name in plan.small]
    arrays = dict(zip(small, jax.device_get(rows), strict=True))
    blocks, start = {}, 0
    for target, linked in plan.structure.items():
        if target in plan.small:
            shape = plan.targets[target].shape
            stop = start + size_of(plan.targets[target])
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


def _pulled(plan: Plan, pullback: Any, bars: dict[str, Any]) -> dict[str, dict[int, Any]]:
    """The contributions of the edges whose local derivative is not kept."""
    found = {}
    for i, (target, linked) in enumerate(plan.structure.items()):
        large = [s for s in linked if target not in plan.small or plan.sources[s].name not in plan.small]
        if large:
            all_ = plan.pull(pullback, bars, i)
            found[target] = {s: all_[s] for s in large}
    return found


def _used_elements(plan: Plan, pullback: Any, blocks: Mapping[tuple[int, str], Array]) -> dict[tuple[int, str], Array]:
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
    plan: Plan,
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


def _why_no_local(source: Source, aval: Any) -> str:
    if jnp.issubdtype(source.aval.dtype, jnp.complexfloating) or jnp.issubdtype(aval.dtype, jnp.complexfloating):
        return "complex: the local derivative is no one array; the contribution is pulled back"
    rows, columns = size_of(aval), source.size
    return f"the local derivative would be {rows} by {columns} and is not kept; the contribution is pulled back"


def _nodes(
    plan: Plan, leaves: Sequence[Any], grads: Sequence[Any], values: Any, reached: Any, output: Any
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
    plan: Plan, nodes: dict[str, Node], edges: dict[tuple[str, str], Edge]
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
