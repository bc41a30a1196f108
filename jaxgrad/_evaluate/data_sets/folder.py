"""A folder of files, on this machine or on any file system that pyarrow or fsspec knows: s3://, gs:// and others."""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from jaxgrad._errors import InputError
from jaxgrad._evaluate.formats.columns import pyarrow
from jaxgrad._files import write_whole

Content = bytes | memoryview
# What `write_whole` names a file of a process before it has its own name; seals and lists of rows are files too.
STAGED = re.compile(r"\.(.+?)(?:\.seal\.json|\.skipped\.csv)?\.(\d+)\.tmp")


class Folder(Protocol):
    """Files by their names within the folder, parts of which are parted by slashes."""

    def shown(self, name: str) -> str:
        """A file's whole name, for messages."""

    def names(self) -> list[str]:
        """All files in it, and in the folders in it."""

    def has(self, name: str) -> bool: ...

    def tidy(self, names: Collection[str]) -> None:
        """Takes away what processes that were killed have left of files of these names."""

    def local(self, name: str, scratch: Path) -> Path:
        """A file on this machine with its content: itself, or a copy in `scratch`."""

    def publish(self, files: Mapping[str, Content], new: Collection[str]) -> None:
        """Writes files, each whole or not at all; those in `new` must not be there."""

    def remove(self, name: str) -> None:
        """Takes a file away that is there."""

    def where_to_write(self, name: str, scratch: Path) -> Path:
        """Where a large file can be written on this machine."""

    def take(self, name: str, path: Path) -> None:
        """Gives the file its name here that was written there."""


def is_url(text: str) -> bool:
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", text) is not None


def folder_of(text: str) -> Folder:
    """The folder at a path or URL.

    Raises:
      InputError: no file system of that kind is known, or it cannot be reached.
    """
    return _remote(text) if is_url(text) else Local(Path(text))


@dataclass(frozen=True)
class Local:
    path: Path

    def shown(self, name: str) -> str:
        return str(self.path / name)

    def names(self) -> list[str]:
        found: list[str] = []
        for folder, _, files in os.walk(self.path, followlinks=True):
            within = Path(folder).relative_to(self.path).as_posix()
            found += files if within == "." else [f"{within}/{file}" for file in files]
        return sorted(found)

    def has(self, name: str) -> bool:
        return os.path.lexists(self.path / name)

    def tidy(self, names: Collection[str]) -> None:
        own = {self.path / name for name in names}
        for folder in {path.parent for path in own}:
            for path in folder.glob(".*.tmp"):
                left = STAGED.fullmatch(path.name)
                if left and folder / left[1] in own and not _is_alive(int(left[2])):
                    path.unlink(missing_ok=True)

    def local(self, name: str, scratch: Path) -> Path:
        return self.path / name

    def publish(self, files: Mapping[str, Content], new: Collection[str]) -> None:
        for folder in {name.rpartition("/")[0] for name in files}:
            (self.path / folder).mkdir(parents=True, exist_ok=True)
        at = partial(os.path.join, self.path)
        try:
            write_whole({at(name): files[name] for name in files}, set(map(at, new)))
        except FileExistsError as error:
            raise InputError(f'"{error.filename2 or error.filename}" has come meanwhile, and was kept.') from None

    def remove(self, name: str) -> None:
        (self.path / name).unlink()

    def where_to_write(self, name: str, scratch: Path) -> Path:
        path = self.path / name
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def take(self, name: str, path: Path) -> None:
        """It is there already."""


@dataclass(frozen=True)
class Remote:
    """A folder elsewhere; an object there appears when it is whole."""

    url: str
    system: Any  # a pyarrow.fs.FileSystem
    path: str

    def shown(self, name: str) -> str:
        return f"{self.url.partition('?')[0].rstrip('/')}/{name}"

    def names(self) -> list[str]:
        fs = pyarrow("pyarrow.fs")
        found = self.system.get_file_info(fs.FileSelector(self.path, recursive=True, allow_not_found=True))
        return sorted(info.path[len(self.path) + 1 :] for info in found if info.type == fs.FileType.File)

    def has(self, name: str) -> bool:
        return bool(self.system.get_file_info(f"{self.path}/{name}").type != pyarrow("pyarrow.fs").FileType.NotFound)

    def tidy(self, names: Collection[str]) -> None:
        """Nothing is: an object appears when it is whole."""

    def local(self, name: str, scratch: Path) -> Path:
        copy = scratch / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        with self.system.open_input_stream(f"{self.path}/{name}") as source, copy.open("wb") as file:
            while data := source.read(1 << 24):
                file.write(data)
        return copy

    def publish(self, files: Mapping[str, Content], new: Collection[str]) -> None:
        for name, content in files.items():
            if name in new and self.has(name):
                raise InputError(f'"{self.shown(name)}" has come meanwhile, and was kept.')
            self._make_parent(name)
            with self.system.open_output_stream(f"{self.path}/{name}") as file:
                file.write(content)

    def remove(self, name: str) -> None:
        self.system.delete_file(f"{self.path}/{name}")

    def where_to_write(self, name: str, scratch: Path) -> Path:
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        return scratch / name

    def take(self, name: str, path: Path) -> None:
        self._make_parent(name)
        fs = pyarrow("pyarrow.fs")
        fs.copy_files(
            str(path), f"{self.path}/{name}", source_filesystem=fs.LocalFileSystem(), destination_filesystem=self.system
        )

    def _make_parent(self, name: str) -> None:
        if self.system.type_name not in ("s3", "gcs", "abfs"):  # which have no folders
            self.system.create_dir(str(PurePosixPath(self.path, name).parent), recursive=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _remote(url: str) -> Remote:
    pa, fs = pyarrow("pyarrow"), pyarrow("pyarrow.fs")
    try:
        system, path = fs.FileSystem.from_uri(url)
    except pa.ArrowInvalid as error:
        if "nrecognized filesystem" not in str(error):
            raise InputError(f'"{url}" cannot be reached: {error}') from None
        system, path = _by_fsspec(url)
    except (OSError, pa.ArrowNotImplementedError) as error:
        raise InputError(f'"{url}" cannot be reached: {error}') from None
    return Remote(url, system, path.rstrip("/"))


def _by_fsspec(url: str) -> tuple[Any, str]:
    fs = pyarrow("pyarrow.fs")
    try:
        system, path = import_module("fsspec.core").url_to_fs(url)
    except ImportError as error:
        raise InputError(f'"{url}" is of no file system that pyarrow has, and fsspec needs more: {error}.') from None
    except ValueError as error:
        raise InputError(f'"{url}" is of no file system that pyarrow or fsspec has: {error}.') from None
    return fs.PyFileSystem(fs.FSSpecHandler(system)), path
