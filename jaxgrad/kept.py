"""Records in files: a TOML file for people, with provenance, and beside it the arrays in .npz."""

import hashlib
import io
import json
import os
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad.entries import Entry, of_record
from jaxgrad.errors import InputError, TableError
from jaxgrad.record import Record

_FORMAT = 1


@dataclass(frozen=True)
class Kept:
    """A record read from a file: its entries as a mapping that `compare` takes, and where it comes from."""

    record: dict[str, np.ndarray[Any, Any]]
    provenance: str


def write(path: Path, record: Record, *, seed: int | None = None, test: str = "") -> None:
    """Writes a record to `path`, TOML, and its arrays beside it; each file whole or not at all.

    Raises:
      InputError: the record is traced, or has nothing in it.
    """
    entries = [entry for entry in of_record(record).values() if entry.array is not None]
    if not entries:
        raise InputError("the record is empty, so that anything would agree with it; expected a value at least.")
    buffer = io.BytesIO()
    np.savez(buffer, **{f"a{i}": _storable(entry) for i, entry in enumerate(entries)})  # type: ignore[arg-type]
    arrays = buffer.getvalue()
    text = "\n".join(_text(entries, seed, test, hashlib.sha256(arrays).hexdigest()))
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path.with_suffix(path.suffix + ".npz"), arrays)
    _replace(path, text.encode())  # last: it vouches for the arrays by their hash


def read(path: Path) -> Kept:
    """Reads what `write` wrote.

    Raises:
      TableError: a file is missing, unreadable, or half written.
    """
    hint = "Run pytest --jaxgrad-update to record it anew"
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
        arrays = path.with_suffix(path.suffix + ".npz").read_bytes()
        rows, made = entries["row"], entries["provenance"]
        if entries["format"] != _FORMAT:
            raise TableError(f"{path}: its format is {entries['format']}; expected {_FORMAT}. {hint}.")
        if hashlib.sha256(arrays).hexdigest() != entries["sha256"]:
            raise TableError(f"{path}: the arrays beside it are not those it was written with. {hint}.")
        with np.load(io.BytesIO(arrays), allow_pickle=False) as stored:
            found = {
                row["name"]: stored[f"a{i}"].view(jnp.dtype(row["dtype"])).reshape(row["shape"])
                for i, row in enumerate(rows)
            }
        where = ", ".join(f"{key} {value}" for key, value in made.items())
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror}. {hint}.") from error
    except (ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise TableError(f"{path}: is no whole reference file: {error}. {hint}.") from error
    return Kept(found, where)


def _storable(entry: Entry) -> np.ndarray[Any, Any]:
    """The bits of an array that NumPy's files do not know, as bfloat16, else the array."""
    assert entry.array is not None
    array = np.atleast_1d(np.ascontiguousarray(entry.array))
    return array if array.dtype.kind in "biufc" else array.view(np.uint8)


def _text(entries: list[Entry], seed: int | None, test: str, digest: str) -> Iterator[str]:
    arrays = [entry.array for entry in entries if entry.array is not None]
    provenance = {
        "test": test,
        "jax": version("jax"),
        "jaxgrad": version("jaxgrad"),
        "numpy": version("numpy"),
        "device": jax.default_backend(),
        "dtype": ", ".join(sorted({array.dtype.name for array in arrays})),
        **({} if seed is None else {"seed": seed}),
    }
    yield "# Recorded by the fixture jaxgrad_reference; pytest --jaxgrad-update records it anew."
    yield f'format = {_FORMAT}\nsha256 = "{digest}"\n\n[provenance]'
    yield from (f"{key} = {json.dumps(value)}" for key, value in provenance.items())
    for entry, array in zip(entries, arrays, strict=True):
        yield f"\n[[row]]\nname = {json.dumps(entry.label)}\ndtype = {json.dumps(array.dtype.name)}"
        yield f"shape = {list(array.shape)}"
        if array.size <= 8:
            yield f"values = {json.dumps(str(array.tolist()))}"
        elif array.dtype.kind not in "bc":
            wide = array.astype(np.float64)
            yield f"least = {json.dumps(str(wide.min()))}\ngreatest = {json.dumps(str(wide.max()))}"
    yield ""


def _replace(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
