"""Writing files whole or not at all."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def write_whole(files: Mapping[Path, bytes]) -> None:
    """Writes files, each whole or not at all: none gets its name before all of them are on the disk.

    Raises:
      OSError: one of them cannot be written; none was replaced, and nothing is left beside them.
    """
    staged = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files}
    try:
        for path, content in files.items():
            with staged[path].open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, beside in staged.items():
            beside.replace(path)
    finally:
        for beside in staged.values():
            with suppress(OSError):
                beside.unlink()
