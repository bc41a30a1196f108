"""Results of a function of rows as columns of an Arrow table: their names, their types, their values."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.tree_util import tree_leaves_with_path

from jaxgrad._batch.arrow.arguments import Array, Arrow, pyarrow
from jaxgrad._errors import InputError
from jaxgrad._types import Leaf, PyTree

Carried = Mapping[str, Arrow]  # a column that is passed through -> its type


def named(results: PyTree) -> dict[str, Leaf]:
    """The arrays of a pytree by their path: {"z": ...} gives z, a record `values.z`, an array alone `output`."""
    return {_name(path): leaf for path, leaf in tree_leaves_with_path(results)}


def _name(path: Sequence[Any]) -> str:
    return (
        ".".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path) or "output"
    )


def schema_of(results: Mapping[str, Any], carried: Carried) -> Arrow:
    """The schema of the table: what is carried, then a column for each result.

    Raises:
      InputError: two columns would have one name, or Arrow has no such dtype.
    """
    pa = pyarrow()
    twice = next((name for name in results if name in carried), None)
    if twice is not None:
        raise InputError(f'`carry` has "{twice}", and so have the results; expected a name for each column.')
    own = [pa.field(name, _type(name, leaf), nullable=False) for name, leaf in results.items()]
    return pa.schema([pa.field(name, kind) for name, kind in carried.items()] + own)


def _type(name: str, leaf: Any) -> Arrow:
    pa = pyarrow()
    try:
        kind = pa.from_numpy_dtype(np.dtype(leaf.dtype))
    except (pa.ArrowNotImplementedError, TypeError):
        raise InputError(
            f'the result "{name}" is {leaf.dtype}, which Arrow has not; expected booleans, integers, float16, float32 '
            "or float64. Convert it in the function."
        ) from None
    for length in reversed(leaf.shape[1:]):
        kind = pa.list_(pa.field("item", kind, nullable=False), length)
    return kind


def values(leaf: jax.Array, rows: int) -> Array:
    """The first rows of a result: a view, where that can be, that ends with what holds it."""
    on_cpu = {device.platform for device in leaf.devices()} == {"cpu"}
    return (np.from_dlpack(leaf) if on_cpu and leaf.dtype != bool else np.asarray(leaf))[:rows]  # type: ignore[arg-type]


def array_of(rows: Array, kind: Arrow) -> Arrow:
    """Rows of numbers, or of arrays of them, as Arrow has them."""
    pa = pyarrow()
    if rows.ndim == 1:
        return pa.array(np.ascontiguousarray(rows), kind)
    inner = array_of(rows.reshape(-1, *rows.shape[2:]), kind.value_type)
    return pa.FixedSizeListArray.from_arrays(inner, type=kind)
