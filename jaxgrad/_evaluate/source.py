"""Sources: rows of numbers in a file, read block by block from any row on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._evaluate.formats.opened import Opened

READS = (".csv", ".csv.gz", ".npy", ".parquet", ".arrow")


def ending_of(path: Path) -> str:
    """What tells a file's format, in small letters: .csv.gz of Rows.CSV.gz."""
    return ".csv.gz" if path.name.lower().endswith(".csv.gz") else path.suffix.lower()


@dataclass(frozen=True)
class Chunk:
    """Some rows as the file has them: one array for each column, NaN where there is no number, and why."""

    columns: list[np.ndarray[Any, Any]]
    why: dict[tuple[int, int], str] = field(default_factory=dict)  # (row of the chunk, column) -> "is missing"
    carried: list[Any] = field(default_factory=list)  # columns that pass through: arrays of NumPy's or pyarrow's

    def __len__(self) -> int:
        return len(self.columns[0])


@dataclass(frozen=True)
class RowFile:
    """A file of rows.

    Attributes:
      opened: where it is.
      names: of its columns; x0, x1, ... where it has no names.
      dtypes: of the columns, NumPy's; what is text there is None.
      count: rows, or None where only reading on would tell.
      chunks: columns' positions, a first row, a number of rows, positions of columns that pass through -> chunks of
        about that many, in order.
      carried_as: a column's position -> NumPy's dtype or pyarrow's type that it passes through in.
      read_as: what was found out of how it is to be read.
      line_of: a row, from 0 -> the line of the file that it starts in, from 1; None where there are no lines.
      shown: its name in messages, where it is a copy of what the user named; else None.
    """

    opened: Opened
    names: tuple[str, ...]
    dtypes: tuple[np.dtype[Any] | None, ...]
    count: int | None
    chunks: Callable[[Sequence[int], int, int, Sequence[int]], Iterator[Chunk]]
    carried_as: Callable[[int], Any]
    read_as: Mapping[str, Any] = field(default_factory=dict)
    line_of: Callable[[int], int] | None = None
    shown: str | None = None

    @property
    def path(self) -> Path:
        return self.opened.path

    def place(self, row: int) -> str:
        """Where a row is, for an error: "rows.csv", row 7 (line 8)."""
        line = f" (line {self.line_of(row)})" if self.line_of is not None else ""
        return f'"{self.shown or self.path}", row {row + 1}{line}'


def readable(path: Path, read: Callable[[], Any]) -> Any:
    """What `read` returns; what goes wrong with the file is an error that names it."""
    try:
        return read()
    except InputError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # whatever a library says of a file that is not what it should be
        raise InputError(f'"{path}" cannot be read as {ending_of(path)[1:]}: {error}') from error


def blocks(
    source: RowFile, positions: Sequence[int], start: int, size: int, carry: Sequence[int] = ()
) -> Iterator[Chunk]:
    """The source's rows from `start` on in blocks of exactly `size` rows, but for the last."""
    waiting: list[Chunk] = []
    for chunk in _read_on(source, positions, start, size, carry):
        waiting.append(chunk)
        while sum(map(len, waiting)) >= size:
            block, rest = split(_joined(source, waiting), size)
            yield block
            waiting = [rest] if len(rest) else []
    if waiting:
        yield _joined(source, waiting)


def _read_on(source: RowFile, positions: Sequence[int], start: int, size: int, carry: Sequence[int]) -> Iterator[Chunk]:
    chunks = readable(source.path, lambda: source.chunks(positions, start, size, carry))
    while (chunk := readable(source.path, lambda: next(chunks, None))) is not None:
        if len(chunk):
            yield chunk


def _joined(source: RowFile, chunks: list[Chunk]) -> Chunk:
    found: Chunk = readable(source.path, lambda: joined(chunks))
    return found


def joined(chunks: list[Chunk]) -> Chunk:
    if len(chunks) == 1:
        return chunks[0]
    why: dict[tuple[int, int], str] = {}
    before = 0
    for chunk in chunks:
        why |= {(row + before, column): text for (row, column), text in chunk.why.items()}
        before += len(chunk)
    columns = [np.concatenate(parts) for parts in zip(*(chunk.columns for chunk in chunks), strict=True)]
    carried = [concatenated(parts) for parts in zip(*(chunk.carried for chunk in chunks), strict=True)]
    return Chunk(columns, why, carried)


def concatenated(parts: Sequence[Any]) -> Any:
    """Arrays of NumPy's or pyarrow's, one after another."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    import pyarrow  # type: ignore[import-untyped]

    return pyarrow.concat_arrays(parts)


def split(chunk: Chunk, size: int) -> tuple[Chunk, Chunk]:
    first = {(row, column): text for (row, column), text in chunk.why.items() if row < size}
    rest = {(row - size, column): text for (row, column), text in chunk.why.items() if row >= size}
    columns, carried = chunk.columns, chunk.carried
    return (
        Chunk([c[:size] for c in columns], first, [c[:size] for c in carried]),
        Chunk([c[size:] for c in columns], rest, [c[size:] for c in carried]),
    )
