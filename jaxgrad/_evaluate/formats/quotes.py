"""Quotes of a CSV file: a cell that begins with one goes on to the next, over the ends of lines."""

import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np

READ = 1 << 22  # bytes at a time
QUOTE, BEFORE_CELL, MARK = ord('"'), np.frombuffer(b',\n\r"', np.uint8), b"\xef\xbb\xbf"


def line_of_open_quote(unpacked: Callable[[], BinaryIO]) -> int | None:
    """The line, from 1, of a cell whose quote is never closed: all that comes after it is in the cell; or None."""
    with unpacked() as file:
        if _are_all_closed(file):
            return None
    with unpacked() as file:
        return _line_of_open_quote(file)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """What is in a file, after the mark of its encoding."""
    first = file.read(len(MARK))
    if first not in (MARK, b""):
        yield first
    while data := file.read(READ):
        yield data


def _are_all_closed(file: BinaryIO) -> bool:
    """Whether quotes open and close cells in turn, and the last one closes; False too where it takes more to tell.

    Two within a cell, which stand for one, close it and open it again at once.
    """
    is_open, before = False, b"\n"
    for data in _pieces(file):
        content = np.frombuffer(before + data, np.uint8)
        quotes = 1 + np.flatnonzero(content[1:] == QUOTE)
        if not np.isin(content[quotes[int(is_open) :: 2] - 1], BEFORE_CELL).all():
            return False  # one is in the middle of a cell, where it is a character as any other
        is_open ^= bool(len(quotes) % 2)
        before = data[-1:]
    return not is_open


def _line_of_open_quote(file: BinaryIO) -> int | None:
    lines = began = 0
    quoted, closed, at_start = (
        False,
        False,
        True,
    )  # closed just now; at the start of a cell, where alone a quote opens it
    for data in _pieces(file):
        for token in filter(None, re.split(rb'([",\r\n])', data)):
            if token == b'"' and (quoted or at_start or closed):
                began = began if quoted or closed else lines + 1
                quoted, closed, at_start = not quoted, quoted, False
                continue
            closed, at_start = False, not quoted and token in b",\r\n"
            lines += token == b"\n"
    return began if quoted else None
