"""The weights: written out, or in a file of any format that rows can be in."""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._evaluate.files import open_source
from jaxgrad._evaluate.formats.columns import number
from jaxgrad._evaluate.source import blocks
from jaxgrad._text import listed, short

MOST = 1 << 20  # weights in a file: more are no weights


def read_weights(text: str, dtype: np.dtype[Any], inputs: Sequence[str]) -> tuple[np.ndarray[Any, Any], Path | None]:
    """The weights, and the file that they are from.

    Args:
      text: numbers with commas between them, or the name of a file.
      dtype: what they are computed in.
      inputs: names of the columns that they are for.

    Raises:
      InputError: they cannot be read, are not one more than the inputs, or one is not finite.
    """
    path, found = Path(text), None
    try:
        numbers = [number(cell) for cell in text.split(",")]
    except ValueError:
        if not _is_file(path):
            raise InputError(
                f'-w is "{short(text)}"; expected numbers with commas between them, as 0.5,-0.3,0.1, or a file of them.'
            ) from None
        numbers, found = _of_file(path), path
    if len(numbers) != len(inputs) + 1:
        raise InputError(
            f"there are {len(numbers)} weights and {len(inputs)} columns of inputs ({listed(inputs)}); expected "
            f"{len(inputs) + 1} weights, one for each column and the bias last. Choose columns by `columns`."
        )
    with np.errstate(over="ignore"):
        w = np.array(numbers, dtype)
    if not np.isfinite(w).all():
        raise InputError(
            f"weight {int(np.flatnonzero(~np.isfinite(w))[0])} is not a finite {dtype.name}; expected one."
        )
    return w, found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no name that a file can have
        return False


def _of_file(path: Path) -> list[float]:
    try:
        match path.suffix.lower():
            case ".npy":
                return _in_a_line(np.load(path, mmap_mode="r", allow_pickle=False))
            case ".parquet" | ".arrow":
                return _of_table(path)
            case _:
                return _of_text(path)
    except InputError:
        raise
    except Exception as error:  # whatever a library says of a file that is not what it should be
        raise InputError(f'the weights in "{path}" cannot be read: {error}') from error


def _of_table(path: Path) -> list[float]:
    source = open_source(path)
    positions = range(len(source.names))
    if max(source.count or 0, len(positions)) > MOST:
        raise ValueError(f"there are {source.count} rows of {len(positions)} columns")
    chunks = list(blocks(source, positions, 0, MOST))
    if any(chunk.why for chunk in chunks):
        raise ValueError("one of them is missing or no number")
    return _in_a_line(np.concatenate([np.stack(chunk.columns, 1) for chunk in chunks]))


def _in_a_line(array: np.ndarray[Any, Any]) -> list[float]:
    """The numbers of one row or one column."""
    if array.size > MOST or array.size != max(array.shape, default=1):
        raise ValueError(f"its shape is {array.shape}; expected one row or one column")
    found: list[float] = array.astype(float, casting="same_kind").ravel().tolist()
    return found


def _of_text(path: Path) -> list[float]:
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        content = file.read(MOST * 32)
    lines = content.decode("utf-8-sig").splitlines()
    cells = [line.replace(",", " ").split() for line in lines]
    try:
        return [number(cell) for line in cells for cell in line]
    except ValueError:
        if ".csv" not in (suffix.lower() for suffix in path.suffixes):
            raise
        return [number(cell) for line in cells[1:] for cell in line]  # the first line has names
