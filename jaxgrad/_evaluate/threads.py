"""Work done ahead, in another thread."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import jax
import numpy as np

T = TypeVar("T")

WORTH = 1e-3  # seconds of work that are worth handing over to a thread: that takes a tenth of it


def ahead(items: Iterable[Any]) -> Iterator[Any]:
    """The same items, the next one made while the last one is used: in another thread, if that is worth it."""
    waiting, last, took = iter(items), object(), 0.0

    def coming() -> Any:
        nonlocal took
        begun = time.perf_counter()
        try:
            return next(waiting, last)
        finally:
            took = time.perf_counter() - begun

    elsewhere = with_settings(coming)
    with ThreadPoolExecutor(1) as pool:
        ready = _now(coming)
        while (item := ready()) is not last:
            ready = pool.submit(elsewhere).result if took > WORTH else _now(coming)
            yield item
            del item  # or its memory would not be free before the next item is asked for


def _now(work: Callable[[], Any]) -> Callable[[], Any]:
    """What returns the result of `work`, or raises its error, once it is asked for."""
    try:
        item = work()
    except BaseException as error:
        return partial(_fail, error)
    return lambda: item


def _fail(error: BaseException) -> Any:
    raise error


def with_settings(work: Callable[[], T]) -> Callable[[], T]:
    """`work` for another thread, where JAX would have its defaults for the settings that change results."""
    x64 = jax.dtypes.canonicalize_dtype(np.float64) == np.float64
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]

    def run() -> T:
        with jax.enable_x64(x64), jax.default_matmul_precision(precision):
            return work()

    return run
