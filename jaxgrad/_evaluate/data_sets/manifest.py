"""A manifest: what a folder of outputs says of itself, written when all of them are there."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxgrad._errors import InputError
from jaxgrad._evaluate.output.part import difference
from jaxgrad._evaluate.output.seal import Seal
from jaxgrad._files import write_whole

PER_FILE = ("rows", "read as", "part of the rows", "keys")  # of a task


@dataclass(frozen=True)
class Entry:
    """An output: of which rows, how many were read and written, what was bad, the checksum of its rows."""

    rows: str
    out: str
    read: int
    written: int
    bad: int
    first_bad: str | None
    checksum: str


def entry(rows: str, out: str, seal: Seal) -> Entry:
    return Entry(rows, out, seal.read, seal.rows, seal.bad, seal.first_bad, seal.checksum)


def common(task: Mapping[str, Any]) -> dict[str, Any]:
    """What the tasks of all files have to agree on."""
    return {key: value for key, value in task.items() if key not in PER_FILE}


def name_of(share: tuple[int, int]) -> str:
    return "manifest.json" if share[1] == 1 else f"manifest-{share[0]:05}-of-{share[1]:05}.json"


def content(task: Mapping[str, Any], entries: Sequence[Entry]) -> bytes:
    totals = {key: sum(getattr(entry, key) for entry in entries) for key in ("read", "written", "bad")}
    files = ",\n".join(json.dumps(vars(entry)) for entry in entries)  # a line each
    rest = json.dumps(totals)[1:-1]
    return f'{{"jaxgrad": {{"task": {json.dumps(task)},\n"files": [\n{files}\n],\n{rest}}}}}\n'.encode()


def merge_manifests(out: Path, *, overwrite: bool = False) -> tuple[int, dict[str, Any]]:
    """Joins the manifests of the parts of a data set to the one of the whole; how many parts, and what it says.

    Raises:
      InputError: one is missing or of another task, two have one output, an output is gone, or there is one already.
    """
    whole = out / name_of((0, 1))
    if whole.exists() and not overwrite:
        raise InputError(f'"{whole}" exists, and was kept. Give `overwrite=True` to write over it.')
    shares = [re.fullmatch(r"manifest-(\d{5})-of-(\d{5})\.json", path.name) for path in sorted(out.iterdir())]
    counts = {int(match[2]) for match in shares if match}
    if len(counts) != 1:
        raise InputError(f'"{out}" has manifests of {sorted(counts) or "no"} parts; expected one number of parts.')
    (count,) = counts
    found = [_read(out / name_of((i, count)), i, count) for i in range(count)]
    for i, part in enumerate(found):
        if change := difference(part["task"], found[0]["task"]) or difference(found[0]["task"], part["task"]):
            raise InputError(f"part {i} was made with {change} in part 0; expected one task.")
    entries = [Entry(**file) for part in found for file in part["files"]]
    if len({entry.out for entry in entries}) != len(entries):
        raise InputError("two parts have one output; expected parts of one list of files. Run them again.")
    gone = next((entry.out for entry in entries if not (out / entry.out).is_file()), None)
    if gone is not None:
        raise InputError(f'"{out / gone}" is missing; expected it, as a manifest lists it. Run its part with `resume`.')
    written = content(found[0]["task"], entries)
    write_whole({whole: written})
    return count, json.loads(written)["jaxgrad"]


def _read(path: Path, index: int, count: int) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())["jaxgrad"]
        return found
    except FileNotFoundError:
        raise InputError(f'"{path}" is missing; expected {count}. Run part {index}/{count} with `resume`.') from None
    except (ValueError, LookupError, TypeError):
        raise InputError(f'"{path}" cannot be read as a manifest. Run part {index}/{count} again.') from None
