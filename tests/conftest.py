"""What every test module shares: two CPU devices, what is compiled, the dtypes, and how hypothesis runs."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import settings

# JAX reads it when it first asks for a device: what is sharded is tested as sharded.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"

# Tests trace many a program that another test has compiled already: XLA compiles each once for all workers. The key of
# an entry is the whole program with its options, so that what is run is what would have been compiled; XLA's own caches
# would put their path into it. An entry that is read half written is one that is not there: JAX warns and compiles.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAXGRAD_TESTS_COMPILED"] = tempfile.mkdtemp(prefix="jaxgrad-compiled-")
    atexit.register(shutil.rmtree, os.environ["JAXGRAD_TESTS_COMPILED"], ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", os.environ["JAXGRAD_TESTS_COMPILED"])
jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

collect_ignore = ["typing"]  # for type checkers, not to be run

DTYPES = ("float16", "bfloat16", "float32", "float64")

# No deadline: the first example of a test compiles. The same examples on every run: a failure is there the next time.
settings.register_profile("jaxgrad", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("jaxgrad")


@pytest.fixture(params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> Iterator[np.dtype[Any]]:
    """Each dtype in turn; for float64, JAX is in 64-bit mode."""
    with jax.enable_x64(request.param == "float64"):
        yield jax.numpy.dtype(request.param)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Neighbours run in one worker, for they share what is compiled; one that is done helps another."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getvalue("dist") == "load" else None
