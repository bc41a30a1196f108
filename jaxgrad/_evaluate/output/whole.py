"""A whole output: its blocks are summed up, and the end that says so is written. In memory, where it is small."""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from jaxgrad._evaluate.output import seal, skipped
from jaxgrad._evaluate.output.log import Done
from jaxgrad._evaluate.output.resumable import Resumable
from jaxgrad._evaluate.output.seal import Seal


class Unpublished(Protocol):
    """An output before it has its name."""

    file: Resumable
    done: list[Done]

    def note(self, read: int, written: int, bad: int, first_bad: str | None, left_out: Sequence[int] = ()) -> None: ...

    def seal(self, close: Callable[[str], None]) -> Seal: ...


class InMemory:
    """An output that is put together in memory: small, and soon to be published with others."""

    def __init__(self, out: Path, task: dict[str, Any]):
        self._out, self._task, self._content = out, task, BytesIO()
        self.file = Resumable(self._content)
        self.done: list[Done] = []

    def note(self, read: int, written: int, bad: int, first_bad: str | None, left_out: Sequence[int] = ()) -> None:
        self.done.append(block_of(self.file, read, written, bad, first_bad, left_out))

    def seal(self, close: Callable[[str], None]) -> Seal:
        return sealed(self.file, self._task, self.done, close)

    def files(self, found: Seal) -> dict[Path, bytes | memoryview]:
        """What is to be written, in the order of publishing: what vouches for the output before it."""
        files: dict[Path, bytes | memoryview] = {}
        content = self._content.getvalue()  # shared with it, not copied
        if self._out.suffix.lower() in seal.BESIDE:
            files[seal.beside(self._out)] = seal.line(found, content[: found.start])
        if self._task["on bad row"] == "skip":
            files[skipped.beside(self._out)] = skipped.content(row for block in self.done for row in block.left_out)
        return {**files, self._out: content}


def block_of(
    file: Resumable, read: int, written: int, bad: int, first_bad: str | None, left_out: Sequence[int]
) -> Done:
    """The block that has just been written."""
    checksum = seal.hexadecimal(file.checksum)
    return Done(read, written, file.start, file.tell(), bad, first_bad, checksum, list(left_out))


def sealed(file: Resumable, task: dict[str, Any], done: Sequence[Done], close: Callable[[str], None]) -> Seal:
    """Ends a file: `close` writes what comes after the rows, and the seal that it is given."""
    rows, read, bad = (sum(getattr(block, key) for block in done) for key in ("written", "read", "bad"))
    first_bad = next((block.first_bad for block in done if block.bad), None)
    checksum = seal.hexadecimal(file.checksum)
    found = Seal(task, rows, read, bad, first_bad, file.start, done[-1].end, checksum)
    file.hold()
    close(found.text())
    file.append(seal.stamped(found, file.held()))
    file.flush()
    return found
