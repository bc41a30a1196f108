"""The file of rows to read, or of columns to write, by its ending."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._evaluate.formats.arrow import ArrowSink, read_arrow
from jaxgrad._evaluate.formats.csv_text import CsvSink, read_csv
from jaxgrad._evaluate.formats.npy import NpySink, read_npy
from jaxgrad._evaluate.formats.parquet import ParquetSink, read_parquet
from jaxgrad._evaluate.sink import WRITES, Sink
from jaxgrad._evaluate.source import READS, RowFile, readable
from jaxgrad._evaluate.unfinished import Resumable


def open_source(path: str | Path) -> RowFile:
    """Opens a .csv, .npy, .parquet or .arrow file, by its ending.

    Raises:
      InputError: there is no such file, its ending is another, or it is empty, cut off or corrupt.
    """
    path = Path(path)
    readers = {".npy": read_npy, ".csv": read_csv, ".parquet": read_parquet, ".arrow": read_arrow}
    if path.suffix.lower() not in readers:
        raise InputError(f'the rows are in "{path}"; expected a file that ends in {", ".join(READS)}.')
    if not path.is_file():
        raise InputError(f'there is no file "{path}"; expected rows of numbers in it.')
    if not path.stat().st_size:
        raise InputError(f'"{path}" is empty; expected rows of numbers.')
    source: RowFile = readable(path, lambda: readers[path.suffix.lower()](path))
    if not source.names:
        raise InputError(f'"{path}" has no columns; expected one for each input.')
    twice = next((name for name in source.names if source.names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f'"{path}" has two columns "{twice}"; expected a name for each.')
    if source.count == 0:
        raise InputError(f'"{path}" has no rows; expected at least one.')
    return source


def open_sink(ending: str, file: Resumable, names: Sequence[str], dtype: np.dtype[Any], written: Sequence[int]) -> Sink:
    """A sink of that ending, at the end of blocks that have `written` rows each.

    Raises:
      InputError: there is no such format.
    """
    match ending.lower():
        case ".npy":
            return NpySink(file, names, dtype, written)
        case ".parquet":
            return _replayed(ParquetSink(file, names, dtype), file, names, dtype, written)
        case ".arrow":
            return _replayed(ArrowSink(file, names, dtype), file, names, dtype, written)
        case ".csv":
            return CsvSink(file, names, dtype, header=not written)
    raise InputError(f'the output ends in "{ending}"; expected one of {", ".join(WRITES)}.')


def _replayed(sink: Sink, file: Resumable, names: Sequence[str], dtype: np.dtype[Any], written: Sequence[int]) -> Sink:
    for rows in written:
        sink.write(dict.fromkeys(names, np.zeros(rows, dtype)))
    if written and file.tell() != file.kept:
        raise InputError(
            f"the part that is written is {file.kept} bytes long and would be {file.tell()} as this pyarrow writes it; "
            "expected the same. Give `overwrite=True` to begin anew."
        )
    return sink
