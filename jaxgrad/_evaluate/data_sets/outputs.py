"""The outputs of a data set: which name each has, and that none of them is where the rows are."""

from collections.abc import Sequence
from pathlib import Path

from jaxgrad._errors import InputError
from jaxgrad._evaluate.data_sets.folder import Folder, Local
from jaxgrad._evaluate.data_sets.listing import Listed
from jaxgrad._evaluate.sink import WRITES
from jaxgrad._evaluate.source import ending_of


def name_beside(name: str, other: str) -> str:
    """The name of a file that is in the same folder as another."""
    folder, slash, _ = name.rpartition("/")
    return f"{folder}{slash}{other}"


def part_of(files: list[Listed], share: tuple[int, int]) -> list[Listed]:
    """The i-th part of n of the files; an `InputError` where there are less files than parts."""
    index, count = share
    if len(files) < count:
        raise InputError(f"there are {len(files)} files for {count} parts; expected one for each at least.")
    return files[len(files) * index // count : len(files) * (index + 1) // count]


def name_of_output(file: Listed, ending: str | None) -> str:
    """The name of the rows, with an output's ending; an `InputError` where that is of no format."""
    own = ending_of(Path(file.name))
    stem = file.name[: -len(own)]
    found = ending if ending is not None else own.removesuffix(".gz")
    if found not in WRITES:
        raise InputError(f"the outputs' ending is {found!r}; expected one of {', '.join(WRITES)}.")
    return stem + found


def check_apart(files: Sequence[Listed], folder: Folder, rows: Sequence[str]) -> None:
    """No output may be taken for rows the next time."""
    if isinstance(folder, Local):
        if folder.path.suffix.lower() in WRITES and not folder.path.is_dir():
            raise InputError(f'the rows are of several files, and the output is "{folder.path}"; expected a folder.')
        own = folder.path.resolve()
        for text in rows:
            if Path(text).is_dir() and own.is_relative_to(Path(text).resolve()):
                raise InputError(f'the output "{folder.path}" is in the folder of rows "{text}"; expected another.')
        homes = {file.folder for file in files if isinstance(file.folder, Local)}
        if own in {home.path.resolve() for home in homes}:
            raise InputError(f'the output "{folder.path}" is a folder of rows; expected another.')
    elif any(folder.shown("").startswith(file.folder.shown("")) for file in files):
        raise InputError(f'the output "{folder.shown("")}" is in a folder of rows; expected another.')
