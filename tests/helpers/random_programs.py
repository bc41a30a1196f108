"""Random programs, drawn by hypothesis."""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from helpers.programs import BINARY, CALLS, MOVES, RULES, SIMPLE, UNARY, Block, Statement, points

LENGTHS, DEPTH = (2, 3), 3


@dataclass
class _Writer:
    """A block as it is written: `visible` has the variables that later statements may use."""

    draw: Any
    shapes: list
    statements: list
    visible: list

    def add(self, shapes, *args, **kwargs):
        self.statements.append(Statement(*args, **kwargs))
        self.visible.extend(range(len(self.shapes), len(self.shapes) + len(shapes)))
        self.shapes.extend(shapes)

    def some(self, *, max_size=3, shape=None):
        options = [i for i in self.visible if shape is None or self.shapes[i] == shape]
        return tuple(self.draw(st.lists(st.sampled_from(options), min_size=1, max_size=max_size, unique=True)))

    def one(self):
        return self.draw(st.sampled_from(self.visible))


@st.composite
def programs(draw, *, tags="abcz", depth=DEPTH, statements=4, size=3):
    """A program of a vector and a matrix to a scalar, with at least one tag."""
    budget = [size]
    block = _block(draw, [(3,), (2, 3)], [()], depth, statements, tags, budget)
    if not list(points(block)):
        tagged = Statement("tag", (0,), name=tags[0], shape=(3,))
        fold = Statement("fold", (2, 1), option=None, shape=())
        block = Block(((3,), (2, 3)), (tagged, fold), (3,))
    return block


def _block(draw, parameters, wanted, depth, statements, tags, budget):
    w = _Writer(draw, list(parameters), [], list(range(len(parameters))))
    for _ in range(draw(st.integers(1, statements))):
        _statement(w, depth, tags, budget)
    results = []
    for shape in wanted:
        base = next((k for k, i in enumerate(w.visible) if w.shapes[i] == shape), None)
        visible = tuple(w.visible)
        results.append(len(w.shapes))
        w.add([shape], "fold", visible, option=base, shape=shape)
        w.visible = list(visible)
    return Block(tuple(parameters), tuple(w.statements), tuple(results))


def _statement(w, depth, tags, budget):
    draw = w.draw
    simple = ["unary", "binary", *SIMPLE, *MOVES]
    kinds = simple + ["tag"] * 5 * bool(tags)
    if depth > 0 and budget[0] > 0:
        kinds += CALLS + RULES + ["vmap"] * 8 + ["scan", "switch"] * 6 + ["fori", "while", "map", "dynamic"]
        kinds += ["ref"] * 3 * (depth == DEPTH)  # JAX itself has no refs in most of what the inner blocks stand in
    kind = draw(st.sampled_from(kinds))
    i = w.one()
    shape = w.shapes[i]
    if kind == "tag":
        w.visible.remove(i)
        w.add([shape], "tag", (i,), name=draw(st.sampled_from(tags)), shape=shape)
    elif kind == "binary":
        j = draw(st.sampled_from([k for k in w.visible if w.shapes[k] in (shape, ())]))
        w.add([shape], "binary", (i, j), name=draw(st.sampled_from(sorted(BINARY))))
    elif kind == "matmul" and shape:
        fitting = [k for k in w.visible if w.shapes[k] and w.shapes[k][0] == shape[-1]]
        if fitting:
            j = draw(st.sampled_from(fitting))
            w.add([shape[:-1] + w.shapes[j][1:]], "matmul", (i, j))
    elif kind == "mean":
        w.add([()], "mean", (i,))
    elif kind == "sum" and shape:
        w.add([shape[:-1]], "sum", (i,), option=-1)
    elif kind == "transpose":
        w.add([shape[::-1]], "transpose", (i,))
    elif kind == "flip" and shape:
        w.add([shape], "flip", (i,))
    elif kind == "pick" and shape:
        w.add([shape[1:]], "pick", (i,), option=draw(st.integers(0, shape[0] - 1)))
    elif kind == "stack" and len(shape) < 2:
        w.add([(2, *shape)], "stack", (i, draw(st.sampled_from([k for k in w.visible if w.shapes[k] == shape]))))
    elif kind == "gather" and shape:
        w.add([(3, *shape[1:])], "gather", (i,))
    elif (kind in ("scatter", "running") and shape) or (kind == "solve" and len(shape) == 1) or kind == "mixed":
        w.add([shape], kind, (i,))
    elif kind in simple:
        w.add([shape], "unary", (i,), name=draw(st.sampled_from(sorted(UNARY))))
    else:
        budget[0] -= 1
        _structure(w, kind, depth - 1, tags, budget)


def _structure(w, kind, depth, tags, budget):
    draw = w.draw
    args = w.some()
    closed = w.some(max_size=2) if draw(st.booleans()) else ()
    if kind in RULES:
        closed, tags = (), ""
    shapes, closed_shapes = [w.shapes[i] for i in args], [w.shapes[i] for i in closed]

    def block(parameters, wanted, tags=tags):
        return _block(draw, parameters, wanted, depth, 3, tags, budget)

    any_shapes = st.lists(st.sampled_from([(), (3,), (2, 3)]), min_size=1, max_size=2)
    if kind in CALLS or kind in RULES:
        wanted = draw(any_shapes)
        w.add(wanted, kind, args, closed, blocks=(block([*shapes, *closed_shapes], wanted),))
    elif kind == "switch":
        wanted, n = draw(any_shapes), draw(st.integers(2, 3))
        branches = tuple(block([*shapes, *closed_shapes], wanted) for _ in range(n))
        index = draw(st.none() | st.integers(0, n - 1))
        w.add(wanted, "switch", args, closed, blocks=branches, option={"index": index})
    elif kind == "ref":
        w.add(shapes, kind, args, closed, blocks=(block([*shapes, *closed_shapes], shapes),))
    elif kind == "map":
        stacked = [i for i in args if w.shapes[i]]
        xs = tuple(i for i in stacked if w.shapes[i][0] == w.shapes[stacked[0]][0])
        if xs:
            length, wanted = w.shapes[xs[0]][0], draw(any_shapes)
            inner = block([*(w.shapes[i][1:] for i in xs), *closed_shapes], wanted)
            w.add([(length, *r) for r in wanted], kind, xs, closed, blocks=(inner,), option={"length": length})
    elif kind in ("fori", "while", "dynamic"):
        inner = block([*shapes, *closed_shapes] if kind == "fori" else shapes, shapes)
        closed = closed if kind == "fori" else ()
        w.add(shapes, kind, args, closed, blocks=(inner,), option={"length": draw(st.sampled_from(LENGTHS))})
    elif kind == "scan":
        stacked = [i for i in w.visible if w.shapes[i]]
        xs = tuple(draw(st.lists(st.sampled_from(stacked), max_size=2))) if stacked else ()
        xs = tuple(i for i in xs if w.shapes[i][0] == w.shapes[xs[0]][0])
        length = w.shapes[xs[0]][0] if xs else draw(st.sampled_from(LENGTHS))
        ys = draw(st.lists(st.sampled_from([(), (3,)]), max_size=1))
        inner = block([*shapes, *(w.shapes[i][1:] for i in xs), *closed_shapes], [*shapes, *ys])
        option = {
            "n_carry": len(args),
            "length": length,
            "reverse": draw(st.booleans()),
            "unroll": draw(st.sampled_from([1, 1, 2])),
        }
        results = [*shapes, *((length, *y) for y in ys)]
        w.add(results, "scan", (*args, *xs), closed, blocks=(inner,), option=option)
    elif kind == "vmap":
        mapped = [i for i in w.visible if w.shapes[i]]
        if not mapped:
            return
        first = draw(st.sampled_from(mapped))
        axis = draw(st.integers(0, len(w.shapes[first]) - 1))
        length = w.shapes[first][axis]
        args = (first, *(i for i in args if i != first))
        fitting = [[None, *(k for k, n in enumerate(w.shapes[i]) if n == length)] for i in args[1:]]
        axes = [axis, *(draw(st.sampled_from(options)) for options in fitting)]
        inside = [
            s if a is None else s[:a] + s[a + 1 :] for s, a in zip((w.shapes[i] for i in args), axes, strict=True)
        ]
        wanted = draw(st.lists(st.sampled_from([(), (3,)]), min_size=1, max_size=2))
        out_axes = [draw(st.integers(0, len(s))) for s in wanted]
        option = {"length": length, "in_axes": tuple(axes), "out_axes": out_axes}
        results = [(*s[:a], length, *s[a:]) for s, a in zip(wanted, out_axes, strict=True)]
        w.add(results, "vmap", args, closed, blocks=(block([*inside, *closed_shapes], wanted),), option=option)
