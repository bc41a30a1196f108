"""Programs that are always the same: between them, each kind of statement, with a tag in it where it may be."""

from dataclasses import replace

from helpers.programs import BINARY, CALLS, FORWARD, LOOPS, MOVES, RULES, UNARY, Block, Statement

VECTOR, MATRIX = (3,), (2, 3)


def nested(*around, tag="a", shape=VECTOR):
    """A statement from variable 0 to one of its shape: `around`, outermost first, and a tag in the innermost."""
    kind, *inside = around
    rowwise = kind in ("map", "vmap")
    inner = shape[1:] if rowwise else shape
    if inside:
        first = nested(*inside, tag=tag, shape=inner)
    elif kind in RULES:  # where a tag is refused
        first = Statement("unary", (0,), name="hill")
    else:
        first = Statement("tag", (0,), name=tag, shape=inner)
    block = Block((inner,), (first, Statement("unary", (1,), name="sin")), (2,))
    other = Block((inner,), (Statement("unary", (0,), name="cos"),), (1,))
    option = {"n_carry": 1, "length": shape[0] if rowwise else 2, "reverse": False, "unroll": 1, "index": None}
    option |= {"in_axes": (0,), "out_axes": [0]}
    return Statement(kind, (0,), blocks=(block, other) if kind == "switch" else (block,), option=option)


def chained(*statements):
    """A program of a vector and a matrix: each statement of the last one's result, and all of it in the output."""
    placed, last = [], 0
    for i, statement in enumerate(statements):
        count = len(statement.args)
        placed.append(replace(statement, args=(last, *range(count - 1))))
        if statement.kind not in FORWARD:
            last = 2 + i
    everything = tuple(range(2 + len(placed)))
    placed.append(Statement("fold", everything, shape=()))
    return Block((VECTOR, MATRIX), tuple(placed), (len(everything),))


def scanned_rows():
    """Scan over the rows of the matrix, with a row of results for each."""
    step = Block(
        (VECTOR, VECTOR),
        (
            Statement("tag", (1,), name="a", shape=VECTOR),
            Statement("fold", (2, 0), shape=VECTOR, option=0),
            Statement("unary", (2,), name="sin"),
        ),
        (3, 4),
    )
    option = {"n_carry": 1, "length": 2, "reverse": True, "unroll": 2}
    statements = (
        Statement("scan", (0, 1), blocks=(step,), option=option),
        Statement("fold", (2, 3), shape=()),
    )
    return Block((VECTOR, MATRIX), statements, (4,))


def shapes_moved():
    """The operations that change a shape, and a tag after each."""
    statements = [
        Statement("transpose", (1,)),
        Statement("tag", (2,), name="a", shape=(3, 2)),
        Statement("matmul", (1, 3)),
        Statement("tag", (4,), name="b", shape=(2, 2)),
        Statement("mean", (5,)),
        Statement("sum", (5,), option=-1),
        Statement("flip", (0,)),
        Statement("pick", (1,), option=1),
        Statement("stack", (8, 9)),
        Statement("tag", (10,), name="c", shape=MATRIX),
        Statement("fold", (6, 7, 11), shape=()),
    ]
    return Block((VECTOR, MATRIX), tuple(statements), (12,))


def elementary_operations():
    """Each elementary operation of a vector, and a tag in the middle and at the end."""
    tagged = Statement("tag", (0,), name="a", shape=VECTOR)
    return chained(
        *(Statement("unary", (0,), name=name) for name in sorted(UNARY)),
        tagged,
        *(Statement("binary", (0, 1), name=name) for name in sorted(BINARY)),
        *(Statement(kind, (0,)) for kind in MOVES),
        replace(tagged, name="z"),
    )


FIXED = {
    "calls": chained(*(nested(kind) for kind in CALLS), *(nested(kind) for kind in RULES)),
    "loops": chained(*(nested(kind, tag=kind[0]) for kind in (*LOOPS, *FORWARD, "switch", "ref"))),
    "nests": chained(
        nested("vmap", "scan", "switch"),
        nested("scan", "jit", "map", tag="b"),
        nested("checkpoint none", "switch", "fori", tag="c"),
        nested("vmap", "custom_jvp"),
    ),
    "select": chained(nested("vmap", "switch")),
    "rows": scanned_rows(),
    "shapes": shapes_moved(),
    "operations": elementary_operations(),
}
