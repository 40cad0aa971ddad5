"""Threads of a run: a pool, a background thread, and waits that end on a shutdown request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager
from typing import TypeVar

from cryostore.core import interrupts
from cryostore.core.interrupts import POLL_SECONDS

T = TypeVar("T")
GRACE_SECONDS = 3.0
"""How long operations in flight may go on after a shutdown was requested."""


def task_result(future: Future[T]) -> T:
    """Wait for a task and return its result. Raises the task's error, KeyboardInterrupt after a shutdown request."""
    while True:
        interrupts.check()
        try:
            return future.result(POLL_SECONDS)
        except NotYet:
            if future.done():  # the task itself raised it, or ended just now
                return future.result()
        except BaseException:
            interrupts.check()  # the shutdown may be the cause of the error
            raise


def wait_until_set(event: threading.Event) -> None:
    """Return once an event is set. Raises KeyboardInterrupt after a shutdown request."""
    while not event.wait(POLL_SECONDS):
        interrupts.check()


class Threads(ThreadPoolExecutor):
    """A thread pool whose `shutdown` drops tasks that have not started and leaves no thread running.

    If KeyboardInterrupt comes while a thread is being started, the library's own pool forgets that thread. The thread
    would go on with descriptors that are closed, or that belong to other files by then.
    """

    def __init__(self, count: int, name: str) -> None:
        self._begun: list[threading.Thread] = []
        super().__init__(count, name, initializer=self._begin)

    def _begin(self) -> None:
        """Runs in each thread before its first task."""
        self._begun.append(threading.current_thread())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = True) -> None:  # noqa: FBT001, FBT002 - as the base
        """End the threads. A thread that has not reached `_begin` yet finds no task."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        if wait:
            for thread in self._begun:
                thread.join()


@contextmanager
def background_thread(name: str, run: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run `run` in a thread while the context lasts.

    At its end, set the event that `run` got and wait for `run` to return.
    """
    ended = threading.Event()
    thread = threading.Thread(target=run, args=(ended,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def grace_period(cut_off: Callable[[float], None], seconds: float = GRACE_SECONDS) -> Iterator[None]:
    """While the context lasts, a shutdown request gives operations in flight `seconds`, then calls `cut_off`.

    A background thread calls it, with the seconds that later operations may take. At the end of the context it is
    called again, if a shutdown was requested.
    """

    def watch(ended: threading.Event) -> None:
        while not ended.wait(POLL_SECONDS):
            if interrupts.is_requested():
                if not ended.wait(seconds):
                    cut_off(seconds)
                return

    try:
        with background_thread("end", watch):
            yield
    finally:
        if (
            interrupts.is_requested()
        ):  # a second request may have ended the context: a waiting thread would keep the process alive
            cut_off(seconds)
