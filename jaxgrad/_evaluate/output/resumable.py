"""A file to write to whose first bytes stay as they are, whatever is written there."""

import os
import stat
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from jaxgrad._errors import InputError
from jaxgrad._evaluate.output.log import Done
from jaxgrad._evaluate.output.seal import checksum_of, hexadecimal


class Resumable:
    """What a sink writes to: new, or with the blocks that are whole already.

    Attributes:
      kept: bytes that are there and stay.
      start: where the rows start, after a head that is written anew when their number is known.
      checksum: of all from there on.
    """

    closed = False

    def __init__(self, file: BinaryIO, last: Done | None = None):
        self._file = file
        self.kept, self.start, self.checksum = (last.end, last.start, int(last.checksum, 16)) if last else (0, 0, 0)
        self._file.truncate(self.kept)
        self._file.seek(self.kept)
        self._position = 0
        self._tail: list[bytes] | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        new = view[max(0, self.kept - self._position) :]
        if self._tail is not None:
            self._tail.append(bytes(new))
        elif not self._file.closed:  # a library that is given up still writes its last bytes
            self._file.write(new)
            self.checksum = zlib.crc32(new, self.checksum)
        self._position += len(view)
        return len(view)

    def write_head(self, data: bytes) -> None:
        """Writes what comes before the rows, and is written again when their number is known."""
        if not self.kept:
            self._file.write(data)
        self.start = len(data)
        self._position += len(data)

    def rewrite_head(self, data: bytes) -> None:
        self._file.seek(0)
        self._file.write(data)
        self._file.seek(0, os.SEEK_END)

    def hold(self) -> None:
        """From here on what is written waits."""
        self._tail = []

    def held(self) -> bytes:
        """What waits; nothing does any more."""
        tail, self._tail = b"".join(self._tail or []), None
        return tail

    def append(self, data: bytes) -> None:
        """Writes what comes after the rows."""
        self._file.write(data)

    def tell(self) -> int:
        return self._position

    def skip(self) -> None:
        """Goes on after what is kept."""
        self._position = self.kept

    def flush(self) -> None:
        if not self._file.closed:
            self._file.flush()

    def sync(self) -> None:
        """Waits until the disk has it."""
        os.fsync(self._file.fileno())

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


def opened(path: Path, last: Done | None) -> Resumable:
    """The file at a path: a new one, or the one that is there, with the blocks up to `last`.

    Raises:
      InputError: what is to be gone on with has another name too, or is no regular file.
    """
    return Resumable(os.fdopen(_new(path) if last is None else _again(path), "r+b"), last)


def _new(path: Path) -> int:
    """A file that no other name leads to: one that has the name loses it first."""
    path.unlink(missing_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _again(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise InputError(f'"{path}" has another name too, and was kept; expected a file of its own.')
    return descriptor


def believed(path: Path, done: list[Done]) -> list[Done]:
    """The blocks up to the first one whose bytes are not as they were written."""
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
    except OSError:
        return []
    with file:
        size = os.fstat(file.fileno()).st_size
        position, checksum = done[0].start if done else 0, 0
        file.seek(position)
        for i, block in enumerate(done):
            if block.end > size:
                return done[:i]
            checksum = checksum_of(file, block.end - position, checksum)
            if hexadecimal(checksum) != block.checksum:
                return done[:i]
            position = block.end
    return done
