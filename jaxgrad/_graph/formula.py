"""Formulas: what a node computes, as a tree of names, numbers and operations, and as text in the field's notation."""

from collections.abc import Sequence
from typing import NamedTuple

Shape = tuple[int, ...]

MOST_PARTS = 60  # names, numbers and operations of a formula that is written out
MOST_TEXT = 56
_LOOSE, _SUM, _PRODUCT, _SIGN, _POWER, _ATOM = range(6)  # what binds looser than what


class Formula(NamedTuple):
    """A tree of operations.

    Attributes:
      op: "name", "number", "+", "-", "*", "/", "neg", "**", "@", ".T", "[]", or the name of a function.
      args: what it is of.
      text: the name, the number, the power or the index; "" for any other.
      shape: of its value.
      size: how many names, numbers and operations are in it, those of a part that is used twice counted twice.
    """

    op: str
    args: "tuple[Formula, ...]" = ()
    text: str = ""
    shape: Shape = ()
    size: int = 1


def name(text: str, shape: Shape = ()) -> Formula:
    return Formula("name", (), text, shape)


def number(value: float) -> Formula:
    return Formula("number", (), f"{value:.4g}")


def apply(op: str, *args: Formula, text: str = "", shape: Shape | None = None) -> Formula:
    """An operation, without what makes no difference: a 0 in a sum, a 1 in a product, a double minus."""
    if shape is None:
        shape = max((arg.shape for arg in args), key=len, default=())
    simpler = _simpler(op, args)
    if simpler is not None and simpler.shape == shape:
        return simpler
    return Formula(op, args, text, shape, 1 + sum(arg.size for arg in args))


def _simpler(op: str, args: Sequence[Formula]) -> Formula | None:
    """The same with fewer operations, if there is such a thing."""
    if op == "neg":
        return _minus(args[0])
    if op not in ("+", "-", "*", "/"):
        return None
    a, b = args
    if op in ("+", "-") and is_number(b, 0):
        return a
    if op == "+" and is_number(a, 0):
        return b
    if op == "+" and b.op == "neg":
        return apply("-", a, *b.args)
    if op == "-" and is_number(a, 0):
        return apply("neg", b)
    if op == "*" and (is_number(a, 0) or is_number(b, 0)):
        return number(0)
    if op in ("*", "/") and is_number(b, 1):
        return a
    if op == "*" and is_number(a, 1):
        return b
    if op == "*" and (is_number(a, -1) or is_number(b, -1)):
        return apply("neg", b if is_number(a, -1) else a)
    if op in ("*", "/") and a.op == "neg":
        return apply("neg", apply(op, *a.args, b))
    if op == "*" and b.op == "neg":
        return apply("neg", apply(op, a, *b.args))
    if op == "*" and a.op == "number" and b.op == "number":
        return number(float(a.text) * float(b.text))
    if op == "*" and b.op == "number":
        return apply("*", b, a)
    if op == "+" and a.size <= MOST_PARTS and a == b:
        return apply("*", number(2), a)
    if op == "*" and b.op == "/" and is_number(b.args[0], 1):
        return apply("/", a, b.args[1])
    return None


def _minus(of: Formula) -> Formula | None:
    if of.op == "neg":
        return of.args[0]
    if of.op == "number":
        return number(-float(of.text))
    if of.op == "-":
        return apply("-", of.args[1], of.args[0])
    return None


def is_number(formula: Formula, value: float) -> bool:
    return formula.op == "number" and float(formula.text) == value


def written(formula: Formula) -> str:
    """The formula as text; one too long for a line by the operations in it, as "by matmul, add, tanh"."""
    if formula.size <= MOST_PARTS:
        text = _text(formula)[0]
        if len(text) <= MOST_TEXT:
            return text
    found = operations(formula)
    shown = ", ".join(found[:6]) + (", ..." if len(found) > 6 else "")
    return f"by {shown}" if found else ""


_COMPARED = (">", ">=", "<", "<=", "==", "!=")
_WORDS = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide", "neg": "minus", "**": "power", "@": "matmul"}


def operations(formula: Formula) -> list[str]:
    """The operations of a formula, each once, the first computed first."""
    found: dict[str, None] = {}
    seen: set[int] = set()
    open_ = [(formula, False)]
    while open_:
        at, done = open_.pop()
        if done and at.op not in ("name", "number", "[]", ".T", *_COMPARED):
            found[_WORDS.get(at.op, at.op)] = None
        if not done and id(at) not in seen:
            seen.add(id(at))
            open_ += [(at, True), *((arg, False) for arg in reversed(at.args))]
    return list(found)


def _text(formula: Formula) -> tuple[str, int]:
    """The text, and how tightly its outermost operation binds."""
    op, args = formula.op, formula.args
    if op in ("name", "number"):
        return formula.text, _SIGN if formula.text.startswith("-") else _POWER if "**" in formula.text else _ATOM
    if op in _COMPARED:
        return f"{_at(args[0], _SUM)} {op} {_at(args[1], _SUM)}", _LOOSE
    if op in ("+", "-"):
        return f"{_at(args[0], _SUM)} {op} {_at(args[1], _PRODUCT if op == '-' else _SUM, sign=True)}", _SUM
    if op in ("*", "@"):
        return f"{_at(args[0], _PRODUCT)}{op if op == '*' else ' @ '}{_at(args[1], _SIGN, sign=True)}", _PRODUCT
    if op == "/":
        return f"{_at(args[0], _PRODUCT)}/{_at(args[1], _POWER)}", _PRODUCT
    if op == "neg":
        return f"-{_at(args[0], _PRODUCT)}", _SUM if args[0].op in ("+", "-") else _SIGN
    if op == "**":
        return f"{_at(args[0], _ATOM)}**{formula.text}", _POWER
    if op == ".T":
        return f"{_at(args[0], _ATOM)}.T", _ATOM
    if op == "[]":
        return f"{_at(args[0], _ATOM)}[{formula.text}]", _ATOM
    inner = ", ".join([*(_text(arg)[0] for arg in args), *([formula.text] if formula.text else [])])
    return f"{op}({inner})", _ATOM


def _at(formula: Formula, least: int, *, sign: bool = False) -> str:
    """The text of an operand, in parentheses where it binds less tightly than the operation, or starts with a minus."""
    text, binds = _text(formula)
    return f"({text})" if binds < least or (sign and text.startswith("-")) else text
