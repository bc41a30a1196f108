"""Shards joined: the outputs of the parts of a task become the output that one process would have written."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._evaluate.files import open_sink, open_source, seal_of
from jaxgrad._evaluate.formats.opened import Opened
from jaxgrad._evaluate.output import skipped
from jaxgrad._evaluate.output.part import Part, difference
from jaxgrad._evaluate.output.resumable import Resumable
from jaxgrad._evaluate.output.seal import Seal, is_unbroken
from jaxgrad._evaluate.sink import WRITES, Columns, Schema
from jaxgrad._evaluate.source import Chunk, blocks, joined, split

PART = "part of the rows"
READ = 1 << 20  # rows at a time
COPIED = 16 << 20  # bytes at a time


@dataclass(frozen=True)
class Shard:
    """The output of a part of the rows, what it says of itself, and the file, open."""

    opened: Opened
    seal: Seal

    @property
    def path(self) -> Path:
        return self.opened.path

    @property
    def rows(self) -> tuple[int, int | None]:
        """The first row that it is of, and the first one after it."""
        start, stop = self.seal.task[PART]
        return start, stop


@dataclass(frozen=True)
class Merged:
    """What was joined: how many shards, the rows that were read for them, and those that are in them."""

    out: Path
    shards: int
    read: int
    written: int


def merge(out: str | Path, *, overwrite: bool = False) -> Merged:
    """Joins the shards of an output, OUT-00000-of-00002 and so on, to the bytes that one process would have written.

    Each has to be whole and unbroken, all of them there, of one task, and their rows in one piece. The output appears
    under its name only once it is complete; the shards are kept.

    Raises:
      InputError: a shard is missing, damaged or of another task; the output exists.
    """
    out = Path(out)
    if out.suffix.lower() not in WRITES:
        raise InputError(f'the output is "{out}"; expected a file that ends in {", ".join(WRITES)}.')
    shards = [_opened(path) for path in _paths(out)]
    task = _task_of_all(shards)
    left_out = _left_out(task, shards)
    carried = _carried(task, shards[0].path)
    part = Part(out, task, resume=False, overwrite=overwrite)
    try:
        sink = open_sink(
            out.suffix,
            part.file,
            Schema(carried, task["keep"], np.dtype(task["dtype"])),
            compression=task["compression"],
            row_group_size=task["row group size"],
        )
        if out.suffix.lower() == ".csv":
            _copy_lines(part.file, shards)
        else:
            for columns in _columns_by_block(task, shards, left_out, len(carried)):
                sink.write(columns)
        read, written, bad = (sum(getattr(shard.seal, key) for shard in shards) for key in ("read", "rows", "bad"))
        first_bad = next((shard.seal.first_bad for shard in shards if shard.seal.bad), None)
        part.note(read, written, bad, first_bad, left_out.tolist())
        seal = part.seal(sink.close)
        for shard in shards:
            shard.opened.check_unchanged()
        part.publish(seal)
    except BaseException:
        part.remove()
        raise
    return Merged(out, len(shards), read, written)


def _paths(out: Path) -> list[Path]:
    """The shards' files, in order; all there are, and all that there should be."""
    name = re.compile(rf"{re.escape(out.stem)}-(\d{{5}})-of-(\d{{5}}){re.escape(out.suffix)}(\.part)?")
    there = [path.name for path in out.parent.iterdir()] if out.parent.is_dir() else []
    found = {text: match for text in sorted(there) if (match := name.fullmatch(text))}
    if not found:
        raise InputError(
            f'there is no shard of "{out}", such as "{out.stem}-00000-of-00002{out.suffix}"; expected those that '
            "`part` writes."
        )
    counts = sorted({int(match[2]) for match in found.values()})
    if len(counts) > 1:
        raise InputError(
            f'beside "{out}" are shards of {counts[0]} and of {counts[1]} parts; expected one number. Remove those '
            "that are old."
        )
    paths = [out.with_name(f"{out.stem}-{i:05}-of-{counts[0]:05}{out.suffix}") for i in range(counts[0])]
    for i, path in enumerate(paths):
        if path.name not in found:
            unfinished = ", and is unfinished" if f"{path.name}.part" in found else ""
            raise InputError(
                f'"{path}" is missing{unfinished}; expected {counts[0]} shards. Run its part, {i}/{counts[0]}, with '
                "`resume`."
            )
    return paths


def _opened(path: Path) -> Shard:
    opened = Opened(path)
    try:
        seal = seal_of(path)
    except InputError:
        raise InputError(
            f'nothing in "{path}" or beside it says what it was made of; expected a shard of an output.'
        ) from None
    if not is_unbroken(seal, path):
        raise InputError(f'"{path}" is damaged: its bytes are not those that were written. Run its part again.')
    return Shard(opened, seal)


def _task_of_all(shards: Sequence[Shard]) -> dict[str, Any]:
    """The task that the shards are parts of."""
    tasks = [{key: value for key, value in shard.seal.task.items() if key != PART} for shard in shards]
    for shard, task in zip(shards, tasks, strict=True):
        if change := difference(task, tasks[0]) or difference(tasks[0], task):
            raise InputError(f'"{shard.path}" was made with {change} in "{shards[0].path}"; expected one task.')
    if shards[0].rows[0] != 0:
        raise InputError(f'"{shards[0].path}" begins at row {shards[0].rows[0] + 1}; expected the first row.')
    for shard, after in pairwise(shards):
        if shard.rows[1] != after.rows[0]:
            raise InputError(
                f'"{shard.path}" ends at row {shard.rows[1]} and "{after.path}" begins at row {after.rows[0] + 1}; '
                "expected the next one."
            )
    for shard in shards:
        start, stop = shard.rows
        if stop is not None and shard.seal.read != stop - start:
            raise InputError(f'"{shard.path}" is of {shard.seal.read} rows; expected {stop - start}.')
    return {**shards[0].seal.task, PART: [0, shards[-1].rows[1]]}


def _left_out(task: Mapping[str, Any], shards: Sequence[Shard]) -> np.ndarray[Any, Any]:
    """The numbers of the rows that were left out."""
    if task["on bad row"] != "skip":
        return np.empty(0, np.int64)
    found = [skipped.read(skipped.beside(shard.path)) for shard in shards]
    for shard, rows in zip(shards, found, strict=True):
        start, stop = shard.rows[0], shard.rows[0] + shard.seal.read
        if len(rows) != shard.seal.read - shard.seal.rows or (len(rows) and not start <= rows[0] <= rows[-1] < stop):
            raise InputError(
                f'"{skipped.beside(shard.path)}" does not list the {shard.seal.read - shard.seal.rows} rows that '
                f'"{shard.path}" leaves out. Run its part again.'
            )
    return np.concatenate(found)


def _carried(task: Mapping[str, Any], shard: Path) -> dict[str, Any]:
    """The columns that pass through, and the types that they have in a shard."""
    source = open_source(shard, "yes", may_be_empty=True)
    return {name: source.carried_as(i) for i, (name, _) in enumerate(task["carried"])}


def _copy_lines(file: Resumable, shards: Sequence[Shard]) -> None:
    """Copies what comes after the line of names."""
    head = file.tell()
    for shard in shards:
        for start in range(head, shard.opened.size, COPIED):
            data = np.empty(min(COPIED, shard.opened.size - start), np.uint8)
            shard.opened.read(data, start)
            file.write(data)


def _columns_by_block(
    task: Mapping[str, Any], shards: Sequence[Shard], left_out: np.ndarray[Any, Any], carried: int
) -> Iterator[Columns]:
    """The columns in the blocks in which one process would have read the rows: a format may show them."""
    chunks, names = _chunks(shards, carried), [*(name for name, _ in task["carried"]), *task["keep"]]
    waiting: list[Chunk] = []
    read, size = sum(shard.seal.read for shard in shards), task["batch size"]
    for start in range(0, read, size):
        first, after = np.searchsorted(left_out, (start, min(start + size, read)))
        rows = min(size, read - start) - int(after - first)
        while sum(map(len, waiting)) < rows:
            waiting.append(next(chunks))
        if rows:
            block, rest = split(joined(waiting), rows)
            waiting = [rest]
            yield dict(zip(names, (*block.carried, *block.columns), strict=True))


def _chunks(shards: Sequence[Shard], carried: int) -> Iterator[Chunk]:
    for shard in shards:
        if shard.seal.rows:
            source = open_source(shard.path)
            yield from blocks(source, range(carried, len(source.names)), 0, READ, range(carried))
