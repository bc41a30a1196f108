"""The neuron's values and gradients for each row of a file, into a file, however long it is.

One thread reads the next rows, one computes these, and one writes the last ones.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType

from jaxgrad import neuron
from jaxgrad._batch import threads
from jaxgrad._batch.batch import Batched, batch
from jaxgrad._errors import InputError
from jaxgrad._evaluate.bad_rows import Block, checked, columns_of
from jaxgrad._evaluate.files import open_sink, open_source
from jaxgrad._evaluate.sink import WRITES, Columns, Sink
from jaxgrad._evaluate.task import Task
from jaxgrad._evaluate.unfinished import Part, is_whole


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
    if out.suffix.lower() not in WRITES:
        raise InputError(f'the output is "{out}"; expected a file that ends in {", ".join(WRITES)}.')
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
        found = open_source(out)
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
    sink = open_sink(out.suffix, part.file, task.keep, task.dtype, written)
    earlier = sum(block.read for block in part.done)
    total = None if task.stop is None else task.stop - task.start
    read = earlier
    progress(read, total)
    results: list[Any] = [None, None]  # one block is computed while another is written, in memory that is used again
    writing: Future[None] | None = None
    with ThreadPoolExecutor(1) as writer:
        for i, block in enumerate(threads.ahead(checked(task, task.start + earlier))):
            # The first block is either full or all there is.
            x = block.padded(task.block) if read else block.x
            results[i % 2] = batched(x, task.weights, out=results[i % 2])
            columns = columns_of(task, block, results[i % 2])
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


def _write(sink: Sink, part: Part, columns: Columns, block: Block) -> None:
    rows = len(next(iter(columns.values())))
    if rows:
        sink.write(columns)
    part.note(len(block.x), rows, len(block.bad), block.first_bad)
