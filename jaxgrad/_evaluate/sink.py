"""Sinks: named columns written to a file, block by block, in its format.

A sink whose writing was broken off can go on. What is written already is known by the number of rows of each block;
for a format that ends in a list of its blocks, blocks of as many rows are written again into nothing, so that the
library that writes it knows them: the quantities' numbers don't matter, only their lengths, which depend on the rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

WRITES = (".npy", ".parquet", ".arrow", ".csv")

Columns = Mapping[str, Any]  # NumPy's arrays, and pyarrow's of what is carried


@dataclass(frozen=True)
class Schema:
    """The columns of an output.

    Attributes:
      carried: NumPy's dtypes or pyarrow's types of the columns that pass through, by name; they come first.
      kept: names of the quantities.
      dtype: of each quantity.
    """

    carried: Mapping[str, Any]
    kept: Sequence[str]
    dtype: np.dtype[Any]

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.carried, *self.kept)


class Sink(Protocol):
    """Writes columns to a file that is open."""

    def write(self, columns: Columns) -> None: ...

    def close(self, seal: str) -> None:
        """Writes what comes after the last block, the seal too where the format has a place for it."""
