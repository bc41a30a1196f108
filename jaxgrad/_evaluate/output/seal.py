"""A seal: what an output says of itself, so that no other one passes for it.

It holds the task that the output was made by, the number of its rows, and checksums of all its bytes. Parquet and
Arrow files carry it in their own metadata; beside .npy and .csv it is a small file.
"""

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

KEY = "jaxgrad"  # of the metadata
BESIDE = (".npy", ".csv")  # formats without metadata of their own
_NONE = "00000000"


@dataclass(frozen=True)
class Seal:
    """What an output says of itself.

    Attributes:
      task: what it was made by.
      rows, read, bad, first_bad: rows in it, rows read for it, how many of these were bad, and the first of them.
      start, end: the bytes that are its rows.
      checksum: of these.
      ends: of the bytes around them, this number itself left out.
    """

    task: Mapping[str, Any]
    rows: int
    read: int
    bad: int
    first_bad: str | None
    start: int
    end: int
    checksum: str
    ends: str = field(default=_NONE)

    def text(self) -> str:
        return json.dumps({"jaxgrad": vars(self)})

    def with_ends(self, ends: bytes) -> "Seal":
        return replace(self, ends=hexadecimal(zlib.crc32(ends.replace(_ends(self.ends), _ends(_NONE)))))


def _ends(digits: str) -> bytes:
    return f'"ends": "{digits}"'.encode()


def hexadecimal(checksum: int) -> str:
    return f"{checksum:08x}"


def parsed(text: str | bytes) -> Seal:
    """The seal that a text holds.

    Raises:
      ValueError: it holds none.
    """
    try:
        return Seal(**json.loads(text)["jaxgrad"])
    except (LookupError, TypeError, RecursionError):
        raise ValueError("no seal of jaxgrad's") from None


def beside(out: Path) -> Path:
    """Where the seal of an output is that has no metadata of its own."""
    return out.with_name(f"{out.name}.seal.json")


def line(seal: Seal, head: bytes) -> bytes:
    """The file beside an output that begins with `head`."""
    return f"{seal.with_ends(head).text()}\n".encode()


def stamped(seal: Seal, tail: bytes) -> bytes:
    """The end of a file that carries its own seal, the checksum of the end in it."""
    return tail.replace(_ends(_NONE), _ends(seal.with_ends(tail).ends))


def is_unbroken(seal: Seal, path: Path) -> bool:
    """Whether every byte of an output is as it was written."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not 0 <= seal.start <= seal.end <= size:
            return False
        head = file.read(seal.start)
        checksum = checksum_of(file, seal.end - seal.start)
        tail = file.read()
    return hexadecimal(checksum) == seal.checksum and seal.with_ends(head + tail).ends == seal.ends


def checksum_of(file: Any, length: int, checksum: int = 0) -> int:
    """The checksum of the next bytes, going on from that of earlier ones."""
    while length and (data := file.read(min(length, 1 << 22))):
        checksum, length = zlib.crc32(data, checksum), length - len(data)
    return checksum
