"""The neuron's values and gradients for each row of a file, into a file, however long it is.

One thread reads the next rows, one computes these, and one writes the last ones.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._evaluate import threads
from jaxgrad._evaluate.bad_rows import Block, carried_of, checked, columns_of, views_of, with_overflow, without
from jaxgrad._evaluate.carried import check_can_hold
from jaxgrad._evaluate.files import open_sink, seal_of
from jaxgrad._evaluate.output import skipped
from jaxgrad._evaluate.output.log import Done
from jaxgrad._evaluate.output.part import Part, check_may_write, difference, names, remove_left_over
from jaxgrad._evaluate.output.seal import Seal, beside, is_unbroken
from jaxgrad._evaluate.output.whole import Unpublished
from jaxgrad._evaluate.program import batched_columns
from jaxgrad._evaluate.sink import WRITES, Columns, Sink
from jaxgrad._evaluate.source import Chunk, blocks, split
from jaxgrad._evaluate.task import Task

logger = logging.getLogger("jaxgrad.evaluate")

Progress: TypeAlias = Callable[[int, int | None], None]  # rows done, and how many there are


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
    progress: Progress = lambda done, total: None,
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
    if check_output(task, out, resume=resume, overwrite=overwrite):
        remove_left_over(out)
        logger.info("%s is whole already", out)
        return Summary(out, 0, 0, len(task.schema.names), 0, None, 0)
    packed = task.compression != "none"  # and as long as the numbers make it: only they would lead to where it was
    part = Part(out, task.made_of(), resume=resume, overwrite=overwrite, anew=packed)
    logger.info("%s to %s, from row %d on", task.source.path, out, sum(block.read for block in part.done))
    try:
        with jax.enable_x64(task.dtype == np.float64):
            summary, seal = _run(task, out, part, progress)
        task.source.opened.check_unchanged()
        before_publishing()
        part.publish(seal)
        logger.info("%s is whole: %d rows", out, summary.written)
    except InputError:
        part.leave() if part.done and not task.source.opened.has_changed() else part.remove()
        raise
    except BaseException:
        part.leave()
        raise
    return summary


def check_output(task: Task, out: Path, *, resume: bool, overwrite: bool) -> bool:
    """Whether the output is there already, whole and of this task, and may stay; nothing is written.

    Raises:
      InputError: the output cannot be written, or is something that is not to be written over.
    """
    check_format(task, out)
    _check_apart(task, out)
    if resume and not overwrite and out.is_file():
        _check_is_the_result(task, out)
        return True
    check_may_write(out, resume=resume, overwrite=overwrite, lists_skipped=task.on_bad_row == "skip")
    return False


def check_format(task: Task, out: Path) -> None:
    """Raises an `InputError` where the output's format is none, or cannot hold what is asked for."""
    ending = out.suffix.lower()
    if ending not in WRITES:
        raise InputError(f'the output is "{out}"; expected a file that ends in {", ".join(WRITES)}.')
    if ending != ".parquet" and (task.compression != "none" or task.row_group_size is not None):
        raise InputError(f'`compression` and `row_group_size` are of .parquet files, and the output is "{out}".')
    check_can_hold(ending, task.carry)


def _check_apart(task: Task, out: Path) -> None:
    """No file that is read may be written to, under any of its names."""
    read = {"rows": task.source.path, "weights": task.weights_file}
    for written in (out, *names(out), beside(out), skipped.beside(out)):
        for what, path in read.items():
            if path is not None and written.exists() and written.samefile(path):
                raise InputError(f'"{written}" holds the {what}; expected another file for the output.')


def _check_is_the_result(task: Task, out: Path) -> None:
    """Raises an error where an output that is there is not what this task makes."""
    seal = seal_of(out)
    if change := difference(seal.task, task.made_of()):
        raise InputError(
            f'"{out}" exists, and was kept: it was made with {change}. Give `overwrite=True` to write over it, or '
            "another name."
        )
    if not is_unbroken(seal, out):
        raise InputError(
            f'"{out}" is damaged: its bytes are not those that were written. Give `overwrite=True` to make it anew.'
        )


def _run(task: Task, out: Path, part: Unpublished, progress: Progress) -> tuple[Summary, Seal]:
    batched = batched_columns(task.keep, len(task.positions))
    written = sum(block.written for block in part.done)
    sink = open_sink(
        out.suffix, part.file, task.schema, written, _earlier(task, part.done), task.compression, task.row_group_size
    )
    earlier = sum(block.read for block in part.done)
    total = task.total
    read = earlier
    progress(read, total)
    results: list[Any] = [None, None]  # one block is computed while another is written, in memory that is used again
    writing: Future[None] | None = None
    is_one_block = total is not None and total - earlier <= task.block  # threads would cost more than they save
    rows = checked(task, task.start + earlier)
    with ThreadPoolExecutor(1) as writer:
        for i, block in enumerate(rows if is_one_block else threads.ahead(rows)):
            # The first block is either full or all there is.
            x = block.padded(task.block) if i else block.padded_to_few(task.block)
            results[i % 2] = batched(x, task.weights, out=results[i % 2])
            views = {name: view[: len(block.x)] for name, view in views_of(results[i % 2]).items()}
            block = with_overflow(task, block, views["z"])
            columns = columns_of(task, block, views, out.suffix)
            del views  # they hold the memory that is used again
            if writing is not None:
                writing.result()
            if is_one_block:
                written_to(sink, part, columns, block)
            else:
                writing = writer.submit(written_to, sink, part, columns, block)
            read += len(block.x)
            progress(read, total)
        if writing is not None:
            writing.result()
    check_count(task, read)
    seal = part.seal(sink.close)
    return Summary(out, read, seal.rows, len(task.schema.names), seal.bad, seal.first_bad, earlier), seal


def _earlier(task: Task, done: Sequence[Done]) -> Iterator[Columns]:
    """Blocks as long as those that are whole: zeros beside what they carry."""
    chunks = blocks(task.source, task.positions[:1], task.start, task.block, task.passing) if task.passing else None
    start = task.start
    for block in done:
        zeros = np.zeros(block.read, task.dtype)
        chunk = next(chunks, None) if chunks is not None else Chunk([zeros])
        if chunk is None:
            return
        columns = carried_of(task, split(chunk, block.read)[0], start) | dict.fromkeys(task.keep, zeros)
        if block.written:
            yield without(columns, np.array(block.left_out, int) - start) if block.left_out else columns
        start += block.read


def check_count(task: Task, read: int) -> None:
    """Raises an `InputError` where there are no rows, or others than there were."""
    if not read:
        raise InputError(f'"{task.source.path}" has no rows; expected at least one.')
    if task.total is not None and read != task.total:
        raise InputError(f'"{task.source.path}" had {task.total} rows, and {read} could be read; it changed meanwhile.')


def written_to(sink: Sink, part: Unpublished, columns: Columns, block: Block) -> None:
    rows = len(next(iter(columns.values())))
    if rows:
        sink.write(columns)
    left_out = (block.bad + block.start).tolist() if rows < len(block.x) else ()
    part.note(len(block.x), rows, len(block.bad), block.first_bad, left_out)
    logger.debug("rows %d to %d are written, %d of them bad", block.start, block.start + len(block.x), len(block.bad))
