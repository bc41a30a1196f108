"""Several processes at one task: the rows of each go into a shard of the output."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._evaluate.task import Task


def shard_of(out: str | Path, index: int, count: int) -> Path:
    """The file of a process's own rows: out.npy is out-00000-of-00002.npy for the first of two."""
    out = Path(out)
    return out if count == 1 else out.with_name(f"{out.stem}-{index:05}-of-{count:05}{out.suffix}")


def check_no_others(out: str | Path, count: int) -> None:
    """Raises an error where shards of another number are there: what reads them all would read rows twice.

    Raises:
      InputError: there is one.
    """
    out = Path(out)
    shard = re.compile(rf"{re.escape(out.stem)}-\d{{5}}-of-(\d{{5}}){re.escape(out.suffix)}(\.part)?")
    for path in sorted(out.parent.iterdir()) if count > 1 and out.parent.is_dir() else ():
        if (found := shard.fullmatch(path.name)) and int(found[1]) != count:
            raise InputError(
                f'"{path}" is of {int(found[1])} shards, and now there are {count}; expected none of another number '
                "beside them. Remove it, or give another name."
            )


def check_agreement(task: Task, out: str | Path) -> None:
    """Raises an error where the processes of a run are at different tasks; every process has to call it.

    Raises:
      InputError: something of the task differs.
    """
    from jax.experimental import multihost_utils  # which takes a while, and needs a runtime of several processes

    made_of = {key: value for key, value in task.made_of().items() if key != "part of the rows"}
    made_of["output"] = Path(out).name
    digests = np.array([_digest(key, value) for key, value in made_of.items()])
    everyone = np.asarray(multihost_utils.process_allgather(digests))
    for key, of_all in zip(made_of, everyone.swapaxes(0, 1), strict=True):
        differ = np.flatnonzero((of_all != of_all[0]).any(axis=1))
        if len(differ):
            raise InputError(
                f"process {differ[0]} has another value for {key} than process 0; expected the same in all."
            )


def _digest(key: str, value: object) -> np.ndarray[Any, Any]:
    return np.frombuffer(hashlib.sha256(json.dumps([key, value]).encode()).digest(), np.uint32)
