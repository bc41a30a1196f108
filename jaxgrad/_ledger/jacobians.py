"""The local derivatives of a program's pieces, all pieces of one kind in one batch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import tree_flatten, tree_map, tree_unflatten

from jaxgrad._ledger.node_names import size_of
from jaxgrad._program import liveness
from jaxgrad._program.segments import Kind
from jaxgrad._types import Value

_AT_ONCE = 1 << 24  # elements that one batch may hold
_GOLDEN = 0.6180339887  # its multiples, modulo 1, are far from each other
AS_THEY_ARE, OTHERS_AND_TRUE, OTHERS_AND_FALSE = range(3)  # what stands for the numbers in a pullback


class JacobianSpec(NamedTuple):
    """What there is to know of the pieces of a kind.

    Attributes:
      varied: which of the inputs derivatives are taken with respect to.
      small_inputs: which of those a Jacobian is kept of, with
      small_outputs: which of the outputs.
    """

    varied: tuple[int, ...]
    small_inputs: tuple[int, ...]
    small_outputs: tuple[int, ...]

    @property
    def pulls(self) -> bool:
        """Is there a derivative that is not kept?"""
        return len(self.small_inputs) < len(self.varied)


class Derivatives(NamedTuple):
    """The local derivatives of all pieces of a kind; piece by piece along the first axis of each array.

    Attributes:
      rows: small input -> a row for each element of the small outputs, one after the other.
      pulled: (output, input) -> the gradient of the output pulled back to the input; where a Jacobian is not kept.
    """

    rows: dict[int, Any]
    pulled: dict[tuple[int, int], Any]


def dependence(kind: Kind, wanted: JacobianSpec, inputs: Sequence[Any], outputs: Sequence[Any]) -> list[set[int]]:
    """For each varied input, the outputs whose cotangents reach it; `inputs` and `outputs` are types."""

    def links(inputs: Sequence[Any], cotangents: list[Any]) -> Any:
        return _pullback(kind, wanted, inputs)(cotangents)

    found = liveness.dependence(links, list(inputs), list(outputs))
    return [{i - len(inputs) for i in on if i >= len(inputs)} for on in found]


def derivatives(
    kind: Kind, wanted: JacobianSpec, arrays: Sequence[Any], bars: Sequence[Any], numbers: Value
) -> Derivatives:
    """The local derivatives of a kind's pieces.

    Args:
      kind, wanted: of which pieces, and which derivatives.
      arrays: what the pieces' inputs are indices into.
      bars: what their outputs are indices into: the gradients.
      numbers: AS_THEY_ARE, or with others in their place. A pullback is linear, and its residuals are the numbers in
        it: what is zero with any others too is zero by the program's structure, not by the numbers of this input.
    """
    pulls = wanted.pulls or len(wanted.small_outputs) < len(kind.pieces[0].outputs)
    n_inputs, outputs = len(kind.pieces[0].inputs), [bars[i] for i in kind.pieces[0].outputs]

    def of_piece(given: Sequence[Any]) -> Derivatives:
        pullback = _with_others(_pullback(kind, wanted, given[:n_inputs]), numbers)
        rows = _rows(pullback, wanted, outputs, batch)
        return Derivatives(rows, _pulled(pullback, wanted, given[n_inputs:]) if pulls else {})

    n_rows = sum(size_of(outputs[o]) for o in wanted.small_outputs)
    batch = max(1, _AT_ONCE // kind.largest)
    given = [piece.inputs + tuple(len(arrays) + o for o in piece.outputs) * pulls for piece in kind.pieces]
    at_once = len(given) * max(1, n_rows) <= batch
    found: Derivatives = _for_each(of_piece, given, [*arrays, *bars], at_once=at_once)
    return found


def _pullback(kind: Kind, wanted: JacobianSpec, inputs: Sequence[Any]) -> Callable[..., Any]:
    """Cotangents of the outputs -> those of the varied inputs."""

    def run(varied: Sequence[Any]) -> list[Any]:
        given = dict(zip(wanted.varied, varied, strict=True))
        return [jnp.asarray(out) for out in kind.run([given.get(i, x) for i, x in enumerate(inputs)])]

    pullback = jax.vjp(run, [inputs[i] for i in wanted.varied])[1]
    return jax.tree_util.Partial(_first, pullback)


def _first(pullback: Callable[..., Any], cotangents: Sequence[Any]) -> Any:
    (bars,) = pullback(list(cotangents))
    return bars


def _rows(pullback: Any, wanted: JacobianSpec, outputs: Sequence[Any], batch: int) -> dict[int, Any]:
    """The rows of the Jacobians of all small outputs: their one-hots pulled back."""
    small = [outputs[o] for o in wanted.small_outputs]
    n_rows = sum(map(size_of, small))
    where = [wanted.varied.index(i) for i in wanted.small_inputs]

    def one_row(hot: Mapping[int, Any]) -> dict[int, Any]:
        cotangents = [hot[o] if o in hot else jnp.zeros(out.shape, out.dtype) for o, out in enumerate(outputs)]
        bars = pullback(cotangents)
        return {i: bars[k] for i, k in zip(wanted.small_inputs, where, strict=True)}

    if not where or not n_rows:
        return {}
    hots = dict(zip(wanted.small_outputs, _one_hot(small, n_rows), strict=True))
    return jax.vmap(one_row)(hots) if n_rows <= batch else lax.map(one_row, hots, batch_size=batch)


def _one_hot(outputs: Iterable[Any], n_rows: int) -> list[Any]:
    """For each array the rows of an identity over all of their elements that are its own, of its shape."""
    rows, start = [], 0
    for out in outputs:
        eye = jnp.eye(n_rows, size_of(out), -start, dtype=out.dtype)
        rows.append(eye.reshape(n_rows, *out.shape))
        start += size_of(out)
    return rows


def _pulled(pullback: Any, wanted: JacobianSpec, bars: Sequence[Any]) -> dict[tuple[int, int], Any]:
    """Each output's gradient pulled back alone, to the inputs between which no Jacobian is kept."""
    found = {}
    for o in range(len(bars)):
        alone = pullback([bar if k == o else jnp.zeros_like(bar) for k, bar in enumerate(bars)])
        for i, bar in zip(wanted.varied, alone, strict=True):
            if o not in wanted.small_outputs or i not in wanted.small_inputs:
                found[o, i] = bar
    return found


def _for_each(fun: Callable[..., Any], rows: Sequence[Sequence[int]], arrays: Sequence[Any], *, at_once: bool) -> Any:
    """`fun` of each row of arrays, stacked; what all rows share is not copied."""
    if len(rows) == 1:
        return tree_map(lambda x: x[None], fun([arrays[i] for i in rows[0]]))
    columns = list(zip(*rows, strict=True))
    shared = [len(set(column)) == 1 for column in columns]
    shared[0] &= not all(shared)
    given = [
        arrays[column[0]] if one else jnp.stack([arrays[i] for i in column])
        for column, one in zip(columns, shared, strict=True)
    ]
    if at_once:
        return jax.vmap(fun, in_axes=([None if one else 0 for one in shared],))(given)

    def of_row(own: Sequence[Any]) -> Any:
        rest = iter(own)
        return fun([x if one else next(rest) for x, one in zip(given, shared, strict=True)])

    return lax.map(of_row, [x for x, one in zip(given, shared, strict=True) if not one])


def _with_others(pullback: Any, numbers: Value) -> Any:
    leaves, structure = tree_flatten(pullback)
    return tree_unflatten(structure, [_other(leaf, i, numbers) for i, leaf in enumerate(leaves)])


def _other(residual: Value, i: int, numbers: Value) -> Any:
    """A number of a pullback, or where `numbers` says so another, that is no multiple of any other's."""
    if residual.dtype == bool:
        return residual & (numbers == AS_THEY_ARE) | (numbers == OTHERS_AND_TRUE)
    if not jnp.issubdtype(residual.dtype, jnp.floating):
        return residual
    counted = jnp.arange(1, 1 + residual.size, dtype=jnp.float32).reshape(residual.shape)
    other = 0.5 + jnp.remainder((counted + 97 * i) * _GOLDEN, 1)
    return jnp.where(numbers == AS_THEY_ARE, residual, other.astype(residual.dtype))
