"""Records in files: a TOML file for people, with provenance, and beside it the arrays in .npz."""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad._compare.entries import Entries, Entry, of_record
from jaxgrad._errors import InputError, TableError
from jaxgrad._files import write_whole
from jaxgrad._record import Record

_FORMAT = 2
_AGAIN = "Run pytest --jaxgrad-update to record it anew."


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A record read from a file, for `compare`: its entries, a gradient that was None among them; where it is from."""

    entries: Entries
    provenance: str


def write(path: Path, record: Record, *, seed: int | None = None, test: str = "") -> list[str]:
    """Writes a record to `path`, TOML, and its arrays beside it; each file whole or not at all.

    Returns:
      The labels at which there is NaN or an infinity.

    Raises:
      InputError: the record is traced, or has nothing in it.
    """
    entries = list(of_record(record).values())
    if all(entry.array is None for entry in entries):
        raise InputError("the record is empty, so that anything would agree with it; expected a value at least.")
    buffer = io.BytesIO()
    stored = {f"a{i}": _storable(entry.array) for i, entry in enumerate(entries) if entry.array is not None}
    np.savez(buffer, **stored)  # type: ignore[arg-type]
    arrays, rows = buffer.getvalue(), [_row(entry) for entry in entries]
    provenance = _provenance(entries, seed, test)
    text = "\n".join(_text(provenance, rows, _digest(provenance, rows, arrays)))
    path.parent.mkdir(parents=True, exist_ok=True)
    # The text last: it vouches for the arrays, and for itself, by the digest.
    write_whole({_arrays_of(path): arrays, path: text.encode()})
    return [entry.label for entry in entries if entry.array is not None and not _is_finite(entry.array)]


def read(path: Path) -> Snapshot:
    """Reads what `write` wrote.

    Raises:
      TableError: a file is missing, unreadable, half written, changed by hand, or of another format.
    """
    import tomllib  # 2 ms of regular expressions, for those who read a file

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise TableError(f"{path}: its format is {content['format']}; expected {_FORMAT}. {_AGAIN}")
        arrays, rows, provenance = _arrays_of(path).read_bytes(), content["row"], content["provenance"]
        if _digest(provenance, rows, arrays) != content["sha256"]:
            raise TableError(f"{path}: it and the arrays beside it are not as they were written together. {_AGAIN}")
        with np.load(io.BytesIO(arrays), allow_pickle=False) as stored:
            entries = [_entry(row, stored.get(f"a{i}")) for i, row in enumerate(rows)]
    except TableError:
        raise
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror}. {_AGAIN}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, zipfile.BadZipFile) as error:
        raise TableError(f"{path}: is no whole reference file: {error!r}. {_AGAIN}") from error
    where = ", ".join(f"{key} {value}" for key, value in provenance.items())
    return Snapshot({entry.label: entry for entry in entries}, where)


def _is_finite(array: np.ndarray[Any, Any]) -> bool:
    return not jnp.issubdtype(array.dtype, jnp.inexact) or bool(np.isfinite(array).all())


def _arrays_of(path: Path) -> Path:
    return path.with_suffix(path.suffix + ".npz")


def _storable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The bits of an array that NumPy's files do not know, as bfloat16, else the array."""
    array = np.atleast_1d(np.ascontiguousarray(array))
    return array if array.dtype.kind in "biufc" else array.view(np.uint8)


def _row(entry: Entry) -> dict[str, Any]:
    """An entry for people: all that is known of it but a large array's elements."""
    row: dict[str, Any] = {"name": entry.name, "kind": entry.kind}
    array = entry.array
    if array is None:
        return row | {"none": entry.note}
    row |= {"dtype": array.dtype.name, "shape": list(array.shape)}
    if array.size <= 8:
        return row | {"values": str(array.tolist())}
    if array.dtype.kind in "bc":
        return row
    wide = array.astype(np.float64)
    return row | {"least": str(wide.min()), "greatest": str(wide.max())}


def _entry(row: Mapping[str, Any], stored: np.ndarray[Any, Any] | None) -> Entry:
    if "none" in row:
        return Entry(row["name"], row["kind"], None, note=row["none"])
    if stored is None:
        raise ValueError(f"no array of {row['name']}")
    return Entry(row["name"], row["kind"], stored.view(jnp.dtype(row["dtype"])).reshape(row["shape"]))


def _provenance(entries: list[Entry], seed: int | None, test: str) -> dict[str, Any]:
    return {
        "test": test,
        "jax": version("jax"),
        "jaxgrad": version("jaxgrad"),
        "numpy": version("numpy"),
        "device": jax.default_backend(),
        "dtype": ", ".join(sorted({entry.array.dtype.name for entry in entries if entry.array is not None})),
        **({} if seed is None else {"seed": seed}),
    }


def _digest(provenance: dict[str, Any], rows: list[dict[str, Any]], arrays: bytes) -> str:
    return hashlib.sha256(json.dumps([provenance, rows]).encode() + arrays).hexdigest()


def _text(provenance: dict[str, Any], rows: list[dict[str, Any]], digest: str) -> Iterator[str]:
    yield "# Recorded by the fixture jaxgrad_reference; pytest --jaxgrad-update records it anew."
    yield f'format = {_FORMAT}\nsha256 = "{digest}"'
    for heading, entries in [("[provenance]", provenance), *(("[[row]]", row) for row in rows)]:
        yield f"\n{heading}"
        yield from (f"{key} = {_toml(value)}" for key, value in entries.items())
    yield ""


def _toml(value: Any) -> str:
    """A string, a number or a list of numbers: TOML has JSON's, but for surrogates and the one character DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
