"""What passes through to the output beside the quantities: columns of the rows, keys of their path, their numbers."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeAlias
from urllib.parse import unquote

import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._evaluate.files import open_sink
from jaxgrad._evaluate.formats.columns import arrow_dtype, pyarrow
from jaxgrad._evaluate.formats.npy import kind_of_carried
from jaxgrad._evaluate.output.resumable import Resumable
from jaxgrad._evaluate.sink import Schema
from jaxgrad._evaluate.source import RowFile
from jaxgrad._text import listed, short

Key: TypeAlias = str | int | None  # a partition's, None where it is missing

KEY = re.compile(r"([^=/]+)=([^/]*)")
MISSING = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Carried:
    """A column that passes through.

    Attributes:
      name: of the column.
      kind: NumPy's dtype or pyarrow's type.
      position: of the rows' column that it is; None of a key and of the rows' numbers.
      key: what the path of the rows has for it.
      is_number: whether it is the number of each row, from 1.
    """

    name: str
    kind: Any
    position: int | None = None
    key: Key = None
    is_number: bool = False

    def array(self, columns: Mapping[int, Any], start: int, rows: int) -> Any:
        """The column of so many rows from `start` on; `columns` are those of the file, by position."""
        if self.position is not None:
            return columns[self.position]
        if self.is_number:
            return np.arange(start + 1, start + rows + 1)
        if isinstance(self.kind, np.dtype):
            return np.full(rows, self.key, self.kind)
        pa = pyarrow("pyarrow")
        return pa.repeat(pa.scalar(self.key, self.kind), rows)


def carried_columns(
    source: RowFile, carry: Sequence[str], row_number: str | None, keys: Mapping[str, Key], kept: Sequence[str]
) -> tuple[Carried, ...]:
    """The columns that pass through: the rows' numbers, then what `carry` names.

    Args:
      source: the rows.
      carry: names of columns or of keys in the rows' path, or columns' numbers from 0.
      row_number: a name for the column of the rows' numbers; none if None.
      keys: of the rows' path.
      kept: the quantities beside them.

    Raises:
      InputError: one is not there, is asked for twice, has the name of a quantity, or is of a type that cannot pass.
    """
    numbers = [] if row_number is None else [Carried(row_number, np.dtype(np.int64), is_number=True)]
    found = (*numbers, *(_found(source, name, keys) for name in carry))
    if row_number == "":
        raise InputError("`row_number` is empty; expected a name for the column of the rows' numbers.")
    for name, times in Counter(column.name for column in found).items():
        if times > 1:
            raise InputError(f'two columns "{short(name)}" would be carried; expected each once, by a name of its own.')
        if name in kept:
            raise InputError(
                f'"{short(name)}" would be carried beside the quantity of that name; expected another name. Leave the '
                "quantity out by `keep`, or rename the column."
            )
    return found


def _found(source: RowFile, name: str, keys: Mapping[str, Key]) -> Carried:
    if name in source.names:
        position = source.names.index(name)
    elif name in keys:
        key = keys[name]
        return Carried(name, np.dtype(np.int64) if isinstance(key, int) else pyarrow("pyarrow").string(), key=key)
    elif name.isdecimal() and int(name) < len(source.names):
        position = int(name)
    else:
        in_path = f", a key of its path ({listed(list(keys))})" if keys else ""
        raise InputError(
            f'"{source.shown or source.path}" has no column "{short(name)}" to carry; expected one of '
            f"{listed(source.names)}{in_path}, or a number from 0 to {len(source.names) - 1}."
        )
    return Carried(source.names[position], source.carried_as(position), position)


def keys_of(paths: Sequence[str]) -> list[dict[str, Key]]:
    """The keys that the folders of each path have: {"year": 2024} of rows/year=2024/a.npy.

    A key is a whole number where it is one in all paths that have it, written as Python writes it; else text.
    """
    texts = [_keys(path) for path in paths]
    numeric = {name: True for text in texts for name in text}
    for text in texts:
        for name, value in text.items():
            numeric[name] &= _is_whole_number(value)
    return [{name: int(v) if numeric[name] else _text(v) for name, v in text.items()} for text in texts]


def _keys(path: str) -> dict[str, str]:
    matches = filter(None, map(KEY.fullmatch, path.split("/")[:-1]))
    return {match[1]: match[2] for match in matches}


def _is_whole_number(text: str) -> bool:
    return re.fullmatch(r"0|-?[1-9]\d{0,17}", text) is not None


def _text(value: str) -> str | None:
    return None if value == MISSING else unquote(value)


def check_can_hold(ending: str, columns: Iterable[Carried]) -> None:
    """Raises an `InputError` where a format has no place for a column that would pass through."""
    for column in columns:
        if why := _cannot_hold(ending, column):
            raise InputError(
                f'the column "{short(column.name)}" cannot be carried to {ending}: {why}. Leave it out, or give an '
                "output of another format."
            )


def _cannot_hold(ending: str, column: Carried) -> str:
    if ending == ".npy" and not (column.name and _is_latin(column.name)):
        return "its name cannot be one of NumPy's"
    if ending == ".csv" and _is_binary(column.kind):
        return f"it is of type {column.kind}, and bytes are no text"
    try:
        sink = open_sink(ending, Resumable(BytesIO()), Schema({column.name: column.kind}, (), np.dtype("f4")))
        if ending != ".npy":
            nothing = pyarrow("pyarrow").nulls(1)
            sink.write({column.name: nothing})
    except Exception as error:  # whatever a library says of a type that it cannot write
        return str(error)
    return ""


def _is_latin(text: str) -> bool:
    try:
        text.encode("latin1")
    except UnicodeEncodeError:
        return False
    return True


def _is_binary(kind: Any) -> bool:
    if isinstance(kind, np.dtype):
        return False
    types = pyarrow("pyarrow").types
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def as_numbers(column: Any, kind: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A column as NumPy's array, and the rows where it is missing, which such an array has no place for."""
    if isinstance(column, np.ndarray):
        return column, np.empty(0, int)
    missing = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)) if column.null_count else np.empty(0, int)
    filled = column.fill_null(False if arrow_dtype(kind) == np.bool_ else 0) if column.null_count else column
    return filled.to_numpy(zero_copy_only=False).astype(kind_of_carried(kind), copy=False), missing
