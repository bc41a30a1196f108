"""What retaining costs: retain_grads beside plain value_and_grad, and beside what others have.

    python bench/retain.py [--repeats N]

Two networks, an MLP of 12 layers of 1024 with 512 rows and a scanned, checkpointed transformer block, each with every
activation retained, with one, and with none, against `jax.value_and_grad` of the same function without tags: XLA's
count of FLOPs, its peak memory, the time of a call and the time to trace and compile. The ratios are to the plain
call. Answers are checked first. Peers that are installed run on the MLP: Flax's `perturb`, Oryx's `harvest`, and
PyTorch with `retain_grad` against PyTorch without. One JSON line a case.
"""

import argparse
import json
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxgrad


def mlp(tag, layers=12, width=1024, rows=512):
    """A loss of its parameters, with a tag on each of its activations."""
    keys = jax.random.split(jax.random.key(0), layers)
    params = [jax.random.normal(key, (width, width)) / np.sqrt(width) for key in keys]
    x = jax.random.normal(jax.random.key(1), (rows, width))

    def loss(params):
        h = x
        for i, w in enumerate(params):
            h = tag(jnp.tanh(h @ w), f"h{i}")
        return jnp.mean(h**2)

    return loss, params, "h6"


def transformer(tag, layers=6, width=256, heads=4, length=128, rows=8):
    """A pre-norm transformer, its block checkpointed and scanned, with tags on what attention and the MLP add."""
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = {"qkv": (width, 3 * width), "out": (width, width), "up": (width, 4 * width), "down": (4 * width, width)}
    params = {
        name: jax.random.normal(key, (layers, *shape)) / np.sqrt(shape[0])
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    x = jax.random.normal(jax.random.key(1), (rows, length, width))

    def norm(x):
        return (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-6)

    def attention(x, p):
        q, k, v = jnp.split((norm(x) @ p["qkv"]).reshape(rows, length, heads, -1), 3, axis=-1)
        return jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape) @ p["out"]

    @jax.checkpoint
    def block(x, p):
        x = x + tag(attention(x, p), "attention")
        x = x + tag(jax.nn.gelu(norm(x) @ p["up"]) @ p["down"], "mlp")
        return x, None

    def loss(params):
        return jnp.mean(lax.scan(block, x, params)[0] ** 2)

    return loss, params, "mlp"


def untagged(value, name):
    return value


def compiled(fun, *args):
    """The compiled function, and the seconds that tracing and compiling took (the least of three)."""
    seconds = []
    for _ in range(3):
        jax.clear_caches()
        start = time.perf_counter()
        program = jax.jit(fun).lower(*args).compile()
        seconds.append(time.perf_counter() - start)
    return program, min(seconds)


def timed(calls, repeats):
    """Seconds of each call, taken in turn so that a slow moment of the machine falls on all of them.

    Returns the median, the spread, and the ratio to the first of the calls: the median over turns.
    """
    seconds = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    first = next(iter(seconds.values()))
    return {
        name: {
            "seconds": statistics.median(own),
            "spread": max(own) - min(own),
            "time_ratio": statistics.median(a / b for a, b in zip(own, first, strict=True)),
        }
        for name, own in seconds.items()
    }


def bytes_of(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def measure(name, build, repeats):
    """JSON-ready lines for one network, the plain call first."""
    tagged, params, one = build(jaxgrad.tag)
    plain, _, _ = build(untagged)
    functions = {
        "value_and_grad": jax.value_and_grad(plain),
        "retain none": jaxgrad.retain_grads(tagged, names=()),
        "retain one": jaxgrad.retain_grads(tagged, names=one),
        "retain all": jaxgrad.retain_grads(tagged),
    }
    programs = {case: compiled(fun, params) for case, fun in functions.items()}
    answers = {case: program(params) for case, (program, _) in programs.items()}
    want_loss, want_grads = answers["value_and_grad"]
    for case, record in list(answers.items())[1:]:
        np.testing.assert_allclose(record.output, want_loss, rtol=1e-5, err_msg=case)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), record.arg_grads[0], want_grads
        )
    times = timed(
        {case: lambda p=program: jax.block_until_ready(p(params)) for case, (program, _) in programs.items()}, repeats
    )
    lines = []
    for case, (program, compile_seconds) in programs.items():
        memory = program.memory_analysis()
        record = answers[case]
        line = {
            "network": name,
            "case": case,
            **times[case],
            "flops": program.cost_analysis()["flops"],
            "peak_bytes": memory.temp_size_in_bytes + memory.output_size_in_bytes + memory.argument_size_in_bytes,
            "kept_bytes": bytes_of((record.values, record.grads)) if case != "value_and_grad" else 0,
            "compile_seconds": compile_seconds,
        }
        first = lines[0] if lines else line
        line["flops_ratio"] = line["flops"] / first["flops"]
        line["compile_ratio"] = line["compile_seconds"] / first["compile_seconds"]
        line["grown_bytes"] = line["peak_bytes"] - first["peak_bytes"]
        lines.append(line)
    return lines


def measure_flax(repeats):
    """Flax's `perturb` on the MLP: gradients of all activations, as its documentation does it."""
    from flax import linen

    plain, params, _ = mlp(untagged)
    x = jax.random.normal(jax.random.key(1), (512, 1024))

    class MLP(linen.Module):
        @linen.compact
        def __call__(self, x):
            for i, w in enumerate(params):
                x = self.perturb(f"h{i}", jnp.tanh(x @ self.param(f"w{i}", lambda _, w=w: w)))
            return jnp.mean(x**2)

    variables = MLP().init(jax.random.key(0), x)

    def loss(params, perturbations):
        return MLP().apply({"params": params, "perturbations": perturbations}, x)

    program, compile_seconds = compiled(jax.value_and_grad(loss, argnums=(0, 1)), *variables.values())
    plain_program, plain_compile_seconds = compiled(jax.value_and_grad(plain), params)
    np.testing.assert_allclose(program(*variables.values())[0], plain_program(params)[0], rtol=1e-5)
    times = timed(
        {
            "plain": lambda: jax.block_until_ready(plain_program(params)),
            "perturb": lambda: jax.block_until_ready(program(*variables.values())),
        },
        repeats,
    )
    memory, plain_memory = (
        m.temp_size_in_bytes + m.output_size_in_bytes + m.argument_size_in_bytes
        for m in (program.memory_analysis(), plain_program.memory_analysis())
    )
    return {
        "network": "mlp",
        "case": "flax perturb",
        **times["perturb"],
        "flops_ratio": program.cost_analysis()["flops"] / plain_program.cost_analysis()["flops"],
        "compile_ratio": compile_seconds / plain_compile_seconds,
        "grown_bytes": memory - plain_memory,
        "kept_bytes": bytes_of(variables["perturbations"]),
    }


def measure_oryx(repeats):
    """Oryx's `harvest` has values, not gradients; it is measured for what it has, where it imports."""
    from oryx.core import harvest

    tagged, params, _ = mlp(lambda value, name: harvest.sow(value, tag="activation", name=name))
    plain, _, _ = mlp(untagged)
    reaped = jax.jit(
        jax.value_and_grad(lambda p: tuple(harvest.call_and_reap(tagged, tag="activation")(p)), has_aux=True)
    )
    plain = jax.jit(jax.value_and_grad(plain))
    times = timed(
        {
            "plain": lambda: jax.block_until_ready(plain(params)),
            "reap": lambda: jax.block_until_ready(reaped(params)),
        },
        repeats,
    )
    return {"network": "mlp", "case": "oryx reap, values alone", **times["reap"]}


def measure_torch(repeats):
    """PyTorch's `retain_grad` on the MLP beside PyTorch without, in eager mode."""
    import torch

    plain, params, _ = mlp(untagged)
    weights = [torch.tensor(np.asarray(w), requires_grad=True) for w in params]
    x = torch.tensor(np.asarray(jax.random.normal(jax.random.key(1), (512, 1024))))

    def step(retain):
        for w in weights:
            w.grad = None
        h = x
        for w in weights:
            h = torch.tanh(h @ w)
            if retain:
                h.retain_grad()
        loss = torch.mean(h**2)
        loss.backward()
        return loss

    np.testing.assert_allclose(step(True).item(), plain(params), rtol=1e-5)
    times = timed({"plain": lambda: step(False), "retain": lambda: step(True)}, repeats)
    return {"network": "mlp", "case": "torch retain_grad", **times["retain"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    about = {"device": jax.devices()[0].device_kind, "jax": jax.__version__, "jaxgrad": jaxgrad.__version__}
    for build in (mlp, transformer):
        for line in measure(build.__name__, build, repeats):
            print(json.dumps({**line, **about}), flush=True)
    for peer in (measure_flax, measure_oryx, measure_torch):
        try:
            line = peer(repeats)
        except (ImportError, AttributeError) as error:  # not installed, or written for another JAX
            line = {"case": peer.__name__.removeprefix("measure_"), "not measured": str(error)}
        print(json.dumps({**line, **about}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
