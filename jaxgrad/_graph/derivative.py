"""The local derivative of a formula, as a formula: the table of derivatives of a textbook."""

from jaxgrad._graph.formula import MOST_PARTS, Formula, apply, is_number, name, number, written

_ONE, _ZERO = number(1), number(0)


def derivative(target: Formula, source: str) -> Formula | None:
    """The derivative of a formula with respect to a name in it, element by element; None where there is no such one.

    For arrays that is the diagonal of the local derivative, of the target's shape.
    """
    if target.op == "name":
        return _ONE if target.text == source else _ZERO
    if target.op == "number":
        return _ZERO
    inner = [derivative(arg, source) for arg in target.args]
    if any(part is None for part in inner):
        return None
    if all(is_number(part, 0) for part in inner if part is not None):
        return _ZERO
    rule = _RULES.get(target.op)
    parts = rule(target) if rule is not None else None
    if parts is None or (target.op in _REDUCTIONS and not _reduces(target)):
        return None
    total = _ZERO
    for outer, part in zip(parts, inner, strict=True):
        if part is not None and not is_number(part, 0):
            total = apply("+", total, apply("*", outer, part))
    return total


_REDUCTIONS = ("sum", "mean")


def _reduces(target: Formula) -> bool:
    """Does it add up all elements?"""
    return target.shape == () and not target.text


def _power(f: Formula) -> list[Formula]:
    n = float(f.text)
    return [apply("*", number(n), f.args[0] if n == 2 else apply("**", f.args[0], text=f"{n - 1:g}"))]


def _quotient(f: Formula) -> list[Formula]:
    a, b = f.args
    return [apply("/", _ONE, b), apply("neg", apply("/", a, apply("**", b, text="2")))]


def _call(op: str, f: Formula) -> Formula:
    return apply(op, *f.args, shape=f.shape)


def _one_minus_square(f: Formula) -> Formula:
    return apply("-", _ONE, apply("**", f, text="2"), shape=f.shape)


_RULES = {
    "+": lambda f: [_ONE, _ONE],
    "-": lambda f: [_ONE, number(-1)],
    "*": lambda f: [f.args[1], f.args[0]],
    "/": _quotient,
    "neg": lambda f: [number(-1)],
    "**": _power,
    "exp": lambda f: [f],
    "log": lambda f: [apply("/", _ONE, f.args[0])],
    "log1p": lambda f: [apply("/", _ONE, apply("+", _ONE, f.args[0]))],
    "expm1": lambda f: [_call("exp", f)],
    "sin": lambda f: [_call("cos", f)],
    "cos": lambda f: [apply("neg", _call("sin", f))],
    "tanh": lambda f: [_one_minus_square(f)],
    "sigmoid": lambda f: [apply("*", f, apply("-", _ONE, f))],
    "sqrt": lambda f: [apply("/", _ONE, apply("*", number(2), f))],
    "relu": lambda f: [apply("step", *f.args, shape=f.shape)],
    "abs": lambda f: [_call("sign", f)],
    "sum": lambda f: [_ONE],
    "stop_gradient": lambda f: [_ZERO],
}


def local(target: Formula, ends: tuple[str, str], shape: tuple[int, ...], output: str) -> str:
    """What the local derivative of a target with respect to a source is, in symbols; "" where it has no short form.

    Args:
      target: the target's formula.
      ends: the source's name and the target's.
      shape: the source's.
      output: name of the output, for the rule of a matrix product: dL/dW = outer(x, dL/dy).
    """
    source, result = ends
    if source == result:  # a value that the step before has computed
        source = next((text for text in (f"{source}[t-1]", f"{source}[t+1]") if has(target, text)), source)
        shape = target.shape
    if target.size > MOST_PARTS or not has(target, source):
        return ""
    product = _matmul(target, source, (f"d{output}/d{result}", f"d{output}/d{source}"))
    if product:
        return product
    found = derivative(target, source)
    if found is None:
        return ""
    if target.op in _SELF:
        found = _in_terms_of(found, target, name(result, target.shape))
    text = written(found)
    if not text or text.startswith("by "):
        return ""
    scalar = not target.shape and (not shape or _sums(target, source, shape))
    if scalar or not shape:
        return text
    if target.shape != shape or found.shape not in ((), shape):
        return ""
    return "identity" if text == "1" else f"diag({text})" if found.shape else f"{text} * identity"


_SELF = ("tanh", "sigmoid", "sqrt")  # functions whose derivative is written with their own value: 1 - h**2


def _in_terms_of(formula: Formula, whole: Formula, called: Formula) -> Formula:
    """A formula with the name of a part of it in the part's place."""
    if formula == whole:
        return called
    return formula._replace(args=tuple(_in_terms_of(arg, whole, called) for arg in formula.args))


def _sums(target: Formula, source: str, shape: tuple[int, ...]) -> bool:
    """Is it a scalar that adds up arrays of the source's shape?"""
    if target.op == "sum":
        return target.args[0].shape == shape
    return bool(target.args) and all(_sums(arg, source, shape) for arg in target.args if has(arg, source))


def has(formula: Formula, source: str) -> bool:
    return (formula.op == "name" and formula.text == source) or any(has(arg, source) for arg in formula.args)


def _matmul(target: Formula, source: str, names: tuple[str, str]) -> str:
    """The rule of `a @ b`, as what the target's gradient becomes: dL/da = dL/dy @ b.T; "" if it is no such product."""
    while target.op in ("+", "-") and not (target.op == "-" and has(target.args[1], source)):
        using = [arg for arg in target.args if has(arg, source)]
        if len(using) != 1 or using[0].shape != target.shape:
            return ""
        target = using[0]
    if target.op != "@" or sum(has(arg, source) for arg in target.args) != 1:
        return ""
    a, b = target.args
    upstream, gradient = names
    if max(len(a.shape), len(b.shape)) != 2 or any(len(arg.shape) not in (1, 2) for arg in (a, b)):
        return ""
    if a == name(source, a.shape):
        side = f"outer({upstream}, {written(b)})" if len(b.shape) == 1 else f"{upstream} @ {_transposed(b)}"
    elif b == name(source, b.shape):
        side = f"outer({written(a)}, {upstream})" if len(a.shape) == 1 else f"{_transposed(a)} @ {upstream}"
    elif b == apply(".T", name(source, b.shape[::-1]), shape=b.shape):
        side = f"outer({upstream}, {written(a)})" if len(a.shape) == 1 else f"{upstream}.T @ {written(a)}"
    else:
        return ""
    return f"{gradient} = {side}"


def _transposed(matrix: Formula) -> str:
    return written(matrix.args[0] if matrix.op == ".T" else apply(".T", matrix))
