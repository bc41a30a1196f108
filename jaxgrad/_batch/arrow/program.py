"""A batched function that one process compiles once, however often it is unpickled there, for any number of rows."""

import threading
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from uuid import uuid4

import jax
import numpy as np

from jaxgrad._batch.arrow.arguments import Array
from jaxgrad._batch.batch import Batched
from jaxgrad._types import PyTree

FEWEST, MOST = 256, 1 << 16  # rows of a program; in between they double


@dataclass(frozen=True)
class Program:
    """A `Batched`, equal to any copy of it that was made by pickling.

    Engines unpickle a function for every task; all that come to one process are one program here.
    """

    batched: Batched = field(compare=False)
    x64: bool
    identity: Hashable = field(default_factory=uuid4)
    lock: Any = field(default_factory=threading.Lock, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return the_same, (self.batched, self.x64, self.identity)

    def shapes(self, arguments: Sequence[jax.ShapeDtypeStruct], shared: tuple[Any, ...]) -> PyTree:
        """What the results are like; it runs nothing."""
        with jax.enable_x64(self.x64):
            return jax.eval_shape(self.batched, *arguments, *shared)

    def blocks(self, arguments: Sequence[Array], shared: tuple[Any, ...]) -> Iterator[tuple[int, PyTree]]:
        """First row, and results of a block of rows: maybe of more than there are, the last block being padded."""
        for start in range(0, len(arguments[0]), MOST):
            part = [argument[start : start + MOST] for argument in arguments]
            with self.lock, jax.enable_x64(self.x64):
                yield start, self.batched(*map(_padded, part), *shared)


def the_same(batched: Batched, x64: bool, identity: Hashable) -> Program:
    """The program of this identity that the process has already, or a new one."""
    return _first(Program(batched, x64, identity))


@lru_cache(maxsize=16)
def _first(program: Program) -> Program:
    return program


def _padded(rows: Array) -> Array:
    """Rows again, until they are as many as a program has: another number would be another program."""
    size = max(FEWEST, 1 << (len(rows) - 1).bit_length())
    return rows if len(rows) == size else np.resize(rows, (size, *rows.shape[1:]))
