"""A function from Arrow's batches to tables, for the engines that drive one: Ray, Spark, Dask, DuckDB, Polars."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import jax
import numpy as np
from jax.typing import DTypeLike

from jaxgrad._batch.arrow.arguments import Argument, Array, Arrow, Rows, check_on_bad_row, column, pyarrow, read
from jaxgrad._batch.arrow.program import FEWEST, Program, the_same
from jaxgrad._batch.arrow.results import array_of, named, schema_of, values
from jaxgrad._batch.batch import Batched
from jaxgrad._errors import InputError

Columns = Sequence[str | Sequence[str]]


@dataclass(frozen=True)
class ArrowMapper:
    """What `arrow_mapper` returns: batch or table -> table, many batches -> many batches; it can be pickled.

    Attributes:
      schema: of what it returns, known before the first call.
    """

    schema: Arrow
    _program: Program
    _arguments: tuple[Argument, ...]
    _shared: tuple[Any, ...]  # arguments that every row has
    _carry: tuple[str, ...]
    _keep: tuple[str, ...]
    _must_be_finite: str | None  # a result that says whether a row is bad
    _on_bad_row: str

    def __call__(self, batch: Arrow) -> Arrow:
        """The results of each row.

        Args:
          batch: a `pyarrow.RecordBatch` or `pyarrow.Table`, or an iterable of them, a `RecordBatchReader` for one.

        Returns:
          A `pyarrow.Table`; for an iterable, an iterator of `pyarrow.RecordBatch`.

        Raises:
          InputError: a column is missing or of another type, or a row is bad and `on_bad_row` is "error".
        """
        pa = pyarrow()
        if isinstance(batch, (pa.RecordBatch, pa.Table)):
            return self._table(batch)
        if (
            isinstance(batch, Iterable)
            and not isinstance(batch, (str, bytes, Mapping))
            and not hasattr(batch, "dtypes")
        ):
            return self._batches(batch)
        raise InputError(
            f"the batch is a {type(batch).__name__}; expected a pyarrow.RecordBatch or Table, or an iterable of them. "
            "Write pyarrow.Table.from_pandas for a data frame."
        )

    def _batches(self, batches: Iterable[Arrow]) -> Iterator[Arrow]:
        for batch in batches:
            yield from self(batch).to_batches()

    def _table(self, batch: Arrow) -> Arrow:
        rows = read(batch, self._arguments)
        self._refuse(rows.first_bad)
        carried = {name: self._carried(batch, name) for name in self._carry}
        if not batch.num_rows:
            return self.schema.empty_table()
        bad = set[int]()
        pieces: dict[str, list[Arrow]] = {name: [] for name in self._keep}
        for start, results in self._program.blocks(rows.arguments, self._shared):
            found = named(results)
            count = min(len(next(iter(found.values()))), batch.num_rows - start)
            here = self._bad_rows(rows, start, count, found)
            bad.update((here + start).tolist())
            for name in self._keep:
                kept = self._without_bad(values(found[name], count), here)
                pieces[name].append(array_of(kept, self.schema.field(name).type))
        pa = pyarrow()
        if bad and self._on_bad_row == "skip":
            is_good = np.ones(batch.num_rows, bool)
            is_good[sorted(bad)] = False
            carried = {name: array.filter(pa.array(is_good)) for name, array in carried.items()}
        return pa.table({**carried, **{k: pa.chunked_array(v) for k, v in pieces.items()}}, schema=self.schema)

    def _bad_rows(self, rows: Rows, start: int, count: int, found: Mapping[str, Any]) -> Array:
        """Which rows of a block are bad, counted from its first."""
        bad = rows.bad[np.searchsorted(rows.bad, start) : np.searchsorted(rows.bad, start + count)] - start
        if self._must_be_finite is None:
            return bad
        overflown = np.flatnonzero(~np.isfinite(values(found[self._must_be_finite], count)))
        if len(overflown):
            name, dtype = self._must_be_finite, self._arguments[0].dtype
            self._refuse(
                f"row {start + int(overflown[0])} of the batch: its {name}, or a term of it, overflows {dtype}"
            )
        return np.union1d(bad, overflown)

    def _refuse(self, bad: str | None) -> None:
        if bad is not None and self._on_bad_row == "error":
            kind = "finite numbers" if self._arguments[0].finite else "numbers"
            raise InputError(
                f'{bad}; expected {kind}. Give `on_bad_row="skip"` to leave such rows out, or `"nan"` to have NaN in '
                "them."
            )

    def _without_bad(self, rows: Array, bad: Array) -> Array:
        if not len(bad):
            return rows
        if self._on_bad_row == "skip":
            return np.delete(rows, bad, axis=0)
        rows = rows.copy()
        rows[bad] = np.nan
        return rows

    def _carried(self, batch: Arrow, name: str) -> Arrow:
        found, kind = column(batch, name), self.schema.field(name).type
        try:
            return found.cast(kind)
        except (pyarrow().ArrowInvalid, pyarrow().ArrowNotImplementedError) as error:
            raise InputError(f'column "{name}" is {found.type}; expected {kind}, as `carry` has it. {error}') from None


def arrow_mapper(
    batched: Batched,
    columns: Columns,
    *,
    dtype: DTypeLike | None = None,
    carry: Mapping[str, Any] | None = None,
    on_bad_row: str = "error",
) -> ArrowMapper:
    """Makes a function of many rows into one of Arrow's batches, as Ray Data, Spark, Dask and DuckDB drive it.

    It can be pickled, by `cloudpickle` too, if the function can. A process compiles it once, for however many tasks
    it is unpickled, and for few numbers of rows: a batch is computed in blocks, whose rows are a power of two.

    Args:
      batched: what `batch` made of a function of one row; its results are a pytree of arrays.
      columns: for each argument the name of its column, or a list of names for an argument of shape (columns,).
      dtype: what all columns become; JAX's default float if None, and then a wider column is an error.
      carry: columns that are passed through, and their types: {"id": "int64"}, of pyarrow or by its alias.
      on_bad_row: what to do with a row that lacks a number, or has one that `dtype` cannot hold: "error", "skip" it,
        or have "nan" in its results. NaN and infinity are numbers, and the function's.

    Returns:
      An `ArrowMapper`: a `pyarrow.RecordBatch` or `Table` gives a `Table` with a column for each result, named by its
      path in the pytree (an array alone is `output`), of fixed-size lists where it has more axes; an iterable of
      batches, as Spark has them, gives an iterator of batches. `mapper.schema` is known before.

    Raises:
      InputError: pyarrow is not installed; the columns are not the function's arguments; Arrow has no such type.

    Example:
      >>> import pyarrow as pa
      >>> from jaxgrad import batch
      >>> batched = batch(lambda x, y: {"area": x * y})
      >>> mapper = arrow_mapper(batched, ["x", "y"], dtype="float32", carry={"id": "string"})
      >>> mapper.schema.names
      ['id', 'area']
      >>> mapper(pa.table({"id": ["a", "b"], "y": [4, 12], "x": [3.0, 5.0]})).to_pydict()
      {'id': ['a', 'b'], 'area': [12.0, 60.0]}
    """
    if not isinstance(batched, Batched):
        raise InputError(f"batched is a {type(batched).__name__}; expected what jaxgrad.batch returns.")
    kind = np.dtype(jax.dtypes.canonicalize_dtype(float) if dtype is None else dtype)
    arguments = [_argument(names, kind, narrows=dtype is not None, finite=False) for names in columns]
    x64 = kind.itemsize == 8 or bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]
    return planned(the_same(batched, x64, uuid4()), arguments, carry=carry, on_bad_row=on_bad_row)


def planned(
    program: Program,
    arguments: Sequence[Argument],
    shared: tuple[Any, ...] = (),
    *,
    carry: Mapping[str, Any] | None,
    on_bad_row: str,
    keep: Sequence[str] | None = None,
    must_be_finite: str | None = None,
) -> ArrowMapper:
    """A mapper, all that can be checked before the first batch being checked."""
    if not arguments:
        raise InputError("columns is empty; expected the name of a column for each argument.")
    row = [jax.ShapeDtypeStruct((FEWEST, *argument.row_shape), argument.dtype) for argument in arguments]
    shapes = named(program.shapes(row, shared))
    keep = tuple(shapes) if keep is None else tuple(keep)
    carried = {name: _arrow_type(name, kind) for name, kind in (carry or {}).items()}
    schema = schema_of({name: shapes[name] for name in keep}, carried)
    check_on_bad_row(on_bad_row, {name: np.dtype(shapes[name].dtype) for name in keep})
    return ArrowMapper(schema, program, tuple(arguments), shared, tuple(carried), keep, must_be_finite, on_bad_row)


def _argument(names: str | Sequence[str], dtype: np.dtype[Any], *, narrows: bool, finite: bool) -> Argument:
    if dtype.kind not in "fiub":
        raise InputError(f"dtype is {dtype}; expected a real one: float32, float64, int32 or another.")
    if isinstance(names, str):
        return Argument((names,), False, dtype, narrows, finite)
    return Argument(tuple(names), True, dtype, narrows, finite)


def _arrow_type(name: str, kind: Any) -> Arrow:
    pa = pyarrow()
    try:
        return kind if isinstance(kind, pa.DataType) else pa.type_for_alias(kind)
    except (ValueError, TypeError):
        raise InputError(
            f'`carry` has {kind!r} for "{name}"; expected a type of pyarrow, as pyarrow.int64() or "int64".'
        ) from None
