"""A file of rows, open: what is read is one file, whatever becomes of its name, and it is known by its content."""

import hashlib
import os
import stat
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from jaxgrad._errors import InputError

WHOLE = 64 << 20  # bytes up to which all of a file goes into its fingerprint
END, PAGE, PAGES = 1 << 20, 4096, 1024  # of a larger one, both ends and pages spread evenly over it


class Opened:
    """A regular file, open for reading until the last reference to it is gone.

    Attributes:
      path: the name that it was opened by.
      size: in bytes, when it was opened.
      fingerprint: of its content, when it was opened.

    Raises:
      InputError: there is no such file, or it is a folder, a pipe or a device.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            # Without O_NONBLOCK, a pipe that no one writes to would never open.
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise InputError(f'there is no file "{path}"; expected rows of numbers in it.') from None
        except OSError as error:
            raise InputError(f'"{path}" cannot be opened: {error.strerror}.') from None
        weakref.finalize(self, os.close, self._descriptor)
        found = os.fstat(self._descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f'"{path}" is no regular file; expected rows of numbers in one.')
        self.size, self._time, self._node = found.st_size, found.st_mtime_ns, (found.st_dev, found.st_ino)
        self.fingerprint = self._fingerprint()

    @property
    def name(self) -> str:
        """A name for libraries to open the same file by, even where its own name is another's by now."""
        own = f"/proc/self/fd/{self._descriptor}"
        return own if os.path.exists(own) else str(self.path)

    def read(self, into: np.ndarray[Any, Any], offset: int) -> None:
        """Fills a contiguous array with the bytes from `offset` on."""
        rest = memoryview(into.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        while rest:
            count = os.preadv(self._descriptor, [rest], offset)
            if not count:
                raise InputError(f'"{self.path}" ends {len(rest)} bytes early; it changed while it was read.')
            rest, offset = rest[count:], offset + count

    def check_unchanged(self) -> None:
        """Raises an `InputError` where the file is not what it was when it was opened, or its name is another's."""
        if self.has_changed():
            raise InputError(
                f'"{self.path}" changed while it was read, so that what was computed is of no one state of it; '
                "expected it unchanged. Run again when it is complete."
            )

    def has_changed(self) -> bool:
        found = os.fstat(self._descriptor)
        same = (found.st_size, found.st_mtime_ns) == (self.size, self._time)
        return not same or self._is_replaced() or self._fingerprint() != self.fingerprint

    def _is_replaced(self) -> bool:
        try:
            found = os.stat(self.path)
        except OSError:
            return True
        return (found.st_dev, found.st_ino) != self._node

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(str(self.size).encode())
        for start, length in _sampled(self.size):
            digest.update(os.pread(self._descriptor, length, start))
        return digest.hexdigest()


def _sampled(size: int) -> list[tuple[int, int]]:
    """Start and length of what a fingerprint is made of."""
    if size <= WHOLE:
        return [(start, END) for start in range(0, size, END)]
    pages = [(size * i // PAGES // PAGE * PAGE, PAGE) for i in range(PAGES)]
    return [(0, END), *pages, (size - END, END)]
