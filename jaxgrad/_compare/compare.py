"""Comparing a record with a record, a table or tensors: every verdict comes out of this one function."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jaxgrad._compare.both_nan import both_nan
from jaxgrad._compare.causes import inputs_of
from jaxgrad._compare.comparison import Comparison, Reference
from jaxgrad._compare.doubt.doubt import Cancels, by_origins, by_rounding
from jaxgrad._compare.entries import of_mapping, of_record
from jaxgrad._compare.ports.pairing import paired
from jaxgrad._compare.rows import compare_entries
from jaxgrad._compare.snapshot import Snapshot
from jaxgrad._compare.tolerance import Tolerance
from jaxgrad._errors import InputError
from jaxgrad._record import Record
from jaxgrad._types import Value


def compare(
    got: Record,
    want: Record | Reference | Snapshot | Mapping[Any, Any],
    *,
    names: Mapping[str, str] | None = None,
    rounding: Record | None = None,
    ulp: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
) -> Comparison:
    r"""Compares a record with another, with a table of printed numbers, or with arrays or PyTorch tensors by name.

    Without tolerances an element $a$ may be $A u (|a| + s)$ off, what rounding can do: $u$ is the dtype's unit
    roundoff, $s$ the largest element of its row, $A$ grows with the root of the steps before it and of the longest
    axis. A 0 beside another number differs, however small that is, and so does a NaN beside a number; where both are
    NaN, a remark says so and points to the first. A printed
    number agrees where its digits do. An oracle's own uncertainty is allowed for. Where the rounding of the program
    is known, as in a record of `with_rounding`, that takes the place of this rule: an element may be as far off as
    that and half a unit of its own, and a 0 beside another number too. An eager record of `retain_grads` remembers its
    call: where a number is off by more than half of what the rule allows, the rounding of the program is found, once,
    which may take seconds, and decides. A record that comes out of `jit` or `vmap` knows its program, but not its
    arguments: three times the rule is allowed, but no array may be off, as a whole, by more than rounding has it at
    arguments of the usual size; a 0 may stand beside another number where the program leaves nothing but rounding
    whatever its arguments. Where no record knows its program, three times the rule is allowed.

    Args:
      got: what was computed.
      want: what it should be. In a dict, "z" is the value of tag z, a PyTorch tensor of it has the gradient too;
        "z.grad" is a gradient, "output" the output; an argument goes by its position, 0 or "arg[0]['w']", as a
        tensor, or its gradient by "arg[0].grad". What a dict or a table has no gradient for is not compared; a tag of
        `got` that it has not is a difference, except for a table. Which branches were taken is compared, whatever
        the tolerance, with a record that says so. A `Snapshot` is a record read from a file.
      names: name in `got` -> its name in `want`, as `align` gives it: what it pairs is compared, in the layout of `got`
        (a kernel with a weight, N H W C with N C H W), and the text says what it leaves out. None for the same names.
      rounding: a record of the same program whose `uncertainty` is to be allowed for: of `with_rounding`, or of any
        oracle, as `in_float64(fun)(*args)`. By default that of `want` or `got`, where one knows it.
      ulp: an element agrees within so many ULP ...
      rtol, atol: ... or within atol + rtol * abs(want). If any of the three is given, it replaces the default.

    Returns:
      A `Comparison`.

    Raises:
      InputError: there is nothing to compare, or it is no array; a tensor requires grad but was not retained; a
        tolerance is negative; `names` pairs what is not there.
      TableError: the table is of another function.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxgrad import neuron
      >>> x, w = jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1])
      >>> comparison = compare(jax.jit(neuron.backprop)(x, w), neuron.chain_rule(x, w))
      >>> comparison.ok
      True
      >>> wrong = compare(neuron.backprop(x, w), {"z": 0.0, "k": 1.0, "h": 2.0, "f": 0.5, "h.grad": 0.25})
      >>> print([row.label for row in wrong.rows if not row.ok], wrong.first_divergence.name)
      ['z', 'h.grad'] z
    """
    if not isinstance(got, Record):
        raise InputError(f"`got` is a {type(got).__name__}; expected a Record, as retain_grads(fun)(...) returns.")
    for name, limit in (("ulp", ulp), ("rtol", rtol), ("atol", atol)):
        if limit is not None and not limit >= 0:
            raise InputError(f"{name} is {limit}; expected a number that is not negative.")
    if rounding is not None and not (isinstance(rounding, Record) and rounding.uncertainty):
        raise InputError(
            f"`rounding` is {_what(rounding)}; expected a Record that knows its uncertainty, as "
            "with_rounding(fun)(...) or in_float64(fun)(...) returns."
        )
    tolerance = Tolerance(0, ulp, rtol, atol)
    if isinstance(want, Reference):
        if names is not None:
            raise InputError("`want` is a table, which knows what its numbers are called; expected no `names`.")
        return want.compare_to(got, tolerance)
    if isinstance(want, Record):
        wanted = of_record(want)
    elif isinstance(want, Snapshot):
        wanted = want.entries
    elif isinstance(want, Mapping):
        wanted = of_mapping(want)
    else:
        raise InputError(
            f"`want` is a {type(want).__name__}; expected a Record, a table from jaxgrad.reference.load, or a dict of "
            "name -> array or PyTorch tensor."
        )
    if not wanted:
        raise InputError("`want` is empty, so that anything would agree with it; expected a name at least.")
    found = of_record(got)
    remarks: tuple[str, ...] = ()
    sides = [r for r in (want, got) if isinstance(r, Record)] if names is None else [got]  # `want` has other names
    if names is not None:
        found, wanted, remarks = paired(found, wanted, names)
    knows = rounding or next((r for r in sides if r.uncertainty_is_rounding), None)
    called = next((r for r in sides if r._call is not None), None)
    traced = [r for r in sides if r._origin.traced is not None]
    shows_loss = isinstance(want, Record) and bool(want.uncertainty)  # beside an oracle, rounding is what is looked for

    def judge(slack: float = 1.0, knows: Record | None = None, cancels: Sequence[Cancels] = ()) -> Comparison:
        allowed = replace(tolerance, slack=slack)
        return Comparison(*compare_entries(found, wanted, allowed, got.names, knows, cancels))

    more: tuple[str, ...] = ()
    if knows is not None or shows_loss or not tolerance.is_default:
        comparison = judge(knows=knows)
    elif called is None:
        comparison, more = by_origins(judge, [record._origin for record in traced])
    else:
        comparison, more = by_rounding(judge, called)
    of = next(iter((*((called,) if called else ()), *traced)), None)
    inputs = inputs_of(of) if of is not None and not comparison.ok else {}
    return replace(comparison, remarks=(*remarks, *more, *both_nan(comparison)), inputs=inputs)


def _what(rounding: Value) -> str:
    return "a Record without uncertainty" if isinstance(rounding, Record) else f"a {type(rounding).__name__}"
