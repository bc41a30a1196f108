"""Writing files whole or not at all."""

import os
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path


def write_whole(files: Mapping[str | Path, bytes | memoryview], new: Collection[str | Path] = ()) -> None:
    """Writes files, each whole or not at all: none gets its name before all of them are on the disk.

    Args:
      files: their content, in the order in which they get their names.
      new: those that must not be there: where one has come meanwhile, it is kept.

    Raises:
      OSError: one of them cannot be written; none was replaced, and nothing is left beside them.
      FileExistsError: one that should be new is there; those before it have their names.
    """
    named = set[str]()
    staged = {path: staged_as(path) for path in files}  # in strings: paths cost a small file as much as writing it
    try:
        with ExitStack() as stack:
            opened = []
            for path, content in files.items():
                opened.append(os.open(staged[path], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
                stack.callback(os.close, opened[-1])
                rest = memoryview(content)
                while rest:
                    rest = rest[os.write(opened[-1], rest) :]
            for descriptor in opened:  # when all are written: the disk has the first ones by then
                os.fsync(descriptor)
        for path, beside in staged.items():
            if path in new:
                os.link(beside, path)
            else:
                os.replace(beside, path)
                named.add(beside)
    finally:
        for beside in staged.values():
            if beside not in named:
                with suppress(FileNotFoundError):
                    os.unlink(beside)


def staged_as(path: str | Path) -> str:
    """The name of a file of this process before it has its own."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{os.getpid()}.tmp")
