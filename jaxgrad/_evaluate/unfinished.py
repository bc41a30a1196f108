"""A part: an output that is being written. It gets its name when it is whole; broken off, it can be gone on with.

Beside `OUT.part`, `OUT.part.log` has a first line that says what is being written, and a line for each block that is
whole. Whatever comes after the last such block is written again.
"""

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from jaxgrad._errors import InputError


@dataclass(frozen=True)
class Done:
    """A block that is whole: rows read for it and rows written, where the file ended after it, and its bad rows."""

    read: int
    written: int
    end: int
    bad: int
    first_bad: str | None


class Part:
    """The file behind an output, until it is published.

    Attributes:
      file: what to write to.
      done: the blocks that are whole.

    Raises:
      InputError: the output exists, or another part of it does, and neither is to be kept on with nor written over.
    """

    def __init__(self, out: Path, task: dict[str, Any], *, resume: bool, overwrite: bool):
        self._out, self._overwrite = out, overwrite
        self._path, self._log_path = _names(out)
        if not out.parent.is_dir():
            raise InputError(f'there is no folder "{out.parent}" to write "{out.name}" in; make it first.')
        if out.is_dir():
            raise InputError(f'"{out}" is a folder; expected the name of a file.')
        if os.path.lexists(out) and not overwrite:  # a link to nothing is kept too
            raise InputError(f'"{out}" exists, and was kept. Give `overwrite=True` to write over it, or another name.')
        if not overwrite:
            self._keep_what_is_left(resume=resume)
        self._log = self._log_path.open("a", encoding="utf-8")
        try:
            self._lock()
            self.done = self._earlier(task) if resume else []
            self._forget_the_rest()
            if not self.done:
                self._write({"task": task})
            self.file = Resumable(self._path, self.done[-1].end if self.done else 0)
        except BaseException:
            self._log.close()
            raise

    def _keep_what_is_left(self, *, resume: bool) -> None:
        if self._path.exists() and not self._log_path.exists():
            raise InputError(
                f'"{self._path}" exists, and no log beside it says what it is; it was kept. Give `overwrite=True` '
                "to write over it, or another name."
            )
        if not resume and self._log_path.exists():
            raise InputError(
                f'"{self._path}" is left of a run that was broken off. Give `resume=True` to go on with it, or '
                "`overwrite=True` to begin anew."
            )

    def _lock(self) -> None:
        try:
            from filelock import lock_descriptor
        except ImportError:
            raise InputError(
                "filelock is not installed, without which two processes could write one output; expected it here. "
                "Write pip install 'jaxgrad[files]'."
            ) from None
        if not lock_descriptor(self._log.fileno(), blocking=False):
            raise InputError(f'"{self._path}" is being written by another process; wait for it.')

    def _earlier(self, task: dict[str, Any]) -> list[Done]:
        """The blocks that are whole, of the same task."""
        if not self._path.exists():
            return []
        lines = self._log_path.read_text(encoding="utf-8").split("\n")[:-1]  # what has no end of line is not whole
        if not lines:
            return []
        try:
            records = [json.loads(line) for line in lines]
            found, done = records[0]["task"], [Done(**record) for record in records[1:]]
        except (ValueError, LookupError, TypeError):
            if self._overwrite:
                return []
            raise InputError(f'"{self._log_path}" is damaged. Give `overwrite=True` to begin anew.') from None
        changed = [key for key in task if found.get(key) != task[key]]
        if changed and self._overwrite:
            return []
        if changed:
            key = changed[0]
            raise InputError(
                f'"{self._path}" was made with {key} {found.get(key)!r}, and now it is {task[key]!r}; expected the '
                "same. Give `overwrite=True` to begin anew."
            )
        size = self._path.stat().st_size
        return [block for block in done if block.end <= size]

    def _forget_the_rest(self) -> None:
        """Cuts the log after the last block that is believed: half a line would be joined to the next one."""
        lines = self._log_path.read_bytes().splitlines(keepends=True)[: len(self.done) + 1]
        self._log.truncate(sum(map(len, lines)) if self.done else 0)

    def _write(self, line: dict[str, Any]) -> None:
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()

    def note(self, read: int, written: int, bad: int, first_bad: str | None) -> None:
        """Another block is whole."""
        self.file.flush()
        self.done.append(Done(read, written, self.file.tell(), bad, first_bad))
        self._write(asdict(self.done[-1]))

    def publish(self) -> None:
        """Gives the whole file its name."""
        self.file.flush()
        self.file.end()
        if self._overwrite:
            self._path.replace(self._out)
        else:
            self._rename()
        self._log.close()
        self._log_path.unlink(missing_ok=True)

    def _rename(self) -> None:
        """Renames it, never over a file that has come meanwhile."""
        come = f'"{self._out}" has come meanwhile, and was kept; what should be there is whole in "{self._path}".'
        try:
            os.link(self._path, self._out)
        except FileExistsError:
            raise InputError(come) from None
        except OSError:  # a file system without links
            if self._out.exists():
                raise InputError(come) from None
            self._path.rename(self._out)
        else:
            self._path.unlink(missing_ok=True)

    def leave(self) -> None:
        """Closes it as it is, to be gone on with."""
        with contextlib.suppress(OSError):
            self.file.end()
        with contextlib.suppress(OSError):
            self._log.close()

    def remove(self) -> None:
        """Takes it away: there is nothing in it to go on with."""
        self.leave()
        self._path.unlink(missing_ok=True)
        self._log_path.unlink(missing_ok=True)


def is_whole(out: Path) -> bool:
    """Whether an output has its name already; a run that was broken off after that leaves its log, which is removed."""
    path, log = _names(out)
    if not out.exists() or (path.exists() and not path.samefile(out)):
        return False
    path.unlink(missing_ok=True)
    log.unlink(missing_ok=True)
    return True


def _names(out: Path) -> tuple[Path, Path]:
    return out.with_name(out.name + ".part"), out.with_name(out.name + ".part.log")


class Resumable:
    """A file to write to whose first `kept` bytes stay as they are, whatever is written there."""

    closed = False

    def __init__(self, path: Path, kept: int):
        self._file: BinaryIO = path.open("r+b" if kept else "w+b")
        self._file.truncate(kept)
        self._file.seek(kept)
        self.kept = kept
        self._position = 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if not self._file.closed:  # a library that is given up still writes its last bytes
            self._file.write(view[max(0, self.kept - self._position) :])
        self._position += len(view)
        return len(view)

    def tell(self) -> int:
        return self._position

    def skip(self) -> None:
        """Goes on after what is kept."""
        self._position = self.kept

    def rewrite(self, data: bytes) -> None:
        """Writes `data` over the start."""
        self._file.seek(0)
        self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """For the libraries that close what they write to: it stays open."""

    def end(self) -> None:
        self._file.close()

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False
