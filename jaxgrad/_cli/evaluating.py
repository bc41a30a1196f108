"""The command `evaluate`, carried out."""

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import jax

from jaxgrad._cli.interrupts import check_not_interrupted
from jaxgrad._errors import InputError
from jaxgrad._evaluate.carried import keys_of
from jaxgrad._evaluate.data_sets.data_set import evaluate_data_set
from jaxgrad._evaluate.data_sets.listing import is_data_set
from jaxgrad._evaluate.data_sets.manifest import merge_manifests
from jaxgrad._evaluate.evaluate import Progress, Summary, check_output, evaluate
from jaxgrad._evaluate.merge import merge
from jaxgrad._evaluate.processes.processes import check_agreement, check_no_others, host_of, shard_of
from jaxgrad._evaluate.processes.watching import Died, Watch
from jaxgrad._evaluate.task import Task, plan_task

PROGRESS_EVERY = 1.0  # seconds between two lines of progress in JSON


def evaluated(
    arguments: argparse.Namespace, index: int, processes: int, screen: TextIO | None, died: Died = lambda process: None
) -> str:
    """Evaluates a process's share of the rows; what was done, as text or JSON.

    `died` is called with the number of another process of the run that has ended before it was done.
    """
    if is_data_set(arguments.rows, arguments.output):
        return _data_set(arguments, index, processes, screen)
    task = _task(arguments, arguments.rows[0], share=(index, processes), keys=keys_of(arguments.rows)[0])
    out = shard_of(arguments.output, index, processes)
    together = processes > 1 and arguments.part is None
    watch = Watch(index) if together else None
    greeting = check_agreement(task, arguments.output, watch.greeting) if watch else b""
    check_no_others(arguments.output, processes)
    if arguments.dry_run:
        check_output(task, out, resume=arguments.resume, overwrite=arguments.overwrite)
        return _plan(task, out, as_json=arguments.json)
    if watch:
        watch.begin(host_of(arguments.coordinator), greeting, died)
    # Nothing has its name before all processes are done: the farewell waits for all, or ends them.
    before_publishing = partial(_farewell, watch) if watch else lambda: None
    with _progress(screen, as_json=arguments.json) as progress:
        summary = evaluate(
            task, out, resume=arguments.resume, overwrite=arguments.overwrite, progress=progress,
            before_publishing=before_publishing,
        )  # fmt: skip
    return _as_json(summary) if arguments.json else _as_text(summary)


def _farewell(watch: Watch) -> None:
    """Waits for all processes."""
    watch.say_farewell()
    jax.distributed.shutdown()
    watch.close()


def _task(arguments: argparse.Namespace, rows: str | Path, **options: Any) -> Task:
    return plan_task(
        rows, arguments.w, columns=arguments.columns, keep=arguments.keep, dtype=arguments.dtype,
        batch_size=arguments.batch_size, on_bad_row=arguments.on_bad_row, header=arguments.header,
        limit=arguments.limit, compression=arguments.compression, row_group_size=arguments.row_group_size,
        carry=arguments.carry, row_number=arguments.row_number, **options,
    )  # fmt: skip


def _data_set(arguments: argparse.Namespace, index: int, processes: int, screen: TextIO | None) -> str:
    """Evaluates many files; what was done, as text or JSON."""
    if processes > 1 and arguments.part is None:
        raise InputError("the rows are of several files; expected `part` in place of `coordinator` or its like.")
    if arguments.limit is not None or arguments.dry_run:
        raise InputError("`limit` and `dry_run` are for a single file of rows, and there are several or a folder.")
    with _progress(screen, as_json=arguments.json) as progress:
        done = evaluate_data_set(
            arguments.rows, arguments.output, lambda rows, shown, keys: _task(arguments, rows, shown=shown, keys=keys),
            ending=arguments.format, share=(index, processes), resume=arguments.resume, overwrite=arguments.overwrite,
            progress=progress,
        )  # fmt: skip
    if arguments.json:
        return json.dumps(asdict(done))
    earlier = f", {done.were_whole} of them earlier" if done.were_whole else ""
    bad = f" Bad rows: {done.bad}, the first: {done.first_bad}." if done.bad else ""
    return f"Read {done.read} rows of {done.files} files{earlier}, wrote {done.written} rows to {done.out}.{bad}"


def merged(arguments: argparse.Namespace) -> str:
    """Joins the shards of an output; what was done, as text or JSON."""
    if Path(arguments.output).is_dir():
        parts, found = merge_manifests(Path(arguments.output), overwrite=arguments.overwrite)
        if arguments.json:
            return json.dumps({key: found[key] for key in ("read", "written", "bad")} | {"parts": parts})
        return f"Joined the manifests of {parts} parts, {len(found['files'])} files of {found['read']} rows."
    done = merge(arguments.output, overwrite=arguments.overwrite)
    if arguments.json:
        return json.dumps(asdict(done) | {"out": str(done.out)})
    return f"Joined {done.shards} shards of {done.read} rows, wrote {done.written} rows to {done.out}."


def what_is_left(output: str, index: int, processes: int) -> str:
    """What to say of an output that was broken off."""
    out = shard_of(output, index, processes)
    part = out.with_name(f"{out.name}.part")
    return f'What was done is in "{part}": give --resume to go on with it.' if os.path.exists(part) else ""


def _plan(task: Task, out: Path, *, as_json: bool) -> str:
    planned = {
        "rows": task.total, "inputs": task.inputs, "dtype": task.dtype.name, "columns": list(task.schema.names),
        "rows at a time": task.block, "out": str(out),
    }  # fmt: skip
    if as_json:
        return json.dumps(planned)
    rows = "rows, as many as there are," if task.total is None else f"{task.total} rows"
    return (
        f'Would read {rows} of {len(task.inputs)} columns from "{task.source.path}" as {task.dtype.name}, {task.block} '
        f"at a time, and write {len(task.schema.names)} columns to {out}. Nothing was written."
    )


def _as_json(summary: Summary) -> str:
    return json.dumps(asdict(summary) | {"out": str(summary.out), "was_whole": not summary.read})


def _as_text(summary: Summary) -> str:
    if not summary.read:
        return f"{summary.out} was whole already; nothing was done."
    went_on = f", {summary.resumed} of them earlier" if summary.resumed else ""
    bad = f" Bad rows: {summary.bad}, the first: {summary.first_bad}." if summary.bad else ""
    wrote = f"wrote {summary.written} of {summary.columns} columns to {summary.out}"
    return f"Read {summary.read} rows{went_on}, {wrote}.{bad}"


@contextmanager
def _progress(screen: TextIO | None, *, as_json: bool) -> Iterator[Progress]:
    """Shows the rows done, their speed and the time left on a terminal, or the rows as lines of JSON."""
    with nullcontext(_json_lines(screen)) if as_json and screen else _bar(screen) as show:

        def progress(done: int, total: int | None) -> None:
            check_not_interrupted()
            show(done, total)

        yield progress


def _json_lines(screen: TextIO) -> Progress:
    last = -PROGRESS_EVERY

    def show(done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= PROGRESS_EVERY:
            last = time.monotonic()
            screen.write(json.dumps({"rows": done, "of": total}) + "\n")
            screen.flush()

    return show


@contextmanager
def _bar(screen: TextIO | None) -> Iterator[Progress]:
    try:
        from tqdm import tqdm
    except ImportError:
        screen = None
    if screen is None:
        yield lambda done, total: None
        return
    with tqdm(unit=" rows", unit_scale=True, disable=None, file=screen) as bar:

        def show(done: int, total: int | None) -> None:
            if bar.total is None and total is not None:
                bar.reset(total)
                bar.initial = done
            bar.update(done - bar.n)

        yield show
