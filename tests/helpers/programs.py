"""Random programs with tags in them, run in two ways: by JAX, and cut open at the tags by plain Python.

A program is a `Block`: parameters, statements, results. `run(block, args, Jax(tag))` builds it out of `lax.scan`,
`jax.vmap`, `lax.switch`, ...; `cut_open(program)` walks the same tree with Python loops over iterations, lanes and
branches, and adds a perturbation at each visit of each tag. The two share the elementary operations and nothing else.
"""

import functools
from collections import Counter
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from hypothesis import strategies as st
from jax import lax

THRESHOLD = 0.1234567  # no value that a program computes twice, by sums in two orders, comes near it but by chance

UNARY = {
    "sin": jnp.sin,
    "cos": jnp.cos,
    "tanh": jnp.tanh,
    "line": lambda a: 0.7 * a + 0.3,
    "hill": lambda a: a / (1 + a * a),
    "gauss": lambda a: jnp.exp(-a * a),
    "reciprocal": lambda a: 1 / (2 + jnp.cos(a)),
    "relu": lambda a: jnp.maximum(a, THRESHOLD),
    "logistic": jax.nn.sigmoid,
}
BINARY = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "sine times": lambda a, b: jnp.sin(a) * b,
    "where": lambda a, b: jnp.where(a > THRESHOLD, a, 2 * b),
}
POLICIES = {
    "none": None,
    "everything": jax.checkpoint_policies.everything_saveable,
    "nothing": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
}
CALLS = ["plain", "jit", "scope", "partial", "checkpoint none", "checkpoint everything", "checkpoint dots", "twice"]
RULES = ["custom_jvp", "custom_vjp"]


@dataclass(frozen=True)
class Statement:
    """One line of a block; it appends its results to the block's variables.

    Attributes:
      kind: which operation it is.
      args: the variables that it is passed.
      closed: the variables that its blocks close over: further parameters of them, after those it is passed.
      name: of a tag or of an elementary operation.
      blocks: the programs in it.
      shape: of a tag's value.
      option: what else the operation needs.
    """

    kind: str
    args: tuple[int, ...]
    closed: tuple[int, ...] = ()
    name: str = ""
    blocks: tuple[Any, ...] = ()
    shape: tuple[int, ...] = ()
    option: Any = None


@dataclass(frozen=True)
class Block:
    """Parameters (the first variables), statements, and the variables that it returns."""

    shapes: tuple[tuple[int, ...], ...]
    statements: tuple[Statement, ...]
    results: tuple[int, ...]


@dataclass(frozen=True)
class Point:
    """One tag of a program as the tree has it: its name, the loops around it, and the shape of its value there."""

    path: tuple[int, ...]
    given: str
    loops: tuple[tuple[str, int], ...]  # ("scan" or "vmap", length), outermost first
    shape: tuple[int, ...]
    in_while: bool
    in_branch: bool
    in_select: bool  # in a branch that data choose in a vmap: to JAX a select, which evaluates every branch

    @property
    def full_shape(self):
        return tuple(n for _, n in self.loops) + self.shape


def points(block, path=(), loops=(), in_while=False, in_branch=False, in_select=False):
    """Every tag of a program, in its order."""
    for i, s in enumerate(block.statements):
        here = (*path, i)
        if s.kind == "tag":
            yield Point(here, s.name, loops, s.shape, in_while, in_branch, in_select)
        around = loops
        if s.kind in ("scan", "fori", "vmap"):
            around = (*loops, ("vmap" if s.kind == "vmap" else "scan", s.option["length"]))
        selects = s.kind == "switch" and s.option["index"] is None and "vmap" in dict(loops)
        state = (in_while or s.kind == "while", in_branch or s.kind == "switch", in_select or selects)
        for j, inner in enumerate(s.blocks):
            for copy in range(2 if s.kind == "twice" else 1):
                yield from points(inner, (*here, j, copy), around, *state)


def names(program):
    """name in a record -> Point: a name that is used more than once is numbered."""
    found = list(points(program))
    uses, seen, named = Counter(p.given for p in found), Counter(), {}
    for p in found:
        named[f"{p.given}[{seen[p.given]}]" if uses[p.given] > 1 else p.given] = p
        seen[p.given] += 1
    return named


# --- What both ways of running a program share: the elementary operations ---


def elementary(s, args):
    match s.kind:
        case "unary":
            return UNARY[s.name](*args)
        case "binary":
            return BINARY[s.name](*args)
        case "matmul":
            return args[0] @ args[1] * 0.5
        case "mean":
            return jnp.mean(args[0])
        case "sum":
            return jnp.sum(args[0], axis=s.option)
        case "transpose":
            return args[0].T
        case "flip":
            return args[0][::-1]
        case "pick":
            return args[0][s.option]
        case "stack":
            return jnp.stack(args)
        case "fold":  # everything there is flows into a block's results, so that each tag is used; it contracts
            total = sum(_uneven_mean(a) for a in args) / (2 * len(args))
            base = args[s.option] if s.option is not None else jnp.linspace(0.1, 1.0, max(1, _size(s.shape)))
            return jnp.sin(0.7 * jnp.reshape(base, s.shape) + total)
    raise AssertionError(s.kind)


def _uneven_mean(a):
    """A mean in which each element counts differently, so that gradients in another order show."""
    return jnp.mean(a * (1 + 0.5 * jnp.cos(jnp.arange(a.size, dtype=a.dtype))).reshape(a.shape))


def _size(shape):
    return functools.reduce(lambda a, b: a * b, shape, 1)


def _index(a, n):
    """A branch, chosen by data."""
    return (jnp.sin(3 * jnp.mean(a)) > THRESHOLD).astype(jnp.int32) * (n - 1)


# --- One way: JAX's own transformations ---


def run(block, args, tag):
    """Builds the program out of JAX's structured operations; `tag` is called at each tag."""
    env = list(args)
    for s in block.statements:
        passed, closed = [env[i] for i in s.args], [env[i] for i in s.closed]
        if s.kind == "tag":
            env.append(tag(passed[0], s.name))
        elif s.blocks:
            functions = [functools.partial(_called, inner, closed, tag) for inner in s.blocks]
            env.extend(_structured(s, passed, functions))
        else:
            env.append(elementary(s, passed))
    return [env[i] for i in block.results]


def _called(block, closed, tag, *passed):
    return run(block, [*passed, *closed], tag)


def _structured(s, passed, functions):
    f = functions[0]
    match s.kind:
        case "plain":
            return f(*passed)
        case "partial":
            return functools.partial(f, passed[0])(*passed[1:])
        case "jit":
            return jax.jit(f)(*passed)
        case "scope":
            with jax.named_scope("vmap"):
                return f(*passed)
        case "twice":
            return [a + b for a, b in zip(f(*passed), f(*passed), strict=True)]
        case "custom_jvp":
            return _with_jvp_rule(f)(*passed)
        case "custom_vjp":
            return _with_vjp_rule(f)(*passed)
        case "switch":
            index = s.option["index"]
            chosen = jnp.int32(index) if index is not None else _index(passed[0], len(functions))
            if len(functions) == 2:
                return lax.cond(chosen == 1, functions[1], functions[0], *passed)
            return lax.switch(chosen, functions, *passed)
        case "vmap":
            return jax.vmap(f, in_axes=s.option["in_axes"], out_axes=s.option["out_axes"])(*passed)
        case "fori":
            return lax.fori_loop(0, s.option["length"], lambda i, carry: f(*carry), passed)
        case "while":
            frozen = [lax.stop_gradient(a) for a in passed]
            steps = s.option["length"]
            return lax.while_loop(lambda c: c[0] < steps, lambda c: (c[0] + 1, f(*c[1])), (0, frozen))[1]
        case "scan":
            n = s.option["n_carry"]

            def step(carry, xs):
                results = f(*carry, *xs)
                return results[:n], results[n:]

            settings = {name: s.option[name] for name in ("reverse", "unroll", "length")}
            carry, stacked = lax.scan(step, passed[:n], passed[n:], **settings)
            return [*carry, *stacked]
    return jax.checkpoint(f, policy=POLICIES[s.kind.removeprefix("checkpoint ")])(*passed)


def _with_jvp_rule(f):
    """`f` with twice its derivative, of every order, so that a rule that is lost shows."""
    g = jax.custom_jvp(f)

    @g.defjvp
    def rule(primals, tangents):
        _, results_dot = jax.jvp(f, primals, tangents)
        return g(*primals), [2 * dot for dot in results_dot]

    return g


def _with_vjp_rule(f):
    g = jax.custom_vjp(f)
    g.defvjp(lambda *args: (g(*args), args), lambda args, bars: jax.vjp(f, *args)[1]([2 * bar for bar in bars]))
    return g


# --- The other way: cut open, in Python loops ---


def cut_open(block, args, eps):
    """The program with `eps[path][loop indices]` added at each visit of each tag.

    Returns:
      results, {(path, loop indices): value}.
    """
    return _cut(block, args, eps, (), ())


def _cut(block, args, eps, path, indices):
    env, found = list(args), {}
    for i, s in enumerate(block.statements):
        here = (*path, i)
        passed, closed = [env[k] for k in s.args], [env[k] for k in s.closed]
        if s.kind == "tag":
            value = passed[0] + eps[here][indices] if here in eps else passed[0]
            found[here, indices] = value
            env.append(value)
        elif s.blocks:

            def call(j, operands, copy=0, more=(), s=s, here=here, closed=closed):
                inner = (*here, j, copy)
                results, new = _cut(s.blocks[j], [*operands, *closed], eps, inner, (*indices, *more))
                found.update(new)
                return results

            env.extend(_structured_by_loops(s, passed, call))
        else:
            env.append(elementary(s, passed))
    return [env[k] for k in block.results], found


def _structured_by_loops(s, passed, call):
    match s.kind:
        case "twice":
            return [a + b for a, b in zip(call(0, passed, 0), call(0, passed, 1), strict=True)]
        case "custom_jvp" | "custom_vjp":  # the value of f and twice its derivative
            return [2 * a - lax.stop_gradient(a) for a in call(0, passed)]
        case "switch":
            index = s.option["index"]
            chosen = index if index is not None else int(_concrete(_index(passed[0], len(s.blocks))))
            return call(chosen, passed)
        case "vmap":
            lanes = []
            for lane in range(s.option["length"]):
                taken = [
                    a if axis is None else jnp.take(a, lane, axis)
                    for a, axis in zip(passed, s.option["in_axes"], strict=True)
                ]
                lanes.append(call(0, taken, more=(lane,)))
            return [jnp.stack(r, axis) for r, axis in zip(zip(*lanes, strict=True), s.option["out_axes"], strict=True)]
        case "fori":
            carry = passed
            for i in range(s.option["length"]):
                carry = call(0, carry, more=(i,))
            return carry
        case "while":
            carry = [lax.stop_gradient(a) for a in passed]
            for _ in range(s.option["length"]):
                carry = [lax.stop_gradient(a) for a in call(0, carry)]
            return carry
        case "scan":
            n, length = s.option["n_carry"], s.option["length"]
            carry, steps = passed[:n], [None] * length
            for i in reversed(range(length)) if s.option["reverse"] else range(length):
                results = call(0, [*carry, *(a[i] for a in passed[n:])], more=(i,))
                carry, steps[i] = results[:n], results[n:]
            return [*carry, *(jnp.stack(r) for r in zip(*steps, strict=True))]
    return call(0, passed)


def _concrete(a):
    while isinstance(a, jax.core.Tracer):
        a = a.primal if hasattr(a, "primal") else a.val
    return a


# --- Random programs ---

VECTOR, LENGTHS = (3,), (2, 3)


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
def programs(draw, *, tags="abcz", depth=3, statements=4, size=3):
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
    simple = ["unary", "binary", "matmul", "mean", "sum", "transpose", "flip", "pick", "stack"]
    kinds = simple + ["tag"] * 5 * bool(tags)
    if depth > 0 and budget[0] > 0:
        kinds += CALLS + RULES + ["vmap"] * 8 + ["scan", "switch"] * 6 + ["fori", "while"]
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
    elif kind in ("fori", "while"):
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
