"""Which files a data set has: those of a folder, those that a glob matches, those that are named."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from jaxgrad._errors import InputError
from jaxgrad._evaluate.data_sets.folder import Folder, folder_of, is_url
from jaxgrad._evaluate.sink import WRITES
from jaxgrad._evaluate.source import READS, ending_of

OURS = re.compile(r".*(\.seal\.json|\.skipped\.csv|\.part|\.part\.log)|manifest(-\d{5}-of-\d{5})?\.json")


@dataclass(frozen=True)
class Listed:
    """A file of rows: where it is, and its name there, which its output has too."""

    folder: Folder
    name: str

    @property
    def shown(self) -> str:
        return self.folder.shown(self.name)


def is_data_set(rows: Sequence[str], out: str) -> bool:
    """Whether rows or output are anything but one file on this machine."""
    one = len(rows) == 1 and not is_url(rows[0]) and not os.path.isdir(rows[0]) and not _is_glob(rows[0])
    is_folder = out.endswith("/") or (os.path.isdir(out) and Path(out).suffix.lower() not in WRITES)
    return not one or is_url(out) or is_folder


def listed(rows: Sequence[str]) -> list[Listed]:
    """The files, in order: of each folder or glob by name.

    In a folder, names that begin with a dot or an underscore are left out, as engines write them beside rows, and what
    evaluate itself writes beside outputs.

    Raises:
      InputError: there is none, one is no file of rows, or two have one name.
    """
    files = [file for text in rows for file in _found(text)]
    by_name: dict[str, Listed] = {}
    for file in files:
        if file.name in by_name:
            raise InputError(
                f'"{by_name[file.name].shown}" and "{file.shown}" would have one output, "{file.name}"; expected files '
                "of other names. Give the folder that both are in."
            )
        by_name[file.name] = file
    return files


def _found(text: str) -> list[Listed]:
    url, question, query = text.partition("?") if is_url(text) else (text, "", "")
    query = question + query  # options of the file system
    if _is_glob(url):
        base, pattern = _parted(url)
        folder = folder_of(base + query)
        names = [name for name in folder.names() if _matches(PurePosixPath(name).parts, PurePosixPath(pattern).parts)]
    elif not is_url(url) and not os.path.isdir(url):
        if not os.path.exists(url):
            raise InputError(f'there is no file or folder "{url}"; expected rows of numbers.')
        return [_checked(Listed(folder_of(str(Path(url).parent)), Path(url).name))]
    elif is_url(url) and any(url.lower().endswith(ending) for ending in READS):
        base, _, name = url.rpartition("/")
        return [Listed(folder_of(base + query), name)]
    else:
        folder = folder_of(url + query)
        names = folder.names()
    files = [Listed(folder, name) for name in names if not _is_left_out(name)]
    if not files:
        raise InputError(f'there is no file of rows in "{text}"; expected some that end in {", ".join(READS)}.')
    return [_checked(file) for file in files]


def _checked(file: Listed) -> Listed:
    if ending_of(Path(file.name)) not in READS:
        raise InputError(
            f'"{file.shown}" is no file of rows; expected only such that end in {", ".join(READS)}. Give a glob.'
        )
    return file


def _is_left_out(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return any(part[0] in "._" for part in parts) or OURS.fullmatch(parts[-1]) is not None


def _is_glob(text: str) -> bool:
    return any(sign in text for sign in "*[") and not os.path.exists(text)


def _parted(pattern: str) -> tuple[str, str]:
    """The folder that a glob begins in, and the rest of it."""
    fixed = re.split(r"[*\[]", pattern, maxsplit=1)[0]
    base = fixed[: fixed.rfind("/") + 1]
    return base or ".", pattern[len(base) :]


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a name is one of a glob's; ** is any number of folders."""
    if not pattern or not parts:
        return not pattern and not parts
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or _matches(parts[1:], pattern)
    return fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
