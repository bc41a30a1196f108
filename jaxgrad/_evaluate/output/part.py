"""A part: an output that is being written. It gets its name when it is whole; broken off, it can be gone on with.

The part is `OUT.part`, and `OUT.part.log` beside it tells which blocks of it are whole. Whatever comes after the last
such block is written again. Neither is ever opened for writing where it could be another file: what has the name and
is not to be gone on with loses it, and a new file is made.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jaxgrad._errors import InputError
from jaxgrad._evaluate.output import seal, skipped
from jaxgrad._evaluate.output.log import Done, Log
from jaxgrad._evaluate.output.resumable import believed, opened
from jaxgrad._evaluate.output.seal import Seal
from jaxgrad._evaluate.output.whole import block_of, sealed
from jaxgrad._files import write_whole

SYNC_EVERY = 5.0  # seconds of work that a power failure may cost


class Part:
    """The file behind an output, until it is published.

    Attributes:
      file: what to write to.
      done: the blocks that are whole.

    Raises:
      InputError: the output exists, or another part of it does, and neither is to be kept on with nor written over.
    """

    def __init__(self, out: Path, task: dict[str, Any], *, resume: bool, overwrite: bool, anew: bool = False):
        self._out, self._overwrite, self._task = out, overwrite, task
        self._path, self._log_path = names(out)
        self._syncs = ThreadPoolExecutor(1)
        self._sync: Future[None] | None = None
        self._synced = time.monotonic()
        check_may_write(out, resume=resume, overwrite=overwrite, lists_skipped=self._lists_skipped)
        self._log = Log(self._log_path)
        try:
            _remove_staged(out)
            self.done = self._earlier() if resume else []
            if anew:
                self.done.clear()
            self._log.keep(len(self.done))
            if not self.done:
                self._log.begin(task)
            self.file = opened(self._path, self.done[-1] if self.done else None)
        except BaseException:
            self._log.close()
            raise

    @property
    def _lists_skipped(self) -> bool:
        return self._task.get("on bad row") == "skip"

    def _earlier(self) -> list[Done]:
        """The blocks that are whole, of the same task."""
        try:
            task, done = self._log.read()
            if task is not None and (change := difference(task, self._task)):
                raise InputError(
                    f'"{self._path}" was made with {change}; expected the same. Give `overwrite=True` to begin anew.'
                )
        except InputError:
            if self._overwrite:
                return []
            raise
        return believed(self._path, done)

    def note(self, read: int, written: int, bad: int, first_bad: str | None, left_out: Sequence[int] = ()) -> None:
        """Another block is whole; `left_out` are the numbers of rows that are not in it."""
        self.file.flush()
        self.done.append(block_of(self.file, read, written, bad, first_bad, left_out))
        self._log.note(self.done[-1])
        if time.monotonic() - self._synced > SYNC_EVERY and (self._sync is None or self._sync.done()):
            self._wait_for_sync()
            self._synced, self._sync = time.monotonic(), self._syncs.submit(self._to_disk)

    def _to_disk(self) -> None:
        self.file.sync()
        self._log.sync()

    def _wait_for_sync(self) -> None:
        if self._sync is not None:
            self._sync.result()

    def seal(self, close: Callable[[str], None]) -> Seal:
        """Ends the file: `close` writes what comes after the rows, and the seal that it is given."""
        return sealed(self.file, self._task, self.done, close)

    def publish(self, found: Seal) -> None:
        """Gives the whole file its name."""
        self._wait_for_sync()
        self.file.flush()
        self.file.sync()
        self.file.end()
        if self._out.suffix.lower() in seal.BESIDE:
            self._publish_seal(found)
        if self._lists_skipped:
            left_out = (row for block in self.done for row in block.left_out)
            write_whole({skipped.beside(self._out): skipped.content(left_out)})
        if self._overwrite:
            self._path.replace(self._out)
        else:
            self._rename()
        _sync_folder(self._out.parent)
        self._log.remove()
        self._syncs.shutdown()

    def _publish_seal(self, found: Seal) -> None:
        """First the seal: without its file it vouches for nothing, and a file without seal would be anyone's."""
        if os.path.lexists(self._out) and not self._overwrite:
            raise self._come_meanwhile()
        with self._path.open("rb") as file:
            head = file.read(found.start)
        write_whole({seal.beside(self._out): seal.line(found, head)})

    def _rename(self) -> None:
        """Renames it, never over a file that has come meanwhile."""
        try:
            os.link(self._path, self._out)
        except FileExistsError:
            raise self._come_meanwhile() from None
        except OSError:  # a file system without links
            if os.path.lexists(self._out):
                raise self._come_meanwhile() from None
            self._path.rename(self._out)
        else:
            self._path.unlink(missing_ok=True)

    def _come_meanwhile(self) -> InputError:
        return InputError(
            f'"{self._out}" has come meanwhile, and was kept; what should be there is whole in "{self._path}".'
        )

    def leave(self) -> None:
        """Closes it as it is, to be gone on with."""
        self._syncs.shutdown(cancel_futures=True)
        with contextlib.suppress(OSError):
            self.file.end()
        with contextlib.suppress(OSError):
            self._log.close()

    def remove(self) -> None:
        """Takes it away: there is nothing in it to go on with."""
        with contextlib.suppress(OSError):
            self.file.end()
        self._path.unlink(missing_ok=True)
        self._log.remove()
        self._syncs.shutdown(cancel_futures=True)


def check_may_write(out: Path, *, resume: bool, overwrite: bool, lists_skipped: bool) -> None:
    """Raises an `InputError` where the output cannot be begun or gone on with; nothing is written."""
    if not out.parent.is_dir():
        raise InputError(f'there is no folder "{out.parent}" to write "{out.name}" in; make it first.')
    if out.is_dir():
        raise InputError(f'"{out}" is a folder; expected the name of a file.')
    if os.path.lexists(out) and not overwrite:  # a link to nothing is kept too
        raise InputError(f'"{out}" exists, and was kept. Give `overwrite=True` to write over it, or another name.')
    if out.suffix.lower() in seal.BESIDE:
        _check_seal_is_ours(seal.beside(out))
    if lists_skipped:
        skipped.check_ours(skipped.beside(out))
    if not overwrite:
        _check_what_is_left(*names(out), resume=resume)


def _check_what_is_left(path: Path, log_path: Path, *, resume: bool) -> None:
    there = os.path.lexists(path)
    if there and not os.path.lexists(log_path):
        raise InputError(
            f'"{path}" exists, and no log beside it says what it is; it was kept. Give `overwrite=True` '
            "to write over it, or another name."
        )
    if there and not (path.is_file() and not path.is_symlink()):
        raise InputError(f'"{path}" is no regular file, and was kept; expected a part of a run.')
    if not resume and os.path.lexists(log_path):
        raise InputError(
            f'"{path}" is left of a run that was broken off. Give `resume=True` to go on with it, or '
            "`overwrite=True` to begin anew."
        )


def names(out: Path) -> tuple[Path, Path]:
    """The part of an output and its log."""
    return out.with_name(out.name + ".part"), out.with_name(out.name + ".part.log")


def difference(found: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    """The first thing that another task has otherwise; "" where there is none."""
    for key in task:
        if found.get(key) != task[key]:
            return f"{key} {_short(found.get(key))}, and now it is {_short(task[key])}"
    return ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def remove_left_over(out: Path) -> None:
    """Takes away what is left beside an output that is whole: its run was killed, or one that was to write it over."""
    path, log_path = names(out)
    if os.path.lexists(log_path):
        with contextlib.suppress(InputError):  # another process is at it, or it is someone else's
            log = Log(log_path)
            try:
                task, _ = log.read()
            except InputError:
                log.close()
                raise
            if task is not None:
                path.unlink(missing_ok=True)
                _remove_staged(out)
            log.remove()
    elif path.exists() and path.samefile(out):
        path.unlink()


def _remove_staged(out: Path) -> None:
    """Takes away what a process that was killed while it wrote a file beside the output has left of it."""
    beside = "|".join(re.escape(path.name) for path in (seal.beside(out), skipped.beside(out)))
    for path in out.parent.glob(".*.tmp"):
        if re.fullmatch(rf"\.({beside})\.\d+\.tmp", path.name):
            path.unlink(missing_ok=True)


def _check_seal_is_ours(path: Path) -> None:
    if not os.path.lexists(path):
        return
    try:
        seal.parsed(path.read_bytes())
    except (OSError, ValueError):
        raise InputError(
            f'"{path}" exists, and was kept: it is no seal of an output, and one would be written there. Rename it, or '
            "give another name for the output."
        ) from None


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
