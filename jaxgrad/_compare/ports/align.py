"""align: which name on one side is which on the other."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, NamedTuple

from jaxgrad._compare.entries import Entries, of_mapping, of_record
from jaxgrad._compare.ports.pairing import is_in_out
from jaxgrad._errors import InputError
from jaxgrad._record import Record
from jaxgrad._retain.layouts import Shape, orders

_ONE_WORD = {"kernel": "weight", "scale": "weight", "embedding": "weight", "w": "weight", "gamma": "weight"}
_ONE_WORD |= {"b": "bias", "beta": "bias"}
_NO_PART = {"params", "value", "model"}  # wrappings that one side has and the other has not
_ARGUMENT = re.compile(r"arg\[\d+\]")


def align(got: Record, want: Record | Mapping[Any, Any]) -> dict[str, str]:
    """Pairs the names of two sides, as of a port and its original.

    By the same name; then by the same parts, where `arg[0]['params']['layers_0']['kernel']` has the parts of
    `layers[0].weight` and `layers.0` those of `layers[0]`; then by the longest common end; then, between two names
    that are paired, by shape and order, where both sides have as many of a shape. An argument of one side is paired
    with an argument or a named parameter of the other. The result is an ordinary dict: read it, change it, keep it.

    Args:
      got: a record.
      want: a record, or a dict as `compare` takes it.

    Returns:
      Name in `got` -> name in `want`, in the order of `got`, for `compare(got, want, names=...)`, which says what is
      left over. "output" is the output.

    Raises:
      InputError: nothing can be paired.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxgrad import compare, retain_grads, tag
      >>> got = retain_grads(lambda x: jnp.sum(tag(2 * x, "layers_0")))(jnp.ones(3))
      >>> align(got, {"layers.0": 2 * jnp.ones(3)})
      {'layers_0': 'layers.0'}
    """
    if not isinstance(got, Record):
        raise InputError(f"`got` is a {type(got).__name__}; expected a Record, as retain_grads(fun)(...) returns.")
    if not isinstance(want, (Record, Mapping)):
        raise InputError(f"`want` is a {type(want).__name__}; expected a Record, or a dict of name -> array.")
    ours = _things(of_record(got))
    theirs = _things(of_record(want) if isinstance(want, Record) else of_mapping(want))
    pairs: dict[str, str] = {}
    for is_input in (False, True):
        _pair([t for t in ours if t.is_input == is_input], [t for t in theirs if t.is_input == is_input], pairs)
    if not pairs:
        raise InputError(
            f"nothing in `got` ({_some(ours)}) is called like anything in `want` ({_some(theirs)}), nor has it the "
            "same shapes in the same order; expected two sides of one program. Give compare your own dict as `names`."
        )
    return {thing.name: pairs[thing.name] for thing in ours if thing.name in pairs}


class _Thing(NamedTuple):
    """Something with a name.

    Attributes:
      parts: of its name, as both sides would have them.
      is_input: is it an argument or a parameter?
    """

    name: str
    shape: Shape | None
    parts: tuple[str, ...]
    is_input: bool


def _things(entries: Entries) -> list[_Thing]:
    """What entries are of, one for each name, in their order."""
    shapes: dict[str, Shape | None] = {}
    for entry in entries.values():
        if entry.kind != "reached" and shapes.get(entry.name) is None:
            shapes[entry.name] = None if entry.array is None else entry.array.shape
    return [_Thing(name, shape, _parts(name), _is_input(name)) for name, shape in shapes.items()]


def _is_input(name: str) -> bool:
    last = re.split(r"\W+", name.rstrip("']"))[-1]
    return _ARGUMENT.match(name) is not None or re.match(r"(weight|bias)(_|$)", last) is not None  # nn.LSTM: bias_hh_l0


def _parts(name: str) -> tuple[str, ...]:
    """The words and numbers of a name: ("layers", "0", "weight") of "layers_0.kernel"."""
    words = re.findall(r"[a-z]+(?:_[a-z]+)*|\d+", _ARGUMENT.sub("", name, count=1).lower())
    return tuple(_ONE_WORD.get(word, word) for word in words if word not in _NO_PART)


def _pair(ours: list[_Thing], theirs: list[_Thing], pairs: dict[str, str]) -> None:
    """Adds to `pairs`; what pairs surely goes first, for it leaves less to what pairs less surely."""
    by: tuple[Callable[[_Thing], Hashable], ...] = (lambda t: t.name, lambda t: t.parts or None)
    for key in by:
        # The positions of arguments say nothing: one side has its parameters among them.
        bare = [t.name for t in (*ours, *theirs) if _ARGUMENT.fullmatch(t.name)]
        _by_key(_left(ours, {*pairs, *bare}), _left(theirs, {*pairs.values(), *bare}), key, pairs)
    _by_end(_left(ours, pairs), _left(theirs, pairs.values()), pairs)
    _by_order(ours, theirs, pairs)


def _left(things: list[_Thing], taken: Iterable[str]) -> list[_Thing]:
    taken = set(taken)
    return [thing for thing in things if thing.name not in taken]


def _by_key(ours: list[_Thing], theirs: list[_Thing], key: Callable[[_Thing], Hashable], pairs: dict[str, str]) -> None:
    """Pairs what has a key that nothing else on its side has."""
    counts = Counter(map(key, ours)), Counter(map(key, theirs))
    found = {key(thing): thing for thing in theirs}
    for thing in ours:
        k = key(thing)
        if k is not None and counts[0][k] == counts[1][k] == 1:
            pairs[thing.name] = found[k].name


def _by_end(ours: list[_Thing], theirs: list[_Thing], pairs: dict[str, str]) -> None:
    """Pairs what has the most last parts in common, if each is the other's best by itself."""
    common = {(a, b): _common_end(a, b) for a in ours for b in theirs if _fits(a, b)}
    best: dict[tuple[int, _Thing], list[_Thing]] = defaultdict(list)
    for side in (0, 1):
        for pair, n in common.items():
            if n and n == max(m for other, m in common.items() if other[side] == pair[side]):
                best[side, pair[side]].append(pair[1 - side])
    for a in ours:
        if len(best[0, a]) == 1 and best[1, best[0, a][0]] == [a]:
            pairs[a.name] = best[0, a][0].name


def _common_end(a: _Thing, b: _Thing) -> int:
    n = 0
    while n < min(len(a.parts), len(b.parts)) and a.parts[-1 - n] == b.parts[-1 - n]:
        n += 1
    # "weight" or "0" alone says nothing.
    return (
        n if any(not part.isdigit() and part not in ("weight", "bias") for part in a.parts[len(a.parts) - n :]) else 0
    )


def _by_order(ours: list[_Thing], theirs: list[_Thing], pairs: dict[str, str]) -> None:
    """Pairs what is left between two that are paired, where both sides have as many of a shape there."""
    for mine, other in _gaps(ours, theirs, dict(pairs)):
        for first in mine:
            if first.name in pairs:
                continue
            alike = [t for t in mine if t.shape == first.shape and t.name not in pairs]
            fitting = [t for t in other if _fits(first, t) and t.name not in pairs.values()]
            if len(alike) == len(fitting):
                pairs |= {a.name: b.name for a, b in zip(alike, fitting, strict=True)}


def _gaps(
    ours: list[_Thing], theirs: list[_Thing], pairs: dict[str, str]
) -> Iterable[tuple[list[_Thing], list[_Thing]]]:
    """What stands between one pair and the next on both sides; pairs that cross the last one are passed over."""
    place = {thing.name: j for j, thing in enumerate(theirs)}
    i, j = 0, 0
    for k, thing in enumerate(ours):
        at = place.get(pairs.get(thing.name, ""), -1)
        if at >= j:
            yield ours[i:k], theirs[j:at]
            i, j = k + 1, at + 1
    yield ours[i:], theirs[j:]


def _fits(a: _Thing, b: _Thing) -> bool:
    if a.shape is None or b.shape is None:
        return False
    return bool(orders(a.shape, b.shape, kernel=is_in_out(a.name) and not is_in_out(b.name)))


def _some(things: list[_Thing]) -> str:
    names = [thing.name for thing in things]
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "") if names else "which has no names"
