"""Being told to end, by Ctrl-C or a signal: heeded where nothing is half done.

Python raises KeyboardInterrupt between any two instructions of the main thread. In the midst of a condition's own code
it leaves a lock held for ever, behind the call that makes a file it leaves that file. So while `heeded` lasts, it is
only noted. `check` stands where a run may end, and `waiting` around calls that may take long and hold nothing:
there it is raised at once. Every run must come by one of them often. Outside of `heeded`, and in a program that uses
Cryostore as a library, nothing here has any effect.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from cryostore.core.background import background_thread

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TOGETHER_SECONDS = 1.0
"""Two signals within this time are one: a terminal that closes may send its own and its shell's."""
LOOK_SECONDS = 0.1
"""How often who waits looks whether the run was told to end."""
UNDER_WAY_SECONDS = 3.0
"""How long what is under way may go on once the run was told to end."""


class _Notice:
    """What the process was told. Signals are for all of it, so there is one."""

    def __init__(self) -> None:
        self.told_seconds: float | None = None
        """When, by the monotonic clock."""
        self.is_raised = False
        self.is_waiting = False
        self.is_heeded = False
        """Whether signals come here."""

    def on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the shape of a handler
        now = time.monotonic()
        if self.told_seconds is None:
            self.told_seconds = now
            if self.is_waiting:
                self.raise_once()
        elif now - self.told_seconds > TOGETHER_SECONDS:  # whoever insists has it wherever the run is
            self.is_raised = True
            raise KeyboardInterrupt

    def raise_once(self) -> None:
        if self.told_seconds is not None and not self.is_raised:
            self.is_raised = True
            self.is_waiting = False
            raise KeyboardInterrupt


_notice = _Notice()
_left: dict[signal.Signals, Any] = {}
"""What was in the place of handlers that were left when a run was told to end."""
_main = threading.main_thread().ident


@contextmanager
def heeded() -> Iterator[None]:
    """While the context lasts, SIGINT, SIGTERM and SIGHUP end the run where it may end. For the main thread.

    Signals that are ignored, or that somebody else handles, stay so. Within another such context it does nothing.
    Once the run was told to end, the handlers stay beyond the context, so that the second of two signals does not kill
    the process in between; `restore` takes them away.
    """
    global _notice  # noqa: PLW0603 - as the handlers are
    if _notice.is_heeded:
        yield
        return
    before, _notice = _notice, _Notice()
    _notice.is_heeded = True
    handlers = {number: _left.pop(number, signal.getsignal(number)) for number in SIGNALS}
    handlers = {n: old for n, old in handlers.items() if old in (signal.SIG_DFL, signal.default_int_handler)}
    for number in handlers:
        signal.signal(number, _notice.on_signal)
    try:
        yield
    finally:
        if told():
            _left.update(handlers)
        else:
            _restore(handlers)
        _notice = before


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for number, old in handlers.items():
        signal.signal(number, old)


def restore() -> None:
    """Make signals again what they were before a run that was told to end."""
    _restore(_left)
    _left.clear()


def ignore() -> None:
    """Let no signal come upon the end of a process whose exit code is decided."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def told() -> bool:
    """Whether the run was told to end: what would be begun anew is not any more. For every thread."""
    return _notice.told_seconds is not None


def sleep(seconds: float) -> None:
    """Sleep, and not on once the run was told to end. For every thread."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not told():
        time.sleep(min(left, LOOK_SECONDS))


@contextmanager
def limited(cut_off: Callable[[float], None]) -> Iterator[None]:
    """While the context lasts, what is under way ends soon after the run was told to: `cut_off` ends it then.

    It is called by a thread of its own, with the seconds that whatever is begun later may wait.
    """

    def watch(ended: threading.Event) -> None:
        while not ended.wait(LOOK_SECONDS):
            if told():
                if not ended.wait(UNDER_WAY_SECONDS):
                    cut_off(UNDER_WAY_SECONDS)
                return

    try:
        with background_thread("end", watch):
            yield
    finally:
        if told():  # by whoever insisted, it may be: a thread that waits would keep the process
            cut_off(UNDER_WAY_SECONDS)


def check() -> None:
    """Raise KeyboardInterrupt if the run was told to end; once, so that what cleans up is left in peace.

    Does nothing in other threads: the main one ends them.
    """
    if _notice.told_seconds is not None and threading.get_ident() == _main:
        _notice.raise_once()


def check_task() -> None:
    """As `check`, in every thread: for tasks of which the main one raises what they raise."""
    check()
    if told() and threading.get_ident() != _main:
        raise KeyboardInterrupt


class _Waiting:
    """See `waiting`."""

    def __enter__(self) -> None:
        if threading.get_ident() == _main:
            _notice.is_waiting = True  # first: a signal that comes in between is not to be slept over
            _notice.raise_once()

    def __exit__(self, *_: object) -> None:
        if threading.get_ident() == _main:
            _notice.is_waiting = False


waiting = _Waiting()
"""A context in which KeyboardInterrupt is raised at once. What is in it may be cut off anywhere: a system call, or an
exchange that closes what it has opened, and never a lock of Python's own."""
