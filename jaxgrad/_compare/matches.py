"""An assertion for tests, in the habit of the field."""

from collections.abc import Mapping
from typing import Any

from jaxgrad._compare.compare import compare
from jaxgrad._compare.comparison import Reference
from jaxgrad._compare.snapshot import Snapshot
from jaxgrad._record import Record


def assert_matches(got: Record, want: Record | Reference | Snapshot | Mapping[Any, Any], **options: Any) -> None:
    """Raises where `compare(got, want, **options)` finds a difference: for tests.

    Args:
      got, want, **options: as for `compare`.

    Raises:
      DifferenceError: they differ, an AssertionError; the text is the comparison, row by row.
      InputError, TableError: as for `compare`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgrad import neuron
      >>> x, w = jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1])
      >>> assert_matches(neuron.backprop(x, w), neuron.chain_rule(x, w))
    """
    __tracebackhide__ = True
    compare(got, want, **options).raise_if_different()
