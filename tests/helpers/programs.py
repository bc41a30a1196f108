"""Programs with tags in them, as trees: parameters, statements, results.

`run(block, args, tag)` builds one out of `lax.scan`, `jax.vmap`, `lax.switch`, ...; `cut_open` (beside this file) walks
the same tree with Python loops over iterations, lanes and branches, and adds a perturbation at each visit of each tag.
The two share the elementary operations and nothing else.
"""

import functools
from collections import Counter
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
MOVES = ["gather", "scatter", "running", "solve", "mixed"]
SIMPLE = ["matmul", "mean", "sum", "transpose", "flip", "pick", "stack"]
MOVES = ["gather", "scatter", "running", "solve", "mixed"]
CALLS = ["plain", "jit", "scope", "partial", "checkpoint none", "checkpoint everything", "checkpoint dots", "twice"]
RULES = ["custom_jvp", "custom_vjp"]
LOOPS = ["scan", "fori", "map", "vmap"]
FORWARD = ["while", "dynamic"]  # which JAX does not differentiate in reverse


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
        if s.kind in LOOPS:
            around = (*loops, ("vmap" if s.kind == "vmap" else "scan", s.option["length"]))
        selects = s.kind == "switch" and s.option["index"] is None and "vmap" in dict(loops)
        state = (in_while or s.kind in FORWARD, in_branch or s.kind == "switch", in_select or selects)
        for j, inner in enumerate(s.blocks):
            for copy in range(2 if s.kind == "twice" else 1):
                yield from points(inner, (*here, j, copy), around, *state)


def kinds(block):
    """Every kind of statement in a program, and the name of each elementary operation."""
    for s in block.statements:
        yield s.name if s.kind in ("unary", "binary") else s.kind
        for inner in s.blocks:
            yield from kinds(inner)


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
        case "gather":
            return args[0][jnp.array([0, -1, 0])]
        case "scatter":
            return args[0].at[jnp.array([0, -1, 0])].add(0.3 * jnp.sin(args[0][jnp.array([-1, 0, 0])]))
        case "running":
            return lax.associative_scan(lambda a, b: jnp.tanh(a) + b, args[0])
        case "solve":
            n = args[0].shape[0]
            return jnp.linalg.solve(4 * jnp.eye(n) + jnp.outer(jnp.sin(args[0]), jnp.ones(n)), args[0])
        case "mixed":  # through float32 and back, and an integer beside it
            return args[0] * jnp.arange(1, 3)[1] + jnp.float32(0.5)
        case "fold":  # everything there is flows into a block's results, so that each tag is used; it contracts
            total = sum(_uneven_mean(a) for a in args) / (2 * len(args))
            constant = np.linspace(0.1, 1.0, max(1, _size(s.shape)))
            base = jnp.asarray(constant if s.option is None else args[s.option])
            return jnp.sin(0.7 * jnp.reshape(base, s.shape) + total)
    raise AssertionError(s.kind)


def _uneven_mean(a):
    """A mean in which each element counts differently, so that gradients in another order show."""
    # By NumPy: each operation more is compiled for each shape.
    weights = (1 + 0.5 * np.cos(np.arange(a.size))).reshape(a.shape) / a.size
    return jnp.sum(a * weights.astype(a.dtype))


def _size(shape):
    return functools.reduce(lambda a, b: a * b, shape, 1)


def branch_index(a, n):
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
            chosen = jnp.int32(index) if index is not None else branch_index(passed[0], len(functions))
            if len(functions) == 2:
                return lax.cond(chosen == 1, functions[1], functions[0], *passed)
            return lax.switch(chosen, functions, *passed)
        case "vmap":
            return jax.vmap(f, in_axes=s.option["in_axes"], out_axes=s.option["out_axes"])(*passed)
        case "fori":
            return lax.fori_loop(0, s.option["length"], lambda i, carry: f(*carry), passed)
        case "map":
            return lax.map(lambda xs: f(*xs), tuple(passed))
        case "ref":
            refs = [jax.new_ref(jnp.zeros_like(a)) for a in passed]
            for ref, result in zip(refs, f(*passed), strict=True):
                ref[...] += result
            return [ref[...] for ref in refs]
        case "dynamic":
            frozen = [lax.stop_gradient(a) for a in passed]
            return lax.fori_loop(0, jnp.int32(s.option["length"]), lambda i, carry: f(*carry), frozen)
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
