"""Work done ahead, in another thread."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np


def ahead(items: Iterable[Any]) -> Iterator[Any]:
    """The same items, the next one made while the last one is used."""
    waiting, last = _with_settings(iter(items).__next__), object()

    def coming() -> Any:
        try:
            return waiting()
        except StopIteration:  # which a future cannot hold
            return last

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(coming)
        while (item := future.result()) is not last:
            future = pool.submit(coming)
            yield item
            del item  # or its memory would not be free before the next item is asked for


def _with_settings(work: Callable[[], Any]) -> Callable[[], Any]:
    """`work` for another thread, where JAX would have its defaults for the settings that change results."""
    x64 = jax.dtypes.canonicalize_dtype(np.float64) == np.float64
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]

    def run() -> Any:
        with jax.enable_x64(x64), jax.default_matmul_precision(precision):
            return work()

    return run
