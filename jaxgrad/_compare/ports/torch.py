"""retain_torch: a PyTorch function or module run once, as a Record named as the other side is.

PyTorch is imported in here only, when it is used. Gradients are taken with respect to the edge of the graph that a
tensor stands on when it is named: what is modified in place afterwards keeps its value and its gradient, and no
`.grad` is written.
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgrad._compare.entries import NO_GRADIENT_ASKED, is_tensor
from jaxgrad._compare.ports.torch_hooks import frames_watched, module_paths, outputs_hooked
from jaxgrad._compare.ports.torch_state import preserved
from jaxgrad._errors import InputError, OutputError, TagError
from jaxgrad._record import Record

Tensor = Any  # torch.Tensor
Tree = Any  # tensors in tuples, lists and dicts


def retain_torch(
    fun_or_module: Callable[..., Any], *, loss: Callable[[Any], Any] | None = None, cotangent: Any = None
) -> Callable[..., Record]:
    r"""Transforms a PyTorch function or module to return the value and gradient of all that has a name in it.

    Nothing is edited: the output of each module is named by its path ("layers[0].norm"), a local variable of
    `forward` or of another method by its module's path and its name ("layers[0].h"), one of the function itself by its
    name, one of a function of the same file that it calls as "helper.u"; each parameter by its own
    ("layers[0].weight").
    A variable assigned more than once is numbered, as is the output of a module called more than once. For output $y$
    and each such tensor $v$ the record has $v$ and $\partial y / \partial v$, as NumPy arrays.

    The modules are left as they were: `.grad`, parameters, buffers, training mode, hooks, attributes, and the state of
    the random number generators, also when the function raises.

    Args:
      fun_or_module: returns a real scalar, or what `loss` makes one of. Modules are found among its arguments, in its
        closure and among the globals that it uses.
      loss: output -> real scalar.
      cotangent: for an output that is one tensor of any shape, what to multiply it with, in place of `loss`.

    Returns:
      A function of the same PyTorch arguments that returns a `Record`. Its `arg_grads` has an entry for each argument,
      a gradient for each floating-point tensor in it.

    Raises:
      InputError: a tensor is not on the CPU; inference mode is on; `loss` and `cotangent` are both given.
      OutputError: the output is no real scalar and there is no `loss`; it depends on nothing that has a gradient.
      TagError: two tensors would have one name; one was overwritten through `.data` after it was named.
    """
    if not callable(fun_or_module):
        raise InputError(f"`fun_or_module` is a {type(fun_or_module).__name__}; expected a PyTorch module or function.")
    if loss is not None and cotangent is not None:
        raise InputError("`loss` and `cotangent` are both given; expected one of them.")

    @functools.wraps(fun_or_module, assigned=("__module__", "__name__", "__qualname__"), updated=())
    def with_grads(*args: Any, **kwargs: Any) -> Record:
        import torch

        if torch.is_inference_mode_enabled():
            raise InputError(
                "inference mode is on, in which PyTorch keeps no graph and has no gradients; expected it to be off. "
                "Call this outside of torch.inference_mode()."
            )
        paths = module_paths(fun_or_module, args, kwargs)
        inputs: list[Tensor] = []
        fresh_args = tuple(_mapped(arg, functools.partial(_fresh, inputs)) for arg in args)
        names = _Named()
        with preserved(list(paths)), torch.enable_grad():
            parameters = _parameters(paths)
            for name, parameter in parameters.items():
                names.add(name, parameter)
            with outputs_hooked(paths, names.add), frames_watched(fun_or_module, paths, names.add):
                output = fun_or_module(*fresh_args, **kwargs)
            scalar = _scalar(output, loss, cotangent)
            return _record(output if loss is None else scalar, scalar, names, fresh_args, inputs)

    return with_grads


@dataclass(frozen=True, eq=False)
class _Name:
    """A tensor as it was when it was named: its value, and its edge of the graph, None if it has no gradient."""

    given: str
    tensor: Tensor
    value: Tensor
    version: int
    edge: Any


class _Named:
    """What has a name, in program order."""

    def __init__(self) -> None:
        self.all: list[_Name] = []

    def add(self, name: str, value: Tree) -> None:
        """Names a tensor, or each tensor of a container by its path in it."""
        for path, tensor in _leaves(value):
            _on_cpu(name + path, tensor)
            self.all.append(_Name(name + path, tensor, tensor.detach().clone(), tensor._version, edge_of(tensor)))


def edge_of(tensor: Tensor) -> Any:
    from torch.autograd.graph import get_gradient_edge

    return get_gradient_edge(tensor) if tensor.requires_grad else None


def _numbered(named: list[_Name]) -> dict[str, _Name]:
    uses, numbers = Counter(name.given for name in named), Counter[str]()
    found: dict[str, _Name] = {}
    for name in named:
        unique = f"{name.given}[{numbers[name.given]}]" if uses[name.given] > 1 else name.given
        numbers[name.given] += 1
        if unique in found:
            raise TagError(f'two tensors would be named "{unique}"; expected a name for each. Rename a variable.')
        found[unique] = name
    return found


def _record(output: Tree, scalar: Tensor, names: _Named, args: tuple[Tree, ...], inputs: list[Tensor]) -> Record:
    import torch

    found = _numbered(names.all)
    for name, item in found.items():
        same = item.tensor._version == item.version
        if same and not torch.equal(torch.nan_to_num(item.tensor.detach()), torch.nan_to_num(item.value)):
            raise TagError(
                f'the tensor "{name}" was overwritten after it was named, in a way that PyTorch does not see (through '
                "`.data`, NumPy or another view of its memory), so its gradient would be wrong; expected a new tensor."
            )
    edges = {name: item.edge for name, item in found.items() if item.edge is not None}
    bars = torch.autograd.grad(scalar, [*edges.values(), *map(edge_of, inputs)], allow_unused=True)
    grads = dict(zip(edges, bars, strict=False))
    arg_bars = iter(bars[len(edges) :])
    notes = {name: _why_none(item) for name, item in found.items() if grads.get(name) is None}
    return Record(
        output=_mapped(output, _array),
        names=tuple(found),
        values={name: _array(item.value) for name, item in found.items()},
        grads={name: None if grads.get(name) is None else _array(grads[name], grad=True) for name in found},
        arg_grads=tuple(_arg_grads(arg, arg_bars) for arg in args),
        notes=notes,
    )


def _why_none(item: _Name) -> str:
    if not (item.value.is_floating_point() or item.value.is_complex()):
        return f"{str(item.value.dtype).removeprefix('torch.')} has no gradient"
    return "does not reach the output" if item.edge is not None else NO_GRADIENT_ASKED


def _scalar(output: Tree, loss: Callable[[Any], Any] | None, cotangent: Any) -> Tensor:
    import torch

    scalar = output if loss is None else loss(output)
    if cotangent is not None:
        if not is_tensor(output) or tuple(output.shape) != tuple(torch.as_tensor(cotangent).shape):
            shape = list(output.shape) if is_tensor(output) else type(output).__name__
            given = list(torch.as_tensor(cotangent).shape)
            raise OutputError(f"the output is {shape} and `cotangent` is {given}; expected a tensor of that shape.")
        scalar = (output * torch.as_tensor(cotangent)).sum()
    if not is_tensor(scalar) or scalar.numel() != 1 or not scalar.is_floating_point():
        what = f"{scalar.dtype}{list(scalar.shape)}" if is_tensor(scalar) else f"a {type(scalar).__name__}"
        raise OutputError(
            f"the output is {what}; expected a real scalar. Give `loss=`, a function of the output, as "
            "retain_torch(model, loss=lambda y: y.sum()), or `cotangent=`."
        )
    _on_cpu("output", scalar)
    if not scalar.requires_grad:
        raise OutputError(
            "the output depends on nothing that has a gradient; expected a parameter or a floating-point argument on "
            "the way to it. Is something detached, or under torch.no_grad()?"
        )
    return scalar


def _parameters(paths: dict[Any, str]) -> dict[str, Tensor]:
    """Every parameter once, by the path of its module and its own name."""
    found: dict[int, tuple[str, Tensor]] = {}
    for module, path in paths.items():
        for name, parameter in module.named_parameters(recurse=False):
            found.setdefault(id(parameter), (f"{path}.{name}" if path else name, parameter))
    return dict(found.values())


def _fresh(inputs: list[Tensor], tensor: Tensor) -> Tensor:
    """A copy of an argument, whose gradient is asked for; the caller's own is neither marked nor modified."""
    _on_cpu("an argument", tensor)
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor.clone()
    inputs.append(tensor.detach().clone().requires_grad_())
    return inputs[-1].clone()


def _arg_grads(arg: Tree, bars: Iterator[Tensor]) -> Tree:
    def gradient(tensor: Tensor) -> Any:
        if not (tensor.is_floating_point() or tensor.is_complex()):
            return None
        bar = next(bars)
        return np.zeros(tuple(tensor.shape), _array(tensor).dtype) if bar is None else _array(bar, grad=True)

    return _mapped(arg, gradient, other=lambda _: None)


def _mapped(tree: Tree, f: Callable[[Tensor], Any], other: Callable[[Any], Any] = lambda leaf: leaf) -> Any:
    """The containers of a tree with `f` of each tensor in it."""
    if is_tensor(tree):
        return f(tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_mapped(item, f, other) for item in tree))
    if isinstance(tree, (tuple, list)):
        return type(tree)([_mapped(item, f, other) for item in tree])
    if type(tree) is dict:
        return {key: _mapped(item, f, other) for key, item in tree.items()}
    return other(tree)


def _leaves(tree: Tree, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Path and tensor of each tensor, the path as JAX writes it."""
    if is_tensor(tree):
        yield path, tree
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        for name, item in zip(tree._fields, tree, strict=True):
            yield from _leaves(item, f"{path}.{name}")
    elif isinstance(tree, (tuple, list)):
        for i, item in enumerate(tree):
            yield from _leaves(item, f"{path}[{i}]")
    elif isinstance(tree, dict):
        for key, item in tree.items():
            yield from _leaves(item, f"{path}[{key!r}]")


def _on_cpu(name: str, tensor: Tensor) -> None:
    if tensor.device.type != "cpu":
        raise InputError(
            f'"{name}" is on the device {tensor.device}; expected the CPU, where float32 is float32 (a GPU multiplies '
            "in TF32 by default). Move the model and its inputs by .cpu()."
        )


def _array(tensor: Tensor, *, grad: bool = False) -> Any:
    """A tensor as NumPy has it. PyTorch's gradient of a complex number is the conjugate of JAX's."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if re.fullmatch("torch.bfloat16", str(tensor.dtype)):  # NumPy itself has none
        return np.asarray(tensor.float().numpy()).astype(jnp.bfloat16)
    array = np.array(tensor.numpy())
    return array.conj() if grad and np.iscomplexobj(array) else array
