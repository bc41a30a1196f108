"""Record: the values and gradients that every route yields."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.tree_util import GetAttrKey


@dataclass(frozen=True, eq=False)
class Record:
    r"""Values and gradients of a function's named intermediates, at one input.

    For a function $y = f(a)$ with intermediates $v_1, \dots, v_m$ in program order it holds each $v_i$ and
    $\bar v_i = \partial y / \partial v_i$, whichever way they were found, so that any two ways can be compared.
    It is a pytree: `jit`, `vmap` and `grad` take and return it. Under `vmap` the batch axis leads in every array.

    Attributes:
      output: the function's output $y$.
      names: names of the intermediates in program order, never sorted.
      values: name -> intermediate.
      grads: name -> gradient of the output with respect to the intermediate, of its shape and dtype; None where
        there is none.
      notes: name -> why there is no gradient. A name with a gradient has no note.
      reached: name -> was the branch of the intermediate taken? Only for intermediates inside a branch.
      arg_grads: one gradient for each argument, None for one that was not asked for.
      aux: what the function returned beside its output, or what the route has to add; else None.
      uncertainty: "z" for the value of z, "z.grad" for its gradient, "arg[0].grad", "output" -> how far it may be
        off the truth, of its shape. Only oracles know it; it is empty for a route that rounds as its dtype does.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgrad import neuron
      >>> record = neuron.backprop(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1]))
      >>> for name in record.names:
      ...     print(f"{name} = {record.values[name]:.2f}, df/d{name} = {record.grads[name]:.2f}")
      z = -0.00, df/dz = 0.25
      k = 1.00, df/dk = -0.25
      h = 2.00, df/dh = -0.25
      f = 0.50, df/df = 1.00
    """

    output: Any
    names: tuple[str, ...]
    values: Mapping[str, Any]
    grads: Mapping[str, Any]
    arg_grads: tuple[Any, ...]
    notes: Mapping[str, str] = field(default_factory=dict)
    reached: Mapping[str, Any] = field(default_factory=dict)
    aux: Any = None
    uncertainty: Mapping[str, Any] = field(default_factory=dict)


def _flatten(record: Record) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    # A dict's keys would come back sorted, so the arrays travel as tuples in program order.
    children = (
        record.output,
        tuple(record.values[name] for name in record.names),
        tuple(record.grads[name] for name in record.names),
        tuple(record.reached.values()),
        record.arg_grads,
        record.aux,
        tuple(record.uncertainty.values()),
    )
    return children, (record.names, tuple(record.notes.items()), tuple(record.reached), tuple(record.uncertainty))


def _flatten_with_keys(record: Record) -> tuple[list[tuple[GetAttrKey, Any]], tuple[Any, ...]]:
    children, static = _flatten(record)
    fields = ("output", "values", "grads", "reached", "arg_grads", "aux", "uncertainty")
    return [(GetAttrKey(name), child) for name, child in zip(fields, children, strict=True)], static


def _unflatten(static: tuple[Any, ...], children: Iterable[Any]) -> Record:
    names, notes, branch_names, known = static
    output, values, grads, reached, arg_grads, aux, uncertainty = children
    return Record(
        output=output,
        names=names,
        values=dict(zip(names, values, strict=True)),
        grads=dict(zip(names, grads, strict=True)),
        arg_grads=arg_grads,
        notes=dict(notes),
        reached=dict(zip(branch_names, reached, strict=True)),
        aux=aux,
        uncertainty=dict(zip(known, uncertainty, strict=True)),
    )


jax.tree_util.register_pytree_with_keys(Record, _flatten_with_keys, _unflatten, _flatten)
