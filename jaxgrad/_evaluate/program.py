"""The program that computes a block: a result for each column, or, of many inputs, an array for all of a kind."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import jax

from jaxgrad import neuron
from jaxgrad._batch.batch import Batched, batch

MANY = 16  # inputs: the time in which XLA compiles grows with the square of a program's results
ELEMENT = re.compile(r"(df/d[wx])(\d+)")


@cache
def batched_columns(keep: tuple[str, ...], inputs: int) -> Batched:
    """What computes the columns of a block, and z; the same for the same ones, so that it is compiled once.

    It returns a dict that `column` takes each column from.
    """

    def columns(x: jax.Array, w: jax.Array) -> dict[str, jax.Array]:
        record = neuron.backprop(x, w)
        if inputs <= MANY:
            found = neuron.quantities(record)
        else:
            found = {name: record.values[name] for name in record.names}
            found |= {f"df/d{name}": gradient for name, gradient in record.grads.items() if gradient is not None}
            found |= dict(zip(("df/dx", "df/dw"), record.arg_grads, strict=True))
        wanted = (name if name in found else _split(name)[0] for name in (*keep, "z"))
        return {name: found[name] for name in dict.fromkeys(wanted)}

    return batch(columns, in_axes=(0, None))


def column(results: Mapping[str, Any], name: str) -> Any:
    """One column of what the program returned; the arrays of a kind have a column in each row."""
    if name in results:
        return results[name]
    whole, element = _split(name)
    return results[whole][element]


def _split(name: str) -> tuple[str, int]:
    """What is "df/dw7" as ("df/dw", 7)."""
    found = ELEMENT.fullmatch(name)
    assert found is not None
    return found[1], int(found[2])
