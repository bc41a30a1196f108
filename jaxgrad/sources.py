"""Sources: rows of numbers in a file, read block by block from any row on."""

import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxgrad.errors import InputError

READS = (".csv", ".npy", ".parquet", ".arrow")


@dataclass(frozen=True)
class Chunk:
    """Some rows as the file has them: one array for each column, NaN where there is no number, and why."""

    columns: list[np.ndarray[Any, Any]]
    why: dict[tuple[int, int], str] = field(default_factory=dict)  # (row of the chunk, column) -> "is missing"

    def __len__(self) -> int:
        return len(self.columns[0])


@dataclass(frozen=True)
class Source:
    """A file of rows.

    Attributes:
      path: where it is.
      names: of its columns; x0, x1, ... where it has no names.
      dtypes: of the columns, NumPy's; what is text there is None.
      count: rows, or None where only reading on would tell.
      chunks: columns' positions, a first row, a number of rows -> chunks of about that many, in order.
    """

    path: Path
    names: tuple[str, ...]
    dtypes: tuple[np.dtype[Any] | None, ...]
    count: int | None
    chunks: Callable[[Sequence[int], int, int], Iterator[Chunk]]


def open_source(path: str | Path) -> Source:
    """Opens a .csv, .npy, .parquet or .arrow file, by its ending.

    Raises:
      InputError: there is no such file, its ending is another, or it is empty, cut off or corrupt.
    """
    path = Path(path)
    readers = {".npy": _npy, ".csv": _csv, ".parquet": _parquet, ".arrow": _arrow}
    if path.suffix.lower() not in readers:
        raise InputError(f'the rows are in "{path}"; expected a file that ends in {", ".join(READS)}.')
    if not path.is_file():
        raise InputError(f'there is no file "{path}"; expected rows of numbers in it.')
    if not path.stat().st_size:
        raise InputError(f'"{path}" is empty; expected rows of numbers.')
    source: Source = readable(path, lambda: readers[path.suffix.lower()](path))
    if not source.names:
        raise InputError(f'"{path}" has no columns; expected one for each input.')
    twice = next((name for name in source.names if source.names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f'"{path}" has two columns "{twice}"; expected a name for each.')
    if source.count == 0:
        raise InputError(f'"{path}" has no rows; expected at least one.')
    return source


def readable(path: Path, read: Callable[[], Any]) -> Any:
    """What `read` returns; what goes wrong with the file is an error that names it."""
    try:
        return read()
    except InputError:
        raise
    except _errors_of_files() as error:
        raise InputError(f'"{path}" cannot be read as {path.suffix[1:]}: {error}') from None


def _errors_of_files() -> tuple[type[Exception], ...]:
    loaded = sys.modules.get("pyarrow")
    return OSError, ValueError, EOFError, *((loaded.ArrowException,) if loaded else ())


def blocks(source: Source, positions: Sequence[int], start: int, size: int) -> Iterator[Chunk]:
    """The source's rows from `start` on in blocks of exactly `size` rows, but for the last."""
    waiting: list[Chunk] = []
    for chunk in _read_on(source, positions, start, size):
        waiting.append(chunk)
        while sum(map(len, waiting)) >= size:
            block, rest = _split(_joined(waiting), size)
            yield block
            waiting = [rest] if len(rest) else []
    if waiting:
        yield _joined(waiting)


def _read_on(source: Source, positions: Sequence[int], start: int, size: int) -> Iterator[Chunk]:
    chunks = readable(source.path, lambda: source.chunks(positions, start, size))
    while (chunk := readable(source.path, lambda: next(chunks, None))) is not None:
        if len(chunk):
            yield chunk


def _joined(chunks: list[Chunk]) -> Chunk:
    if len(chunks) == 1:
        return chunks[0]
    why: dict[tuple[int, int], str] = {}
    before = 0
    for chunk in chunks:
        why |= {(row + before, column): text for (row, column), text in chunk.why.items()}
        before += len(chunk)
    return Chunk([np.concatenate(parts) for parts in zip(*(chunk.columns for chunk in chunks), strict=True)], why)


def _split(chunk: Chunk, size: int) -> tuple[Chunk, Chunk]:
    first = {(row, column): text for (row, column), text in chunk.why.items() if row < size}
    rest = {(row - size, column): text for (row, column), text in chunk.why.items() if row >= size}
    columns = chunk.columns
    return Chunk([c[:size] for c in columns], first), Chunk([c[size:] for c in columns], rest)


def pyarrow(module: str) -> Any:
    """A module of pyarrow, which reads and writes every format but .npy."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        raise InputError(
            "pyarrow is not installed, and only .npy can do without; expected it here. "
            "Write pip install 'jaxgrad[files]'."
        ) from None


def _npy(path: Path) -> Source:
    table = np.lib.format.open_memmap(path, mode="r")
    if table.dtype.names is not None and table.ndim == 1:
        names = table.dtype.names
        dtypes = tuple(_number(table.dtype[name]) for name in names)
    elif table.dtype.names is None and table.ndim == 2:
        names = tuple(f"x{i}" for i in range(table.shape[1]))
        dtypes = (_number(table.dtype),) * len(names)
    else:
        raise InputError(
            f'"{path}" holds an array of shape {table.shape} and dtype {table.dtype}; expected (rows, columns), or '
            "named columns of shape (rows,)."
        )
    start_of_data, dtype, contiguous = table.offset, table.dtype, table.flags.c_contiguous

    def chunks(positions: Sequence[int], start: int, size: int) -> Iterator[Chunk]:
        for p in positions:
            if dtypes[p] is None:
                kind = table.dtype[names[p]] if dtype.names else dtype
                raise InputError(f'"{path}", column {names[p]}: it is of dtype {kind}; expected real numbers.')
        for first in range(start, len(table), size):
            count = min(size, len(table) - first)
            if contiguous:  # read, not mapped: what is mapped and was read counts as used memory
                row = dtype.itemsize * (1 if dtype.names else len(names))
                found = np.fromfile(path, dtype, count * row // dtype.itemsize, offset=start_of_data + first * row)
                found = found if dtype.names else found.reshape(count, len(names))
            else:
                found = table[first : first + count]
            yield Chunk([found[names[p]] if dtype.names else found[:, p] for p in positions])

    return Source(path, names, dtypes, len(table), chunks)


def _number(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    return dtype if dtype.kind in "fiub" else None


def _parquet(path: Path) -> Source:
    # No columns are read ahead as a whole, and pages that have a checksum are held to it.
    file = pyarrow("pyarrow.parquet").ParquetFile(path, pre_buffer=False, page_checksum_verification=True)
    schema = file.schema_arrow
    groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]

    def chunks(positions: Sequence[int], start: int, size: int) -> Iterator[Chunk]:
        first, skipped = _group_of(start, groups)
        names = [schema.names[p] for p in positions]
        batches = file.iter_batches(size, row_groups=list(range(first, len(groups))), columns=names)
        for batch in _dropped(batches, start - skipped):
            yield _of_arrow([batch.column(name) for name in names])

    return Source(path, tuple(schema.names), tuple(_arrow_dtype(f.type) for f in schema), sum(groups), chunks)


def _arrow(path: Path) -> Source:
    ipc = pyarrow("pyarrow.ipc")
    try:
        file = ipc.open_file(pyarrow("pyarrow").OSFile(str(path)))
        sizes = [file.get_batch(i).num_rows for i in range(file.num_record_batches)]
        schema, count = file.schema, sum(sizes)
    except ValueError:  # the stream format has no list of its batches
        file, sizes, count = None, [], None
        schema = ipc.open_stream(pyarrow("pyarrow").OSFile(str(path))).schema

    def chunks(positions: Sequence[int], start: int, size: int) -> Iterator[Chunk]:
        first, skipped = _group_of(start, sizes)
        if file is None:
            batches = iter(ipc.open_stream(pyarrow("pyarrow").OSFile(str(path))))
        else:
            batches = (file.get_batch(i) for i in range(first, len(sizes)))
        for batch in _dropped(batches, start - skipped):
            for begin in range(0, batch.num_rows, size):
                yield _of_arrow([batch.column(p).slice(begin, size) for p in positions])

    return Source(path, tuple(schema.names), tuple(_arrow_dtype(f.type) for f in schema), count, chunks)


def _group_of(row: int, groups: Sequence[int]) -> tuple[int, int]:
    """The group that a row is in, and how many rows are before the group."""
    before = 0
    for i, rows in enumerate(groups):
        if row < before + rows:
            return i, before
        before += rows
    return len(groups), before


def _dropped(batches: Iterable[Any], rows: int) -> Iterator[Any]:
    """The batches without their first rows."""
    for batch in batches:
        if rows < batch.num_rows:
            yield batch.slice(rows)
        rows = max(0, rows - batch.num_rows)


def _arrow_dtype(kind: Any) -> np.dtype[Any] | None:
    types = pyarrow("pyarrow").types
    return np.dtype(kind.to_pandas_dtype()) if types.is_integer(kind) or types.is_floating(kind) else None


def _of_arrow(columns: Sequence[Any]) -> Chunk:
    why: dict[tuple[int, int], str] = {}
    found = []
    for position, column in enumerate(columns):
        if _arrow_dtype(column.type) is None:
            column = _parsed(column.cast(pyarrow("pyarrow").string()), position, why)
        if column.null_count:
            for row in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist():
                why.setdefault((row, position), "is missing")
        found.append(column.to_numpy(zero_copy_only=False))
    return Chunk(found, why)


def _parsed(column: Any, position: int, why: dict[tuple[int, int], str]) -> Any:
    """A column of text as numbers, null where it is none."""
    pa, compute = pyarrow("pyarrow"), pyarrow("pyarrow.compute")
    column = compute.utf8_trim_whitespace(column)
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid:
        numbers = []
        for row, text in enumerate(column.to_pylist()):
            try:
                numbers.append(None if text is None else _float(text))
            except ValueError:
                numbers.append(None)
                why[row, position] = f'is "{text}"' if text else "is missing"
        return pa.array(numbers, pa.float64())


def _float(text: str) -> float:
    if "_" in text:  # 1_000 is a number to Python alone
        raise ValueError
    return float(text)


def _csv(path: Path) -> Source:
    names, header = _csv_names(path)

    def chunks(positions: Sequence[int], start: int, size: int) -> Iterator[Chunk]:
        wanted = [names[p] for p in positions]
        for batch in _dropped(_csv_batches(path, names, header), start):
            for begin in range(0, batch.num_rows, size):
                yield _of_arrow([batch.column(name).slice(begin, size) for name in wanted])

    return Source(path, names, (None,) * len(names), None, chunks)


def _csv_batches(path: Path, names: tuple[str, ...], header: bool) -> Iterator[Any]:
    arrow_csv, pa = pyarrow("pyarrow.csv"), pyarrow("pyarrow")
    wrong: list[Any] = []

    def stop_at(row: Any) -> str:
        wrong.append(row)
        return "error"

    try:
        yield from arrow_csv.open_csv(
            path,
            # As text, so that a cell that is no number can be named. One thread: only then are rows numbered.
            read_options=arrow_csv.ReadOptions(use_threads=False, column_names=names, skip_rows=int(header)),
            parse_options=arrow_csv.ParseOptions(invalid_row_handler=stop_at),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=["", "NA", "null"]
            ),
        )
    except pa.ArrowInvalid:
        if not wrong:
            raise
        raise InputError(
            f'"{path}", row {wrong[0].number - header}: it has {wrong[0].actual_columns} columns; expected '
            f"{wrong[0].expected_columns}, as in the first line."
        ) from None


def _csv_names(path: Path) -> tuple[tuple[str, ...], bool]:
    """The columns' names, and whether the first line has them: it has unless all of it are numbers."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = next(csv.reader(file), [])
    try:
        for cell in first:
            _float(cell)
    except ValueError:
        return tuple(cell.strip() for cell in first), True
    return tuple(f"x{i}" for i in range(len(first))), False
