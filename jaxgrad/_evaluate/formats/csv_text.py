"""CSV."""

import csv
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._evaluate.formats.columns import dropped, number, of_arrow, pyarrow, record_batch, schema_of, without_last
from jaxgrad._evaluate.opened import Opened
from jaxgrad._evaluate.output.resumable import Resumable
from jaxgrad._evaluate.sink import Columns
from jaxgrad._evaluate.source import Chunk, RowFile

MISSING = ["", "NA", "null"]


def read_csv(opened: Opened, header: str) -> RowFile:
    names, has_header = _names(opened, header)

    def chunks(positions: Sequence[int], start: int, size: int) -> Iterator[Chunk]:
        wanted = [names[p] for p in positions]
        for batch in dropped(_batches(opened, names, wanted, header=has_header), start):
            for begin in range(0, batch.num_rows, size):
                yield of_arrow([column.slice(begin, size) for column in batch.columns])

    return RowFile(opened, names, (None,) * len(names), None, chunks, {"header": has_header})


def _batches(opened: Opened, names: tuple[str, ...], wanted: Sequence[str], *, header: bool) -> Iterator[Any]:
    arrow_csv, pa = pyarrow("pyarrow.csv"), pyarrow("pyarrow")
    wrong: list[Any] = []

    def stop_at(row: Any) -> str:
        wrong.append(row)
        return "error"

    try:
        batches = arrow_csv.open_csv(
            opened.name,
            # As text, so that a cell that is no number can be named. One thread: only then are rows numbered.
            read_options=arrow_csv.ReadOptions(use_threads=False, column_names=names, skip_rows=int(header)),
            # A blank line is a row without numbers: left out, it would put the rows after it out of place.
            parse_options=arrow_csv.ParseOptions(invalid_row_handler=stop_at, ignore_empty_lines=False),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.string()),
                include_columns=list(wanted),
                strings_can_be_null=True,
                null_values=MISSING,
            ),
        )
        yield from without_last(batches, _blank_lines_at_the_end(opened) if len(names) > 1 else 0)
    except pa.ArrowInvalid:
        if not wrong:
            raise
        raise InputError(
            f'"{opened.path}", row {wrong[0].number - header}: it has {wrong[0].actual_columns} columns; expected '
            f"{wrong[0].expected_columns}, as in the first line."
        ) from None


def _blank_lines_at_the_end(opened: Opened) -> int:
    tail = np.empty(min(opened.size, 1 << 16), np.uint8)
    opened.read(tail, opened.size - len(tail))
    text = tail.tobytes()
    return max(0, text[len(text.rstrip(b"\r\n")) :].count(b"\n") - 1)


def _names(opened: Opened, header: str) -> tuple[tuple[str, ...], bool]:
    """The columns' names, and whether the first line has them; where that is not sure, it has to be said."""
    with open(opened.name, encoding="utf-8-sig", newline="") as file:
        first = [cell.strip() for cell in next(csv.reader(file), [])]
    numbers = [_is_number(cell) for cell in first]
    has_header = header == "yes"
    if header == "auto":
        counted = len(first) > 1 and first == [str(i) for i in range(len(first))]
        unsure = any(numbers) if not all(numbers) else counted
        if unsure or all(cell in MISSING for cell in first):
            raise InputError(
                f'"{opened.path}": its first line, {_short(first)}, may be names or a row; expected to be told. Give '
                '`header="yes"` or `header="no"`.'
            )
        has_header = not all(numbers)
    return (tuple(first) if has_header else tuple(f"x{i}" for i in range(len(first)))), has_header


def _is_number(text: str) -> bool:
    try:
        number(text)
    except ValueError:
        return False
    return True


def _short(cells: Sequence[str]) -> str:
    text = ",".join(cells)
    return text if len(text) <= 60 else f"{text[:60]}..."


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

    def close(self, seal: str) -> None:
        self._writer.close()
