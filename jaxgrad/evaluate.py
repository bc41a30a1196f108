"""evaluate: the neuron's values and gradients for each row of a file, into a file, however long it is.

One thread reads the next rows, one computes these, and one writes the last ones.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType

from jaxgrad import neuron, sinks, sources
from jaxgrad._batch import threads
from jaxgrad._batch.batch import Batched, batch
from jaxgrad.errors import InputError
from jaxgrad.part import Part, is_whole
from jaxgrad.task import Task

_Columns = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Summary:
    """What was done: rows read and written, how many of them were bad, and what was wrong with the first of them."""

    out: Path
    read: int
    written: int
    columns: int
    bad: int
    first_bad: str | None
    resumed: int  # rows that an earlier run had read


def evaluate(
    task: Task,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
    before_publishing: Callable[[], None] = lambda: None,
) -> Summary:
    """Writes the quantities of each row to `out`, which appears under its name when it is whole.

    Until then it is `OUT.part`, beside a log of the blocks that are whole: interrupted, killed or out of space, it is
    left there, and `resume` goes on with it, to the same bytes.

    Args:
      task: what to evaluate.
      out: a .npy, .parquet, .arrow or .csv file; its columns are named as the quantities.
      resume: go on with a part; begin where there is none.
      overwrite: write over an output or a part of another run.
      progress: is called with the rows done and their number, if that is known.
      before_publishing: is called when all is written and before it has its name.

    Raises:
      InputError: the output exists, or is the input; a row is bad and `on_bad_row` is "error"; the file of rows
        changed while it was read.
    """
    out = Path(out)
    if out.suffix.lower() not in sinks.WRITES:
        raise InputError(f'the output is "{out}"; expected a file that ends in {", ".join(sinks.WRITES)}.')
    if out.exists() and out.samefile(task.source.path):
        raise InputError(f'"{out}" holds the rows; expected another file for the output.')
    if resume and not overwrite and _may_be_the_result(task, out) and is_whole(out):
        return Summary(out, 0, 0, len(task.keep), 0, None, 0)
    part = Part(out, task.provenance(), resume=resume, overwrite=overwrite)
    try:
        with jax.enable_x64(task.dtype == np.float64):
            summary = _run(task, out, part, progress)
        before_publishing()
        part.publish()
    except InputError:
        part.leave() if part.done else part.remove()
        raise
    except BaseException:
        part.leave()
        raise
    return summary


def _may_be_the_result(task: Task, out: Path) -> bool:
    """Whether a file has the columns that are asked for, and as many rows where that is known."""
    try:
        found = sources.open_source(out)
    except InputError:
        return False
    if found.names != task.keep:
        return False
    if task.stop is None or found.count is None or task.on_bad_row == "skip":
        return True
    return found.count == task.stop - task.start


def share_of(out: str | Path, index: int, processes: int) -> Path:
    """The file of a process's own part of the output: out.npy is out-00000-of-00002.npy for the first of two."""
    out = Path(out)
    return out if processes == 1 else out.with_name(f"{out.stem}-{index:05}-of-{processes:05}{out.suffix}")


def _run(task: Task, out: Path, part: Part, progress: Callable[[int, int | None], None]) -> Summary:
    batched = _batched(task.keep)
    written = [block.written for block in part.done if block.written]
    sink = sinks.open_sink(out.suffix, part.file, task.keep, task.dtype, written)
    earlier = sum(block.read for block in part.done)
    total = None if task.stop is None else task.stop - task.start
    read = earlier
    progress(read, total)
    results: list[Any] = [None, None]  # one block is computed while another is written, in memory that is used again
    writing: Future[None] | None = None
    with ThreadPoolExecutor(1) as writer:
        for i, block in enumerate(threads.ahead(_checked(task, task.start + earlier))):
            # The first block is either full or all there is.
            x = block.padded(task.block) if read else block.x
            results[i % 2] = batched(x, task.weights, out=results[i % 2])
            columns = _columns(task, block, results[i % 2])
            if writing is not None:
                writing.result()
            writing = writer.submit(_write, sink, part, columns, block)
            read += len(block.x)
            progress(read, total)
        if writing is not None:
            writing.result()
    if not read:
        raise InputError(f'"{task.source.path}" has no rows; expected at least one.')
    if total is not None and read != total:
        raise InputError(f'"{task.source.path}" had {total} rows, and {read} could be read; it changed meanwhile.')
    sink.close()
    written_rows = sum(block.written for block in part.done)
    bad = sum(block.bad for block in part.done)
    first_bad = next((block.first_bad for block in part.done if block.bad), None)
    return Summary(out, read, written_rows, len(task.keep), bad, first_bad, earlier)


@cache
def _batched(keep: tuple[str, ...]) -> Batched:
    """What computes the columns; the same for the same ones, so that it is compiled once."""

    def columns(x: jax.Array, w: jax.Array) -> dict[str, jax.Array]:
        found = neuron.quantities(neuron.backprop(x, w))
        return {name: found[name] for name in keep}

    # One program for a block, that writes over the one before the last: a CPU's other cores read and write meanwhile.
    device = jax.make_mesh((1,), ("rows",), (AxisType.Auto,), devices=jax.local_devices()[:1])
    return batch(columns, in_axes=(0, None), mesh=device)


@dataclass(frozen=True)
class _Block:
    """Rows, checked: those that are bad are in it, and named."""

    x: np.ndarray[Any, Any]
    bad: np.ndarray[Any, Any]
    first_bad: str | None

    def padded(self, size: int) -> np.ndarray[Any, Any]:
        """As many rows as every block has: another number would be another program."""
        return self.x if len(self.x) == size else np.resize(self.x, (size, self.x.shape[1]))


def _checked(task: Task, start: int) -> Iterator[_Block]:
    """The rows from `start` on, as arrays of the task's dtype."""
    for chunk in sources.blocks(task.source, task.positions, start, task.block):
        columns = chunk.columns if task.stop is None else [column[: task.stop - start] for column in chunk.columns]
        x = np.empty((len(columns[0]), len(columns)), task.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is infinite, and bad
            for i, column in enumerate(columns):
                x[:, i] = column
        finite = np.isfinite(x)
        bad = np.flatnonzero(~finite.all(axis=1)) if not finite.all() else np.empty(0, int)
        first_bad = None
        if len(bad):
            first_bad = _why(task, chunk, start, int(bad[0]), int(np.flatnonzero(~finite[bad[0]])[0]))
            if task.on_bad_row == "error":
                raise InputError(
                    f"{first_bad}; expected finite numbers. Give --on-bad-row skip to leave such rows out, or nan to "
                    "have NaN in them."
                )
            x[bad] = 0
        yield _Block(x, bad, first_bad)
        start += len(x)
        if start == task.stop:
            return


def _why(task: Task, chunk: sources.Chunk, start: int, row: int, column: int) -> str:
    value = chunk.columns[column][row]
    what = f"is {value}, too large for {task.dtype.name}" if np.isfinite(value) else f"is {value}"
    name = task.source.names[task.positions[column]]
    return f'"{task.source.path}", row {start + row + 1}, column {name}: it {chunk.why.get((row, column), what)}'


def _columns(task: Task, block: _Block, results: dict[str, jax.Array]) -> _Columns:
    """The columns of a block's rows: views, where that can be, that end with what holds them."""
    columns = {name: _view(results[name])[: len(block.x)] for name in task.keep}
    if task.on_bad_row == "skip" and len(block.bad):
        return {name: np.delete(column, block.bad) for name, column in columns.items()}
    if len(block.bad):
        columns = {name: column.copy() for name, column in columns.items()}
        for column in columns.values():
            column[block.bad] = np.nan
    return columns


def _view(array: jax.Array) -> np.ndarray[Any, Any]:
    on_cpu = {device.platform for device in array.devices()} == {"cpu"}
    return np.from_dlpack(array) if on_cpu else np.asarray(array)  # type: ignore[arg-type]


def _write(sink: sinks.Sink, part: Part, columns: _Columns, block: _Block) -> None:
    rows = len(next(iter(columns.values())))
    if rows:
        sink.write(columns)
    part.note(len(block.x), rows, len(block.bad), block.first_bad)
