"""What a value of a program is, in formulas: as a whole, and element by element."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from jaxgrad._graph.formula import Formula, name, number
from jaxgrad._types import Value

Shape = tuple[int, ...]
Parts: TypeAlias = Any  # a NumPy array of formulas


class Written(NamedTuple):
    """What a value is: as a whole, and element by element where those are nodes of their own.

    Attributes:
      whole: its formula.
      elements: an array of formulas, of its shape; None where its elements are not told apart.
    """

    whole: Formula
    elements: Parts | None = None


def argument(text: str, shape: tuple[int, ...], elements: Sequence[str] = ()) -> Written:
    """An argument by its name, and by those of its elements where they are nodes."""
    return Written(name(text, shape), objects([name(element) for element in elements], shape) if elements else None)


def constant(value: Value) -> Written:
    """A number of the program; an array of it has no name."""
    array = np.asarray(value) if not hasattr(value, "dtype") else value
    if np.shape(array) == () and getattr(array.dtype, "kind", "V") in "biuf":
        return Written(number(float(array)))
    return Written(name("constant", np.shape(array)))


def objects(parts: Sequence[Formula], shape: tuple[int, ...]) -> Parts:
    array = np.empty(len(parts), object)
    for i, part in enumerate(parts):
        array[i] = part
    return array.reshape(shape)
