"""Task: what evaluate is asked for, checked before anything is computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._evaluate.carried import Carried, Key, carried_columns
from jaxgrad._evaluate.files import open_source
from jaxgrad._evaluate.sink import Schema
from jaxgrad._evaluate.source import RowFile, blocks
from jaxgrad._evaluate.weights import read_weights
from jaxgrad._text import listed, short
from jaxgrad.neuron._quantities import chosen

BLOCK = 16 << 20  # bytes of rows and results that are read, computed and written at a time
CARRIED = 16  # bytes of a cell that is carried, about: text has no length of its own
MOST = 1 << 31  # rows at a time, whatever is asked for
ON_BAD_ROW = ("error", "skip", "nan")
HEADER = ("auto", "yes", "no")
DTYPES = ("float16", "float32", "float64")

version = cache(metadata.version)  # which reads files each time


@dataclass(frozen=True)
class Task:
    """What to evaluate: everything that the output depends on.

    Attributes:
      source: the rows.
      positions: of the source's columns that are the inputs.
      weights: as many and one more, the bias last.
      keep: names of the quantities, in their order in the output.
      dtype: what is computed in.
      block: rows at a time.
      on_bad_row: "error", "skip" or "nan": what to do with a row that has a missing, infinite or NaN input or one
        that is no number.
      start, stop: the rows of the source that are this process's; None where that is to its end.
      weights_file: where the weights are from, if they are from a file.
      limited: there may be less rows than up to `stop`.
      compression, row_group_size: of an output in Parquet.
      carry: what passes through, before the quantities.
    """

    source: RowFile
    positions: tuple[int, ...]
    weights: np.ndarray[Any, Any]
    keep: tuple[str, ...]
    dtype: np.dtype[Any]
    block: int
    on_bad_row: str
    start: int
    stop: int | None
    weights_file: Path | None = None
    limited: bool = False
    compression: str = "none"
    row_group_size: int | None = None
    carry: tuple[Carried, ...] = ()

    @property
    def schema(self) -> Schema:
        """The output's columns."""
        return Schema({column.name: column.kind for column in self.carry}, self.keep, self.dtype)

    @property
    def passing(self) -> tuple[int, ...]:
        """The positions of the source's columns that pass through."""
        return tuple(column.position for column in self.carry if column.position is not None)

    @property
    def total(self) -> int | None:
        """The rows to read, None where only reading on would tell."""
        return None if self.stop is None or self.limited else self.stop - self.start

    @property
    def inputs(self) -> list[str]:
        """The names of the columns that are read."""
        return [self.source.names[position] for position in self.positions]

    def made_of(self) -> dict[str, Any]:
        """All that an output depends on: what has to be the same for a run to go on with another's part.

        The rows are known by their content, all of it up to 64 MiB and samples of more; not by their name or time.
        """
        return {
            "rows": self.source.opened.fingerprint,
            "read as": dict(self.source.read_as),
            "dtype": self.dtype.name,
            "columns": self.inputs,
            "weights": self.weights.astype(float).tolist(),
            "keep": list(self.keep),
            "carried": [[c.name, str(c.kind)] for c in self.carry],
            "row number": next((c.name for c in self.carry if c.is_number), None),
            "keys": {c.name: c.key for c in self.carry if c.position is None and not c.is_number},
            "batch size": self.block,
            "on bad row": self.on_bad_row,
            "part of the rows": [self.start, self.stop],
            "compression": self.compression,
            "row group size": self.row_group_size,
            "jaxgrad": _version_or_none("jaxgrad"),
            "JAX": jax.__version__,
            "NumPy": np.__version__,
            "pyarrow": _version_or_none("pyarrow"),
            "device": jax.devices()[0].device_kind,
            "jit": not jax.config.jax_disable_jit,  # type: ignore[attr-defined]
            "matmul precision": jax.config.jax_default_matmul_precision,  # type: ignore[attr-defined]
        }


def _version_or_none(package: str) -> str | None:
    try:
        return version(package)
    except metadata.PackageNotFoundError:
        return None


def plan_task(
    rows: str | Path,
    weights: str,
    *,
    columns: Sequence[str] | None = None,
    keep: Sequence[str] | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
    on_bad_row: str = "error",
    header: str = "auto",
    share: tuple[int, int] = (0, 1),
    limit: int | None = None,
    compression: str = "none",
    row_group_size: int | None = None,
    shown: str | None = None,
    carry: Sequence[str] = (),
    row_number: str | None = None,
    keys: Mapping[str, Key] | None = None,
) -> Task:
    """Checks what is asked for, and finds what was left open.

    Args:
      rows: a file of rows.
      weights: numbers with commas between them, or a file of them.
      columns: names of the inputs' columns, or their numbers from 0; all columns if None.
      keep: names or globs of `neuron.quantities`; all if None.
      dtype: "float16", "float32" or "float64"; if None the rows', float32 where they are text or whole numbers.
      batch_size: rows that are read, computed and written at a time.
      on_bad_row: "error", "skip" or "nan".
      header: of a .csv file: "yes", "no" or "auto", which is an error where the first line may be either.
      share: (i, n) for the i-th part of n of the rows.
      limit: only the first rows, this many.
      compression, row_group_size: of an output in Parquet: how it is packed, and rows in a row group at most.
      shown: the name of `rows` in messages, where it is a copy.
      carry: names of columns that pass through to the output, of keys in the rows' path, or columns' numbers.
      row_number: a name for a column of the rows' numbers, from 1; none if None.
      keys: that the rows' path has.

    Raises:
      InputError: a file cannot be read, there are not as many weights as columns and one more, a column or
        quantity is not there, a column cannot be carried.
    """
    source = replace(open_source(rows, header), shown=shown)
    positions = _positions(source, columns)
    found = _dtype(source, positions, dtype)
    w, weights_file = read_weights(weights, found, [source.names[position] for position in positions])
    kept = chosen(w, keep)
    carried = carried_columns(source, carry, row_number, keys or {}, kept)
    for name, number in {"batch_size": batch_size, "limit": limit, "row_group_size": row_group_size}.items():
        if number is not None and number < 1:
            raise InputError(f"`{name}` is {number}; expected a positive number of rows.")
    bytes_a_row = found.itemsize * (len(positions) + len(kept)) + CARRIED * len(carried)
    block = min(batch_size or max(1024, 1 << ((BLOCK // bytes_a_row).bit_length() - 1)), MOST)
    start, stop = _share(source, positions, block, share, limit)
    return Task(
        source, positions, w, kept, found, block, on_bad_row, start, stop, weights_file,
        limited=limit is not None and source.count is None and share[1] == 1,
        compression=compression, row_group_size=row_group_size, carry=carried,
    )  # fmt: skip


def _positions(source: RowFile, columns: Sequence[str] | None) -> tuple[int, ...]:
    if columns is None:
        return tuple(range(len(source.names)))
    by_name = {name: position for position, name in enumerate(source.names)}
    return tuple(_position(source, by_name, column) for column in columns)


def _position(source: RowFile, by_name: Mapping[str, int], column: str) -> int:
    if column in by_name:
        return by_name[column]
    if column.isdecimal() and int(column) < len(source.names):
        return int(column)
    raise InputError(
        f'"{source.path}" has no column "{short(column)}"; expected one of {listed(source.names)}, or a number from 0 '
        f"to {len(source.names) - 1}."
    )


def _dtype(source: RowFile, positions: Sequence[int], dtype: str | None) -> np.dtype[Any]:
    if dtype is not None:
        return np.dtype(dtype)
    found = {kind for position in positions if (kind := source.dtypes[position]) is not None and kind.kind == "f"}
    widest = np.result_type(*found) if found else np.dtype(np.float32)
    return widest if widest.name in DTYPES else np.dtype(np.float64)


def _share(
    source: RowFile, positions: Sequence[int], block: int, share: tuple[int, int], limit: int | None
) -> tuple[int, int | None]:
    """First and last row of a process."""
    index, processes = share
    count = source.count
    if processes == 1 and count is None:
        return 0, limit
    if count is None:
        count = sum(map(len, blocks(source, positions, 0, block)))
    count = count if limit is None else min(count, limit)
    if count < processes:
        raise InputError(f'"{source.path}" has {count} rows for {processes} processes; expected one for each at least.')
    to_the_end = source.count is None and limit is None and index == processes - 1
    return count * index // processes, None if to_the_end else count * (index + 1) // processes
