"""The command's first moments: what goes wrong while JAX is imported, which takes a second, is one line too.

`__main__` imports it before all that imports JAX. In a program of one's own it does nothing.
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
    """Whether this process is `python -m jaxgrad` or the script `jaxgrad`."""
    folder, program = os.path.split(sys.argv[0] if sys.argv else "")
    return program in ("jaxgrad", "jaxgrad.exe") or (os.path.basename(folder), program) == ("jaxgrad", "__main__.py")


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
