"""What the accuracy costs: rows a second of `neuron.backprop`, beside those of the document's chain.

    python bench/throughput.py [--rows N] [--repeats N]

Contenders, each `jit(vmap(...))` over the same float32 rows, all 12 quantities of the neuron out:

    chain, by hand       the local derivatives of part 1 multiplied out, as `neuron.chain_rule` does
    chain, same layout   the same, with df/dw put together as `backprop` does, which is faster: the fair measure of what
                         the accuracy alone costs
    chain, by jax.vjp    part 2 as it stands in the document: one forward pass and one backward pass through z, k, h, f
    backprop             `neuron.backprop`

They take turns, so that whatever else the machine does hits them alike; the ratio is the median over turns. One JSON
line a contender, then a table.
"""

import argparse
import json
import platform
import time
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad import Record, neuron

W = jnp.array([0.5, -0.3, 0.1])


def by_hand(x: Any, w: Any) -> dict[str, Any]:
    columns = neuron.quantities(neuron.chain_rule(x, w))
    return {name: column for name, column in columns.items() if not name.startswith("d") or name.startswith("df/")}


def by_hand_same_layout(x: Any, w: Any) -> dict[str, Any]:
    z = neuron.z(x, w)
    k = neuron.k(z)
    h = neuron.h(k)
    f = neuron.f(h)
    h_bar = -1 / (h * h)
    z_bar = h_bar * -k
    values, grads = {"z": z, "k": k, "h": h, "f": f}, {"z": z_bar, "k": h_bar, "h": h_bar, "f": jnp.ones_like(f)}
    return neuron.quantities(Record(f, neuron.NAMES, values, grads, (z_bar * w[:-1], jnp.append(z_bar * x, z_bar))))


def by_vjp(x: Any, w: Any) -> dict[str, Any]:
    z, z_pullback = jax.vjp(neuron.z, x, w)
    k, k_pullback = jax.vjp(neuron.k, z)
    h, h_pullback = jax.vjp(neuron.h, k)
    f, f_pullback = jax.vjp(neuron.f, h)
    f_bar = jnp.ones_like(f)
    (h_bar,) = f_pullback(f_bar)
    (k_bar,) = h_pullback(h_bar)
    (z_bar,) = k_pullback(k_bar)
    values, grads = {"z": z, "k": k, "h": h, "f": f}, {"z": z_bar, "k": k_bar, "h": h_bar, "f": f_bar}
    return neuron.quantities(Record(f, neuron.NAMES, values, grads, z_pullback(z_bar)))


def backprop(x: Any, w: Any) -> dict[str, Any]:
    return neuron.quantities(neuron.backprop(x, w))


CONTENDERS = {
    "chain, by hand": by_hand,
    "chain, same layout": by_hand_same_layout,
    "chain, by jax.vjp": by_vjp,
    "backprop": backprop,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--repeats", type=int, default=31)
    arguments = parser.parse_args()
    print("| rows | contender | M rows/s (median) | of the chain by hand | of the same layout |\n|---|---|---|---|---|")
    lines = []
    for rows in arguments.rows:
        seconds = measure(jax.random.normal(jax.random.key(0), (rows, 2)), arguments.repeats)
        for name, taken in seconds.items():
            ratio, alike = (
                float(np.median(seconds[chain] / taken)) for chain in ("chain, by hand", "chain, same layout")
            )
            speed = rows / 1e6 / taken
            print(f"| {rows:,} | {name} | {np.median(speed):.1f} | {ratio:.2f} | {alike:.2f} |")
            lines.append({
                "contender": name, "rows": rows, "million_rows_per_s": round(float(np.median(speed)), 2),
                "quartiles": np.percentile(speed, [25, 75]).round(2).tolist(), "of_chain_by_hand": round(ratio, 3),
                "of_same_layout": round(alike, 3),
                "device": jax.devices()[0].device_kind, "machine": platform.machine(),
                "versions": {name: version(name) for name in ("jax", "jaxlib", "numpy")},
            })  # fmt: skip
    print("\n" + "\n".join(map(json.dumps, lines)))


def measure(x: Any, repeats: int) -> dict[str, Any]:
    """Seconds of each contender in each turn, compiled before, every answer checked first."""
    compiled = {
        name: jax.jit(jax.vmap(fun, in_axes=(0, None))).lower(x, W).compile() for name, fun in CONTENDERS.items()
    }
    want = compiled["chain, by hand"](x, W)
    for name, fun in compiled.items():
        for quantity, column in fun(x, W).items():
            np.testing.assert_allclose(column, want[quantity], rtol=2e-6, err_msg=f"{name}: {quantity}")
    del want
    taken: dict[str, list[float]] = {name: [] for name in compiled}
    for _ in range(repeats):
        for name, fun in compiled.items():
            begun = time.perf_counter()
            jax.block_until_ready(fun(x, W))
            taken[name].append(time.perf_counter() - begun)
    return {name: np.array(seconds) for name, seconds in taken.items()}


if __name__ == "__main__":
    main()
