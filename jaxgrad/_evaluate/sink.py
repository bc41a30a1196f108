"""Sinks: named columns written to a file, block by block, in its format.

A sink whose writing was broken off can go on. What is written already is known by the number of rows of each block;
for a format that ends in a list of its blocks, blocks of as many rows are written again into nothing, so that the
library that writes it knows them: their numbers don't matter, only their lengths, which depend on the rows alone.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

WRITES = (".npy", ".parquet", ".arrow", ".csv")

Columns = Mapping[str, np.ndarray[Any, Any]]


class Sink(Protocol):
    """Writes columns to a file that is open."""

    def write(self, columns: Columns) -> None: ...

    def close(self, seal: str) -> None:
        """Writes what comes after the last block, the seal too where the format has a place for it."""
