"""The file of rows to read, or of columns to write, by its ending."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from jaxgrad._errors import InputError
from jaxgrad._evaluate.formats.arrow import ArrowSink, read_arrow, seal_of_arrow
from jaxgrad._evaluate.formats.csv_text import CsvSink, read_csv
from jaxgrad._evaluate.formats.npy import NpySink, read_npy
from jaxgrad._evaluate.formats.opened import Opened
from jaxgrad._evaluate.formats.parquet import ParquetSink, read_parquet, seal_of_parquet
from jaxgrad._evaluate.output.resumable import Resumable
from jaxgrad._evaluate.output.seal import BESIDE, Seal, beside, parsed
from jaxgrad._evaluate.sink import WRITES, Columns, Schema, Sink
from jaxgrad._evaluate.source import READS, RowFile, ending_of, readable
from jaxgrad._text import short


def open_source(path: str | Path, header: str = "auto", *, may_be_empty: bool = False) -> RowFile:
    """Opens a .csv, .npy, .parquet or .arrow file, by its ending.

    Args:
      path: the file.
      header: "yes" or "no" for a .csv file whose first line has the columns' names or has not; "auto" where that is
        to be found out.
      may_be_empty: it may have no rows.

    Raises:
      InputError: there is no such file, its ending is another, or it is empty, cut off or corrupt.
    """
    path = Path(path)
    readers = {
        ".npy": read_npy, ".parquet": read_parquet, ".arrow": read_arrow,
        ".csv": lambda opened: read_csv(opened, header),
        ".csv.gz": lambda opened: read_csv(opened, header, packed=True),
    }  # fmt: skip
    if ending_of(path) not in readers:
        raise InputError(f'the rows are in "{path}"; expected a file that ends in {", ".join(READS)}.')
    opened = Opened(path)
    if not opened.size:
        raise InputError(f'"{path}" is empty; expected rows of numbers.')
    source: RowFile = readable(path, lambda: readers[ending_of(path)](opened))
    if not source.names:
        raise InputError(f'"{path}" has no columns; expected one for each input.')
    twice = next((name for name, times in Counter(source.names).items() if times > 1), None)
    if twice is not None:
        raise InputError(f'"{path}" has two columns "{short(twice)}"; expected a name for each.')
    if source.count == 0 and not may_be_empty:
        raise InputError(f'"{path}" has no rows; expected at least one.')
    return source


def seal_of(out: Path) -> Seal:
    """The seal that an output carries or has beside it.

    Raises:
      InputError: it has none.
    """
    carried = {".parquet": seal_of_parquet, ".arrow": seal_of_arrow}
    try:
        if out.suffix.lower() in BESIDE:
            return parsed(beside(out).read_bytes())
        return parsed(carried[out.suffix.lower()](out))
    except InputError:
        raise
    except Exception as error:  # whatever a library says of a file that is not what it should be
        raise InputError(
            f'"{out}" exists, and was kept: nothing in it or beside it says what it was made of. Give '
            "`overwrite=True` to write over it, or another name."
        ) from error


def open_sink(
    ending: str,
    file: Resumable,
    schema: Schema,
    written: int = 0,
    earlier: Iterable[Columns] = (),
    compression: str = "none",
    row_group_size: int | None = None,
) -> Sink:
    """A sink of that ending, after blocks of `written` rows in all.

    `earlier` are blocks of such lengths, and of what is carried the same; it is only read where a format needs it.

    Raises:
      InputError: there is no such format.
    """
    match ending.lower():
        case ".npy":
            return NpySink(file, schema, written)
        case ".parquet":
            return _replayed(ParquetSink(file, schema, compression, row_group_size), file, earlier)
        case ".arrow":
            return _replayed(ArrowSink(file, schema), file, earlier)
        case ".csv":
            return CsvSink(file, schema, header=not written)
    raise InputError(f'the output ends in "{ending}"; expected one of {", ".join(WRITES)}.')


def _replayed(sink: Sink, file: Resumable, earlier: Iterable[Columns]) -> Sink:
    for columns in earlier:
        sink.write(columns)
    if file.kept and file.tell() != file.kept:
        raise InputError(
            f"the part that is written is {file.kept} bytes long and would be {file.tell()} as this pyarrow writes it; "
            "expected the same. Give `overwrite=True` to begin anew."
        )
    return sink
