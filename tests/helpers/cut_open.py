"""A program cut open at its tags, in Python loops: the oracle of the random programs."""

import jax
import jax.numpy as jnp
from jax import lax

from helpers.programs import branch_index, elementary


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
            chosen = index if index is not None else int(_concrete(branch_index(passed[0], len(s.blocks))))
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
        case "map":
            n = s.option["length"]
            rows = [call(0, [a[i] for a in passed], more=(i,)) for i in range(n)]
            return [jnp.stack(r) for r in zip(*rows, strict=True)]
        case "while" | "dynamic":
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
