"""complex_step: within its uncertainty at hard points, honest where a step misleads, closed to what is not tested."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from compare.test_oracles_by_operation import ALL, X, loss, windows_of_a_product
from jax import lax

from jaxgrad import complex_step, finite_difference, in_float64, retain_grads, tag
from jaxgrad._program.wide.analytic import HOLOMORPHIC, IN_PIECES
from jaxgrad._program.wide.bodies import REBUILD


def mp_logistic(t):
    return 1 / (1 + mpmath.exp(-t))


# name -> (elementary function, the same in mpmath)
ELEMENTARY = {
    "exp": (jnp.exp, mpmath.exp),
    "exp2": (jnp.exp2, lambda t: mpmath.mpf(2) ** t),
    "expm1": (jnp.expm1, mpmath.expm1),
    "log": (jnp.log, mpmath.log),
    "log1p": (jnp.log1p, lambda t: mpmath.log(1 + t)),
    "sin": (jnp.sin, mpmath.sin),
    "cos": (jnp.cos, mpmath.cos),
    "tan": (lax.tan, mpmath.tan),
    "sinh": (lax.sinh, mpmath.sinh),
    "cosh": (lax.cosh, mpmath.cosh),
    "tanh": (jnp.tanh, mpmath.tanh),
    "asinh": (lax.asinh, mpmath.asinh),
    "acosh": (lax.acosh, mpmath.acosh),
    "atanh": (lax.atanh, mpmath.atanh),
    "asin": (lax.asin, mpmath.asin),
    "acos": (lax.acos, mpmath.acos),
    "atan": (lax.atan, mpmath.atan),
    "sqrt": (jnp.sqrt, mpmath.sqrt),
    "rsqrt": (lax.rsqrt, lambda t: 1 / mpmath.sqrt(t)),
    "square": (lax.square, lambda t: t * t),
    "integer_pow": (lambda v: v**-3, lambda t: t**-3),
    "pow": (lambda v: v**2.5, lambda t: t ** mpmath.mpf(2.5)),
    "div": (lambda v: (1 - v) / v, lambda t: (1 - t) / t),
    "logistic": (lax.logistic, mp_logistic),
    "softplus": (jax.nn.softplus, lambda t: mpmath.log(1 + mpmath.exp(t))),
    "abs": (lax.abs, abs),
    "neg": (lax.neg, lambda t: -t),
}
BELOW_1 = [-700, -88.5, -40, -19, -3.7, -1.5, -0.999, -0.5, -1e-5, -1e-12, 1e-30, 1e-12, 1e-5, 0.3, 0.999]
POINTS = np.float32([*BELOW_1, 1.5, 3.7, 19, 40, 88, 300, 700, 1e6, 1e15])


def in_the_domain(function):
    """The points at which it is real and no overflow, and its derivative there by mpmath."""
    points, slopes = [], []
    with mpmath.workdps(400):  # differences of 150 digits, of numbers that cancel in 300
        for x in POINTS:
            at, step = mpmath.mpf(float(x)), mpmath.mpf(10) ** -150
            values = [function(at + step), function(at - step)]
            if all(isinstance(v, mpmath.mpf) and abs(v) < 1e300 for v in values):
                points.append(x)
                slopes.append(float((values[0] - values[1]) / (2 * step)))
    return np.float32(points), np.array(slopes)


def test_complex_step_is_within_its_uncertainty_of_every_elementary_function():
    inside = {name: in_the_domain(function) for name, (_, function) in ELEMENTARY.items()}

    def fun(points):
        return sum(jnp.sum(ELEMENTARY[name][0](v)) for name, v in points.items())

    record = complex_step(fun, names=())({name: points for name, (points, _) in inside.items()})
    for name, (points, slopes) in inside.items():
        off = np.abs(record.arg_grads[0][name] - slopes)
        assert np.all(off <= record.uncertainty[f"arg[0]['{name}'].grad"]), (name, points, off / np.abs(slopes))
        # Smooth ones are known to some 2^-44, how far aside they are asked for again, times their condition.
        known = record.uncertainty[f"arg[0]['{name}'].grad"] <= 4e-9 * np.abs(slopes) + 1e-200
        known |= points > 100  # where a tangent turns many times
        assert np.all(known), (name, points[~known])


@pytest.mark.parametrize(
    ("fun", "at", "slope"),
    [
        (jnp.abs, 0.0, 0),
        (jax.nn.relu, 0.0, 0),
        (lambda v: jnp.maximum(v, 1) * v, 1.0, 1),
        (lambda v: jnp.max(jnp.stack([v, 3 * v])), 0.0, 1),
        (lambda v: jnp.sqrt(v), 0.0, np.inf),  # the step's own root is finite
        (lambda v: jnp.exp(-v) * jnp.exp(v), 80.0, 0),  # two large numbers that cancel
        (lambda v: jnp.exp(-5 * v) * jnp.exp(5 * v - 1) * v, 120.0, np.exp(-1)),  # the step underflows on the way
    ],
)
def test_a_step_that_misleads_is_in_the_uncertainty(fun, at, slope):
    record = complex_step(fun, names=())(np.float32(at))
    off = np.abs(record.arg_grads[0] - slope)
    # Where large numbers cancel, it knows the size of rounding and not its bound.
    assert off <= 4 * record.uncertainty["arg[0].grad"]


def primitives(jaxpr):
    """The operations of a program and of its bodies."""
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name
        for body in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            if hasattr(body, "eqns"):
                yield from primitives(body)


# Moves and sums that need several devices; what only newer or older JAX has; and names, which compute nothing.
_ELSEWHERE = """
    psum psum_invariant all_gather all_gather_invariant sharding_constraint reshard layout_constraint
    all_to_all ppermute reduce_scatter pvary device_put
    log2 one_minus_square polynomial pow scatter-sub add_any copy name tag stop_gradient
    scatter-min scatter-max
"""
ELSEWHERE = set(_ELSEWHERE.split())


def test_every_operation_that_is_let_through_has_a_derivative_by_hand():
    refs = jax.make_jaxpr(with_refs)(np.float32([1, 2, 3, 4]))
    window = jax.make_jaxpr(windows_of_a_product)(X)
    programs = [jax.make_jaxpr(loss)(ALL)]
    programs += [jax.make_jaxpr(function)(np.float32(0.5)) for function, _ in ELEMENTARY.values()]
    tested = {name for program in (refs, window, *programs) for name in primitives(program)}
    assert {*HOLOMORPHIC, *IN_PIECES, *REBUILD} - tested <= ELSEWHERE


def with_refs(v):
    """Its gradient is 2 * 9 v_i, and for the first element, which is added once more, 2 * 16 v_0."""
    ref = jax.new_ref(jnp.zeros_like(v))
    twice = tag(2 * v, "twice")
    ref[...] = twice
    lax.fori_loop(0, 4, lambda i, _: jax.ref.addupdate(ref, i, v[i]), None)
    jax.ref.addupdate(ref, 0, v[0])
    return jnp.sum(ref[1:] ** 2) + jax.freeze(ref)[0] ** 2


def in_a_branch(v):
    """2 v_i times 9: a ref that is read where a branch is taken."""
    ref = jax.new_ref(jnp.zeros_like(v))
    ref[...] = 3 * tag(v, "v")
    return jnp.sum(lax.cond(v[0] > 0, lambda: ref[...] ** 2, lambda: ref[...]))


@pytest.mark.parametrize("oracle", [complex_step, finite_difference, in_float64])
@pytest.mark.parametrize(("fun", "factors"), [(with_refs, [32, 18, 18, 18]), (in_a_branch, [18, 18, 18, 18])])
def test_every_oracle_follows_refs(oracle, fun, factors):
    want = factors * X.astype(np.float64)
    np.testing.assert_allclose(oracle(fun)(X).arg_grads[0], want, rtol=1e-7)  # finite differences
    np.testing.assert_allclose(retain_grads(fun)(X).arg_grads[0], want, rtol=1e-6)  # float32


@pytest.mark.parametrize("oracle", [complex_step, finite_difference, in_float64])
def test_an_oracle_says_where_its_own_numbers_are_nan(oracle):
    record = oracle(lambda v: jnp.sum(jnp.sqrt(tag(v, "v"))) + tag(jnp.float32(2), "two"))(np.float32([1, -1, 4]))
    assert record.notes["output"] == "the oracle's own number is NaN: it cannot judge another's there"
    assert "the oracle's own number is NaN at [" in record.notes["v.grad"]
    assert "of 3 elements: it cannot judge another's there" in record.notes["arg[0].grad"]
    assert not {"v", "two"} & {*record.notes}
    assert not oracle(lambda v: jnp.sqrt(tag(v, "v")))(np.float32(4)).notes


@pytest.mark.skipif(not hasattr(lax, "polynomial"), reason="newer JAX has these operations")
def test_complex_step_follows_the_operations_of_newer_jax():
    record = complex_step(lambda v: jnp.log2(v) + lax.polynomial(v, [1.0, v, 3.0]), names=())(np.float32(0.5))
    np.testing.assert_allclose(record.arg_grads[0], 2 / np.log(2) + 8 * 0.5, rtol=3e-8)  # its log(2) may be float32
    record = complex_step(lambda v: jax.grad(jnp.tanh)(v), names=())(np.float32(0.5))
    np.testing.assert_allclose(record.arg_grads[0], -2 * np.tanh(0.5) / np.cosh(0.5) ** 2, rtol=1e-14)  # float64
