"""Forced: a reference's values and cotangents at the tags, so that each piece from tag to tag is judged by itself."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._program.probe import Forced
from jaxgrad._program.sites import Site
from jaxgrad._record import Record
from jaxgrad._retain.layouts import settled
from jaxgrad._types import Value

Known = dict[str, tuple[Any, Any]]  # name -> value, gradient or None


def references(
    sites: Sequence[Site], want: Record | Mapping[Any, Any], names: Mapping[str, str] | None
) -> dict[int, Forced]:
    """Index into `sites` -> the reference's value and cotangent, in the layout and dtype of the site.

    Args:
      want: a record, or a dict of "z" -> value or tensor and "z.grad" -> gradient.
      names: name of a site -> name in `want`; None for the same names.

    Raises:
      InputError: `want` is no such thing, knows none of the sites, or has one of them in another shape.
    """
    known = _known(want)
    called = {i: site.name if names is None else names.get(site.name, "") for i, site in enumerate(sites)}
    at = [i for i, name in called.items() if name in known and not sites[i].in_while]
    if not at:
        raise InputError(
            f"`forced` has none of the tags: it has {_some(known)}, and the function {_some(s.name for s in sites)}. "
            "Give names=align(got, want) where they are called differently."
        )
    shapes = [(_shape(sites[i]), np.shape(known[called[i]][0])) for i in at]
    found = {}
    for i, (shape, other), order in zip(at, shapes, settled(shapes), strict=True):
        if order is None:
            raise InputError(
                f'{sites[i].label} has the shape {list(shape)}, and `forced` has {list(other)} for "{called[i]}"; '
                "expected the same shape, or its axes in the order that PyTorch has. Leave it out by a `names` dict."
            )
        value, bar = (None if a is None else _as_site(sites[i], np.transpose(a, order)) for a in known[called[i]])
        found[i] = Forced(None, value, bar if sites[i].note is None else None)
    return found


def _known(want: Record | Mapping[Any, Any]) -> Known:
    if isinstance(want, Record):
        return {name: (np.asarray(want.values[name]), _array_or_none(want.grads[name])) for name in want.names}
    if not isinstance(want, Mapping):
        raise InputError(f"`forced` is a {type(want).__name__}; expected a Record, or a dict of name -> array.")
    known = {}
    for name, item in want.items():
        if isinstance(name, str) and not name.endswith(".grad"):
            known[name] = (_array(item), _array_or_none(want.get(f"{name}.grad", _gradient(item))))
    return known


def _gradient(item: Any) -> Any:
    """The gradient that a PyTorch tensor has retained; None where there is none."""
    return item.grad if getattr(item, "is_leaf", False) or getattr(item, "retains_grad", False) else None


def _array_or_none(item: Any) -> Value:
    return None if item is None else _array(item)


def _array(item: Any) -> Value:
    return np.asarray(item.detach().cpu().numpy() if hasattr(item, "detach") else item)


def _shape(site: Site) -> tuple[int, ...]:
    """The shape of the site's value as a record has it."""
    return jax.eval_shape(site.present, jax.ShapeDtypeStruct(site.lead + site.aval.shape, site.aval.dtype)).shape  # type: ignore[no-any-return]


def _as_site(site: Site, array: Value) -> jax.Array:
    return site.raw(jnp.asarray(array, site.aval.dtype))


def _some(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "") if names else "no names"
