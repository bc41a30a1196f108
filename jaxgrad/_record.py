"""Record: the values and gradients that every route yields."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey, keystr, tree_leaves_with_path

from jaxgrad._errors import InputError
from jaxgrad._types import Value


@dataclass(eq=False)
class Call:
    """A call of `retain_grads(fun, **options)`, by which what rounding does in it can be found when that is asked.

    Attributes:
      found: its record with the uncertainty, once it was asked.
    """

    fun: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]
    found: Any = None


class Origin:
    """The program of a traced call, without its arguments: a record that comes out of `jit` or `vmap` still knows it.

    It travels as static data of the pytree. There all are equal, so that records of two programs are trees of one
    structure and nothing is traced again. One that has come out and goes into another traced function is forgotten
    there: else that function, traced once, would mark every record that it returns by the first one that it was given.
    Two that meet before they have come out, as those of two branches of a `cond` do, are both forgotten: the record
    that comes out would have the first one's, whichever it is of.

    Attributes:
      traced: the traced program; None where it is not known.
      found: what was found out about its rounding, once that was asked.
    """

    def __init__(self, traced: Any = None):
        self.traced, self._is_out = traced, False
        self.found: Any = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Origin):
            return False
        if self is not other and not (self._is_out or other._is_out) and None not in (self.traced, other.traced):
            self.traced = other.traced = None
        return True

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "Origin()"

    def __reduce__(self) -> Any:
        return Origin, ()

    def met(self, leaf: Any) -> "Origin":
        """The origin of a record with this leaf, which was just put together."""
        if isinstance(leaf, jax.core.Tracer):
            return NOWHERE if self._is_out else self
        self._is_out |= isinstance(leaf, (jax.Array, np.ndarray))  # JAX puts types together too, while it traces
        return self


NOWHERE = Origin()


@dataclass(frozen=True, eq=False)
class Record:
    r"""Values and gradients of a function's named intermediates, at one input.

    For a function $y = f(a)$ with intermediates $v_1, \dots, v_m$ in program order it holds each $v_i$ and
    $\bar v_i = \partial y / \partial v_i$, whichever way they were found, so that any two ways can be compared.
    It is a pytree: `jit`, `vmap` and `grad` take and return it. Under `vmap` the batch axis leads in every array.

    Attributes:
      output: the function's output $y$.
      names: names of the intermediates in program order, never sorted.
      values: name -> intermediate.
      grads: name -> gradient of the output with respect to the intermediate, of its shape and dtype; None where
        there is none.
      notes: name -> why there is no gradient, or that JAX has moved the intermediate out of its scan. What `watch`
        could not name is here too, with the reason, and not in `names`; "arg[0]" -> that JAX
        has narrowed a NumPy array to fewer bits. Oracles add the labels, as in `uncertainty`, at which their own number
        is NaN.
      reached: name -> was the branch of the intermediate taken? Only for intermediates inside a branch; it has the
        leading axes of the value, those of scans and vmaps.
      arg_grads: one gradient for each argument, None for one that was not asked for.
      aux: what the function returned beside its output, or what the route has to add; else None.
      uncertainty: "z" for the value of z, "z.grad" for its gradient, "arg[0].grad", "output" -> how far it may be
        off the truth, of its shape. Only oracles know it; it is empty for a route that rounds as its dtype does.
      uncertainty_is_rounding: is `uncertainty` all that the program's own rounding can do, as `with_rounding` finds it?

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgrad import neuron
      >>> record = neuron.backprop(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1]))
      >>> for name in record.names:
      ...     print(f"{name} = {record.values[name]:.2f}, df/d{name} = {record.grads[name]:.2f}")
      z = -0.00, df/dz = 0.25
      k = 1.00, df/dk = -0.25
      h = 2.00, df/dh = -0.25
      f = 0.50, df/df = 1.00
    """

    output: Any
    names: tuple[str, ...]
    values: Mapping[str, Any]
    grads: Mapping[str, Any]
    arg_grads: tuple[Any, ...]
    notes: Mapping[str, str] = field(default_factory=dict)
    reached: Mapping[str, Any] = field(default_factory=dict)
    aux: Any = None
    uncertainty: Mapping[str, Any] = field(default_factory=dict)
    uncertainty_is_rounding: bool = False
    _call: "Call | None" = field(
        default=None, repr=False
    )  # of the eager call that made it; no pytree, file or copy has it
    _origin: Origin = field(default=NOWHERE, repr=False)  # of a traced call; no file or copy has it

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_call": None, "_origin": NOWHERE}

    @property
    def first_nonfinite(self) -> str | None:
        r"""Where NaN or infinity begins: the label of the first value that has one, then of the first gradient.

        Values come in program order, "z", ..., "output". Gradients come as they are computed, from the output back:
        the last intermediate's first, "z.grad", then "arg[0].grad", with its path where an argument is a pytree.

        Returns:
          The label; None where every number is finite.

        Raises:
          InputError: the record is traced, so that its numbers are not known yet.

        Example:
          >>> from jaxgrad import retain_grads, tag
          >>> record = retain_grads(lambda x: tag(jnp.sqrt(tag(x - 1, "gap")), "root"))(1.0)
          >>> print(record.first_nonfinite, record.grads["gap"])
          gap.grad inf
        """
        return next((label for label, leaf in self._in_order() if not _finite(leaf)), None)

    def _in_order(self) -> Iterator[tuple[str, Any]]:
        yield from ((name, self.values[name]) for name in self.names)
        yield "output", self.output
        yield from ((f"{name}.grad", self.grads[name]) for name in reversed(self.names))
        for i, grad in enumerate(self.arg_grads):
            yield from ((f"arg[{i}]{keystr(path)}.grad", leaf) for path, leaf in tree_leaves_with_path(grad))

    def __repr__(self) -> str:
        """A table of names, values and gradients, each array by its shape and extremes."""
        rows = list(_rows(self))
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        return "\n".join("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)

    def _repr_html_(self) -> str:
        head, *rows = [[escape(cell) for cell in row] for row in _rows(self)]
        lines = ["".join(f"<td><code>{cell}</code></td>" for cell in row) for row in rows]
        heads = "".join(f"<th>{cell}</th>" for cell in head)
        return f"<table><tr>{heads}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


_MOST_ROWS = 40


def _rows(record: Record) -> Iterator[tuple[str, str, str]]:
    """Name, value and gradient of each intermediate, argument and the output, as text."""
    yield "Record", "value", "gradient"
    for name in record.names[:_MOST_ROWS]:
        grad = record.grads.get(name)
        why = f"none: {record.notes[name]}" if name in record.notes else "none"
        yield name, _brief(record.values.get(name)), why if grad is None else _brief(grad)
    if len(record.names) > _MOST_ROWS:
        yield f"... {len(record.names) - _MOST_ROWS} more", "", ""
    unnamed = {name: note for name, note in record.notes.items() if name not in (*record.names, "output")}
    for name, note in list(unnamed.items())[:_MOST_ROWS]:
        if not name.endswith(".grad"):  # which is a number's
            yield name, "", note
    leaves = [
        (f"arg[{i}]{jax.tree_util.keystr(path)}", leaf)
        for i, grad in enumerate(record.arg_grads)
        for path, leaf in jax.tree_util.tree_flatten_with_path(grad)[0]
    ]
    for name, leaf in leaves[:_MOST_ROWS]:
        yield name, "", _brief(leaf)
    if len(leaves) > _MOST_ROWS:
        yield f"... {len(leaves) - _MOST_ROWS} more", "", ""
    outputs = jax.tree.leaves(record.output)
    yield "output", ", ".join(map(_brief, outputs[:3])) + ", ..." * (len(outputs) > 3), ""


def _brief(value: Value) -> str:
    """A number to six digits; an array by its dtype, shape and extremes."""
    if value is None:
        return "none"
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is None or shape is None:
        return repr(value)[:40]
    kind = f"{dtype}{list(shape)}"
    if isinstance(value, jax.core.Tracer) or not jax.numpy.issubdtype(dtype, np.number) or not np.size(value):
        return kind if shape or isinstance(value, jax.core.Tracer) else str(value)[:40]
    array = np.asarray(value)
    if array.dtype.kind == "V":  # bfloat16 and its kin
        array = array.astype("float32")
    if array.dtype.kind == "c":
        return kind if shape else f"{complex(array):.6g}"
    return f"{array[()]:.6g}" if not shape else f"{kind}, {array.min():.4g} to {array.max():.4g}"


def _finite(leaf: Any) -> bool:
    if any(isinstance(part, jax.core.Tracer) for part in jax.tree.leaves(leaf)):
        raise InputError(
            "the record is traced, so that its numbers are not known; expected it outside of jit and vmap."
        )
    arrays = [part for part in jax.tree.leaves(leaf) if jnp.issubdtype(jnp.result_type(part), jnp.inexact)]
    return all(bool(jnp.all(jnp.isfinite(array))) for array in arrays)


def _flatten(record: Record) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    # A dict's keys would come back sorted, so the arrays travel as tuples in program order.
    children = (
        record.output,
        tuple(record.values[name] for name in record.names),
        tuple(record.grads[name] for name in record.names),
        tuple(record.reached.values()),
        record.arg_grads,
        record.aux,
        tuple(record.uncertainty.values()),
    )
    known = (tuple(record.uncertainty), record.uncertainty_is_rounding, record._origin)
    return children, (record.names, tuple(record.notes.items()), tuple(record.reached), *known)


def _flatten_with_keys(record: Record) -> tuple[list[tuple[GetAttrKey, Any]], tuple[Any, ...]]:
    children, static = _flatten(record)
    fields = ("output", "values", "grads", "reached", "arg_grads", "aux", "uncertainty")
    return [(GetAttrKey(name), child) for name, child in zip(fields, children, strict=True)], static


def _unflatten(static: tuple[Any, ...], children: Iterable[Any]) -> Record:
    names, notes, branch_names, known, is_rounding, origin = static
    output, values, grads, reached, arg_grads, aux, uncertainty = children
    record = object.__new__(Record)  # every call of a jitted function comes here: a frozen __init__ takes twice as long
    fields = {
        "output": output,
        "names": names,
        "values": dict(zip(names, values, strict=True)),
        "grads": dict(zip(names, grads, strict=True)),
        "arg_grads": arg_grads,
        "notes": dict(notes) if notes else {},
        "reached": dict(zip(branch_names, reached, strict=True)) if branch_names else {},
        "aux": aux,
        "uncertainty": dict(zip(known, uncertainty, strict=True)) if known else {},
        "uncertainty_is_rounding": is_rounding,
        "_call": None,
        "_origin": origin.met(output) if origin.traced is not None else NOWHERE,
    }
    object.__setattr__(record, "__dict__", fields)
    return record


jax.tree_util.register_pytree_with_keys(Record, _flatten_with_keys, _unflatten, _flatten)
