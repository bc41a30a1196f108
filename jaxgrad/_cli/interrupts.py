"""Ctrl-C and SIGTERM: the first one ends the command in order, a second one at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from jaxgrad._cli.startup import end_at_once

_raised: list[type[KeyboardInterrupt]] = []  # by a signal of the command that runs


class Terminated(KeyboardInterrupt):
    """As by Ctrl-C, but it was SIGTERM."""


@contextmanager
def interruptible(*, for_good: bool) -> Iterator[None]:
    """Has signals raise `KeyboardInterrupt` or `Terminated`; once the command is done, they end the process at once.

    Args:
      for_good: the process is the command's own, and ends with it; or else all is put back as it was.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are another's
        return
    kinds = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
    # What ignores a signal (nohup, a job in a shell's background) goes on doing so.
    before = {which: handler for which in kinds if (handler := signal.getsignal(which)) != signal.SIG_IGN}
    _raised.clear()
    for which in before:
        signal.signal(which, _raising(kinds[which]))
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, end_at_once if for_good else handler)


def _raising(kind: type[KeyboardInterrupt]) -> Callable[[int, FrameType | None], Any]:
    def handler(number: int, frame: FrameType | None) -> None:
        if _raised:
            end_at_once()
        _raised.append(kind)
        raise kind

    return handler


def check_not_interrupted() -> None:
    """Raises it again where whoever was called from C has dropped it, as JAX's hook of the garbage collector does."""
    if _raised:
        raise _raised[0]
