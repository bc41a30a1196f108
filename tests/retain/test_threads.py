"""retain_grads, ledger and compare in several threads at once give what they give one after the other."""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import compare, ledger, retain_grads, tag


def chain(depth):
    """A function with `depth` tags of its own names, which no other thread has."""

    def of(x):
        for i in range(depth):
            x = tag(jnp.sin(x * (depth + 1)), f"v{depth}_{i}")
        return x

    return of


def retained(depth):
    record = retain_grads(chain(depth))(0.3)
    with jax.enable_x64(depth % 2 == 0):  # a setting of this thread alone
        wide = retain_grads(chain(depth))(jnp.asarray(0.3))
    return record, wide, ledger(chain(depth))(0.3).nodes


# JAX writes an entry of its compilation cache in place: a thread may read one half written, and compiles it itself.
@pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache entry")
def test_threads_do_not_see_one_another():
    depths = [1 + i % 6 for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(retained, depths))
    for depth, (record, wide, nodes) in zip(depths, found, strict=True):
        alone = retain_grads(chain(depth))(0.3)
        assert record.names == tuple(f"v{depth}_{i}" for i in range(depth))
        assert compare(record, alone, ulp=0).ok
        assert wide.output.dtype == (np.float64 if depth % 2 == 0 else np.float32)
        assert list(nodes) == ["x", *record.names]
