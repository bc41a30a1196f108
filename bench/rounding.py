"""Verdicts: false alarms on honest ports from PyTorch, and planted mistakes, by jaxgrad and by its peers.

    python bench/rounding.py [--dtype float32] [--seeds 100] [--only NAME] [--hostile]   (needs torch and chex)

prints one JSON line a program (the pairs that differ by each verdict), then one a planted mistake (the pairs in which
it is named; by a peer, seen at all). Verdicts: "rounding", compare with with_rounding's record; "default", compare of
an eager record with PyTorch's tensors; "jitted", compare of a jitted one, which knows its program, but no arguments;
"eager, jit", "jit, vmap" and "vmap, eager", compare of one program with itself. Peers are at their own defaults.
"worse" is which side of an alarm by rounding lies further from the same program in float64; "most", how many times its
uncertainty a number is off at most. Last comes the cost of `with_rounding`. With --hostile the programs and mistakes
are those of `hostile.py`, which are hard to judge.
"""

import argparse
import json
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import chex
import hostile
import jax
import jax.numpy as jnp
import numpy as np
import ports
import torch
from ports import Case

import jaxgrad
from jaxgrad import Comparison, Record, compare, in_float64, retain_grads, with_rounding

PLANTED_SEEDS = 20


def arguments(case: Case, seed: int, dtype: str) -> tuple[Any, ...]:
    given = case.draw(np.random.default_rng(seed))
    return jax.tree.map(lambda a: jnp.asarray(a, dtype if a.dtype == np.float32 else a.dtype), given)


def original(case: Case, given: tuple[Any, ...]) -> dict[str, Any]:
    """PyTorch's tensors by name, gradients and all, as NumPy's arrays."""
    kept: dict[str, Any] = {}

    def keep(tensor: Any, name: str) -> Any:
        if not isinstance(tensor, list):
            tensor.retain_grad()
        kept[name] = tensor
        return tensor

    leaves, structure = jax.tree.flatten(given)
    tensors = [_tensor(leaf) for leaf in leaves]
    output = case.original(keep, *jax.tree.unflatten(structure, tensors))
    output.backward()
    paths = jax.tree_util.tree_flatten_with_path(given)[0]
    want = {name: _stacked(kept[name], lambda t: t) for name in kept}
    want |= {f"{name}.grad": _stacked(kept[name], lambda t: t.grad) for name in kept}
    grads = {f"arg{jax.tree_util.keystr(p)}.grad": t.grad for (p, _), t in zip(paths, tensors, strict=True)}
    return want | {"output": _array(output)} | {name: _array(g) for name, g in grads.items() if g is not None}


def _tensor(leaf: Any) -> Any:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return torch.tensor(np.asarray(leaf))
    wide = np.asarray(leaf, np.float64 if leaf.dtype == np.float64 else np.float32)
    return torch.tensor(wide).to(getattr(torch, str(leaf.dtype))).requires_grad_()


def _stacked(tensor: Any, of: Callable[[Any], Any]) -> np.ndarray[Any, Any]:
    return np.stack([_array(of(t)) for t in tensor]) if isinstance(tensor, list) else _array(of(tensor))


def _array(tensor: Any) -> np.ndarray[Any, Any]:
    tensor = tensor.detach()
    return np.asarray(tensor.float().numpy().astype(jnp.bfloat16) if tensor.dtype == torch.bfloat16 else tensor.numpy())


def labelled(record: Record) -> dict[str, Any]:
    grads, _ = jax.tree_util.tree_flatten_with_path(record.arg_grads)
    return {
        **record.values,
        "output": record.output,
        **{f"{name}.grad": record.grads[name] for name in reversed(record.names)},
        **{f"arg{jax.tree_util.keystr(path)}.grad": leaf for path, leaf in grads},
    }


def _numpy(a: Any, b: Any) -> None:
    wide = np.float64 if a.dtype == np.float64 else np.float32
    np.testing.assert_allclose(np.asarray(a, wide), np.asarray(b, wide))


def _torch(a: Any, b: Any) -> None:
    a, b = (_tensor(x).detach() for x in (a, b))
    torch.testing.assert_close(a, b)


PEERS: dict[str, Callable[[Any, Any], None]] = {
    "numpy.testing.assert_allclose": _numpy,
    "chex.assert_trees_all_close": chex.assert_trees_all_close,
    "torch.testing.assert_close": _torch,
}


def refuses(peer: Callable[[Any, Any], None], got: Record, want: Mapping[str, Any]) -> bool:
    """Does a peer refuse any of the arrays?"""
    for name, array in labelled(got).items():
        if name in want:
            try:
                peer(np.asarray(array), want[name])
            except AssertionError:
                return True
    return False


def worse(case: Case, given: tuple[Any, ...], comparison: Comparison) -> str:
    """Which side of the first row that differs is further from the program in float64."""
    row = comparison.first_divergence
    assert row is not None
    exact = np.asarray(labelled(in_float64(case.port)(*given))[row.label], np.float64)[row.index]
    return "PyTorch" if abs(float(row.want) - exact) >= abs(float(row.got) - exact) else "JAX"


def alarms(name: str, case: Case, dtype: str, seeds: int) -> dict[str, Any]:
    found, sides = Counter[str](), Counter[str]()
    jitted, eager, known = jax.jit(retain_grads(case.port)), retain_grads(case.port), with_rounding(case.port)
    everything = [arguments(case, seed, dtype) for seed in range(seeds)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *everything)
    mapped = jax.device_get(jax.jit(jax.vmap(retain_grads(case.port)))(*stacked))
    largest = 0.0
    for seed, given in enumerate(everything):
        want, by_jit, alone = original(case, given), jax.device_get(jitted(*given)), eager(*given)
        by_vmap = jax.tree.map(lambda leaf, seed=seed: leaf[seed], mapped)
        rounding = known(*given)
        by_rounding = compare(by_jit, want, rounding=rounding)
        largest = max(largest, *(times(by_jit, want, rounding)))
        if not by_rounding.ok:
            sides[worse(case, given, by_rounding)] += 1
        verdicts = {
            "rounding": by_rounding.ok,
            "default": compare(alone, want).ok,
            "jitted": compare(by_jit, want).ok,
            "eager, jit": compare(by_jit, alone).ok,
            "jit, vmap": compare(by_vmap, by_jit).ok,
            "vmap, eager": compare(by_vmap, alone).ok,
            **{peer: not refuses(assertion, by_jit, want) for peer, assertion in PEERS.items()},
        }
        for verdict, ok in verdicts.items():
            found[verdict] += not ok
    return {"program": name, "seeds": seeds, "alarms": dict(found), "worse": dict(sides), "most": round(largest, 3)}


def times(got: Record, want: Mapping[str, Any], rounding: Record) -> Iterator[float]:
    """How many times its uncertainty each array is off, at most."""
    for name, array in labelled(got).items():
        if name in want and name in rounding.uncertainty:
            with np.errstate(all="ignore"):
                off = np.abs(np.asarray(array, np.float64) - np.asarray(want[name], np.float64))
                yield float(np.nanmax(off / np.maximum(rounding.uncertainty[name], 1e-300), initial=0))


def planted(mistake: str, case: Case, wrong: Callable[..., Any], label: str, dtype: str) -> dict[str, Any]:
    found = Counter[str]()
    jitted, eager, known = jax.jit(retain_grads(wrong)), retain_grads(wrong), with_rounding(case.port)
    for seed in range(PLANTED_SEEDS):
        given = arguments(case, seed, dtype)
        want, by_jit = original(case, given), jax.device_get(jitted(*given))
        named = {
            "rounding": compare(by_jit, want, rounding=known(*given)),
            "default": compare(eager(*given), want),
            "jitted": compare(by_jit, want),
        }
        for verdict, comparison in named.items():
            first = comparison.first_divergence
            found[verdict] += first is not None and first.label == label
        for peer, assertion in PEERS.items():
            found[peer] += refuses(assertion, by_jit, want)
    return {"mistake": mistake, "at": label, "seeds": PLANTED_SEEDS, "found": dict(found)}


def cost(rows: int, width: int) -> dict[str, Any]:
    """Of attention: the first call, and later ones in runs of the jitted, retained program."""
    rng = np.random.default_rng(0)
    p = {name: jnp.asarray(rng.standard_normal((width, width)) / width**0.5, jnp.float32) for name in "qkvw"}
    x = jnp.asarray(rng.standard_normal((rows, width)), jnp.float32)
    port = ports.CASES["causal attention, 8"].port
    known, run = with_rounding(port), jax.jit(retain_grads(port))

    def seconds(call: Callable[[], Any]) -> tuple[float, float]:
        start, start_cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(call())
        return time.perf_counter() - start, time.process_time() - start_cpu

    jax.block_until_ready(retain_grads(port)(p, x))  # so that JAX's own start is not counted
    first = seconds(lambda: known(p, x))
    seconds(lambda: run(p, x))
    turns = [(seconds(lambda: known(p, x)), seconds(lambda: run(p, x))) for _ in range(9)]
    ratios = sorted(a[1] / b[1] for a, b in turns)
    return {
        "cost": f"attention, {rows} rows by {width}",
        "first_call_s": round(first[0], 2),
        "first_call_cpu_s": round(first[1], 2),
        "later_cpu_s": round(sorted(a[1] for a, _ in turns)[4], 4),
        "runs": round(ratios[4], 1),
        "spread": [round(ratios[0], 1), round(ratios[-1], 1)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dtype", default="float32", choices=["float16", "bfloat16", "float32", "float64"])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--hostile", action="store_true", help="the programs and mistakes that are hard to judge")
    parser.add_argument("--only", help="of one program or mistake, or 'cost'")
    given = parser.parse_args()
    about = {"dtype": given.dtype, "jax": jax.__version__, "torch": torch.__version__, "jaxgrad": jaxgrad.__version__}
    about |= {"machine": f"cpu, {platform.machine()}"}
    programs = hostile if given.hostile else ports
    with jax.enable_x64(given.dtype == "float64"):
        for name, case in programs.CASES.items():
            if given.only in (None, name):
                print(json.dumps(alarms(name, case, given.dtype, given.seeds) | about), flush=True)
        for name, (of, wrong, label) in programs.MISTAKES.items():
            if given.only in (None, name):
                print(json.dumps(planted(name, programs.CASES[of], wrong, label, given.dtype) | about), flush=True)
        if given.only in (None, "cost") and not given.hostile:
            for rows, width in ((8, 16), (128, 64), (512, 128)):
                print(json.dumps(cost(rows, width) | about), flush=True)


if __name__ == "__main__":
    main()
