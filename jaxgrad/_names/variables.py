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
    for line, name in _with_comprehensions(code) if _COMPREHENSION in [*code.co_code[::2]] else _plain(code):
        found.setdefault(line, {})[name] = None
    return {line: tuple(names) for line, names in found.items()}


def _plain(code: CodeType) -> Iterator[tuple[int, str]]:
    """Line and variable of each assignment, read off the bytes: `dis` takes as long as tracing itself."""
    places = [
        *code.co_varnames,
        *(name for name in code.co_cellvars if name not in code.co_varnames),
        *code.co_freevars,
    ]
    line, instructions = code.co_firstlineno, code.co_code
    for start, end, at in code.co_lines():
        line, extended = line if at is None else at, 0
        for i in range(start, end, 2):
            operation, argument = instructions[i], instructions[i + 1] | extended
            extended = argument << 8 if operation == dis.EXTENDED_ARG else 0
            if operation in _ONE:
                yield line, places[argument]
            elif operation in _TWO:
                yield line, places[argument >> 4]
                yield line, places[argument & 15]
            elif operation == _NAME:
                yield line, code.co_names[argument]


def _operations(*names: str) -> frozenset[int]:
    return frozenset(dis.opmap[name] for name in names if name in dis.opmap)


_ONE = _operations("STORE_FAST", "STORE_DEREF")
_TWO = _operations("STORE_FAST_STORE_FAST", "STORE_FAST_LOAD_FAST")  # which has one, and one that is assigned already
_NAME = dis.opmap["STORE_NAME"]
_COMPREHENSION = dis.opmap.get("LOAD_FAST_AND_CLEAR", -1)


def _with_comprehensions(code: CodeType) -> Iterator[tuple[int, str]]:
    """The same for a function that has comprehensions in its own code, without their variables."""
    line = code.co_firstlineno
    instructions = list(dis.get_instructions(code))
    own = _of_comprehensions(instructions)
    for i, instruction in enumerate(instructions):
        position = instruction.positions
        line = position.lineno if position is not None and position.lineno is not None else line
        yield from ((line, name) for name in _stored(instruction) if (i, name) not in own)


def _stored(instruction: dis.Instruction) -> tuple[str, ...]:
    """The variables that an instruction assigns."""
    if not instruction.opname.startswith(("STORE_FAST", "STORE_DEREF", "STORE_NAME")):
        return ()
    return instruction.argval if isinstance(instruction.argval, tuple) else (instruction.argval,)


def _of_comprehensions(instructions: list[dis.Instruction]) -> set[tuple[int, str]]:
    """The assignments, by instruction and name, of comprehensions (PEP 709).

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
        elif instruction.opname == "RERAISE":
            found |= _stores_before(instructions, i)
        for name in _stored(instruction):
            if name in ends:
                found.add((i, name))
                if instruction.offset >= ends[name]:
                    del ends[name]
    return found


def _stores_before(instructions: list[dis.Instruction], i: int) -> set[tuple[int, str]]:
    """The assignments that stand just before an instruction."""
    found: set[tuple[int, str]] = set()
    while i > 0 and (names := _stored(instructions[i - 1])):
        i -= 1
        found |= {(i, name) for name in names}
    return found


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
