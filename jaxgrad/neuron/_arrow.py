"""The neuron over Arrow's batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from jaxgrad._batch.arrow.arguments import Argument
from jaxgrad._batch.arrow.mapper import ArrowMapper, planned
from jaxgrad._batch.arrow.program import Program, the_same
from jaxgrad._batch.batch import batch
from jaxgrad._errors import InputError
from jaxgrad.neuron._backprop import backprop
from jaxgrad.neuron._quantities import chosen, quantities

DTYPES = ("float16", "float32", "float64")


def arrow_mapper(
    w: ArrayLike | Sequence[float],
    *,
    columns: Sequence[str],
    keep: Sequence[str] | None = None,
    dtype: DTypeLike | None = None,
    carry: Mapping[str, Any] | None = None,
    on_bad_row: str = "error",
) -> ArrowMapper:
    """The neuron's values and gradients for each row of an Arrow batch, as Ray Data, Spark, Dask and DuckDB drive it.

    The numbers are those of `python -m jaxgrad evaluate`, to the bit. A process compiles it once, for however many
    tasks it is unpickled there.

    Args:
      w: weights, shape (n+1,), the bias last.
      columns: names of the n columns that are the inputs.
      keep: names or globs of `neuron.quantities`; all if None.
      dtype: what is computed in: float16, float32 or float64; w's if None, and then a wider column is an error.
      carry: columns that are passed through, and their types: {"id": "int64"}, of pyarrow or by its alias.
      on_bad_row: what to do with a row that has a missing, infinite or NaN input, or whose z overflows: "error",
        "skip" it, or have "nan" in its results.

    Returns:
      An `ArrowMapper`: a `pyarrow.RecordBatch` or `Table` gives a `Table`; an iterable of batches, as Spark has them,
      gives an iterator of batches. `mapper.schema` is known before.

    Raises:
      InputError: pyarrow is not installed; there are not as many weights as columns and one more; there is no such
        quantity.

    Example:
      >>> import pyarrow as pa
      >>> from jaxgrad import neuron
      >>> mapper = neuron.arrow_mapper([0.5, -0.3, 0.1], columns=["a", "b"], keep=["f", "df/dx0"], dtype="float32")
      >>> mapper(pa.table({"a": [1.0, -300.0], "b": [2.0, 200.0]})).to_pydict()
      {'f': [0.5, 0.0], 'df/dx0': [0.125, 0.0]}
    """
    weights = _weights(w, dtype, columns)
    kept = chosen(weights, keep)
    x = Argument(tuple(columns), True, weights.dtype, narrows=dtype is not None, finite=True)
    return planned(
        _program(kept, weights.dtype),
        [x],
        (weights,),
        carry=carry,
        on_bad_row=on_bad_row,
        keep=kept,
        must_be_finite="z",
    )


def _weights(w: Any, dtype: DTypeLike | None, columns: Sequence[str]) -> np.ndarray[Any, Any]:
    if isinstance(columns, str) or not columns:
        raise InputError(f"columns is {columns!r}; expected a list of the inputs' names.")
    given = w.dtype if hasattr(w, "dtype") else jnp.result_type(float)
    found = np.dtype(given if dtype is None else dtype)
    if found.name not in DTYPES:
        raise InputError(f"the weights' dtype is {found.name}; expected one of {', '.join(DTYPES)}. Give `dtype`.")
    with np.errstate(over="ignore"):
        weights = np.array(w, found)
    if weights.shape != (len(columns) + 1,):
        raise InputError(
            f"w has shape {weights.shape} and there are {len(columns)} columns of inputs; expected "
            f"({len(columns) + 1},), a weight for each column and the bias last."
        )
    if not np.isfinite(weights).all():
        raise InputError(f"weight {int(np.flatnonzero(~np.isfinite(weights))[0])} is not a finite {found.name}.")
    return weights


@dataclass(frozen=True)
class _Quantities:
    """What is computed of a row: the columns, and z, which says whether a row is bad."""

    keep: tuple[str, ...]

    def __call__(self, x: jax.Array, w: jax.Array) -> dict[str, jax.Array]:
        found = quantities(backprop(x, w))
        return {name: found[name] for name in dict.fromkeys((*self.keep, "z"))}


def _program(keep: tuple[str, ...], dtype: np.dtype[Any]) -> Program:
    return the_same(batch(_Quantities(keep), in_axes=(0, None)), dtype.itemsize == 8, ("neuron", keep))
