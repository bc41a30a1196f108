"""Several processes at one task: the rows of each go into a shard of the output."""

import hashlib
import json
import re
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgrad._errors import InputError
from jaxgrad._evaluate.task import Task

HEARTBEAT = 20  # seconds without a sign of one process after which JAX ends the others: within a minute
JOINING = 60  # seconds that a process waits for the first one
RESOLVING = 4  # seconds that the name of a host may take


def join(coordinator: str | None, processes: int | None, process: int | None, distributed: bool) -> tuple[int, int]:
    """Joins the processes of a run; the number of this one, and how many there are.

    Args:
      coordinator, processes, process: host:port of the first process, how many there are, and which this is.
      distributed: they are found out from Slurm, MPI, Kubernetes or a TPU pod.

    Raises:
      InputError: one of them is missing or cannot be, or no first process answers there.
    """
    if not (distributed or coordinator):
        if processes is not None or process is not None:
            raise InputError("`processes` and `process` are given without `coordinator`; expected its host:port.")
        return 0, 1
    if coordinator is not None:
        _check_place(processes, process, distributed)
        _check_address(coordinator, first=process == 0)
    try:
        jax.distributed.initialize(
            coordinator, processes, process, initialization_timeout=JOINING, heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=30 * 24 * 3600,  # the first to be done waits for the last
        )  # fmt: skip
    except (ValueError, KeyError, OSError) as error:
        raise InputError(
            f"the processes of this run cannot be found out: {error} Give `coordinator`, `processes` and `process`."
        ) from error
    return jax.process_index(), jax.process_count()


def host_of(coordinator: str | None) -> str | None:
    """The host of a coordinator's host:port; None where it is found out by JAX."""
    return coordinator.rpartition(":")[0].removeprefix("[").removesuffix("]") if coordinator is not None else None


def _check_place(processes: int | None, process: int | None, distributed: bool) -> None:
    if (processes is None or process is None) and not distributed:
        raise InputError("`coordinator` is given without `processes` or `process`; expected all three.")
    if processes is not None and processes < 1:
        raise InputError(f"`processes` is {processes}; expected how many there are, 1 at least.")
    if process is not None and not 0 <= process < (processes or process + 1):
        raise InputError(f"`process` is {process} of {processes}; expected a number from 0 to {(processes or 1) - 1}.")


def _check_address(address: str, *, first: bool) -> None:
    """Raises an error where JAX would end the process, or wait a minute, over an address that cannot be."""
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise InputError(f'`coordinator` is "{address}"; expected host:port, the port from 1 to 65535.')
    host = host.removeprefix("[").removesuffix("]")
    if not _resolves(host, int(port)):
        raise InputError(f'`coordinator` is "{address}", and there is no host "{host}"; expected one that is known.')
    if first:
        _check_free(address, int(port))
    else:
        _wait_for_first(address, host, int(port))


def _resolves(host: str, port: int) -> bool:
    found: list[object] = []

    def resolve() -> None:
        with suppress(OSError, UnicodeError):
            found.extend(socket.getaddrinfo(host, port))

    thread = threading.Thread(target=resolve, daemon=True)  # a name server that is silent holds up nothing
    thread.start()
    thread.join(RESOLVING)
    return bool(found)


def _check_free(address: str, port: int) -> None:
    try:
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("", port))
    except OSError as error:
        raise InputError(
            f'`coordinator` is "{address}", and this process cannot wait there for the others: {error.strerror}. '
            "Give another port."
        ) from error


def _wait_for_first(address: str, host: str, port: int) -> None:
    end = time.monotonic() + JOINING
    while True:
        try:
            with socket.create_connection((host, port), timeout=5):
                return
        except OSError as error:
            if time.monotonic() > end:
                raise InputError(
                    f'`coordinator` is "{address}", and no process 0 has answered there for {JOINING} seconds: {error}.'
                ) from error
            time.sleep(0.2)


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


def check_agreement(task: Task, out: str | Path, greeting: bytes = bytes(32)) -> bytes:
    """Raises an error where the processes of a run are at different tasks; every process has to call it.

    Returns:
      the greeting of the first process, 32 bytes.

    Raises:
      InputError: something of the task differs.
    """
    from jax.experimental import multihost_utils  # which takes a while, and needs a runtime of several processes

    made_of = {key: value for key, value in task.made_of().items() if key != "part of the rows"}
    made_of["output"] = Path(out).name
    digests = [_digest(key, value) for key, value in made_of.items()]
    everyone = np.asarray(multihost_utils.process_allgather(np.array([*digests, np.frombuffer(greeting, np.uint32)])))
    for key, of_all in zip(made_of, everyone.swapaxes(0, 1)[:-1], strict=True):
        differ = np.flatnonzero((of_all != of_all[0]).any(axis=1))
        if len(differ):
            raise InputError(
                f"process {differ[0]} has another value for {key} than process 0; expected the same in all."
            )
    return bytes(everyone[0, -1].tobytes())


def _digest(key: str, value: object) -> np.ndarray[Any, Any]:
    return np.frombuffer(hashlib.sha256(json.dumps([key, value]).encode()).digest(), np.uint32)
