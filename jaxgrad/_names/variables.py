"""The variables of a frame: which of them a line of code assigns, and what they held when last looked at."""

import dis
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FrameType

import jax

from jaxgrad._types import Leaf

Stores = Mapping[int, tuple[str, ...]]  # line -> the variables that it assigns, in order


def stores(code: CodeType) -> Stores:
    """Which variables each line of a function assigns; those of a comprehension are its own, on every Python."""
    found: dict[int, dict[str, None]] = {}
    line = code.co_firstlineno
    instructions = list(dis.get_instructions(code))
    own = _of_comprehensions(instructions)
    for i, instruction in enumerate(instructions):
        position = instruction.positions
        line = position.lineno if position is not None and position.lineno is not None else line
        found.setdefault(line, {}).update(dict.fromkeys(name for name in _stored(instruction) if (i, name) not in own))
    return {line: tuple(names) for line, names in found.items() if names}


def _stored(instruction: dis.Instruction) -> tuple[str, ...]:
    """The variables that an instruction assigns."""
    if not instruction.opname.startswith(("STORE_FAST", "STORE_DEREF", "STORE_NAME")):
        return ()
    return instruction.argval if isinstance(instruction.argval, tuple) else (instruction.argval,)


def _of_comprehensions(instructions: list[dis.Instruction]) -> set[tuple[int, str]]:
    """The assignments, by instruction and name, of comprehensions that stand in the function's own code (PEP 709).

    Such a variable is cleared before the loop; assigned in it; and restored once after it, and once after an error.
    """
    found: set[tuple[int, str]] = set()
    cleared: set[str] = set()
    ends: dict[str, int] = {}  # name -> where the loop ends
    for i, instruction in enumerate(instructions):
        if instruction.opname == "LOAD_FAST_AND_CLEAR":
            cleared.add(instruction.argval)
        elif instruction.opname == "FOR_ITER" and cleared:
            ends |= dict.fromkeys(cleared, instruction.argval)
            cleared.clear()
        for name in _stored(instruction):
            after_error = next(_past_stores(instructions[i:]), "") == "RERAISE"
            if name in ends or after_error:
                found.add((i, name))
            if name in ends and instruction.offset >= ends[name]:
                del ends[name]
    return found


def _past_stores(instructions: list[dis.Instruction]) -> Iterator[str]:
    return (later.opname for later in instructions if not _stored(later))


class Variables:
    """What the variables of one frame held when they were last looked at.

    A look is at those that the line just done assigns, at those that another function may assign, and at containers,
    which change without an assignment. The last look is at all.

    Attributes:
      line: the line that runs.
      prefix: what the names of its variables begin with.
    """

    def __init__(self, frame: FrameType, prefix: str, stores: Stores):
        self.line, self.prefix, self._stores = frame.f_lineno, prefix, stores
        self._free = frozenset(frame.f_code.co_freevars)
        self._always = set(frame.f_code.co_cellvars)
        self._held: dict[str, dict[str, Leaf]] = {}
        for _ in self._changed(frame, tuple(frame.f_locals)):
            pass  # arguments have names of their own

    def after_line(self, frame: FrameType) -> Iterator[tuple[str, Leaf]]:
        """Name -> array, of what the last line has assigned."""
        return self._changed(frame, (*self._stores.get(self.line, ()), *self._always))

    def at_end(self, frame: FrameType) -> Iterator[tuple[str, Leaf]]:
        """Name -> array, of all that has not been named."""
        return self._changed(frame, tuple(frame.f_locals))

    def _changed(self, frame: FrameType, names: Iterable[str]) -> Iterator[tuple[str, Leaf]]:
        values = frame.f_locals
        for name in names:
            if name in self._free:
                continue
            value = values.get(name)
            if isinstance(value, (list, tuple, dict)):
                self._always.add(name)
            held, now = self._held.get(name, {}), dict(arrays(name, value))
            self._held[name] = now
            yield from ((path, leaf) for path, leaf in now.items() if held.get(path) is not leaf)


def arrays(name: str, value: Leaf, around: tuple[int, ...] = ()) -> Iterator[tuple[str, Leaf]]:
    """Name -> traced array, of a value and of the lists, tuples and dicts in it, each by its place as JAX writes it."""
    if isinstance(value, jax.core.Tracer):
        yield name, value
    elif isinstance(value, (list, tuple, dict)) and id(value) not in around:
        for place, item in _items(value):
            yield from arrays(name + place, item, (*around, id(value)))


def _items(value: Leaf) -> Iterator[tuple[str, Leaf]]:
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", item) for key, item in list(value.items()))
    elif isinstance(value, tuple) and (fields := getattr(value, "_fields", None)):
        yield from ((f".{field}", item) for field, item in zip(fields, value, strict=True))
    else:
        yield from ((f"[{i}]", item) for i, item in enumerate(value))
