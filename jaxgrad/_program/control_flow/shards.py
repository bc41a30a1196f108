"""shard_map: the axes that a value in it varies along, and how it is rebuilt."""

from collections.abc import Sequence
from math import prod
from typing import Any

import jax
from jax.sharding import PartitionSpec

from jaxgrad._program.control_flow.control import Avals, Body, Probes, TagResults
from jaxgrad._types import Aval, Eqn


def varying(aval: Aval) -> frozenset[str]:
    """The mesh axes along which a value in a shard_map differs from shard to shard."""
    return frozenset(aval.vma if hasattr(aval, "vma") else aval.manual_axis_type.varying)


def manual(eqn: Eqn) -> frozenset[str]:
    """The mesh axes that an operation makes manual in its bodies."""
    return frozenset(eqn.params["newly_manual_axes"]) if eqn.primitive.name == "shard_map" else frozenset()


def _shard_axes(eqn: Eqn, aval: Aval) -> tuple[str, ...]:
    return tuple(axis for axis in eqn.params["mesh"].axis_names if axis in varying(aval) & manual(eqn))


def shards(eqn: Eqn, aval: Aval) -> tuple[int, ...]:
    axes = _shard_axes(eqn, aval)
    return (prod(eqn.params["mesh"].shape[axis] for axis in axes),) if axes else ()


def _own_shard(probe: Any) -> Any:
    return jax.tree.map(lambda array: array[0], probe)


def rebuild_shard_map(eqn: Eqn, operands: Sequence[Any], bodies: Sequence[Body], probes: Probes, avals: Avals) -> Any:
    axes = {site: _shard_axes(eqn, aval) for site, aval in avals.items()}
    specs = {site: PartitionSpec(axes[site]) if axes[site] else PartitionSpec() for site in avals}

    def run(operands: Sequence[Any], probes: Probes) -> tuple[list[Any], TagResults]:
        own = {site: _own_shard(probe) if axes[site] else probe for site, probe in probes.items()}
        results, (values, reached) = bodies[0](operands, own)
        return results, ({site: v[None] if axes[site] else v for site, v in values.items()}, reached)

    rebuilt = jax.shard_map(
        run,
        mesh=eqn.params["mesh"],
        in_specs=(list(eqn.params["in_specs"]), {site: specs[site] for site in probes}),
        out_specs=(list(eqn.params["out_specs"]), (specs, {})),
        axis_names=eqn.params["newly_manual_axes"],
        check_vma=True,
    )
    return rebuilt(list(operands), probes)
