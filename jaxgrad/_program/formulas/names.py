"""The names of operations and of library functions that a reader knows them by."""

from jaxgrad._program.jaxpr import inner, opened
from jaxgrad._types import Eqn

FUNCTIONS = {
    "logistic": "sigmoid", "reduce_sum": "sum", "reduce_max": "max", "reduce_min": "min", "reduce_prod": "prod",
    "select_n": "where", "dot_general": "matmul", "max": "maximum", "min": "minimum", "add_any": "add", "concatenate":
    "concatenate", "cumsum": "cumsum", "conv_general_dilated": "conv", "reduce_and": "all", "reduce_or": "any",
}  # fmt: skip
_LIBRARY = {
    "relu", "relu6", "silu", "gelu", "elu", "celu", "selu", "softplus", "softmax", "log_softmax", "logsumexp", "where",
    "sigmoid", "leaky_relu", "logaddexp", "clip", "var", "std", "hypot", "squareplus", "mish", "glu", "log_sigmoid",
}  # fmt: skip


def operation_name(eqn: Eqn) -> str:
    """An operation of JAX by the name that NumPy's users have for it: square, matmul, sum."""
    kind = str(eqn.primitive.name)
    if kind.startswith("custom_"):
        return called(eqn) or kind
    if kind == "integer_pow":
        return "square" if eqn.params["y"] == 2 else f"pow{eqn.params['y']}"
    return FUNCTIONS.get(kind, kind)


def called(eqn: Eqn) -> str:
    """The name of the function that an equation calls; "" where JAX does not keep it."""
    given = eqn.params.get("name")
    if given is None:
        bodies = [opened(body)[0] for body in inner(eqn)]
        about = getattr(bodies[0], "debug_info", None) if bodies else None
        given = str(getattr(about, "func_src_info", None) or "").partition(" at ")[0]
    return str(given).lstrip("_") if given.lstrip("_").isidentifier() else ""


def library_name(eqn: Eqn) -> str:
    """The name by which everyone knows the function that is called: relu, where; "" if it has none."""
    known = called(eqn)
    return known if known in _LIBRARY and len(eqn.outvars) == 1 else ""
