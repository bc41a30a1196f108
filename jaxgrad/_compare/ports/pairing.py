"""Pairing: the entries of two sides that name the same thing differently, brought under one name and one layout."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from jaxgrad._compare.entries import NO_GRADIENT_ASKED, Entries, Entry, label
from jaxgrad._errors import InputError
from jaxgrad._retain.layouts import Order, closest, orders
from jaxgrad._text import did_you_mean

_KINDS = ("reached", "value", "gradient")
_IN_OUT = ("kernel", "w")  # what Flax and Haiku call a weight that is (in, out)


def paired(found: Entries, wanted: Entries, names: Mapping[str, str]) -> tuple[Entries, Entries, tuple[str, ...]]:
    """The entries that `names` pairs, both sides' under the names and in the layout of `found`; and what to say of it.

    Where PyTorch has a constant or a detached tensor it has no gradient, and JAX has one, of what follows. That is no
    difference: a forgotten `stop_gradient` shows in what comes before.

    Args:
      found, wanted: by label.
      names: name in `found` -> name in `wanted`.

    Returns:
      Those of each side that have a partner of their kind; remarks on what has none, on what `want` has no
      gradient of, and on axes that were moved.

    Raises:
      InputError: `names` is no dict of strings, pairs nothing, or has a name that its side lacks.
    """
    _check(found, wanted, names)
    got, want, moved, constant = {}, {}, [], []
    for name, other in names.items():
        order: Order | None = None
        for kind in _KINDS:
            a, b = found.get(label(name, kind)), wanted.get(label(other, kind))
            if a is None or b is None:
                continue
            if b.note == NO_GRADIENT_ASKED:
                constant.append(name)
                continue
            if order is None:
                order = _order(a, b, kernel=is_in_out(name) and not is_in_out(other))
            got[a.label] = a
            want[a.label] = replace(_moved(b, order, like=a), name=name)
        if order is not None and order != tuple(range(len(order))):
            moved.append(f"{name} ({', '.join(map(str, order))})")
    if not got:
        raise InputError("`names` pairs nothing that both sides have; expected a value or a gradient of both.")
    remarks = (
        _remark("left out of `got`, without a partner", _unpaired(found, names)),
        _remark("left out of `want`, without a partner", _unpaired(wanted, names.values())),
        _remark("compared by value alone, for in `want` they do not require grad", constant),
        _remark("compared in the layout of `got`, with these axes of `want`", moved),
    )
    return {name: entry for name, entry in found.items() if name in got}, want, tuple(filter(None, remarks))


def is_in_out(name: str) -> bool:
    """Is it the weight of a layer in a library that keeps it as (in, out)?"""
    return any(name.endswith((f"['{word}']", f".{word}", f"['{word}'].value", f".{word}.value")) for word in _IN_OUT)


def _check(found: Entries, wanted: Entries, names: Mapping[str, str]) -> None:
    if not isinstance(names, Mapping):
        raise InputError(
            f"`names` is a {type(names).__name__}; expected a dict of name in `got` -> name in `want`, as "
            "align(got, want) returns."
        )
    for side, entries, asked in (("got", found, names), ("want", wanted, names.values())):
        known = {entry.name for entry in entries.values()}
        for name in asked:
            if name not in known:
                raise InputError(
                    f"`names` has {name!r}, and `{side}` has nothing of that name. {did_you_mean(str(name), known)}"
                )


def _order(got: Entry, want: Entry, *, kernel: bool) -> Order | None:
    """The order of `want`'s axes in which it has the layout of `got`; None where there is none."""
    if got.array is None or want.array is None or want.weak:
        return None
    candidates = orders(got.array.shape, want.array.shape, kernel=kernel)
    return closest(got.array, want.array, candidates) if candidates else None


def _moved(entry: Entry, order: Order | None, *, like: Entry) -> Entry:
    """The entry with its axes in another order, and an integer in the width that the other side has."""
    if entry.array is None or like.array is None:
        return entry
    array, off = entry.array, entry.uncertainty
    if order is not None:
        array = array.transpose(order)
        off = np.asarray(off).transpose(order) if np.ndim(off) == len(order) > 0 else off
    if array.dtype.kind in "iu" and like.array.dtype.kind in "iu":  # PyTorch counts in 64 bits, JAX in 32
        narrow = array.astype(like.array.dtype)
        array = narrow if np.array_equal(narrow, array) else array
    return replace(entry, array=array, uncertainty=off)


def _unpaired(entries: Entries, names: Iterable[str]) -> list[str]:
    paired = set(names)
    return [name for name in dict.fromkeys(entry.name for entry in entries.values()) if name not in paired]


def _remark(what: str, names: list[str]) -> str:
    return f"{what}: {', '.join(names)}" if names else ""
