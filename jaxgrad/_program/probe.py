"""What a probe is to the value that it stands at."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.interpreters import ad, batching, mlir

from jaxgrad._names.tag import added, leading
from jaxgrad._types import Primitive, PyTree, Value


class Forced(NamedTuple):
    """A probe with what a reference has at its site, which all that comes before and after is computed from.

    Attributes:
      probe: None where there is no gradient.
      value: the reference's value.
      bar: the reference's gradient, None where it has none: then what comes from behind goes on.
    """

    probe: Any
    value: Any
    bar: Any


def joined(value: Value, probe: Any) -> Any:
    """What stands for a value that has a probe, or a reference."""
    if not isinstance(probe, Forced):
        return probed_p.bind(value, probe)
    if probe.probe is None:
        return probe.value
    if probe.bar is None:
        return _forced_value(value, probe.probe, probe.value)
    return _forced(value, *probe)


@jax.custom_vjp
def _forced(value: Value, probe: Value, reference: Value, bar: Value) -> Any:
    """The reference's value; back to `value` flows the reference's gradient, and to the probe what really comes."""
    return reference


_forced.defvjp(
    lambda value, probe, reference, bar: (reference, bar),
    lambda bar, result_bar: (bar, result_bar, jnp.zeros_like(bar), jnp.zeros_like(bar)),
)


@jax.custom_vjp
def _forced_value(value: Value, probe: Value, reference: Value) -> Any:
    """The reference's value; what comes from behind goes on."""
    return reference


_forced_value.defvjp(
    lambda value, probe, reference: (reference, None),
    lambda _, result_bar: (result_bar, result_bar, jnp.zeros_like(result_bar)),
)


def replaced(value: Value, probe: Value) -> Any:
    """The probe in place of the value: nothing flows back from here to what the value was made of."""
    return probe


# `value`, and for derivatives `value + probe`; a sum would turn -0.0 into 0.0, and cost one. A primitive, for a
# custom_jvp function costs JAX four times as long to trace.
probed_p = Primitive("probed")
probed_p.def_impl(lambda value, probe: value)
probed_p.def_abstract_eval(lambda value, probe: value)
mlir.register_lowering(probed_p, lambda ctx, value, probe: [value])


def _jvp(primals: PyTree, tangents: PyTree) -> Any:
    return probed_p.bind(*primals), added(tangents)


def _batch(operands: PyTree, batch_axes: PyTree) -> Any:
    return probed_p.bind(*leading(operands, batch_axes)), 0


ad.primitive_jvps[probed_p] = _jvp
batching.primitive_batchers[probed_p] = _batch
