"""The places in a program where an intermediate is named, and choosing among them by name."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxgrad._errors import TagError
from jaxgrad._program.control_flow.shards import varying
from jaxgrad._program.jaxpr import Path


@dataclass(frozen=True)
class Site:
    """One place in a program where an intermediate is named.

    Attributes:
      name: its name in the record, unique: "z", or "z[0]" where "z" is used more than once.
      given: the name as given to `tag` or `checkpoint_name`.
      where: file and line of the tag.
      by_tag: named by `tag`, not by `checkpoint_name`.
      path: where its equation stands.
      result: which of the equation's results it is.
      aval: type of the value where it stands.
      lead: axes that the value gains on its way out: one for each scan, and for each shard_map it varies in.
      axes: axes that vmap has added to the value where it stands, outermost first.
      manual: mesh axes that shard_maps of the program around it make manual.
      nest: what it stands in, outermost first: "lead" for each axis of `lead`, "vmap" for each vmap.
      in_branch: is it unsure whether it is reached?
      in_while: is it in a while_loop?
      state: "live" if its result reaches the output; "bypassed" if only its operand does; "dead" if neither.
      names_only: is it the tag's operand that is retained, in all of its uses, and not its result?
      origin: where its value is computed, if that is known to be another equation: a path, and which of the results.
      hoisted: has JAX moved it out of the scan that it was traced in?
      unsupported: why its gradient would be wrong here, None if it would not.
    """

    name: str
    given: str
    where: str
    by_tag: bool
    path: Path
    aval: Any
    result: int = 0
    lead: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()
    manual: frozenset[str] = frozenset()
    nest: tuple[str, ...] = ()
    in_branch: bool = False
    in_while: bool = False
    state: str = "live"
    names_only: bool = False
    origin: tuple[Path, int] | None = None
    hoisted: bool = False
    unsupported: str | None = None

    @property
    def place(self) -> tuple[Path, int]:
        """Where its value is computed, as far as that is known: a path, and which of the results there."""
        return self.origin if self.names_only and self.origin else (self.path, self.result)

    @property
    def label(self) -> str:
        kind = "tag" if self.by_tag else "checkpoint_name"
        return f'{kind} "{self.name}" ({self.where})' if self.where else f'{kind} "{self.name}"'

    @property
    def is_inexact(self) -> bool:
        """Is it floating-point or complex?"""
        return bool(jnp.issubdtype(self.aval.dtype, jnp.inexact))

    @property
    def note(self) -> str | None:
        """Why there is no gradient; None if there is one."""
        if not self.is_inexact:
            return f"{'float0' if self.aval.dtype == jax.dtypes.float0 else self.aval.dtype} has no gradient"
        if self.in_while:
            return "while_loop has no reverse mode: the last value, no gradient"
        if self.state == "dead":
            return "does not reach the output"
        return None

    def probe(self) -> jax.Array:
        """Zeros like the stacked value, sharded as it is where the mesh makes shardings part of the type.

        Where the program runs in a shard_map, they vary over its shards as the value does: a probe that is one for
        all shards would have the sum of their gradients.
        """
        with jax.enable_x64(True):  # the program may have switched it on for itself
            return self._zeros()

    def _zeros(self) -> jax.Array:
        sharding = self.aval.sharding
        shape = self.lead + self.aval.shape
        if set(sharding.mesh.axis_types) != {AxisType.Explicit}:
            zeros = jnp.zeros(shape, self.aval.dtype)
            around = tuple(varying(self.aval) - self.manual)
            return lax.pcast(zeros, around, to="varying") if around else zeros
        spec = PartitionSpec(*[None] * len(self.lead), *sharding.spec)
        return jnp.zeros(shape, self.aval.dtype, out_sharding=NamedSharding(sharding.mesh, spec))

    @property
    def layouts(self) -> set[tuple[int, ...]]:
        """The orders in which the leading axes of the stacked value can stand, outermost first; one, if it is sure.

        A vmap that does not batch the value adds no axis to it. JAX does not say which of them did, which matters
        where there is a scan between them.
        """
        vmaps = [i for i, kind in enumerate(self.nest) if kind == "vmap"]
        orders = set()
        for batching in combinations(vmaps, len(self.axes)):
            leads = iter(range(len(self.lead)))
            batches = iter(len(self.lead) + axis for axis in self.axes)
            kept = [i for i, kind in enumerate(self.nest) if kind == "lead" or i in batching]
            orders.add(tuple(next(leads) if self.nest[i] == "lead" else next(batches) for i in kept))
        return orders

    def present(self, array: jax.Array) -> jax.Array:
        """The stacked value or gradient, its leading axes in the order of what it stands in."""
        (order,) = self.layouts
        return jnp.moveaxis(array, order, range(len(order))) if order != tuple(range(len(order))) else array

    def present_reached(self, reached: jax.Array) -> jax.Array:
        """Was it reached, with the leading axes that `present` gives the value; `reached` has those of outer scans."""
        lead, axes, ndim = self.lead, self.axes, self.aval.ndim
        batched = tuple(self.aval.shape[d] if d in axes else 1 for d in range(ndim))
        spread = jnp.expand_dims(reached, range(reached.ndim, len(lead) + ndim))
        full = self.present(jnp.broadcast_to(spread, lead + batched))
        return full.reshape(full.shape[: len(lead) + len(axes)])

    def raw(self, array: jax.Array) -> jax.Array:
        """What `present` was given."""
        (order,) = self.layouts
        return jnp.moveaxis(array, range(len(order)), order) if order != tuple(range(len(order))) else array


def named(sites: Sequence[Site]) -> list[Site]:
    """Gives each site a name of its own: its given name, numbered where that is used more than once."""
    uses = Counter(site.given for site in sites)
    numbers: Counter[str] = Counter()
    named: dict[str, Site] = {}
    for site in sites:
        name = f"{site.given}[{numbers[site.given]}]" if uses[site.given] > 1 else site.given
        numbers[site.given] += 1
        if name in named:
            other = named[name]
            raise TagError(
                f'two intermediates would be named "{name}": {other.label} and tag "{site.given}" ({site.where}). '
                "Rename one of them."
            )
        named[name] = replace(site, name=name)
    return list(named.values())
