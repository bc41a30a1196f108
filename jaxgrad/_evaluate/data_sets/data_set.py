"""A data set: the quantities of each row of many files, a file of outputs for each of them, in one process."""

import re
import tempfile
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from jaxgrad._errors import InputError
from jaxgrad._evaluate.carried import Key, keys_of
from jaxgrad._evaluate.data_sets.folder import Content, Folder, Local, folder_of
from jaxgrad._evaluate.data_sets.listing import Listed, listed
from jaxgrad._evaluate.data_sets.manifest import Entry, common, content, entry, name_of
from jaxgrad._evaluate.data_sets.outputs import check_apart, name_beside, name_of_output, part_of
from jaxgrad._evaluate.data_sets.together import Made, Small, is_full, made_together, read_small
from jaxgrad._evaluate.evaluate import Progress, check_format, check_output, evaluate
from jaxgrad._evaluate.files import seal_of
from jaxgrad._evaluate.output.part import difference, names
from jaxgrad._evaluate.output.seal import Seal, beside
from jaxgrad._evaluate.output.skipped import beside as skipped_beside
from jaxgrad._evaluate.task import Task
from jaxgrad._evaluate.threads import with_settings

GROUP, FILES = 8 << 20, 32  # bytes of small outputs that are published together, and files that are open at once
MADE_AHEAD = 2  # groups of small files that are computed while the next ones are read
PUBLISHERS = 4  # groups at a time: a disk that is waited for by several waits once
OF_OUTPUT = re.compile(r"(\.part(\.log)?|\.seal\.json|\.skipped\.csv)$")  # what ends so stands beside an output


class Plan(Protocol):
    def __call__(self, rows: Path, shown: str, keys: Mapping[str, Key]) -> Task: ...


@dataclass(frozen=True)
class DataSetSummary:
    """What was done: files, those of them that were whole already, rows read and written, and bad ones."""

    out: str
    files: int
    were_whole: int
    read: int
    written: int
    bad: int
    first_bad: str | None


def evaluate_data_set(
    rows: Sequence[str],
    out: str,
    plan: Plan,
    *,
    ending: str | None = None,
    share: tuple[int, int] = (0, 1),
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> DataSetSummary:
    """Writes the quantities of each row of many files to as many files in the folder `out`, then a manifest.

    Each output has the name of its rows within their folder, so that partitions stay, and is there whole or not at
    all. Broken off, `resume` goes on with the files that are missing, and in a large one with its blocks.

    Args:
      rows: files, globs and folders, on this machine or as URLs.
      out: a folder, here or as a URL.
      plan: what to evaluate of a file, by its path, its name in messages and the keys of its path.
      ending: of all outputs, ".parquet" or another; if None each has that of its rows.
      share: (i, n) for the i-th part of n of the files.
      resume: keep what is there and is of this task.
      overwrite: write over what is there.
      progress: is called with the rows done.

    Raises:
      InputError: as `evaluate`; files differ in what would be computed; the output is in a folder of rows.
    """
    every = listed(rows)
    keys = dict(zip((file.name for file in every), keys_of([file.shown for file in every]), strict=True))
    files = part_of(every, share)
    folder = folder_of(out)
    check_apart(files, folder, rows)
    outputs = [name_of_output(file, ending) for file in files]
    if len(set(outputs)) != len(outputs):
        twice = next(name for name in outputs if outputs.count(name) > 1)
        raise InputError(f'two files of rows would have the output "{twice}"; expected names apart from the ending.')
    manifest = name_of(share)
    there = {OF_OUTPUT.sub("", name) for name in folder.names()}
    if not (resume or overwrite):
        for name in (*outputs, manifest):
            if name in there and folder.has(name):
                raise InputError(
                    f'"{folder.shown(name)}" exists, and was kept. Give `resume=True` to go on, `overwrite=True` to '
                    "write over it, or another folder."
                )
    folder.tidy([*outputs, manifest])
    if folder.has(manifest):
        folder.remove(manifest)  # until all outputs are there again
    with (
        tempfile.TemporaryDirectory(prefix="jaxgrad-") as scratch,
        ThreadPoolExecutor(1) as maker,
        ThreadPoolExecutor(PUBLISHERS) as publisher,
    ):
        run = _Run(folder, there, plan, Path(scratch), maker, publisher, resume=resume, overwrite=overwrite)
        try:
            for file, name in zip(files, outputs, strict=True):
                run.evaluate(file, name, keys[file.name])
                progress(run.read, None)
        except InputError:
            run.publish()  # what is whole stays
            raise
        run.publish()
        folder.publish({manifest: content(run.task or {}, run.entries)}, ())
    read, written, bad = (sum(getattr(found, key) for found in run.entries) for key in ("read", "written", "bad"))
    first_bad = next((found.first_bad for found in run.entries if found.bad), None)
    return DataSetSummary(out, len(files), run.were_whole, read, written, bad, first_bad)


@dataclass
class _Run:
    """The files so far, and the outputs that wait for the others of their group."""

    folder: Folder
    there: Collection[str]  # outputs of which there is something
    plan: Plan
    scratch: Path
    maker: ThreadPoolExecutor
    publisher: ThreadPoolExecutor
    resume: bool
    overwrite: bool
    task: dict[str, Any] | None = None
    first: str = ""
    entries: list[Entry] = field(default_factory=list)
    read: int = 0
    were_whole: int = 0
    _small: list[tuple[Listed, str, Small]] = field(default_factory=list)
    _making: deque[tuple[list[tuple[Listed, str, Small]], Future[list[Made | InputError]]]] = field(
        default_factory=deque
    )
    _group: dict[str, Content] = field(default_factory=dict)
    _new: set[str] = field(default_factory=set)
    _publishing: list[Future[None]] = field(default_factory=list)

    def evaluate(self, file: Listed, name: str, keys: Mapping[str, Key]) -> None:
        with self._in_order(file):
            task = self.plan(file.folder.local(file.name, self.scratch / "rows"), file.shown, keys)
            made_of = task.made_of()
            self._check_common(file, made_of)
            out = self.folder.where_to_write(name, self.scratch / "out")
            is_whole = is_begun = False
            if name in self.there:
                if self.resume and not self.overwrite and not isinstance(self.folder, Local):
                    self._fetch(name, out)
                is_whole = check_output(task, out, resume=self.resume, overwrite=self.overwrite)
                is_begun = is_whole or any(path.exists() for path in names(out))
            else:
                check_format(task, out)
            small = None if is_begun else read_small(task, made_of, out)
        if small is not None:
            if self._small and is_full([waiting for _, _, waiting in self._small], small):
                self._compute(MADE_AHEAD)
            self._small.append((file, name, small))
            return
        self._compute()
        with _in_users_words(file, self.scratch, self.folder):
            evaluate(task, out, resume=self.resume, overwrite=self.overwrite)
            seal = seal_of(out)
            self.were_whole += is_whole
            for path in (beside(out), skipped_beside(out), out) if not is_whole else ():
                if path.exists():
                    self.folder.take(name_beside(name, path.name), path)
        self._done(file, name, seal, task)

    @contextmanager
    def _in_order(self, file: Listed) -> Iterator[None]:
        """What is wrong with a file is an error once the files before it are done."""
        try:
            with _in_users_words(file, self.scratch, self.folder):
                yield
        except InputError:
            self._compute()
            raise

    def _compute(self, ahead: int = 0) -> None:
        """Computes the small files that wait; so many groups of them may be under way when it returns."""
        if self._small:
            make = with_settings(partial(made_together, [waiting for _, _, waiting in self._small]))
            self._making.append((self._small, self.maker.submit(make)))
            self._small = []
        while len(self._making) > ahead:
            small, made = self._making.popleft()
            try:
                self._collect(small, made.result())
            except InputError:
                self._making.clear()  # what comes after it is not done
                raise

    def _collect(self, small: Sequence[tuple[Listed, str, Small]], made: Sequence[Made | InputError]) -> None:
        for (file, name, waiting), output in zip(small, made, strict=False):  # up to one that is wrong
            with _in_users_words(file, self.scratch, self.folder):
                if isinstance(output, InputError):
                    raise output
            seal, files = output
            self._add(name, {name_beside(name, path.name): files[path] for path in files})
            self._done(file, name, seal, waiting.task)

    def _done(self, file: Listed, name: str, seal: Seal, task: Task) -> None:
        self.entries.append(entry(file.shown, name, seal))
        self.read += seal.read
        if not isinstance(file.folder, Local):
            task.source.path.unlink()

    def _check_common(self, file: Listed, made_of: dict[str, Any]) -> None:
        found = common(made_of)
        if self.task is None:
            self.task, self.first = found, file.shown
        elif change := difference(self.task, found):
            raise InputError(
                f'"{self.first}" has {change} in "{file.shown}"; expected one for the whole data set. Give `columns` '
                "or `dtype`, or evaluate them apart."
            )

    def _fetch(self, name: str, out: Path) -> None:
        for path in (out, beside(out), skipped_beside(out)):
            at = name_beside(name, path.name)
            if self.folder.has(at):
                self.folder.local(at, self.scratch / "out")

    def _add(self, name: str, files: dict[str, Content]) -> None:
        self._group |= files
        if not self.overwrite:
            self._new.add(name)
        if sum(map(len, self._group.values())) > GROUP or len(self._group) > FILES:
            self._submit()

    def _submit(self) -> None:
        self._wait(PUBLISHERS)
        self._publishing.append(self.publisher.submit(self.folder.publish, self._group, self._new))
        self._group, self._new = {}, set()

    def _wait(self, most: int) -> None:
        """Until so many groups at most are being published."""
        while len(self._publishing) > most:
            self._publishing.pop(0).result()

    def publish(self) -> None:
        """Gives all outputs that are whole their names."""
        self._compute()
        self._submit()
        self._wait(0)


@contextmanager
def _in_users_words(file: Listed, scratch: Path, folder: Folder) -> Iterator[None]:
    """Errors name the files that the user knows, and not their copies."""
    try:
        yield
    except InputError as error:
        text = str(error).replace(str(scratch / "rows" / file.name), file.shown)
        raise InputError(text.replace(f"{scratch / 'out'}/", folder.shown(""))) from error
