"""One operation of a program as a formula of its operands' formulas."""

from collections.abc import Sequence

import numpy as np

from jaxgrad._graph.formula import Formula, apply, number
from jaxgrad._program.formulas.names import FUNCTIONS
from jaxgrad._types import Eqn

_SYMBOLS = {"add": "+", "add_any": "+", "sub": "-", "mul": "*", "div": "/", "neg": "neg"}
_TRANSPARENT = {
    "convert_element_type", "copy", "copy_p", "tag", "probed", "name", "broadcast_in_dim", "pvary",
    "optimization_barrier", "reduce_precision", "stop_gradient",
}  # fmt: skip
_ELEMENTWISE_MOVES = {"squeeze", "reshape", "expand_dims"}
_COMPARISONS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "eq": "==", "ne": "!="}


def whole_of(eqn: Eqn, args: list[Formula], shape: tuple[int, ...]) -> Formula:
    """What a result of an operation is, by the name or symbol that NumPy has for it."""
    kind, params = eqn.primitive.name, eqn.params
    if kind in ("tag", "probed") or (kind in _TRANSPARENT and len(args) == 1):
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
    return apply(FUNCTIONS.get(kind, kind), *args, text=text, shape=shape)


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
