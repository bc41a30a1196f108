"""CSV."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._evaluate.formats.columns import dropped, number, of_arrow, pyarrow, record_batch, schema_of
from jaxgrad._evaluate.sink import Columns
from jaxgrad._evaluate.source import Chunk, RowFile
from jaxgrad._evaluate.unfinished import Resumable


def read_csv(path: Path) -> RowFile:
    names, header = _csv_names(path)

    def chunks(positions: Sequence[int], start: int, size: int) -> Iterator[Chunk]:
        wanted = [names[p] for p in positions]
        for batch in dropped(_csv_batches(path, names, header), start):
            for begin in range(0, batch.num_rows, size):
                yield of_arrow([batch.column(name).slice(begin, size) for name in wanted])

    return RowFile(path, names, (None,) * len(names), None, chunks)


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
            number(cell)
    except ValueError:
        return tuple(cell.strip() for cell in first), True
    return tuple(f"x{i}" for i in range(len(first))), False


class CsvSink:
    """A line of names, then a line for each row; as many digits as give the same number back."""

    def __init__(self, file: Resumable, names: Sequence[str], dtype: np.dtype[Any], *, header: bool):
        arrow_csv = pyarrow("pyarrow.csv")
        if not header:
            file.skip()
        options = arrow_csv.WriteOptions(include_header=header, quoting_style="needed")
        self._writer = arrow_csv.CSVWriter(file, schema_of(names, dtype), write_options=options)

    def write(self, columns: Columns) -> None:
        self._writer.write_batch(record_batch(columns))

    def close(self) -> None:
        self._writer.close()
