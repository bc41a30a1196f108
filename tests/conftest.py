"""What every test module shares: two CPU devices, the dtypes, and how hypothesis runs."""

import os
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import settings

# JAX reads it when it first asks for a device: what is sharded is tested as sharded.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"

DTYPES = ("float16", "bfloat16", "float32", "float64")

# No deadline: the first example of a test compiles. The same examples on every run: a failure is there the next time.
settings.register_profile("jaxgrad", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("jaxgrad")


@pytest.fixture(params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> Iterator[np.dtype[Any]]:
    """Each dtype in turn; for float64, JAX is in 64-bit mode."""
    with jax.enable_x64(request.param == "float64"):
        yield jax.numpy.dtype(request.param)
