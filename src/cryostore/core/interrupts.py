"""Graceful shutdown: signals take effect only at safe points.

Python raises KeyboardInterrupt between any two instructions of the main thread. Within the code of a condition variable
that leaves a lock held for ever; right after a call that creates a file it leaves that file behind. So while `deferred`
lasts, a signal is only noted. `check` marks the points where a run may end. `interruptible` surrounds calls that can
take long and hold no resource: within it, KeyboardInterrupt is raised at once. Every run must pass one of the two
often. Outside of `deferred`, and so in a program that uses Cryostore as a library, this module has no effect.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAME_REQUEST_SECONDS = 1.0
"""Two signals within this time are one request: a terminal that closes may send its own and its shell's."""
POLL_SECONDS = 0.1
"""How often a waiting thread checks whether a shutdown was requested."""


class _Request:
    """The shutdown request of this process. There is one, because signals are for the whole process."""

    def __init__(self) -> None:
        self.requested_seconds: float | None = None
        """The moment of the request, by the monotonic clock."""
        self.is_raised = False
        self.is_interruptible = False
        self.is_deferring = False
        """Whether the signal handlers are installed."""

    def on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the shape of a handler
        now = time.monotonic()
        if self.requested_seconds is None:
            self.requested_seconds = now
            if self.is_interruptible:
                self.raise_once()
        elif now - self.requested_seconds > SAME_REQUEST_SECONDS:  # a second request ends the run wherever it is
            self.is_raised = True
            raise KeyboardInterrupt

    def raise_once(self) -> None:
        if self.requested_seconds is not None and not self.is_raised:
            self.is_raised = True
            self.is_interruptible = False
            raise KeyboardInterrupt


_request = _Request()
_replaced_handlers: dict[signal.Signals, Any] = {}
"""The handlers to put back, if a run ended after a shutdown request."""
_main = threading.main_thread().ident


@contextmanager
def deferred() -> Iterator[None]:
    """While the context lasts, SIGINT, SIGTERM and SIGHUP end the run only at safe points. For the main thread.

    Signals that are ignored, or that other code handles, stay so. Within another such context this has no effect. After
    a shutdown request the handlers stay beyond the context, so that the second of two signals does not kill the process
    in between; `restore_handlers` puts the old ones back.
    """
    global _request  # noqa: PLW0603 - as the handlers are
    if _request.is_deferring:
        yield
        return
    before, _request = _request, _Request()
    _request.is_deferring = True
    handlers = {number: _replaced_handlers.pop(number, signal.getsignal(number)) for number in SIGNALS}
    handlers = {n: old for n, old in handlers.items() if old in (signal.SIG_DFL, signal.default_int_handler)}
    for number in handlers:
        signal.signal(number, _request.on_signal)
    try:
        yield
    finally:
        if is_requested():
            _replaced_handlers.update(handlers)
        else:
            _restore(handlers)
        _request = before


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for number, old in handlers.items():
        signal.signal(number, old)


def restore_handlers() -> None:
    """Put back the signal handlers from before a run that ended after a shutdown request."""
    _restore(_replaced_handlers)
    _replaced_handlers.clear()


def ignore_signals() -> None:
    """Ignore all of SIGNALS from now on: the exit code of the process is decided."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def is_requested() -> bool:
    """Whether a shutdown was requested. Then nothing new may be started, retries included. For every thread."""
    return _request.requested_seconds is not None


def sleep(seconds: float) -> None:
    """Sleep, but return soon after a shutdown request. For every thread."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not is_requested():
        time.sleep(min(left, POLL_SECONDS))


def check() -> None:
    """Raise KeyboardInterrupt if a shutdown was requested; only once, so that clean-up code is not interrupted.

    Has no effect in other threads: the main thread ends them.
    """
    if _request.requested_seconds is not None and threading.get_ident() == _main:
        _request.raise_once()


def check_task() -> None:
    """As `check`, but in every thread. For tasks whose errors the main thread raises again."""
    check()
    if is_requested() and threading.get_ident() != _main:
        raise KeyboardInterrupt


class _Interruptible:
    """See `interruptible`."""

    def __enter__(self) -> None:
        if threading.get_ident() == _main:
            _request.is_interruptible = True  # first: a signal that comes in between must not be slept over
            _request.raise_once()

    def __exit__(self, *_: object) -> None:
        if threading.get_ident() == _main:
            _request.is_interruptible = False


interruptible = _Interruptible()
"""A context in which KeyboardInterrupt is raised at once.

Its body may be cut off anywhere. So it may hold a system call, or an exchange that closes all that it opened, but never
a lock of Python's own.
"""
