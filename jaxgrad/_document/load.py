"""Reading a reference table from TOML, each of its mistakes an error that names the place."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from importlib.resources import files
from importlib.resources.abc import Traversable
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from jaxgrad._document.table import Cell, Number, Table
from jaxgrad._errors import TableError

_DTYPES = ("float16", "bfloat16", "float32", "float64")


def load(path: str | PathLike[str] | None = None) -> Table:
    """Reads a reference table; without a path, the document's.

    A table is TOML: `title`, `function` ("neuron"), `dtype`, `x`, `w` (the bias last), `rounded`, and one
    `[[number]]` for each printed number with `label`, `quantity`, `printed` (a string, to keep its digits) and,
    where there are any, `part`, `cell` and `claims`. A `[[cell]]` with `part`, `cell`, `source` and `here` says what a
    cell that prints nothing became. The document's own, `reference.toml`, is the example.

    Args:
      path: a TOML file, UTF-8.

    Returns:
      The `Table`.

    Raises:
      TableError: the file is missing, unreadable or malformed, or has a number that is none.

    Example:
      >>> table = load()
      >>> print(len(table.numbers), table.x, table.w)
      25 [1. 2.] [ 0.5 -0.3  0.1]
      >>> print(*[number.place for number in table.numbers if number.claims], sep="\\n")
      part 1, cell 66, "Gradient df/dk:" (dh/dk = 1.0)
      part 1, cell 66, "Gradient df/dz:" (dk/dz = -1.0)
    """
    source = files("jaxgrad._document").joinpath("reference.toml") if path is None else Path(path)
    name = "reference.toml" if path is None else fspath(path)
    entries = _read(source, name)
    _no_other_keys(entries, {"title", "function", "dtype", "x", "w", "rounded", "number", "cell"}, name)
    function = _entry(entries, "function", str, name)
    if function != "neuron":
        raise TableError(f'{name}: function is "{function}"; expected "neuron", the one that it can check.')
    dtype = _entry(entries, "dtype", str, name)
    if dtype not in _DTYPES:
        raise TableError(f'{name}: dtype is "{dtype}"; expected one of {", ".join(_DTYPES)}.')
    x, w = (_vector(entries, key, dtype, name) for key in ("x", "w"))
    if not x.size or w.size != x.size + 1:
        raise TableError(
            f"{name}: x has {x.size} numbers and w has {w.size}; expected n >= 1 inputs and n + 1 weights, the "
            "bias last."
        )
    numbers = _entry(entries, "number", list, name)
    if not numbers:
        raise TableError(f"{name}: no [[number]] in it; expected at least one.")
    cells = _entry(entries, "cell", list, name) if "cell" in entries else []
    return Table(
        title=_entry(entries, "title", str, name),
        function=function,
        x=x,
        w=w,
        rounded=_entry(entries, "rounded", bool, name),
        numbers=tuple(_number(entry, f"{name}: [[number]] {i}") for i, entry in enumerate(numbers, start=1)),
        cells=tuple(_cell(entry, f"{name}: [[cell]] {i}") for i, entry in enumerate(cells, start=1)),
    )


def _read(source: Path | Traversable, name: str) -> dict[str, Any]:
    import tomllib  # 2 ms of regular expressions, for those who read a file

    try:
        return tomllib.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise TableError(f"{name}: cannot be read: {error.strerror}. Expected a TOML file.") from error
    except (ValueError, RecursionError) as error:  # ValueError: of TOML, of UTF-8, of integers with too many digits
        raise TableError(f"{name}: is no TOML file in UTF-8: {error}.") from error


def _no_other_keys(entries: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in entries:
        if key not in known:
            raise TableError(f'{where}: has "{key}"; expected {", ".join(sorted(known))}.')


_KINDS = {str: "a string", bool: "true or false", int: "a whole number of 64 bits", list: "an array"}


def _entry(entries: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    if key not in entries:
        raise TableError(f"{where}: has no {key}; expected {_KINDS[kind]}.")
    value = entries[key]
    if not isinstance(value, kind) or (kind is int and not _is_int64(value)):
        raise TableError(f"{where}: {key} is {_shown(value)}; expected {_KINDS[kind]}.")
    if isinstance(value, str) and not value.isprintable():
        raise TableError(f"{where}: {key} is {_shown(value)}; expected one line of printable text.")
    return value


def _is_int64(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _shown(value: Any) -> str:
    """The value as an error shows it, in 40 characters at most."""
    try:
        text = repr(value)
    except ValueError:  # Python writes out no integer of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 40 else f"{text[:37]}..."


def _vector(entries: Mapping[str, Any], key: str, dtype: str, name: str) -> np.ndarray[Any, Any]:
    values = _entry(entries, key, list, name)
    for i, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TableError(f"{name}: {key}[{i}] is {_shown(value)}; expected a number.")
    with np.errstate(over="ignore"):
        rounded = np.array([Decimal(value) for value in values], "float64").astype(dtype)
    for i, value in enumerate(values):
        if np.isinf(rounded[i]) and Decimal(value).is_finite():
            raise TableError(f"{name}: {key}[{i}] is {_shown(value)}; expected a number that {dtype} can hold.")
    return rounded


def _number(entry: Any, where: str) -> Number:
    if not isinstance(entry, dict):
        raise TableError(f"{where}: is {_shown(entry)}; expected a table with label, quantity and printed.")
    _no_other_keys(entry, {"label", "quantity", "printed", "part", "cell", "claims"}, where)
    printed = _entry(entry, "printed", str, where)
    try:
        float(Decimal(printed))
    except (InvalidOperation, ValueError) as error:  # ValueError: a signalling NaN
        raise TableError(f'{where}: printed is "{printed}", which is no number; expected digits.') from error
    return Number(
        label=_entry(entry, "label", str, where),
        quantity=_entry(entry, "quantity", str, where),
        printed=printed,
        **{key: _entry(entry, key, int, where) for key in ("part", "cell") if key in entry},
        **{key: _entry(entry, key, str, where) for key in ("claims",) if key in entry},
    )


def _cell(entry: Any, where: str) -> Cell:
    if not isinstance(entry, dict):
        raise TableError(f"{where}: is {_shown(entry)}; expected a table with part, cell, source and here.")
    _no_other_keys(entry, {"part", "cell", "source", "here"}, where)
    return Cell(
        **{key: _entry(entry, key, int, where) for key in ("part", "cell")},
        **{key: _entry(entry, key, str, where) for key in ("source", "here")},
    )
