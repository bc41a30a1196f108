"""Programs: each tag's gradient is that of the program cut open at the tag.

The programs that are always the same have every kind of statement. `pytest -m deep` runs random ones, as many for each
law as JAXGRAD_EXAMPLES says.
"""

import functools
import os
from dataclasses import replace
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, currently_in_test_context, event, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import UnsatisfiedAssumption
from jax.extend.core import jaxpr_as_fun

from helpers.cut_open import cut_open
from helpers.fixed_programs import FIXED
from helpers.programs import (
    BINARY,
    CALLS,
    FORWARD,
    LOOPS,
    MOVES,
    RULES,
    SIMPLE,
    UNARY,
    Block,
    Statement,
    kinds,
    names,
    run,
)
from helpers.random_programs import programs
from jaxgrad import TagError, retain_grads, retain_vjp, tag
from jaxgrad._program.quick_jit import quick_jit

EXAMPLES = int(os.environ.get("JAXGRAD_EXAMPLES", "50"))
SEED = int(os.environ.get("JAXGRAD_SEED", "0"))
# Both ways sum in float64, in other orders, at most a few hundred terms of size about 1: 1e-13 or so. Derivatives
# of derivatives grow by the factors of nested scans, which the absolute part follows by the largest entry.
RTOL = 1e-8


seeds = st.integers(0, 2**20)


def random_programs(**options):
    """Runs a law on random programs of JAXGRAD_SEED, at inputs of random seeds."""

    def decorator(law):
        drawn = seed(SEED)(given(programs(**options), seeds)(without_what_jax_refuses(law)))
        quick = settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # a search for a smaller failure takes a second a step
            suppress_health_check=list(HealthCheck),
        )
        return pytest.mark.deep(quick(drawn))

    return decorator


def without_what_jax_refuses(law):
    """The law, but for programs whose gradient JAX itself does not take, tags or none."""

    @functools.wraps(law)
    def lenient(program, seed):
        try:
            law(program, seed)
        except UnsatisfiedAssumption:
            raise
        except Exception as error:
            assume(not jax_refuses(program, inputs(seed), error))
            raise

    return lenient


def suits(condition):
    """Passes a random program by that the law does not speak of; a fixed one is chosen so that it does."""
    if currently_in_test_context():
        assume(condition)
    assert condition


def jax_refuses(program, args, error):
    """Does plain `jax.grad` of the program without its tags fail in the same words?"""
    try:
        jax.grad(built(program, identity), argnums=(0, 1))(*args)
    except Exception as plain:
        event(f"JAX itself: {plain}")
        return type(plain) is type(error) and str(plain).splitlines()[0] == str(error).splitlines()[0]
    return False


def fixed(*chosen):
    return pytest.mark.parametrize("program", [pytest.param(FIXED[name], id=name) for name in chosen])


def test_the_fixed_programs_have_every_kind_of_statement():
    every = {*UNARY, *BINARY, *SIMPLE, *MOVES, *CALLS, *RULES, *LOOPS, *FORWARD, "tag", "fold", "switch", "ref"}
    assert {kind for program in FIXED.values() for kind in kinds(program)} == every


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def identity(value, name):
    return value


def built(program, tag=tag):
    """The program as a function of a vector and a matrix to a scalar."""

    def fun(x, m):
        return run(program, [x, m], tag)[0]

    return fun


def inputs(seed):
    rng = np.random.default_rng(seed)
    return jnp.array(rng.normal(size=3)), jnp.array(rng.normal(size=(2, 3)))


class Opened:
    """The oracle: a program cut open at its tags, evaluated in Python loops."""

    def __init__(self, program, args):
        self.program, self.args = program, args
        self.points = names(program)
        self.differentiated = {p.path: p for p in self.points.values() if not p.in_while}
        self.eps = {path: jnp.zeros(p.full_shape) for path, p in self.differentiated.items()}
        (self.output, found), bars = jax.value_and_grad(self.perturbed, argnums=(0, 1), has_aux=True)(args, self.eps)
        self.arg_grads, self.grads = bars
        self.visits = {}
        for (path, indices), value in found.items():
            self.visits.setdefault(path, {})[indices] = value

    def perturbed(self, args, eps):
        results, found = cut_open(self.program, list(args), eps)
        return results[0], found

    def value(self, point):
        """The point's values, stacked over the loops around it, and where it was reached at all."""
        values, reached = np.zeros(point.full_shape), np.zeros(point.full_shape, bool)
        for indices, value in self.visits.get(point.path, {}).items():
            values[indices], reached[indices] = value, True
        return values, reached


def close(got, want, scale=1.0):
    got, want = np.asarray(got), np.asarray(want)
    size = max(scale, float(np.max(np.abs(want), initial=0)))
    return got.shape == want.shape and np.allclose(got, want, rtol=RTOL, atol=RTOL * size)


def agrees(point, value, grad, reached, opened):
    """Is the record's entry what the oracle found, with or without the axes of vmaps that do not batch the value?"""
    want, visited = opened.value(point)
    vmaps = [i for i, (kind, _) in enumerate(point.loops) if kind == "vmap"]
    for unbatched in combinations(vmaps, want.ndim - np.ndim(value)):
        on = visited.any(axis=unbatched)
        # JAX turns a cond in a vmap into a select, which evaluates every branch: where the branch is not taken
        # there is a value, and the oracle has none.
        wanted = np.max(want, axis=unbatched, where=visited, initial=-np.inf)
        matches = (
            np.shape(value) == on.shape
            and close(np.where(on, value, 0), np.where(on, wanted, 0))
            and (grad is None or close(grad, np.sum(opened.grads[point.path], axis=unbatched)))
            and (reached is None or covers(point, reached, on, len(point.loops) - len(unbatched)))
        )
        if matches:
            return True
    return False


def covers(point, reached, visited, leading):
    """Does `reached` have the value's leading axes, and is it true where the oracle went?"""
    if np.shape(reached) != visited.shape[:leading]:
        return False
    reached = np.broadcast_to(np.expand_dims(reached, tuple(range(leading, visited.ndim))), visited.shape)
    return np.all(reached >= visited) if point.in_select else np.array_equal(reached, visited)


def retained(fun, args, names, transform=lambda fun: fun):
    """The record of `names`, without the tags that are refused, for the one reason that is right here."""
    chosen = list(names)
    while True:
        try:
            return transform(retain_grads(fun, names=chosen))(*args)
        except TagError as error:
            if "order of its leading axes is unknown" not in str(error):
                raise
            chosen.remove(str(error).split('"')[1])
            event("a vmap that does not batch the tag is around a scan")


def check(record, opened):
    assert close(record.output, opened.output)
    for got, want in zip(record.arg_grads, opened.arg_grads, strict=True):
        assert close(got, want)
    for name in record.names:
        point, grad = opened.points[name], record.grads[name]
        assert (grad is None) == point.in_while, name
        assert not point.in_while or "while_loop" in record.notes[name]
        assert agrees(point, record.values[name], grad, record.reached.get(name), opened), (name, point)


def everywhere():
    """A fixed program with a tag in a scan, in a vmap and in a branch."""
    scanned = Block(((), ()), (Statement("tag", (0,), name="a"), Statement("fold", (2, 1), option=0)), (3,))
    mapped = Block(((),), (Statement("unary", (0,), name="sin"), Statement("tag", (1,), name="b")), (2,))
    taken = Block(((3,),), (Statement("tag", (0,), name="c", shape=(3,)), Statement("fold", (1,), shape=())), (2,))
    other = Block(((3,),), (Statement("tag", (0,), name="c", shape=(3,)), Statement("pick", (1,), option=0)), (2,))
    scan = {"n_carry": 1, "length": 3, "reverse": False, "unroll": 1}
    statements = (
        Statement("mean", (1,)),
        Statement("scan", (2, 0), blocks=(scanned,), option=scan),
        Statement("vmap", (0,), blocks=(mapped,), option={"length": 3, "in_axes": (0,), "out_axes": [0]}),
        Statement("switch", (4,), blocks=(other, taken), option={"index": 1}),
        Statement("fold", (3, 4, 5), option=0),
    )
    return Block(((3,), (2, 3)), statements, (6,))


@functools.cache
def right_everywhere():
    args = inputs(0)
    return Opened(everywhere(), args), retain_grads(built(everywhere()))(*args)


WRONG = {
    "a gradient that is 0": lambda g: jnp.zeros_like(g),
    "a gradient that is slightly off": lambda g: g * (1 + 1e-6),
    "a gradient in another order": lambda g: g[::-1],
    "a sum over iterations": lambda g: jnp.broadcast_to(g.sum(0), g.shape),
    "an axis too few": lambda g: g[0],
}


@pytest.mark.parametrize("name", ["a", "b", "c[1]"])
@pytest.mark.parametrize("wrong", WRONG)
def test_the_oracle_tells_a_record_that_is_wrong(wrong, name):
    opened, record = right_everywhere()
    assert record.names == tuple(opened.points) == ("a", "b", "c[0]", "c[1]")
    check(record, opened)
    with pytest.raises(AssertionError):
        check(replace(record, grads={**record.grads, name: WRONG[wrong](record.grads[name])}), opened)
    with pytest.raises(AssertionError):
        check(replace(record, values={**record.values, name: 1.001 * record.values[name]}), opened)
    with pytest.raises(AssertionError):
        check(replace(record, reached={**record.reached, "c[1]": jnp.bool_(False)}), opened)


def each_gradient_is_that_of_the_program_cut_open(program, seed):
    args = inputs(seed)
    opened, fun = Opened(program, args), built(program)
    record = retained(fun, args, opened.points, quick_jit)
    assert record.names == tuple(name for name in opened.points if name in record.names)
    check(record, opened)
    # To the bit, though not those of a call: that evaluates jnp.mean as one compiled operation, a trace as a sum and a
    # division, as jax.make_jaxpr has it.
    traced = jaxpr_as_fun(jax.make_jaxpr(built(program, identity))(*args))
    assert np.array_equal(retain_grads(fun, names=())(*args).output, jax.vjp(traced, *args)[0][0])


@fixed(*FIXED)
def test_each_gradient_is_that_of_the_program_cut_open_at_the_tag(program):
    each_gradient_is_that_of_the_program_cut_open(program, seed=0)


@random_programs()
def test_at_random_each_gradient_is_that_of_the_program_cut_open_at_the_tag(program, seed):
    each_gradient_is_that_of_the_program_cut_open(program, seed)


def eager_and_under_vmap_the_gradients_are_the_same(program, seed):
    args = inputs(seed)
    others = inputs(seed + 1)
    fun, opened = built(program), Opened(program, args)
    check(retained(fun, args, opened.points), opened)
    batch = [np.stack(pair) for pair in zip(others, args, strict=True)]
    rows = jax.tree.map(np.asarray, retained(fun, batch, opened.points, lambda fun: quick_jit(jax.vmap(fun))))
    check(jax.tree.map(lambda a: a[1], rows), opened)
    check(jax.tree.map(lambda a: a[0], rows), Opened(program, others))


@fixed("loops")
def test_eager_and_under_vmap_the_gradients_are_the_same(program):
    eager_and_under_vmap_the_gradients_are_the_same(program, seed=0)


@random_programs()
def test_at_random_eager_and_under_vmap_the_gradients_are_the_same(program, seed):
    eager_and_under_vmap_the_gradients_are_the_same(program, seed)


def names_select_and_nothing_else_changes(program, seed):
    args = inputs(seed)
    opened, fun = Opened(program, args), built(program)
    every = retained(fun, args, opened.points)
    suits(len(every.names) == len(opened.points))
    given_names = sorted({opened.points[name].given for name in every.names})
    patterns = [*every.names, *given_names, "*", "z*", "?"]
    for pattern in patterns if len(patterns) < 10 else [patterns[seed % len(patterns)]]:
        wanted = tuple(
            name
            for name in every.names
            if pattern in (name, opened.points[name].given)
            or pattern in ("*", "?")  # every given name is one letter
            or (pattern == "z*" and name[0] == "z")
        )
        if not wanted:
            with pytest.raises(TagError, match="nothing is tagged so"):
                retain_grads(fun, names=pattern)(*args)
            continue
        record = retain_grads(fun, names=pattern)(*args)
        assert record.names == wanted
        check(record, opened)


@fixed("rows", "shapes")
def test_names_select_and_nothing_else_changes(program):
    names_select_and_nothing_else_changes(program, seed=0)


@random_programs(size=1)  # how deep a tag stands does not matter to its name
def test_at_random_names_select_and_nothing_else_changes(program, seed):
    names_select_and_nothing_else_changes(program, seed)


def the_pullback_is_linear(program, seed):
    args = inputs(seed)
    fun = built(program)
    record = retained(fun, args, names(program))
    output, values, pullback = retain_vjp(lambda x, m: (fun(x, m), jnp.sin(x)), *args, names=record.names)
    assert list(values) == list(record.names)
    zero, ones = jnp.zeros(3), jnp.array([1.0, -2.0, 3.0])
    first, second, both = pullback((1.0, zero)), pullback((0.0, ones)), pullback((-0.5, 2 * ones))
    assert close(output[0], record.output)
    for a, b, c in zip(jax.tree.leaves(first), jax.tree.leaves(second), jax.tree.leaves(both), strict=True):
        assert close(c, -0.5 * a + 2 * b)
    for got, want in zip(jax.tree.leaves(first), jax.tree.leaves((record.arg_grads, dict(record.grads))), strict=True):
        assert close(got, want)


@fixed("calls")
def test_the_pullback_is_linear_and_agrees_with_retain_grads(program):
    the_pullback_is_linear(program, seed=0)


@random_programs(size=1)
def test_at_random_the_pullback_is_linear_and_agrees_with_retain_grads(program, seed):
    the_pullback_is_linear(program, seed)


def a_tag_changes_nothing(program, seed):
    args = inputs(seed)
    fun, plain = built(program), built(program, identity)
    batch = [jnp.stack([a, a]) for a in args]
    texts = [(lambda f: f, args), (jax.vmap, batch)]
    if not any(point.in_branch for point in names(program).values()):
        # A residual that a branch only passes on is the operand itself to JAX, but not through a tag. (So it is for
        # what a loop or a branch returns untouched: no program here does.)
        texts += [(jax.grad, args), (lambda f: jax.checkpoint(jax.grad(f)), args)]
    for transform, operands in texts:
        tagged, untagged = (jax.jit(transform(f)).lower(*operands).as_text() for f in (fun, plain))
        assert tagged == untagged
    assert np.array_equal(fun(*args), plain(*args))
    assert np.array_equal(*(jax.jit(jax.grad(f))(*args) for f in (fun, plain)))


@fixed("calls", "loops", "nests", "rows", "shapes")
def test_a_tag_changes_nothing_but_where_it_is_retained(program):
    a_tag_changes_nothing(program, seed=0)


@random_programs()
def test_at_random_a_tag_changes_nothing_but_where_it_is_retained(program, seed):
    a_tag_changes_nothing(program, seed)


def seconds(program, names, m):
    """A number that depends on every gradient, as a function of the vector."""

    def fun(x):
        record = retain_grads(built(program), names=names)(x, m)
        return sum(jnp.sum(jnp.sin(g)) for g in record.grads.values() if g is not None)

    return fun


def seconds_cut_open(opened, paths):
    """The same of the program cut open at the tags."""

    def fun(x):
        bars, _ = jax.grad(opened.perturbed, argnums=1, has_aux=True)((x, opened.args[1]), opened.eps)
        return sum(jnp.sum(jnp.sin(bars[path])) for path in paths if path in bars)

    return fun


def has_rule_in_loop(block, in_loop=False):
    """Is there a function with a derivative rule of its own in a scan?

    JAX itself may lose the rule where it differentiates a gradient through the scan: of a custom_jvp function in 0.10,
    of a custom_vjp function that makes an array of constants in 0.10 and 0.12.
    """
    return any(
        (s.kind in RULES and in_loop)
        or any(has_rule_in_loop(inner, in_loop or s.kind in ("scan", "fori")) for inner in s.blocks)
        for s in block.statements
    )


@pytest.mark.parametrize("kind", RULES)
def test_a_second_derivative_with_a_rule_in_a_scan_is_that_of_jax(kind):
    rule = Block(((3,),), (Statement("fold", (0,), shape=(3,), option=0),), (1,))
    step = Block(((3,),), (Statement(kind, (0,), blocks=(rule,)), Statement("unary", (1,), name="sin")), (2,))
    scan = {"n_carry": 1, "length": 2, "reverse": False, "unroll": 1}
    statements = (
        Statement("tag", (0,), name="z", shape=(3,)),
        Statement("scan", (2,), blocks=(step,), option=scan),
        Statement("fold", (3,), shape=()),
    )
    program, (x, m) = Block(((3,), (2, 3)), statements, (4,)), inputs(0)
    assert has_rule_in_loop(program)
    check(retain_grads(built(program))(x, m), Opened(program, (x, m)))

    def by_jax(x):
        z_bar = jax.grad(lambda eps: run(program, [x, m], lambda value, name: value + eps)[0])(jnp.zeros(3))
        return jnp.sum(jnp.sin(z_bar))

    assert close(jax.grad(seconds(program, ["z"], m))(x), jax.grad(by_jax)(x))


def the_second_derivative_is_that_of_the_program_cut_open(program, seed):
    args = inputs(seed)
    opened = Opened(program, args)
    record = retained(built(program), args, opened.points)
    retained_names = [n for n in record.names if np.shape(record.grads[n]) == opened.points[n].full_shape]
    suits(any(not opened.points[n].in_while for n in retained_names))
    suits(not has_rule_in_loop(program))
    paths = [opened.points[n].path for n in retained_names]
    want = jax.grad(seconds_cut_open(opened, paths))(args[0])
    got = seconds(program, retained_names, args[1])
    assert close(jax.grad(got)(args[0]), want)
    if "custom_vjp" not in repr(program):  # which JAX does not differentiate forward
        assert close(jax.jacfwd(got)(args[0]), want)


@fixed("rows", "select")
def test_the_second_derivative_through_a_gradient_is_that_of_the_program_cut_open(program):
    the_second_derivative_is_that_of_the_program_cut_open(program, seed=0)


@random_programs(size=2)
def test_at_random_the_second_derivative_through_a_gradient_is_that_of_the_program_cut_open(program, seed):
    the_second_derivative_is_that_of_the_program_cut_open(program, seed)
