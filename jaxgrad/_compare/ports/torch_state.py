"""The state of PyTorch modules and of the random number generators, put back whatever happens."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

Module = Any  # torch.nn.Module


@contextmanager
def preserved(modules: list[Module]) -> Iterator[None]:
    """Puts back the attributes, parameters, buffers and hooks of modules, and the generators' states."""
    import torch

    python, numpy, generator = random.getstate(), np.random.get_state(), torch.get_rng_state()
    attributes = [(module, _shallow(module)) for module in modules]
    tensors = [(t, t.detach().clone(), t.grad, t.requires_grad) for module in modules for t in _tensors(module)]
    try:
        yield
    finally:
        for module, saved in attributes:
            _put_back(module, saved)
        with torch.no_grad():
            for tensor, value, grad, requires_grad in tensors:
                if not torch.equal(tensor.detach().view_as(value), value):
                    tensor.copy_(value)
                tensor.grad = grad
                if tensor.is_leaf:
                    tensor.requires_grad_(requires_grad)
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(generator)


def _tensors(module: Module) -> list[Any]:
    return [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]


def _shallow(module: Module) -> dict[str, Any]:
    """A module's attributes; its containers (parameters, buffers, hooks, lists) as copies beside themselves."""
    return {
        name: (value, value.copy() if isinstance(value, (dict, list, set)) else None)
        for name, value in module.__dict__.items()
    }


def _put_back(module: Module, saved: dict[str, Any]) -> None:
    module.__dict__.clear()
    for name, (value, content) in saved.items():
        if content is not None:
            value.clear()
            value.extend(content) if isinstance(value, list) else value.update(content)
        module.__dict__[name] = value
