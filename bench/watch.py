"""What names without edits take: tracing a watched function, calling it jitted, and finding a port's first mistake.

    python bench/watch.py [--repeats N]

One JSON line a case, ratios by pairs in turns:
- trace: a function of 2,000 lines and 50 live variables, traced watched, against plain, in seconds of the processor.
- jitted: a call of it, jitted once, watched against plain. Both are the same program, which is checked.
- port: seconds from the three lines (record the PyTorch original, record the port, compare) to the name of the first
  of two planted mistakes in a transformer block, each in a process of its own, so that all compiling is in it; as the
  three lines stand, and with `jax.jit` about the second. Needs PyTorch.
- torchlens: seconds of TorchLens's JAX preview, cold, for the values of five operations and for their gradients too.
  Needs torchlens; left out without it.
"""

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp

import jaxgrad
from jaxgrad import watch

LINES, LIVE = 2000, 50
LIMITS = {"trace": 3.0, "jitted": 1.05, "port": 5.0}
SIZE, STEPS = 4, 3


def long_function():
    """A function of many lines, each of which assigns a variable."""
    lines = (f"    v{i % LIVE} = jnp.sin(x) * {i}.0 + x\n" for i in range(LINES))
    namespace = {"jnp": jnp, "__name__": "__main__"}
    exec(compile("def long(x):\n" + "".join(lines) + "    return v0\n", "long.py", "exec"), namespace)
    return namespace["long"]


def seconds(call, clock):
    start = clock()
    jax.block_until_ready(call())
    return clock() - start


def ratio(plain, watched, repeats, clock=time.perf_counter):
    """Median and spread of watched over plain, by pairs in turns, after one of each."""
    plain(), watched()
    pairs = [(seconds(plain, clock), seconds(watched, clock)) for _ in range(repeats)]
    ratios = sorted(b / a for a, b in pairs)
    return {
        "plain_s": round(statistics.median(a for a, _ in pairs), 6),
        "ratio": round(statistics.median(ratios), 3),
        "least": round(ratios[0], 3),
        "most": round(ratios[-1], 3),
    }


def tracing(repeats):
    long = long_function()
    watched = watch(long)
    record = jax.eval_shape(jaxgrad.retain_grads(watched), 0.5)
    assert len(record.names) == LINES, len(record.names)
    # Of the processor's time: tracing is Python alone, and other load would count otherwise.
    return ratio(lambda: traced(long), lambda: traced(watched), repeats, time.process_time)


def traced(fun):
    """Traces a function anew: JAX knows one again that it has traced."""
    return jax.make_jaxpr(lambda x: fun(x))(0.5).consts


def jitted(repeats):
    def chain(x):
        for _ in range(20):
            x = jnp.sin(x) * 1.5 + 0.25 * x
        return jnp.sum(x)

    x = jnp.linspace(0.0, 1.0, 100_000)
    plain, watched = jax.jit(chain), jax.jit(watch(chain))
    assert plain.lower(x).as_text() == watched.lower(x).as_text()
    assert plain(x) == watched(x)
    return ratio(lambda: plain(x), lambda: watched(x), 20 * repeats)


def port(way):
    """Seconds from the three lines to the name of the first mistake, in this process."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Original(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln1, self.ln2 = nn.LayerNorm(SIZE), nn.LayerNorm(SIZE)
            self.q, self.k, self.v, self.out = (nn.Linear(SIZE, SIZE) for _ in range(4))
            self.fc1, self.fc2 = nn.Linear(SIZE, 2 * SIZE), nn.Linear(2 * SIZE, SIZE)

        def forward(self, x):
            u = self.ln1(x)
            scores = self.q(u) @ self.k(u).transpose(-1, -2) / SIZE**0.5
            weights = torch.softmax(scores, -1)
            mid = x + self.out(weights @ self.v(u))
            act = functional.gelu(self.fc1(self.ln2(mid)))
            return (mid + self.fc2(act)).square().mean()

    def norm(p, x):
        centred = x - x.mean(-1, keepdims=True)
        return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p["weight"] + p["bias"]

    def linear(p, x):
        return x @ p["weight"].T + p["bias"]

    def loss(params, x):
        ln1 = norm(params["ln1"], x)
        scores = linear(params["q"], ln1) @ jnp.swapaxes(linear(params["k"], ln1), -1, -2) / SIZE  # not its root
        weights = jax.nn.softmax(scores)
        mid = x + linear(params["out"], weights @ linear(params["v"], ln1))
        act = jax.nn.gelu(linear(params["fc1"], norm(params["ln2"], mid)))  # the approximate one
        return jnp.mean((mid + linear(params["fc2"], act)) ** 2)

    torch.manual_seed(0)
    model, x = Original(), torch.randn(2, STEPS, SIZE)
    params = {
        name: {key: jnp.asarray(p.detach().numpy()) for key, p in layer.named_parameters()}
        for name, layer in model.named_children()
    }
    x_jax = jax.block_until_ready(jnp.asarray(x.numpy()))
    start, start_cpu = time.perf_counter(), time.process_time()
    want = jaxgrad.retain_torch(model)(x)
    retained = jaxgrad.retain_grads(watch(loss), argnums=0)
    got = (jax.jit(retained) if way == "jitted" else retained)(params, x_jax)
    comparison = jaxgrad.compare(got, want, names=jaxgrad.align(got, want))
    name = comparison.first_divergence.name
    took = time.perf_counter() - start, time.process_time() - start_cpu
    assert name == "scores", name
    return took


def torchlens(way):
    """Seconds of TorchLens's JAX preview for a program of five operations, in this process."""
    import torchlens as tl

    def five(params, x):
        a = jnp.sin(params * x)
        return jnp.sum(jnp.exp(a) + x)

    p, x = jnp.ones(4), jnp.arange(4.0)
    jax.block_until_ready(x)
    start, start_cpu = time.perf_counter(), time.process_time()
    if way == "gradients":
        from torchlens.backends.jax import GradOptions

        tl.trace(five, [p, x], backend="jax", grad_options=GradOptions(params=p, intermediate_grads=True))
    else:
        tl.trace(five, [p, x], backend="jax")
    return time.perf_counter() - start, time.process_time() - start_cpu


def in_a_process(what, way):
    run = subprocess.run([sys.executable, __file__, "--alone", what, way], capture_output=True, text=True, check=False)
    return json.loads(run.stdout) if run.returncode == 0 else run.stderr.strip().splitlines()[-1]


def processes(what, ways, repeats):
    for way in ways:
        found = [in_a_process(what, way) for _ in range(repeats)]
        if isinstance(found[0], str):
            yield {"case": what, "way": way, "failed": found[0]}
        else:
            wall, cpu = ([round(times[i], 2) for times in found] for i in (0, 1))
            yield {
                "case": what,
                "way": way,
                "seconds": statistics.median(wall),
                "cpu_s": statistics.median(cpu),
                "each": wall,
            }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=["trace", "jitted", "port", "torchlens"])
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps({"port": port, "torchlens": torchlens}[options.alone[0]](options.alone[1])))
        return
    print(json.dumps({"python": platform.python_version(), "jax": jax.__version__, "limits": LIMITS}))
    for case, measure in (("trace", tracing), ("jitted", jitted)):
        if options.only in (None, case):
            print(json.dumps({"case": case, **measure(options.repeats)}))
    for what, needs, ways in (
        ("port", "torch", ("as they stand", "jitted")),
        ("torchlens", "torchlens", ("values", "gradients")),
    ):
        if options.only in (None, what) and importlib.util.find_spec(needs):
            for line in processes(what, ways, max(options.repeats // 2, 1)):
                print(json.dumps(line))


if __name__ == "__main__":
    main()
