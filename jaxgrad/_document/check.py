"""Checking a reference table: every printed number against every route."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxgrad._compare.compare import compare
from jaxgrad._compare.rows import Row
from jaxgrad._document import routes
from jaxgrad._document.table import Number, Table
from jaxgrad._record import Record

# The rows of the batch are these multiples of the table's input; the first is the input itself.
_MULTIPLES = (1, 0, -1, 4, 16, -16)


@dataclass(frozen=True, eq=False)
class Check:
    """What every route gives for a table's input, and how it compares with the printed numbers.

    Attributes:
      table: the printed numbers.
      record: the record of the route by hand, jitted.
      rows: inputs of the batch, shape (m, n); the first row is the table's.
      batch: the batch's record by the "vjp" route.
      found: (route, call) -> a `Row` for each number; route is one of `routes.ROUTES`, call is "jit", the row by
        itself, or "jit(vmap)", the row in the batch.
      device: platform that computed it: "cpu", "gpu" or "tpu".
    """

    table: Table
    record: Record
    rows: np.ndarray[Any, Any]
    batch: Record
    found: Mapping[tuple[str, str], tuple[Row, ...]]
    device: str

    @property
    def numbers(self) -> list[tuple[Number, dict[tuple[str, str], Row]]]:
        """Each printed number, with (route, call) -> its `Row`."""
        return [
            (number, {way: rows[i] for way, rows in self.found.items()}) for i, number in enumerate(self.table.numbers)
        ]

    @property
    def agreeing(self) -> int:
        """How many of the numbers agree on every route."""
        return sum(all(row.ok for row in found.values()) for _, found in self.numbers)

    @property
    def ok(self) -> bool:
        return self.agreeing == len(self.table.numbers)

    @property
    def worst_ulp(self) -> float:
        return max(row.ulp for rows in self.found.values() for row in rows)


def check(table: Table) -> Check:
    """Runs every route on the table's input, jitted and in a jitted batch, and compares each number.

    Args:
      table: as `reference.load` reads it.

    Returns:
      A `Check`.

    Raises:
      TableError: a quantity in the table is none of the neuron's.
      InputError: the table is in float64 and JAX is in 32-bit mode.

    Example:
      >>> from jaxgrad import reference
      >>> checked = check(reference.load())
      >>> print(checked.agreeing, checked.worst_ulp, checked.ok)
      25 0.0 True
    """
    with np.errstate(over="ignore", invalid="ignore"):  # as IEEE arithmetic has it
        rows = np.stack([table.x * np.array(multiple, table.dtype) for multiple in _MULTIPLES])
    one, batch = jax.device_get((routes.run(table.x, table.w), routes.run_batch(rows, table.w)))
    found = {}
    for route in routes.ROUTES:
        found[route, "jit"] = compare(one[route], table).rows
        found[route, "jit(vmap)"] = compare(jax.tree.map(lambda a: a[0], batch[route]), table).rows
    return Check(table, one["hand"], rows, batch["vjp"], found, jax.default_backend())
