"""A planned call in float64: its arguments and probes as they go in, and the record that comes out."""

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad._compare.entries import of_record
from jaxgrad._errors import InputError
from jaxgrad._program.wide.promotion import Wide
from jaxgrad._record import Record
from jaxgrad._retain.call import TracedCall
from jaxgrad._types import Leaf, PyTree


def to_numpy(leaf: Leaf) -> np.ndarray[Any, Any]:
    """An argument as it was given, in its own dtype."""
    if isinstance(leaf, jax.core.Tracer):
        raise InputError(
            "an oracle needs numbers and was given traced arguments. Call it outside of jit, vmap and grad."
        )
    # A Python number has the dtype that JAX gives it.
    return (
        np.asarray(leaf)
        if hasattr(leaf, "dtype")
        else np.asarray(leaf, jax.dtypes.canonicalize_dtype(np.result_type(leaf)))
    )


def float64(leaf: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """It in float64, a complex one in complex128."""
    return leaf.astype(np.complex128 if np.iscomplexobj(leaf) else np.float64)


def probes(planned: TracedCall, wide: Wide) -> dict[int, Any]:
    """A 0 to add to each tag that has a gradient."""
    return {
        i: jnp.zeros((*site.lead, *site.aval.shape), wide.kind(site.aval.dtype))
        for i, site in enumerate(planned.sites)
        if site.note is None
    }


def noted(record: Record) -> Record:
    """The record, with a note at each label where it is NaN: there the oracle itself knows nothing."""
    notes = dict(record.notes)
    for label, entry in of_record(record).items():
        if entry.array is not None and (nan := np.isnan(entry.array)).any():
            where = f" at {list(map(int, np.argwhere(nan)[0]))}, {nan.sum()} of {nan.size} elements" if nan.ndim else ""
            notes[label] = f"the oracle's own number is NaN{where}: it cannot judge another's there"
    return replace(record, notes=notes)


def filled(
    planned: TracedCall,
    output: PyTree,
    aux: PyTree,
    values: PyTree,
    reached: PyTree,
    leaf_bars: PyTree,
    probe_bars: PyTree,
) -> Record:
    """The record of what a run gives, in NumPy's arrays."""
    as_numpy = functools.partial(jax.tree.map, np.asarray)
    return Record(
        output=np.asarray(output)[()],
        names=tuple(site.name for site in planned.sites),
        values=as_numpy(planned.present(values)),
        grads={name: None if grad is None else np.asarray(grad) for name, grad in planned.present(probe_bars).items()},
        arg_grads=as_numpy(planned.arg_grads(leaf_bars)),
        notes=planned.notes,
        reached=planned.reached(reached),
        aux=None if aux is None else planned.aux(as_numpy(aux)),
    )
