"""The numbers of a cut program at one input, as a graph."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad._graph.graph import Edge, Graph, Node
from jaxgrad._ledger.jacobians import AS_THEY_ARE, OTHERS_AND_FALSE, OTHERS_AND_TRUE, Derivatives
from jaxgrad._ledger.node_names import Origin, size_of
from jaxgrad._ledger.plan import LedgerPlan
from jaxgrad._types import Aval, PyTree

Array = np.ndarray[Any, Any]


def read_graph(plan: LedgerPlan, leaves: Sequence[Any]) -> tuple[Graph, Any]:
    """The ledger's numbers, by one compiled program, as its graph; and the auxiliary data."""
    leaves = list(leaves)
    output, aux, values, reached, grads, found = jax.device_get(plan.compute(leaves, np.int32(AS_THEY_ARE)))
    bars = dict(zip(plan.targets, [*grads[len(plan.arguments) :], np.ones_like(output)], strict=False))
    blocks, pulled = _blocks(plan, found), _pulled(plan, found)
    used = _used_elements(plan, leaves, blocks)
    edges = {}
    for target, linked in plan.structure.items():
        for s in linked:
            local = blocks.get((s, target))
            contribution = _contribution(bars[target], local) if local is not None else pulled[s, target]
            for edge in _edges(plan, s, target, local, np.asarray(contribution), used):
                edges[edge.source, edge.target] = replace(
                    edge, formula=plan.rule(edge.source, edge.target, np.shape(edge.contribution))
                )
    nodes = _nodes(plan, jax.device_get(leaves), grads, values, reached, output)
    if plan.by_operation:
        nodes, edges = _on_the_way(plan, nodes, edges)
    arrays = {source.name: (source.aval.shape, source.elements) for source in plan.arguments if source.elements}
    return Graph(nodes, edges, plan.output, arrays), plan.call.aux(aux)


def _blocks(plan: LedgerPlan, found: Sequence[Derivatives]) -> dict[tuple[int, str], Array]:
    """(source, target) -> local derivative of shape target.shape + source.shape."""
    names, blocks = list(plan.targets), {}
    for (kind, wanted), made in zip(plan.kinds, found, strict=True):
        for p, piece in enumerate(kind.pieces):
            start = 0
            for o in wanted.small_outputs:
                target = names[piece.outputs[o]]
                shape = plan.targets[target].shape
                stop = start + size_of(plan.targets[target])
                for k, rows in made.rows.items():
                    s = piece.inputs[k]
                    blocks[s, target] = rows[p, start:stop].reshape(shape + plan.sources[s].aval.shape)
                start = stop
    return blocks


def _pulled(plan: LedgerPlan, found: Sequence[Derivatives]) -> dict[tuple[int, str], Array]:
    """(source, target) -> contribution, where the local derivative is not kept."""
    names = list(plan.targets)
    return {
        (piece.inputs[k], names[piece.outputs[o]]): bars[p]
        for (kind, _), made in zip(plan.kinds, found, strict=True)
        for (o, k), bars in made.pulled.items()
        for p, piece in enumerate(kind.pieces)
    }


def _contribution(bar: Array, local: Array) -> Array:
    """The upstream gradient times the local derivative, summed over the target's elements."""
    upstream = bar.reshape(bar.shape + (1,) * (local.ndim - bar.ndim))
    with np.errstate(all="ignore"):  # 0 times infinity is what the chain rule says there
        return np.sum(upstream * local, axis=tuple(range(bar.ndim)))  # type: ignore[no-any-return]


def _used_elements(
    plan: LedgerPlan, leaves: list[Any], blocks: Mapping[tuple[int, str], Array]
) -> dict[tuple[int, str], Array]:
    """For each split argument, which of its elements a target is computed from: by other numbers than this input's."""
    split = {s for s, source in enumerate(plan.sources) if source.elements}
    used = {(s, target): block != 0 for (s, target), block in blocks.items() if s in split}
    if all(there.all() for there in used.values()):
        return {}
    for numbers in (OTHERS_AND_TRUE, OTHERS_AND_FALSE):
        others = _blocks(plan, jax.device_get(plan.compute(leaves, np.int32(numbers))[-1]))
        used = {ends: there | (others[ends] != 0) for ends, there in used.items()}
    return used


def _edges(
    plan: LedgerPlan,
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


def _why_no_local(source: Origin, aval: Aval) -> str:
    if jnp.issubdtype(source.aval.dtype, jnp.complexfloating) or jnp.issubdtype(aval.dtype, jnp.complexfloating):
        return "complex: the local derivative is no one array; the contribution is pulled back"
    rows, columns = size_of(aval), source.size
    return f"the local derivative would be {rows} by {columns} and is not kept; the contribution is pulled back"


def _nodes(
    plan: LedgerPlan, leaves: Sequence[Any], grads: Sequence[Any], values: PyTree, reached: PyTree, output: PyTree
) -> dict[str, Node]:
    nodes: dict[str, Node] = {}
    for source, value, grad in zip(plan.sources, leaves, grads, strict=False):
        if not source.elements:
            number = np.asarray(value, source.aval.dtype)[()]
            nodes[source.name] = Node(source.name, "argument", number, grad[()], source.note)
        for name, v, g in zip(source.elements, np.ravel(value), np.ravel(grad), strict=False):
            nodes[name] = Node(name, "argument", v, g, source.note)
    bars = {source.name: grad for source, grad in zip(plan.sources, grads, strict=True)}
    kind = "operation" if plan.by_operation else "tag"
    for i, site in enumerate(plan.sites):
        grad = bars[site.name][()] if site.name in bars else None
        untaken = i in reached and not np.any(reached[i])
        note = site.note or ("its branch is not taken" if untaken else "")
        nodes[site.name] = Node(site.name, kind, values[i][()], grad, note, bool(site.nest), where=site.where)
    if plan.output not in nodes:
        nodes[plan.output] = Node(plan.output, "output", output[()], np.ones_like(output)[()])
    return {name: replace(node, formula=plan.texts.get(name, "")) for name, node in nodes.items()}


def _on_the_way(
    plan: LedgerPlan, nodes: dict[str, Node], edges: dict[tuple[str, str], Edge]
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
