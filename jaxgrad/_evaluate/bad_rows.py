"""Blocks of rows, checked: which of them are bad, and what becomes of those."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._evaluate import source
from jaxgrad._evaluate.carried import as_numbers
from jaxgrad._evaluate.formats.columns import pyarrow
from jaxgrad._evaluate.program import column
from jaxgrad._evaluate.sink import Columns
from jaxgrad._evaluate.task import Task
from jaxgrad._text import short

FEWEST = 256  # rows of a program


@dataclass(frozen=True)
class Block:
    """Rows, checked: those that are bad are in it, and named."""

    start: int
    x: np.ndarray[Any, Any]
    bad: np.ndarray[Any, Any]
    first_bad: str | None
    carried: Columns

    def padded(self, size: int) -> np.ndarray[Any, Any]:
        """As many rows as every block has: another number would be another program."""
        return self.x if len(self.x) == size else np.resize(self.x, (size, self.x.shape[1]))

    def padded_to_few(self, most: int) -> np.ndarray[Any, Any]:
        """As many rows as one of a few programs has, for files of any number of rows."""
        return self.padded(min(most, max(FEWEST, 1 << (len(self.x) - 1).bit_length())))


def checked(task: Task, start: int) -> Iterator[Block]:
    """The rows from `start` on, as arrays of the task's dtype."""
    for chunk in source.blocks(task.source, task.positions, start, task.block, task.passing):
        if task.stop is not None and start + len(chunk) > task.stop:
            chunk, _ = source.split(chunk, task.stop - start)
        columns = chunk.columns
        x = np.empty((len(columns[0]), len(columns)), task.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is infinite, and bad
            for i, column in enumerate(columns):
                x[:, i] = column
        finite = np.isfinite(x)
        bad = np.flatnonzero(~finite.all(axis=1)) if not finite.all() else np.empty(0, int)
        first_bad = None
        if len(bad):
            first_bad = _why(task, chunk, start, int(bad[0]), int(np.flatnonzero(~finite[bad[0]])[0]))
            _refuse(task, first_bad)
            x[bad] = 0
        yield Block(start, x, bad, first_bad, carried_of(task, chunk, start))
        start += len(x)
        if start == task.stop:
            return


def carried_of(task: Task, chunk: source.Chunk, start: int) -> dict[str, Any]:
    """The columns of a chunk that pass through."""
    of_file = dict(zip(task.passing, chunk.carried, strict=True))
    return {column.name: column.array(of_file, start, len(chunk)) for column in task.carry}


def _refuse(task: Task, bad: str) -> None:
    if task.on_bad_row == "error":
        raise InputError(
            f'{bad}; expected finite numbers. Give `on_bad_row="skip"` to leave such rows out, or `"nan"` to have NaN '
            "in them."
        )


def _why(task: Task, chunk: source.Chunk, start: int, row: int, column: int) -> str:
    value = chunk.columns[column][row]
    what = f"is {value}, too large for {task.dtype.name}" if np.isfinite(value) else f"is {value}"
    name = task.source.names[task.positions[column]]
    return f"{task.source.place(start + row)}, column {short(name)}: it {chunk.why.get((row, column), what)}"


def with_overflow(task: Task, block: Block, z: np.ndarray[Any, Any]) -> Block:
    """The block, rows that are bad for their z among those that are bad for their inputs.

    Each finite, inputs can have a sum that is not, or terms: then z says nothing of the row.
    """
    overflown = np.flatnonzero(~np.isfinite(z))
    if not len(overflown):
        return block
    row, first_bad = int(overflown[0]), block.first_bad
    if not len(block.bad) or row < block.bad[0]:
        first_bad = f"{task.source.place(block.start + row)}: its z, or a term of it, overflows {task.dtype}"
        _refuse(task, first_bad)
    return replace(block, bad=np.union1d(block.bad, overflown), first_bad=first_bad)


def views_of(results: dict[str, jax.Array]) -> dict[str, np.ndarray[Any, Any]]:
    """What was computed, as NumPy's arrays: views, where that can be, that end with what holds them."""
    return {name: _view(array) for name, array in results.items()}


def columns_of(task: Task, block: Block, views: dict[str, np.ndarray[Any, Any]], ending: str) -> Columns:
    """The columns of a block's rows, for an output of that ending.

    Raises:
      InputError: the output has no place for one of the cells.
    """
    if ending.lower() == ".npy":
        block = _in_numbers(task, block)
    # One copy for all columns of a kind: read one by one, each would go through all of the memory.
    views = {name: np.ascontiguousarray(view.T) if view.ndim == 2 else view for name, view in views.items()}
    columns = {name: column(views, name) for name in task.keep}
    if not len(block.bad):
        return {**block.carried, **columns}
    if task.on_bad_row == "skip":
        return without({**block.carried, **columns}, block.bad)
    columns = {name: whole.copy() for name, whole in columns.items()}
    for copy in columns.values():
        copy[block.bad] = np.nan
    return {**block.carried, **columns}


def without(columns: Columns, rows: np.ndarray[Any, Any]) -> Columns:
    """The columns without some rows."""
    stay = np.ones(len(next(iter(columns.values()))), bool)
    stay[rows] = False
    return {
        name: c[stay] if isinstance(c, np.ndarray) else c.filter(pyarrow("pyarrow").array(stay))
        for name, c in columns.items()
    }


def _in_numbers(task: Task, block: Block) -> Block:
    """The block with what it carries as arrays of NumPy's, for a format of these.

    Raises:
      InputError: a cell is missing, in a row that is not left out.
    """
    found = {}
    for name, kind in task.schema.carried.items():
        found[name], missing = as_numbers(block.carried[name], kind)
        if task.on_bad_row == "skip":
            missing = np.setdiff1d(missing, block.bad)
        if len(missing):
            raise InputError(
                f"{task.source.place(block.start + int(missing[0]))}, column {short(name)}: it is missing, and .npy "
                "has no place for that; expected a value. Do not carry it, or give an output of another format."
            )
    return replace(block, carried=found)


def _view(array: jax.Array) -> np.ndarray[Any, Any]:
    on_cpu = {device.platform for device in array.devices()} == {"cpu"}
    return np.from_dlpack(array) if on_cpu else np.asarray(array)  # type: ignore[arg-type]
