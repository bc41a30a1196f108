"""CSV."""

import csv
import gzip
import io
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, cast

from jaxgrad._errors import InputError
from jaxgrad._evaluate.formats.columns import dropped, number, of_arrow, pyarrow, record_batch, schema_of, without_last
from jaxgrad._evaluate.formats.opened import Opened
from jaxgrad._evaluate.formats.quotes import line_of_open_quote
from jaxgrad._evaluate.output.resumable import Resumable
from jaxgrad._evaluate.sink import Columns, Schema
from jaxgrad._evaluate.source import Chunk, RowFile
from jaxgrad._text import short

MISSING = ["", "NA", "null"]
BLOCK, TAIL = 1 << 20, 1 << 16  # bytes that are parsed at a time, and that are looked at for blank lines


def read_csv(opened: Opened, header: str, *, packed: bool = False) -> RowFile:
    """The rows of a CSV file, `packed` by gzip or not."""
    open_quote = line_of_open_quote(lambda: _unpacked(opened, packed=packed))
    if open_quote is not None:
        raise InputError(
            f'"{opened.path}", line {open_quote}: a cell begins with a quote that is never closed, and would hold all '
            "lines after it; expected another quote at its end."
        )
    names, lines = _names(opened, header, packed=packed)

    def line_of(row: int) -> int:
        with _unpacked(opened, packed=packed) as file:
            return line_of_record(file, row + bool(lines))

    def chunks(positions: Sequence[int], start: int, size: int, carry: Sequence[int] = ()) -> Iterator[Chunk]:
        wanted = list(dict.fromkeys(names[p] for p in (*positions, *carry)))
        # What is carried passes through to the letter: NA is no missing value there.
        missing = [] if carry else MISSING
        batches = _batches(opened, names, wanted, lines, line_of, packed=packed, missing=missing)
        for batch in dropped(batches, start):
            for begin in range(0, batch.num_rows, size):
                columns = {name: column.slice(begin, size) for name, column in zip(wanted, batch.columns, strict=True)}
                inputs = [columns[names[p]] for p in positions]
                yield of_arrow(
                    list(map(_without_missing, inputs)) if carry else inputs, [columns[names[p]] for p in carry]
                )

    def carried_as(position: int) -> Any:
        return pyarrow("pyarrow").string()

    return RowFile(opened, names, (None,) * len(names), None, chunks, carried_as, {"header": bool(lines)}, line_of)


def _without_missing(column: Any) -> Any:
    """A column of text, null where it says that there is nothing."""
    pa, compute = pyarrow("pyarrow"), pyarrow("pyarrow.compute")
    missing = compute.is_in(column, value_set=pa.array(MISSING))
    return compute.if_else(missing, pa.scalar(None, pa.string()), column)


def _unpacked(opened: Opened, *, packed: bool) -> BinaryIO:
    return cast(BinaryIO, gzip.open(opened.name)) if packed else open(opened.name, "rb")


def _batches(
    opened: Opened,
    names: tuple[str, ...],
    wanted: Sequence[str],
    header: int,
    line_of: Callable[[int], int],
    *,
    packed: bool,
    missing: Sequence[str],
) -> Iterator[Any]:
    """The columns that are wanted, as text; `header` is how many lines the names take."""
    arrow_csv, pa = pyarrow("pyarrow.csv"), pyarrow("pyarrow")
    wrong: list[Any] = []

    def stop_at(row: Any) -> str:
        wrong.append(row)
        return "error"

    file = pa.OSFile(opened.name)
    try:
        batches = arrow_csv.open_csv(
            pa.CompressedInputStream(file, "gzip") if packed else file,
            # As text, so that a cell that is no number can be named. One thread: only then are rows numbered.
            read_options=arrow_csv.ReadOptions(
                use_threads=False, column_names=names, skip_rows=header, block_size=max(BLOCK, 64 * len(names))
            ),
            # A blank line is a row without numbers: left out, it would put the rows after it out of place.
            parse_options=arrow_csv.ParseOptions(
                invalid_row_handler=stop_at, ignore_empty_lines=False, newlines_in_values=True
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.string()),
                include_columns=list(wanted),
                strings_can_be_null=bool(missing),
                null_values=list(missing),
            ),
        )
        yield from without_last(batches, _blank_lines_at_the_end(opened, packed=packed) if len(names) > 1 else 0)
    except pa.ArrowInvalid:
        if not wrong:
            raise
        row = wrong[0].number - header
        raise InputError(
            f'"{opened.path}", row {row} (line {line_of(row - 1)}): it has {wrong[0].actual_columns} columns; expected '
            f"{wrong[0].expected_columns}, as in the first line."
        ) from None


def _blank_lines_at_the_end(opened: Opened, *, packed: bool) -> int:
    tail = b""
    with _unpacked(opened, packed=packed) as file:
        if not packed:
            file.seek(max(0, opened.size - TAIL))
        while data := file.read(TAIL):
            tail = (tail + data)[-TAIL:]
    return max(0, tail[len(tail.rstrip(b"\r\n")) :].count(b"\n") - 1)


def line_of_record(file: BinaryIO, record: int) -> int:
    """The line, from 1, that a record of a CSV file starts in, from 0: a cell in quotes may go over several lines."""
    lines = records = 0
    quoted, at_start = False, True  # of a cell, where alone a quote opens it
    while data := file.read(1 << 20):
        ends = data.count(b"\n")
        if not quoted and b'"' not in data and records + ends < record:
            lines, records, at_start = lines + ends, records + ends, data[-1:] in (b"\n", b",")
            continue
        for token in re.split(rb'([",\n])', data):
            if records == record:
                return lines + 1
            if token == b'"':
                # Closed, it opens again if another quote follows at once: two of them are one.
                quoted, at_start = not quoted if quoted or at_start else quoted, quoted
            elif token == b"\n":
                lines, records, at_start = lines + 1, records + (not quoted), not quoted
            elif token == b",":
                at_start = not quoted
            elif token:
                at_start = False
    return lines + 1


def _names(opened: Opened, header: str, *, packed: bool) -> tuple[tuple[str, ...], int]:
    """The columns' names, and how many lines they take, 0 if they have none; not sure of it, it has to be said."""
    with io.TextIOWrapper(_unpacked(opened, packed=packed), encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        first = [cell.strip() for cell in next(reader, [])]
        lines = reader.line_num
    numbers = [_is_number(cell) for cell in first]
    has_header = header == "yes"
    if header == "auto":
        counted = len(first) > 1 and first == [str(i) for i in range(len(first))]
        unsure = any(numbers) if not all(numbers) else counted
        if unsure or all(cell in MISSING for cell in first):
            raise InputError(
                f'"{opened.path}": its first line, {short(",".join(first))}, may be names or a row; expected to be '
                'told. Give `header="yes"` or `header="no"`.'
            )
        has_header = not all(numbers)
    return (tuple(first), lines) if has_header else (tuple(f"x{i}" for i in range(len(first))), 0)


def _is_number(text: str) -> bool:
    try:
        number(text)
    except ValueError:
        return False
    return True


class CsvSink:
    """A line of names, then a line for each row; as many digits as give the same number back."""

    def __init__(self, file: Resumable, schema: Schema, *, header: bool):
        arrow_csv = pyarrow("pyarrow.csv")
        self._schema = schema_of(schema)
        if not header:
            file.skip()
        options = arrow_csv.WriteOptions(include_header=header, quoting_style="needed")
        self._writer = arrow_csv.CSVWriter(file, self._schema, write_options=options)

    def write(self, columns: Columns) -> None:
        self._writer.write_batch(record_batch(columns, self._schema))

    def close(self, seal: str) -> None:
        self._writer.close()
