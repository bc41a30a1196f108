"""The log of an output that is being written: what it is made of, then a line for each block that is whole.

Each line ends in a checksum that goes on from the line before: one that is damaged, doubled, missing or out of place is
not believed, nor is any after it.
"""

import json
import os
import stat
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxgrad._errors import InputError
from jaxgrad._evaluate.output.seal import hexadecimal


@dataclass(frozen=True)
class Done:
    """A block that is whole.

    Attributes:
      read, written, bad: its rows, those written, those that are bad.
      start, end: where the first block's rows start in the file, and where this one's end.
      first_bad: what is wrong with its first bad row.
      checksum: of all from start to end.
      left_out: the numbers of rows that were read and not written.
    """

    read: int
    written: int
    start: int
    end: int
    bad: int
    first_bad: str | None
    checksum: str
    left_out: list[int] = field(default_factory=list)

    def may_follow(self, before: "Done | None") -> bool:
        """Whether it can be the next block: positions only grow, by what is written."""
        counts = self.read > 0 and 0 <= self.written <= self.read and 0 <= self.bad <= self.read
        if before is None:
            return counts and 0 <= self.start <= self.end
        grown = self.end > before.end if self.written else self.end == before.end
        return counts and self.start == before.start and grown


class Log:
    """A log, locked: no other process writes to it or to the output that it is of.

    Raises:
      InputError: another process has it, it is no file of its own, or what locks it is not installed.
    """

    def __init__(self, path: Path):
        self._path = path
        self._checksum = 0
        self._ends: list[tuple[int, int]] = []  # of each line: where it ends, and the checksum so far
        while True:  # until the one that is locked is the one that has the name: another process may have removed it
            self._descriptor = _opened(path)
            try:
                _lock(self._descriptor, path)
                found = os.stat(path, follow_symlinks=False)
                if os.path.samestat(found, os.fstat(self._descriptor)):
                    return
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(self._descriptor)
                raise
            os.close(self._descriptor)

    def read(self) -> tuple[dict[str, Any] | None, list[Done]]:
        """The task and the blocks, as far as the lines are believed; None and [] if it is empty.

        Raises:
          InputError: the first line is damaged.
        """
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            lines = self._believed(file.read())
        if not lines:
            if os.fstat(self._descriptor).st_size:
                raise InputError(f'"{self._path}" is damaged. Give `overwrite=True` to begin anew.')
            return None, []
        done: list[Done] = []
        for line in lines[1:]:
            try:
                block = Done(**line)
                if not block.may_follow(done[-1] if done else None):
                    break
            except TypeError:
                break
            done.append(block)
        return lines[0].get("task"), done

    def _believed(self, content: bytes) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        end = checksum = 0
        for line in content.splitlines(keepends=True):
            body, comma, _ = line.rpartition(b', "line": ')
            checksum = zlib.crc32(body, checksum)
            if not comma or line != body + _closing(checksum):
                break
            try:
                found.append(json.loads(line))
            except (ValueError, RecursionError):
                break
            found[-1].pop("line")
            end += len(line)
            self._ends.append((end, checksum))
        return found

    def keep(self, blocks: int) -> None:
        """Cuts it after the first blocks: none, and it is empty."""
        end, self._checksum = self._ends[blocks] if blocks else (0, 0)
        os.ftruncate(self._descriptor, end)

    def begin(self, task: dict[str, Any]) -> None:
        self._write({"task": task})

    def note(self, done: Done) -> None:
        self._write(vars(done))

    def _write(self, record: dict[str, Any]) -> None:
        body = json.dumps(record)[:-1].encode()
        self._checksum = zlib.crc32(body, self._checksum)
        rest = body + _closing(self._checksum)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)

    def remove(self) -> None:
        """Takes its name away while it is locked, then lets it go."""
        self._path.unlink(missing_ok=True)
        self.close()


def _closing(checksum: int) -> bytes:
    return f', "line": "{hexadecimal(checksum)}"}}\n'.encode()


def _opened(path: Path) -> int:
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if path.is_symlink():
            raise InputError(f'"{path}" is a link, and was kept; expected no file, or a log of a run.') from None
        raise error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise InputError(f'"{path}" is no file of its own, and was kept; expected no file, or a log of a run.')
    return descriptor


def _lock(descriptor: int, path: Path) -> None:
    try:
        from filelock import lock_descriptor
    except ImportError:
        raise InputError(
            "filelock is not installed, without which two processes could write one output; expected it here. "
            "Write pip install 'jaxgrad[files]'."
        ) from None
    if not lock_descriptor(descriptor, blocking=False):
        raise InputError(f'"{path.with_suffix("")}" is being written by another process; wait for it.')
