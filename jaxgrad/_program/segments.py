"""A program in pieces, one for each result; pieces that differ in their numbers alone are one kind.

A network of 200 equal layers has 200 pieces of one kind: what is computed of a piece is compiled once.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import prod
from typing import Any, NamedTuple

import jax

from jaxgrad._program import fingerprint
from jaxgrad._program.control_flow.parameters import is_ref
from jaxgrad._program.jaxpr import bind, opened
from jaxgrad._types import Atom, Jaxpr, Value

_LOOKED_INTO = ("jit", "remat2")  # for derivatives from node to node they are their bodies
_RUN_ONCE = ("scan", "while", "cond", "shard_map")  # results that are computed by one of these are one piece


class Piece(NamedTuple):
    """Some results of a program, and what they are computed from.

    Attributes:
      inputs: which of the program's arguments and constants, in the order of its kind.
      outputs: which of the program's results.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Kind:
    """What several pieces have in common.

    Attributes:
      run: inputs -> outputs.
      largest: elements of the largest array in it.
      pieces: those of this kind.
    """

    run: Callable[[Sequence[Any]], list[Any]]
    largest: int
    pieces: list[Piece] = field(default_factory=list)


def segments(
    fun: Callable[..., Sequence[Any]], arguments: Sequence[Any], apart: Callable[[Piece], Hashable]
) -> tuple[list[Kind], list[Any]]:
    """Takes a program apart.

    Args:
      fun: of the arguments, returns arrays.
      arguments: arrays, or their types.
      apart: pieces for which this differs are not of one kind.

    Returns:
      The kinds, with each piece in one of them; and the program's constants, numbered on from its arguments.
    """
    jaxpr, consts = opened(jax.make_jaxpr(fun)(*arguments))
    inlined = _Inlined(len(arguments))
    results = inlined.add(jaxpr, consts, range(len(arguments)))
    index = {number: i for i, number in enumerate([*range(len(arguments)), *inlined.constants])}
    avals = [v.aval for v in jaxpr.invars] + [jax.typeof(constant) for constant in inlined.constants.values()]
    kinds: dict[Hashable, Kind] = {}
    for operations, outputs in _slices(inlined.operations, results):
        run = _Slice(operations, [results[i] for i in outputs])
        piece = Piece(tuple(index[number] for number in run.inputs), outputs)
        key = run.key, tuple(fingerprint.of_aval(avals[i]) for i in piece.inputs), apart(piece)
        kinds.setdefault(key, Kind(run, run.largest)).pieces.append(piece)
    return list(kinds.values()), list(inlined.constants.values())


class _Operation(NamedTuple):
    """An equation whose variables are numbers; what is no number among them is a literal."""

    eqn: Any
    operands: tuple[Any, ...]
    results: tuple[int, ...]


class _Inlined:
    """The operations of a program in one list, calls of `jit` and `checkpoint` replaced by their bodies."""

    def __init__(self, n_arguments: int):
        self.operations: list[_Operation] = []
        self.constants: dict[int, Any] = {}
        self._numbers = count(n_arguments)
        self._number_of: dict[fingerprint.Same, int] = {}

    def add(self, jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
        """Adds a program; returns its results."""
        numbers = dict(zip(jaxpr.invars, arguments, strict=True))
        numbers |= zip(jaxpr.constvars, map(self._constant, consts), strict=True)
        for eqn in jaxpr.eqns:
            operands = [_read(numbers, atom) for atom in eqn.invars]
            results: Sequence[Any]
            if eqn.primitive.name in _LOOKED_INTO:
                results = self.add(*opened(eqn.params["jaxpr"]), operands)
            elif eqn.primitive.name in fingerprint.NAMES:
                results = operands[:1]
            else:
                results = tuple(next(self._numbers) for _ in eqn.outvars)
                self.operations.append(_Operation(eqn, tuple(operands), results))
            numbers.update(zip(eqn.outvars, results, strict=True))
        return [_read(numbers, atom) for atom in jaxpr.outvars]

    def _constant(self, value: Value) -> int:
        number = self._number_of.setdefault(fingerprint.Same(value), -1)
        if number == -1:
            number = self._number_of[fingerprint.Same(value)] = next(self._numbers)
            self.constants[number] = value
        return number


def _read(numbers: dict[Any, Any], atom: Atom) -> Any:
    return atom if hasattr(atom, "val") else numbers[atom]


def _slices(operations: list[_Operation], results: list[Any]) -> list[tuple[list[_Operation], tuple[int, ...]]]:
    """The operations that each result needs, and which results; some share a slice."""
    maker = {number: i for i, operation in enumerate(operations) for number in operation.results}
    writers = _writers(operations)
    slices: list[tuple[set[int], list[int]]] = []
    for output, number in enumerate(results):
        needed: set[int] = set()
        open_ = [maker[number]] if isinstance(number, int) and number in maker else []
        while open_:
            i = open_.pop()
            if i not in needed:
                needed.add(i)
                operands = [operand for operand in operations[i].operands if isinstance(operand, int)]
                open_ += [maker[operand] for operand in operands if operand in maker]
                open_ += [k for operand in operands for k in writers.get(operand, ()) if k < i]
        outputs = [output]
        heavy = {i for i in needed if operations[i].eqn.primitive.name in _RUN_ONCE}
        for other in [other for other in slices if heavy & other[0]]:
            slices.remove(other)
            needed |= other[0]
            outputs += other[1]
        slices.append((needed, outputs))
    return [([operations[i] for i in sorted(needed)], tuple(sorted(outputs))) for needed, outputs in slices]


def _writers(operations: list[_Operation]) -> dict[int, list[int]]:
    """Number of a ref -> the operations that may write to it."""
    found: dict[int, list[int]] = {}
    for i, operation in enumerate(operations):
        for operand, var in zip(operation.operands, operation.eqn.invars, strict=True):
            if is_ref(var.aval) and operation.eqn.primitive.name != "get":
                found.setdefault(operand, []).append(i)
    return found


class _Slice:
    """Some operations as a function of what they need.

    Attributes:
      inputs: numbers of what is computed elsewhere.
      key: two slices share it only if they compute the same of the same inputs.
      largest: elements of the largest result.
    """

    def __init__(self, operations: list[_Operation], outputs: list[Any]):
        place: dict[int, Hashable] = {}
        self.inputs: list[int] = []

        def read(atom: Atom) -> Hashable:
            if not isinstance(atom, int):
                return fingerprint.of_constant(atom.val), fingerprint.of_aval(atom.aval)
            if atom not in place:
                place[atom] = ("input", len(self.inputs))
                self.inputs.append(atom)
            return place[atom]

        body = []
        for i, (eqn, operands, results) in enumerate(operations):
            body.append((fingerprint.of_operation(eqn), tuple(map(read, operands))))
            place |= {number: (i, k) for k, number in enumerate(results)}
        self.key = tuple(body), tuple(map(read, outputs))
        self.largest = max([1, *(prod(v.aval.shape) for operation in operations for v in operation.eqn.outvars)])
        self._operations, self._outputs = operations, outputs

    def __call__(self, inputs: Sequence[Any]) -> list[Any]:
        arrays = dict(zip(self.inputs, inputs, strict=True))

        def read(atom: Atom) -> Any:
            return arrays[atom] if isinstance(atom, int) else atom.val

        for eqn, operands, results in self._operations:
            arrays.update(zip(results, bind(eqn, list(map(read, operands))), strict=True))
        return [read(output) for output in self._outputs]
