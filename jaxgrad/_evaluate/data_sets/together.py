"""Small files of rows: read whole, the rows of several computed as one block, each output put together in memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._evaluate.bad_rows import Block, checked, columns_of, views_of, with_overflow
from jaxgrad._evaluate.evaluate import check_count, written_to
from jaxgrad._evaluate.files import open_sink
from jaxgrad._evaluate.output.seal import Seal
from jaxgrad._evaluate.output.whole import InMemory
from jaxgrad._evaluate.program import batched_columns
from jaxgrad._evaluate.task import Task

SMALL = 8 << 20  # bytes of a file of rows
ROWS = 1 << 17  # that are computed together, if no file has more
FILES = 32  # that are open at a time


Made: TypeAlias = tuple[Seal, Mapping[Path, bytes | memoryview]]  # an output: its seal, and the files to write


@dataclass(frozen=True)
class Small:
    """A small file: what is asked of it, where its output goes, and its rows, all of them."""

    task: Task
    made_of: dict[str, Any]  # of the task
    out: Path
    block: Block

    @property
    def rows(self) -> int:
        return len(self.block.x)


def read_small(task: Task, made_of: dict[str, Any], out: Path) -> Small | None:
    """The rows of a file; None if there are too many for one block.

    Raises:
      InputError: as `evaluate`.
    """
    if task.source.opened.size > SMALL or (task.total or 0) > task.block:
        return None
    with jax.enable_x64(task.dtype == np.float64):
        blocks = checked(task, task.start)
        block = next(blocks, None)
        if block is not None and next(blocks, None) is not None:
            return None
    check_count(task, 0 if block is None else len(block.x))
    assert block is not None
    return Small(task, made_of, out, block)


def is_full(files: Sequence[Small], more: Small) -> bool:
    """Whether another file is too much for a group of files."""
    most = min(more.task.block, ROWS)
    return len(files) == FILES or sum(file.rows for file in files) + more.rows > most


def made_together(files: Sequence[Small]) -> list[Made | InputError]:
    """The outputs of files, in order; the first one that is wrong ends them, and what is wrong with it is the last."""
    found: list[Made | InputError] = []
    try:
        found.extend(evaluate_together(files))
    except InputError as error:
        found.append(error)
    return found


def evaluate_together(files: Sequence[Small]) -> Iterator[Made]:
    """The seal of each output, and the files to write for it.

    Raises:
      InputError: as `evaluate`, when the output of that file is asked for.
    """
    task = files[0].task
    with jax.enable_x64(task.dtype == np.float64):
        x = files[0].block.x if len(files) == 1 else np.concatenate([file.block.x for file in files])
        block = Block(0, x, np.empty(0, int), None, {}).padded_to_few(task.block)
        views = views_of(batched_columns(task.keep, len(task.positions))(block, task.weights))
    start = 0
    for file in files:
        own = {name: view[start : start + file.rows] for name, view in views.items()}
        yield _put_together(file, own)
        start += file.rows


def _put_together(file: Small, views: dict[str, np.ndarray[Any, Any]]) -> Made:
    task, out = file.task, file.out
    whole = InMemory(out, file.made_of)
    block = with_overflow(task, file.block, views["z"])
    sink = open_sink(
        out.suffix, whole.file, task.schema, compression=task.compression, row_group_size=task.row_group_size
    )
    written_to(sink, whole, columns_of(task, block, views, out.suffix), block)
    seal = whole.seal(sink.close)
    task.source.opened.check_unchanged()
    return seal, whole.files(seal)
