"""Entries: what a comparison is of, one array each, in its order.

First the values in program order, each behind whether its branch was taken; then the gradients, output first.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from jaxgrad._errors import InputError
from jaxgrad._program.jaxpr import x64_as_traced
from jaxgrad._record import Record
from jaxgrad._types import Leaf, Value


@dataclass(frozen=True, eq=False)
class Entry:
    """One value, one gradient, or whether one branch was taken.

    Attributes:
      name: the tag's; "output"; or "arg[0]", "arg[1]['w']" for an argument.
      kind: "value", "gradient" or "reached".
      array: None where there is none.
      note: why there is none.
      is_zero: is having none the same as 0? PyTorch leaves `.grad` None where nothing reaches the output.
      weak: was it a Python number, which takes the other's dtype?
      uncertainty: how far an oracle's array may be off the truth; None where nothing is known of it.
    """

    name: str
    kind: str
    array: np.ndarray[Any, Any] | None
    note: str = ""
    is_zero: bool = False
    weak: bool = False
    uncertainty: Any = None

    @property
    def label(self) -> str:
        return label(self.name, self.kind)


Entries = dict[str, Entry]

NO_GRADIENT_ASKED = "does not require grad"  # the note of a PyTorch tensor that is constant or detached


def label(name: str, kind: str) -> str:
    """ "z" for the value of z, "z.grad" for its gradient, "z.reached" for whether its branch was taken."""
    return name + {"value": "", "gradient": ".grad", "reached": ".reached"}[kind]


def largest(entries: Entries, kind: str) -> float:
    """The largest finite number of a kind."""
    arrays = [entry.array for entry in entries.values() if entry.kind == kind and entry.array is not None]
    sizes = [np.abs(array.astype(np.complex128)) for array in arrays if array.size]
    return max((float(np.max(size[np.isfinite(size)], initial=0)) for size in sizes), default=0.0)


def of_record(record: Record) -> Entries:
    """The entries of a record, by label."""
    arg_grads, _ = tree_flatten_with_path(record.arg_grads)
    output = (("output" + keystr(path), leaf) for path, leaf in tree_flatten_with_path(record.output)[0])
    values: list[tuple[str, str, Any]] = []
    for name in record.names:
        values += [(name, "reached", record.reached[name])] if name in record.reached else []
        values.append((name, "value", record.values[name]))
    values += [(name, "value", leaf) for name, leaf in output if name not in record.names]
    grads = [(name, "gradient", record.grads[name]) for name in reversed(record.names)]
    grads += [("arg" + keystr(path), "gradient", leaf) for path, leaf in arg_grads]
    return _by_label(
        Entry(
            name,
            kind,
            None if leaf is None else _as_numpy(label(name, kind), leaf),
            note=record.notes.get(name, "") if kind == "gradient" else "",
            uncertainty=None if record.uncertainty_is_rounding else record.uncertainty.get(label(name, kind)),
        )
        for name, kind, leaf in (*values, *grads)
    )


def of_mapping(given: Mapping[Any, Any]) -> Entries:
    """The entries of a dict: "z" is the value of z, and its gradient too where it is a tensor; "z.grad" a gradient.

    Raises:
      InputError: a tensor requires grad, is no leaf and was not retained; none has a gradient yet; no array.
    """
    tensors = {key: item for key, item in given.items() if is_tensor(item)}
    differentiated = any(tensor.requires_grad for tensor in tensors.values())
    if differentiated and all(_gradient(_name(key), tensor) is None for key, tensor in tensors.items()):
        raise InputError(
            "no tensor in `want` has a gradient, though some require one; expected them after the backward pass. "
            "Call output.backward() first, or give tensor.detach() to compare values alone."
        )
    values, grads = [], []
    for key, item in given.items():
        name = _name(key)
        if name.endswith(".grad"):
            array = _of_tensor(item, grad=True) if is_tensor(item) else _as_numpy(name, item)
            grads.append(Entry(name.removesuffix(".grad"), "gradient", array, weak=_is_weak(item)))
            continue
        is_arg = re.match(r"arg\[", name) is not None
        if is_arg and not is_tensor(item):
            raise InputError(
                f"`want` has an array for {name}, and a Record holds no argument, only its gradient; expected that. "
                f'Write "{name}.grad": array.'
            )
        if not is_arg:
            array = _of_tensor(item.detach()) if is_tensor(item) else _as_numpy(name, item)
            values.append(Entry(name, "value", array, weak=_is_weak(item)))
        if is_tensor(item) and differentiated and name != "output":
            gradient = _gradient(name, item)
            why = "it reaches no output" if item.requires_grad else "the tensor is detached: it does not require grad"
            there = gradient is not None
            pulled = _of_tensor(gradient, grad=True) if there else None
            grads.append(Entry(name, "gradient", pulled, note="" if there else why, is_zero=True))
    return _by_label((*values, *reversed(grads)))


def is_tensor(item: Value) -> bool:
    """Is it a PyTorch tensor? Told by what it can do: torch is never imported."""
    return all(hasattr(item, name) for name in ("detach", "requires_grad", "is_leaf", "retains_grad"))


def _gradient(name: str, tensor: Any) -> Any:
    if not tensor.requires_grad or name == "output":
        return None
    if not tensor.is_leaf and not tensor.retains_grad:
        raise InputError(
            f"the tensor {name} requires grad, is no leaf and was not retained, so PyTorch has thrown its gradient "
            f"away; expected one that was retained. Call {name}.retain_grad() before backward(), or give "
            f"{name}.detach() to compare its value alone."
        )
    return tensor.grad


def _of_tensor(tensor: Any, *, grad: bool = False) -> np.ndarray[Any, Any]:
    """A tensor as NumPy has it. PyTorch's gradient of a complex number is the conjugate of JAX's."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    if str(tensor.dtype) == "torch.bfloat16":  # NumPy itself has none
        return np.asarray(tensor.float().numpy()).astype(jnp.bfloat16)
    array = np.asarray(tensor.numpy())
    return array.conj() if grad and np.iscomplexobj(array) else array


def _name(key: Value) -> str:
    if isinstance(key, int) and not isinstance(key, bool):
        return f"arg[{key}]"
    if not isinstance(key, str):
        raise InputError(f"`want` has the key {key!r}; expected a name, or an argument's position.")
    return key


def _as_numpy(name: str, leaf: Leaf) -> np.ndarray[Any, Any]:
    if isinstance(leaf, jax.core.Tracer):
        raise InputError(
            f"{name} is traced and has no number yet; expected arrays. Call compare outside of jit, vmap and grad."
        )
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if getattr(leaf, "dtype", None) == jax.dtypes.float0:
        return np.zeros(leaf.shape, bool)  # float0, the tangent of an integer, has but one value
    try:
        array = np.asarray(leaf)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is a {type(leaf).__name__}, {leaf!r:.40}; expected an array.") from error
    if array.dtype.kind in "OSUMm":
        raise InputError(f"{name} is a {type(leaf).__name__}, {leaf!r:.40}; expected an array of numbers.")
    return array


def _is_weak(item: Value) -> bool:
    return isinstance(item, (bool, int, float, complex, list, tuple))


def _by_label(entries: Iterable[Entry]) -> Entries:
    found: Entries = {}
    for entry in entries:
        if entry.label in found:
            raise InputError(f'two entries are called "{entry.label}"; expected one. Rename the tag or leave one out.')
        found[entry.label] = entry
    return found


def as_recorded(record: Record) -> AbstractContextManager[None]:
    """Switches 64 bits on where a number of the record has them: they were on where its program was traced."""
    return x64_as_traced(jax.tree.leaves((record.output, record.values, record.grads, record.arg_grads)))
