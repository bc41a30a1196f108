"""The command's first moments: what goes wrong while JAX is imported, which takes a second, is one line too.

Importing `jaxgrad` in a program of one's own does nothing here.
"""

import os
import signal
import sys
import traceback
from contextlib import suppress
from types import TracebackType
from typing import NoReturn

CANNOT, INTERRUPTED = 2, 130


def is_the_command() -> bool:
    """Whether this process is `python -m jaxgrad` or the script `jaxgrad`, and nothing of it has run yet."""
    if sys.argv[:1] == ["-m"]:  # so while the module to run is looked for
        before = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
        return before[-1:] in (["jaxgrad"], ["-mjaxgrad"], ["jaxgrad.__main__"])
    return os.path.basename(sys.argv[0] if sys.argv else "") in ("jaxgrad", "jaxgrad.exe")


def open_closed_streams() -> None:
    """Opens standard streams that are closed to nowhere: a file would get their number, and what is printed with it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one


def end_at_once(*_: object) -> NoReturn:
    """Ends the process as a kill would: whatever it was writing can be gone on with."""
    _say("interrupted.")
    os._exit(INTERRUPTED)


def _end_with_one_line(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    if "--traceback" in sys.argv:
        traceback.print_exception(kind, error, where)
    _say(f"it cannot be started: {kind.__name__}: {error}")
    os._exit(CANNOT)


def _say(text: str) -> None:
    with suppress(OSError):  # no one hears it
        os.write(2, f"jaxgrad: {' '.join(text.split())}\n".encode(errors="backslashreplace"))


if is_the_command():
    open_closed_streams()
    sys.excepthook = _end_with_one_line
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)
