"""Variables of everything that Python has: recursion, closures, comprehensions, generators, exceptions, methods, and
what JAX makes of functions: cond, vmap, while, grad inside."""

import argparse
import dis
import inspect
import math
import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxgrad import complex_step, finite_difference, in_float64, retain_grads, watch, with_rounding
from jaxgrad._names.variables import stores

X = 0.3


def again(x, n):
    if n == 0:
        return x
    y = x * x
    return again(y, n - 1)


def recursion(x):
    out = again(x, 3)
    return out


def lambdas(x):
    double = lambda v: (w := v * 2) + w  # noqa: E731
    return double(x) + double(3 * x)


def comprehensions(x):
    ys = [x * i for i in range(2)]
    zs = [
        (y, y + 1)
        for y in ys
        for _ in range(1)
    ]  # fmt: skip
    found = {key: a + b for key, (a, b) in zip("ab", zs, strict=True)}
    return found["a"] + sum(z[1] for z in zs)


def generator(x):
    def parts(x):
        p = x * 2
        yield p
        q = p * 3
        yield q

    total = 0
    for part in parts(x):
        total = total + part
    return total


def in_one_line(x):
    # fmt: off
    for _ in range(3): x = x * x  # noqa: E701
    # fmt: on
    return x


def appended(x):
    hs = []
    for i in range(2):
        hs.append(x * (i + 2))  # noqa: PERF401
    return hs[0] * hs[1]


def caught(x):
    try:
        a = x * 2
        raise ValueError(a)
    except ValueError as error:
        b = error.args[0] * 3
    finally:
        c = a + x
    return b + c


def assigned_by_another(x):
    h = x * 2

    def change():
        nonlocal h
        h = h * 3

    change()
    return h


def unpacked(x):
    a, (b, *c) = x * 2, (x * 3, x * 4, x * 5)
    a += b
    del b
    with jax.named_scope("scope"):
        d = a * c[0]
    return d


class Scale:
    w = 2.0

    def apply(self, x):
        y = self.w * x
        return y

    @staticmethod
    def shift(x):
        s = x + 1
        return s


def methods(x):
    z = Scale().apply(x)
    return z + Scale.shift(z)


def branches(x):
    def yes(x):
        a = x * 2
        return a

    def no(x):
        b = x * 3
        return b

    return lax.cond(x > 0, yes, no, x)


def vmapped(x):
    def row(r):
        s = r * r
        return s + 1

    rows = jax.vmap(row)(x * jnp.arange(3.0))
    return rows.sum()


def while_loop(x):
    def body(carry):
        y = carry * 2
        return y

    last = lax.while_loop(lambda carry: carry < 1, body, lax.stop_gradient(x))
    return last * x


def gradient_inside(x):
    def inner(x):
        u = x * x
        return u * u

    slope = jax.grad(inner)(x)
    return slope * 2


CASES = [
    (recursion, {"again.y[0]": X**2, "again.y[1]": X**4, "again.y[2]": X**8, "out": X**8}),
    (lambdas, {"<lambda>.w[0]": 2 * X, "<lambda>.w[1]": 6 * X}),
    (
        comprehensions,
        {"ys[0]": 0, "ys[1]": X, "zs[0][0]": 0, "zs[0][1]": 1, "zs[1][0]": X, "zs[1][1]": X + 1}
        | {"found['a']": 1, "found['b']": 2 * X + 1},
    ),
    (
        generator,
        {"parts.p": 2 * X, "part[0]": 2 * X, "total[0]": 2 * X, "parts.q": 6 * X, "part[1]": 6 * X, "total[1]": 8 * X},
    ),
    (in_one_line, {"x[0]": X**2, "x[1]": X**4, "x[2]": X**8}),
    (appended, {"hs[0]": 2 * X, "hs[1]": 3 * X}),
    (caught, {"a": 2 * X, "b": 6 * X, "c": 3 * X}),
    (assigned_by_another, {"h[0]": 2 * X, "h[1]": 6 * X}),
    (unpacked, {"a[0]": 2 * X, "b": 3 * X, "c[0]": 4 * X, "c[1]": 5 * X, "a[1]": 5 * X, "d": 20 * X**2}),
    (methods, {"apply.y": 2 * X, "z": 2 * X, "shift.s": 2 * X + 1}),
    (branches, {"no.b": 0, "yes.a": 2 * X}),
    (vmapped, {"row.s": [0, X**2, 4 * X**2], "rows": [1, 1 + X**2, 1 + 4 * X**2]}),
    (while_loop, {"body.y": 4 * X, "last": 4 * X}),
    (gradient_inside, {"inner.u": X**2, "slope": 4 * X**3}),
]


@pytest.mark.parametrize(("fun", "expected"), CASES, ids=[fun.__name__ for fun, _ in CASES])
def test_each_variable_has_its_name_and_its_value(fun, expected):
    record = jax.jit(retain_grads(watch(fun)))(X)
    assert record.names == tuple(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(record.values[name], value, rtol=1e-6)  # a few float32 roundings
    np.testing.assert_array_equal(record.output, jax.jit(fun)(X))


def test_in_a_gradient_inside_the_gradient_is_that_of_the_whole():
    record = retain_grads(watch(gradient_inside))(X)
    # slope = 2 u * 2 x with u held, so d(2 slope)/du = 8 x.
    np.testing.assert_allclose([record.grads["inner.u"], record.grads["slope"]], [8 * X, 2], rtol=1e-6)  # float32


@pytest.mark.parametrize("oracle", [with_rounding, complex_step, finite_difference, in_float64])
def test_every_oracle_takes_a_watched_function(oracle):
    def fun(x):
        h = jnp.sin(x)
        out = again(h, 2)
        return out

    record = oracle(watch(fun))(X)
    assert set(record.names) == {"h", "again.y[0]", "again.y[1]", "out"}
    np.testing.assert_allclose(record.values["again.y[1]"], math.sin(X) ** 4, rtol=1e-6)  # float32, four products
    np.testing.assert_allclose(record.arg_grads[0], 4 * math.sin(X) ** 3 * math.cos(X), rtol=1e-4)  # differences


ON_BOTH_SIDES = """
def helper(x):
    u = xp.sin(x)
    return u * u

def fun(x):
    h = helper(x) + 1
    h = xp.tanh(h)
    pair = {"a": h * 2, "b": [h + x, (h * x,)]}
    ys = [helper(y * i) for i, y in enumerate((x, h))]
    total = 0
    for part in ys:
        total = total + part
    x = total * pair["a"]
    scale = lambda v: (w := v * 2)
    z = scale(x)
    return (out := z + pair["b"][0])
"""


@pytest.mark.torch
def test_the_names_are_those_of_pytorch_for_the_same_code():
    if os.environ.get("JAXGRAD_REQUIRE_TORCH") != "1":
        pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[torch]'")
    import torch

    from jaxgrad import retain_torch

    sides = []
    for xp in (jnp, torch):
        namespace = {"xp": xp, "__name__": "both"}
        exec(compile(ON_BOTH_SIDES, "both.py", "exec"), namespace)
        sides.append(namespace["fun"])
    ours, theirs = retain_grads(watch(sides[0]))(X), retain_torch(sides[1])(torch.tensor(X))
    assert ours.names == theirs.names
    for name in ours.names:
        np.testing.assert_allclose(ours.values[name], theirs.values[name], rtol=1e-6)  # a few float32 roundings


def codes(code):
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


MANY = (
    "def f(x):\n" + "".join(f"    v{i} = x; w{i} = v{i}\n" for i in range(300)) + "    def g():\n        return v299\n"
)


@pytest.mark.parametrize("source", [inspect.getsource(argparse), MANY], ids=["argparse", "600 variables"])
def test_the_assignments_of_a_line_are_those_that_dis_reads(source):
    for code in codes(compile(source, "source.py", "exec")):
        line, want, opcodes = code.co_firstlineno, set(), set()
        for instruction in dis.get_instructions(code):
            line = instruction.positions.lineno or line
            opcodes.add(instruction.opname)
            if instruction.opname.startswith(("STORE_FAST", "STORE_DEREF", "STORE_NAME")):
                names = instruction.argval if isinstance(instruction.argval, tuple) else (instruction.argval,)
                want |= {(line, name) for name in names}
        got = {(line, name) for line, names in stores(code).items() for name in names}
        if "LOAD_FAST_AND_CLEAR" in opcodes:  # the variables of comprehensions are not the function's
            assert got <= want
        else:
            assert got == want
