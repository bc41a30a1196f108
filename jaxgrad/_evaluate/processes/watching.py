"""Whether the other processes of a run are still there: a connection of each to the first, which ends with it.

JAX notices the death of a process by silence, after a while, and then aborts in its own words; what is learned here is
known at once, and only told. A connection that cannot be made, or that is silent, tells nothing.
"""

import os
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TypeAlias

GREETING = struct.Struct("!16s4sH10x")  # a token that only processes of this run know; address and port of the first
INTRODUCTION = 20  # bytes: the token, and the number of the process
CONNECTING = 5.0  # seconds
BYE = b"bye"  # it has done all that it had to

Died: TypeAlias = Callable[[int], None]


class Watch:
    """Watches the other processes; `greeting` of the first has to be given to all."""

    def __init__(self, process: int):
        self._process = process
        self._listener: socket.socket | None = None
        self._connections: dict[socket.socket, int | None] = {}  # whose, once it is known
        self._parted: set[socket.socket] = set()  # connections over which a farewell has come: their end is no death
        self._over = False
        self._stop, self._stopped = socket.socketpair()
        if process == 0:
            self._listener = socket.create_server(("", 0))
            self._token = os.urandom(16)

    @property
    def greeting(self) -> bytes:
        if self._listener is None:
            return bytes(GREETING.size)
        return GREETING.pack(self._token, _own_address(), self._listener.getsockname()[1])

    def begin(self, host: str | None, greeting: bytes, died: Died) -> None:
        """Calls `died` with the number of a process that has ended without a farewell; of one only.

        Args:
          host: of the first process; what it says itself if None.
          greeting: of the first process.
        """
        self._died = died
        if self._process:
            token, announced, port = GREETING.unpack(greeting)
            with suppress(OSError):
                first = socket.create_connection((host or socket.inet_ntoa(announced), port), timeout=CONNECTING)
                first.settimeout(None)
                first.sendall(token + struct.pack("!I", self._process))
                self._connections[first] = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def say_farewell(self) -> None:
        """All is done: that this process ends is no death from here on; that of another still is."""
        for connection in list(self._connections):
            with suppress(OSError):
                connection.sendall(BYE)

    def close(self) -> None:
        """Ends the watch, and its connections."""
        self._stop.close()

    def _watch(self) -> None:
        with selectors.DefaultSelector() as ready, ExitStack() as stack:
            for one in filter(None, (self._stopped, self._listener, *self._connections)):
                ready.register(stack.enter_context(one), selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    connection = key.fileobj
                    assert isinstance(connection, socket.socket)
                    if connection is self._stopped:
                        return
                    if connection is self._listener:
                        new, _ = connection.accept()
                        self._connections[stack.enter_context(new)] = None
                        ready.register(new, selectors.EVENT_READ)
                    elif not self._heard(connection):
                        ready.unregister(connection)
                        if connection not in self._parted:  # closed, it would be an end without a farewell of its own
                            self._connections.pop(connection, None)
                            connection.close()

    def _heard(self, connection: socket.socket) -> bool:
        """Whether there may be more to hear."""
        whose = self._connections[connection]
        try:
            data = connection.recv(INTRODUCTION if whose is None else 64)
        except OSError as error:
            data = b"" if isinstance(error, ConnectionResetError) else BYE  # it is silent: that says nothing
        if whose is None:  # nothing but a process's introduction is believed
            known = self._process == 0 and len(data) == INTRODUCTION and data[:16] == self._token
            self._connections[connection] = struct.unpack("!I", data[16:])[0] if known else None
            return known
        if data.startswith(BYE):
            self._parted.add(connection)
            return False
        if not self._over:
            self._over = True
            died = struct.unpack("!I", data[:4])[0] if len(data) >= 4 else whose
            for other, number in list(self._connections.items()):
                if self._process == 0 and number not in (None, died):
                    with suppress(OSError):
                        other.sendall(struct.pack("!I", died))
            self._died(died)
        return False


def _own_address() -> bytes:
    """The address by which this machine reaches others; asking for it sends nothing."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        outward.connect(("192.0.2.1", 9))
        return socket.inet_aton(outward.getsockname()[0])
    return bytes(4)
