"""The rows that an output leaves out: their numbers, from 1, in a file beside it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jaxgrad._errors import InputError

HEAD = b"row\n"


def beside(out: Path) -> Path:
    return out.with_name(f"{out.name}.skipped.csv")


def content(rows: Iterable[int]) -> bytes:
    """What the file holds, for rows that are numbered from 0."""
    return HEAD + b"".join(b"%d\n" % (row + 1) for row in rows)


def read(path: Path) -> np.ndarray[Any, Any]:
    """The rows, numbered from 0.

    Raises:
      InputError: it is missing or no such list.
    """
    try:
        found = path.read_bytes()
        if not found.startswith(HEAD):
            raise ValueError("it does not begin with the line row")
        rows = np.array(found[len(HEAD) :].split(), np.int64) - 1
        if len(rows) and (rows[0] < 0 or (np.diff(rows) <= 0).any()):
            raise ValueError("its numbers are not ascending from 1")
    except (OSError, ValueError) as error:
        raise InputError(f'"{path}" cannot be read as the list of rows that were left out: {error}.') from None
    return rows


def check_ours(path: Path) -> None:
    """Raises an error where the name of the list is some other file's."""
    try:
        with path.open("rb") as file:
            ours = file.read(len(HEAD)) == HEAD
    except FileNotFoundError:
        return
    except OSError:
        ours = False
    if not ours:
        raise InputError(
            f'"{path}" exists, and was kept: the rows that are left out would be listed there. Rename it, or give '
            "another name for the output."
        )
