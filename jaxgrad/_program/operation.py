"""One operation of a program as a formula: its whole, and its elements where those are nodes of their own."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from jaxgrad._graph.formula import Formula, apply, name, number
from jaxgrad._program.jaxpr import inner, is_literal, opened
from jaxgrad._types import Atom, Eqn, Jaxpr, Value

_MOST_ELEMENTS, _MOST_PARTS = 16, 60  # that are told apart, and of one of them
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
    return Written(name(text, shape), _objects([name(element) for element in elements], shape) if elements else None)


def constant(value: Value) -> Written:
    """A number of the program; an array of it has no name."""
    array = np.asarray(value) if not hasattr(value, "dtype") else value
    if np.shape(array) == () and getattr(array.dtype, "kind", "V") in "biuf":
        return Written(number(float(array)))
    return Written(name("constant", np.shape(array)))


def _objects(parts: Sequence[Formula], shape: tuple[int, ...]) -> Parts:
    array = np.empty(len(parts), object)
    for i, part in enumerate(parts):
        array[i] = part
    return array.reshape(shape)


_FUNCTIONS = {
    "logistic": "sigmoid", "reduce_sum": "sum", "reduce_max": "max", "reduce_min": "min", "reduce_prod": "prod",
    "select_n": "where", "dot_general": "matmul", "max": "maximum", "min": "minimum", "add_any": "add", "concatenate":
    "concatenate", "cumsum": "cumsum", "conv_general_dilated": "conv", "reduce_and": "all", "reduce_or": "any",
}  # fmt: skip
_SYMBOLS = {"add": "+", "add_any": "+", "sub": "-", "mul": "*", "div": "/", "neg": "neg"}
_TRANSPARENT = {
    "convert_element_type", "copy", "copy_p", "tag", "name", "broadcast_in_dim", "pvary", "optimization_barrier",
    "reduce_precision", "stop_gradient",
}  # fmt: skip
_ELEMENTWISE_MOVES = {"squeeze", "reshape", "expand_dims"}


def operation_name(eqn: Eqn) -> str:
    """An operation of JAX by the name that NumPy's users have for it: square, matmul, sum."""
    kind = str(eqn.primitive.name)
    if kind.startswith("custom_"):
        return called(eqn) or kind
    if kind == "integer_pow":
        return "square" if eqn.params["y"] == 2 else f"pow{eqn.params['y']}"
    return _FUNCTIONS.get(kind, kind)


def called(eqn: Eqn) -> str:
    """The name of the function that an equation calls; "" where JAX does not keep it."""
    given = eqn.params.get("name")
    if given is None:
        bodies = [opened(body)[0] for body in inner(eqn)]
        about = getattr(bodies[0], "debug_info", None) if bodies else None
        given = str(getattr(about, "func_src_info", None) or "").partition(" at ")[0]
    return str(given).lstrip("_") if given.lstrip("_").isidentifier() else ""


def softmaxes(jaxpr: Jaxpr) -> dict[int, Atom | None]:
    """Equations that are a softmax together: the last of them -> what it is of; the others -> None."""
    maker = {var: i for i, eqn in enumerate(jaxpr.eqns) for var in eqn.outvars}
    found: dict[int, Atom | None] = {}
    for i, eqn in enumerate(jaxpr.eqns):
        parts = _softmax(jaxpr, maker, eqn) if eqn.primitive.name == "div" else None
        if parts is not None:
            found |= dict.fromkeys(parts, None) | {i: jaxpr.eqns[min(parts)].invars[0]}
    return found


def _softmax(jaxpr: Jaxpr, maker: dict[Atom, int], quotient: Eqn) -> list[int] | None:
    """The equations of exp(a - max(a)) / sum(exp(a - max(a))) before its last; None if it is no softmax."""
    passed: list[int] = []

    def maker_of(atom: Atom, kind: str) -> int | None:
        """The equation of a kind that a variable comes from, those passed over that only move it."""
        while not is_literal(atom) and atom in maker:
            at = maker[atom]
            if jaxpr.eqns[at].primitive.name == kind:
                return at
            if jaxpr.eqns[at].primitive.name not in _PASSED:
                return None
            passed.append(at)
            atom = jaxpr.eqns[at].invars[-1]
        return None

    above, total = maker_of(quotient.invars[0], "exp"), maker_of(quotient.invars[1], "reduce_sum")
    if above is None or total is None or maker_of(jaxpr.eqns[total].invars[0], "exp") != above:
        return None
    shifted = maker_of(jaxpr.eqns[above].invars[0], "sub")
    largest = None if shifted is None else maker_of(jaxpr.eqns[shifted].invars[1], "reduce_max")
    if shifted is None or largest is None or jaxpr.eqns[largest].invars[0] is not jaxpr.eqns[shifted].invars[0]:
        return None
    return [largest, shifted, above, total, *passed]


_PASSED = {"broadcast_in_dim", "stop_gradient", "reshape", "max", "convert_element_type", "expand_dims"}


def result(eqn: Eqn, operands: Sequence[Written], k: int) -> Written:
    """What a result of an equation is."""
    shape = getattr(eqn.outvars[k].aval, "shape", ())
    whole = _whole(eqn, [operand.whole for operand in operands], shape)
    elements = _elements(eqn, operands, shape)
    if elements is not None and shape == ():
        (whole,) = elements.flat
    return Written(whole, elements)


def _whole(eqn: Eqn, args: list[Formula], shape: tuple[int, ...]) -> Formula:
    kind, params = eqn.primitive.name, eqn.params
    if kind in _TRANSPARENT and len(args) == 1:
        return args[0]._replace(shape=shape)
    if kind in _SYMBOLS:
        return apply(_SYMBOLS[kind], *args, shape=shape)
    if kind in ("integer_pow", "square", "rsqrt"):
        power = {"square": 2, "rsqrt": -0.5}.get(kind, params.get("y"))
        if power == -1:
            return apply("/", number(1), args[0], shape=shape)
        return apply("**", args[0], text=f"{power:g}" if power >= 0 else f"({power:g})", shape=shape)
    if kind == "pow" and args[1].op == "number":
        return apply("**", args[0], text=args[1].text if float(args[1].text) >= 0 else f"({args[1].text})", shape=shape)
    if kind == "dot_general":
        return _dot(params["dimension_numbers"], args, shape)
    if kind == "transpose" and tuple(params["permutation"]) == (1, 0):
        return apply(".T", args[0], shape=shape)
    if (
        kind in ("squeeze", "reshape", "expand_dims")
        and np.prod(shape) == np.prod(args[0].shape)
        and args[0].op == "[]"
    ):
        start, _, stop = args[0].text.partition(":")
        one = shape == () and stop and int(stop) - int(start or 0) == 1
        return apply("[]", args[0].args[0], text=start or "0", shape=()) if one else args[0]._replace(shape=shape)
    if kind in _ELEMENTWISE_MOVES and _squeezed(args[0].shape) == _squeezed(shape):
        return args[0]._replace(shape=shape)
    if kind == "slice" and len(args[0].shape) == 1 and params["strides"] is None:
        (start,), (stop,), n = params["start_indices"], params["limit_indices"], args[0].shape[0]
        text = f"{start or ''}:{stop if stop < n or stop - start == 1 else ''}"
        return args[0] if text == ":" else apply("[]", args[0], text=text, shape=shape)
    if kind == "select_n" and len(args) == 3:
        return apply("where", args[0], args[2], args[1], shape=shape)
    if kind in _COMPARISONS:
        return apply(_COMPARISONS[kind], *args, shape=shape)
    axes = params.get("axes")
    text = (
        "" if axes is None or len(axes) == len(args[0].shape) else f"axis={axes[0] if len(axes) == 1 else tuple(axes)}"
    )
    return apply(_FUNCTIONS.get(kind, kind), *args, text=text, shape=shape)


_COMPARISONS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "eq": "==", "ne": "!="}


def _squeezed(shape: tuple[int, ...]) -> list[int]:
    return [n for n in shape if n != 1]


def _dot(numbers: tuple[tuple[Sequence[int], ...], ...], args: list[Formula], shape: tuple[int, ...]) -> Formula:
    """A product of matrices or vectors as NumPy's `@`, transposed where need be; any other by its name."""
    ((left, right), (batch, _)) = numbers
    a, b = args
    if batch or len(left) != 1 or not min(len(a.shape), len(b.shape)) >= 1 or max(len(a.shape), len(b.shape)) > 2:
        return apply("tensordot", a, b, shape=shape)
    if left[0] != len(a.shape) - 1:
        a = apply(".T", a, shape=a.shape[::-1])
    if right[0] != 0:
        b = apply(".T", b, shape=b.shape[::-1])
    return apply("@", a, b, shape=shape)


def _elements(eqn: Eqn, operands: Sequence[Written], shape: tuple[int, ...]) -> Parts | None:
    """The elements of a result, where those of an operand are told apart and there are few."""
    if all(operand.elements is None for operand in operands) or np.prod(shape, dtype=int) > _MOST_ELEMENTS:
        return None
    parts = [_parts(operand) for operand in operands]
    if any(part is None for part in parts):
        return None
    move = _MOVES.get(eqn.primitive.name)
    found = move(eqn, parts, shape) if move is not None else None
    if found is None or any(part.size > _MOST_PARTS for part in found.flat):
        return None
    return found


def _parts(operand: Written) -> Parts | None:
    if operand.elements is not None:
        return operand.elements
    whole = operand.whole
    if np.prod(whole.shape, dtype=int) > _MOST_ELEMENTS:
        return None
    if whole.shape == () or whole.op == "number":
        return _objects([whole] * int(np.prod(whole.shape, dtype=int)), whole.shape)
    if whole.op == "name" and len(whole.shape) == 1 and whole.text != "constant":
        return _objects([apply("[]", whole, text=str(i), shape=()) for i in range(whole.shape[0])], whole.shape)
    return None


def _slice(eqn: Eqn, parts: list[Parts], shape: Shape) -> Parts:
    p = eqn.params
    strides = p["strides"] or [1] * len(p["start_indices"])
    return parts[0][tuple(map(slice, p["start_indices"], p["limit_indices"], strides))]


def _broadcast(eqn: Eqn, parts: list[Parts], shape: Shape) -> Parts:
    at = eqn.params["broadcast_dimensions"]
    inner = [1] * len(shape)
    for axis, n in zip(at, parts[0].shape, strict=True):
        inner[axis] = n
    return np.broadcast_to(parts[0].reshape(inner), shape)


def _by_element(eqn: Eqn, parts: list[Parts], shape: Shape) -> Parts | None:
    if any(part.shape not in ((), shape) for part in parts):
        return None
    spread = [np.broadcast_to(part, shape) for part in parts]
    found = np.empty(shape, object)
    for place in np.ndindex(*shape):
        formulas: list[Any] = [part[place] for part in spread]
        found[place] = _whole(eqn, formulas, ())
    return found


def _added(terms: Iterable[Any]) -> Formula:
    total = number(0)
    for term in terms:
        total = apply("+", total, term)
    return total


def _dot_elements(eqn: Eqn, parts: list[Parts], shape: Shape) -> Parts | None:
    ((left, right), (batch, _)) = eqn.params["dimension_numbers"]
    if batch or len(left) != 1:
        return None
    a, b = np.moveaxis(parts[0], left[0], -1), np.moveaxis(parts[1], right[0], -1)
    found = np.empty(shape, object)
    for i in np.ndindex(*a.shape[:-1]):
        for j in np.ndindex(*b.shape[:-1]):
            found[(*i, *j)] = _added(apply("*", u, v) for u, v in zip(a[i], b[j], strict=True))
    return found


def _sum_elements(eqn: Eqn, parts: list[Parts], shape: Shape) -> Parts | None:
    if shape != ():
        return None
    return _objects([_added(parts[0].flat)], ())


_MOVES: dict[str, Callable[[Eqn, list[Parts], Shape], Parts | None]] = {
    "slice": _slice,
    "squeeze": lambda eqn, parts, shape: parts[0].reshape(shape),
    "reshape": lambda eqn, parts, shape: parts[0].reshape(shape),
    "expand_dims": lambda eqn, parts, shape: parts[0].reshape(shape),
    "transpose": lambda eqn, parts, shape: parts[0].transpose(eqn.params["permutation"]),
    "broadcast_in_dim": _broadcast,
    "dot_general": _dot_elements,
    "reduce_sum": _sum_elements,
    "convert_element_type": lambda eqn, parts, shape: parts[0],
} | dict.fromkeys(
    ["add", "sub", "mul", "div", "neg", "exp", "log", "tanh", "logistic", "integer_pow", "square", "sin", "cos", "max"],
    _by_element,
)
