"""The interpreter's own account of what runs: which frames begin, each of their lines, and their end.

Python 3.12 and later have it from `sys.monitoring`, under a tool id that is free, so that a debugger, a profiler or
coverage goes on as it did, in the watched function too. Before, and where no id is free, it is `sys.settrace`: then
the tracer that was there is put aside for the call, and back after it. Both are told of the same events; both leave
threads alone that watch nothing.
"""

import inspect
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import CodeType, FrameType
from typing import Any, Literal, Protocol, TypeVar

T = TypeVar("T")

Listen = Literal["lines", "end"] | None  # what is to be told of a frame


class Listener(Protocol):
    """Whoever is told.

    Attributes:
      deaf: code that nothing is to be told of, by its id.
      to_libraries: does it listen to code that others are deaf to?
    """

    deaf: dict[int, CodeType]
    to_libraries: bool

    def begin(self, frame: FrameType) -> Listen: ...

    def line(self, frame: FrameType, line: int) -> None:
        """A line is about to run."""

    def end(self, frame: FrameType, result: Any) -> None: ...


def told(listener: Listener, call: Callable[[], T]) -> T:
    """The result of a call, of which `listener` is told the frames that this thread runs."""
    if sys.version_info >= (3, 12) and _monitor.start(listener):
        before = getattr(_told, "listener", None)
        _told.listener = listener
        try:
            return call()
        finally:
            _told.listener = before
            _monitor.stop(listener)
    tracer = sys.gettrace()
    sys.settrace(_tracer(listener))
    try:
        return call()
    finally:  # in the frame that has set it: a tracer that counts calls and returns is off by none
        sys.settrace(tracer)
        _call()  # at which a tracer written in C, as coverage's, puts itself in place again


def _call() -> None:
    """A call of a Python function."""


def _tracer(listener: Listener) -> Any:
    """Events from `sys.settrace`. It is called at each call of any function, so it does little there."""
    deaf = listener.deaf

    def call(frame: FrameType, event: str, arg: Any) -> Any:
        if id(frame.f_code) in deaf:
            return None
        listen = listener.begin(frame)
        return lines if listen == "lines" else ends if listen == "end" else None

    def lines(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line" or (event == "return" and frame.f_code.co_flags & _RESUMED):  # which may have yielded only
            listener.line(frame, frame.f_lineno)
        else:
            ends(frame, event, arg)
        return lines

    def ends(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "return":
            listener.end(frame, arg)
        return ends

    return call


_RESUMED = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_told = threading.local()  # its `listener`, of each thread

if sys.version_info >= (3, 12):
    _events = sys.monitoring.events
    _IDS = (3, 4)  # those that no kind of tool has for itself
    _LISTEN = {"lines": _events.LINE | _events.JUMP | _events.PY_RETURN, "end": _events.PY_RETURN}

    class _Monitor:
        """Events from `sys.monitoring`: one tool for all threads that watch.

        What every listener is deaf to is not told again, in no thread, until one listens that is not.
        """

        def __init__(self) -> None:
            self._lock = threading.Lock()
            self._users = 0
            self._to_libraries = 0
            self._id = -1
            self._codes: dict[int, tuple[CodeType, int]] = {}
            self._callbacks = {
                _events.PY_START: self._begin,
                _events.LINE: self._line,
                _events.JUMP: self._jump,
                _events.PY_RETURN: self._end,
            }

        def start(self, listener: Listener) -> bool:
            """Begins to tell; False if no tool id is free."""
            with self._lock:
                if not self._users and not self._claim():
                    return False
                self._users += 1
                self._to_libraries += listener.to_libraries
                if listener.to_libraries:
                    sys.monitoring.restart_events()
                return True

        def _claim(self) -> bool:
            for self._id in _IDS:
                with suppress(ValueError):  # it is in use
                    sys.monitoring.use_tool_id(self._id, "jaxgrad.watch")
                    break
            else:
                return False
            for event, callback in self._callbacks.items():
                sys.monitoring.register_callback(self._id, event, callback)
            sys.monitoring.set_events(self._id, _events.PY_START)
            return True

        def stop(self, listener: Listener) -> None:
            """Ends to tell, and gives the id back as it was found once no thread watches."""
            with self._lock:
                self._users -= 1
                self._to_libraries -= listener.to_libraries
                if self._users:
                    return
                sys.monitoring.set_events(self._id, 0)
                for code, _ in self._codes.values():
                    sys.monitoring.set_local_events(self._id, code, 0)
                for event in self._callbacks:
                    sys.monitoring.register_callback(self._id, event, None)
                sys.monitoring.restart_events()  # the id's next owner is told of all code
                sys.monitoring.free_tool_id(self._id)
                self._codes.clear()

        def _listen(self, code: CodeType, events: int) -> None:
            with self._lock:
                known = self._codes.get(id(code), (code, 0))[1]
                if known | events != known:
                    self._codes[id(code)] = code, known | events
                    sys.monitoring.set_local_events(self._id, code, known | events)

        def _begin(self, code: CodeType, offset: int) -> Any:
            listener = getattr(_told, "listener", None)
            if listener is None:
                return None
            if id(code) not in listener.deaf:
                listen = listener.begin(sys._getframe(1))
                if listen is not None:
                    self._listen(code, _LISTEN[listen])
                if id(code) not in listener.deaf:
                    return None
            return None if self._to_libraries else sys.monitoring.DISABLE

        def _line(self, code: CodeType, line: int) -> None:
            listener = getattr(_told, "listener", None)
            if listener is not None:
                listener.line(sys._getframe(1), line)

        def _jump(self, code: CodeType, offset: int, to: int) -> None:
            """A loop in one line is one line each time round."""
            listener = getattr(_told, "listener", None)
            if listener is not None and to < offset:
                frame = sys._getframe(1)
                listener.line(frame, frame.f_lineno)

        def _end(self, code: CodeType, offset: int, result: Any) -> None:
            listener = getattr(_told, "listener", None)
            if listener is not None:
                listener.end(sys._getframe(1), result)

    _monitor = _Monitor()
