"""Thread pool and waits that end on a shutdown request."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from typing import TypeVar

from cryostore.core import interrupts
from cryostore.core.interrupts import POLL_SECONDS

T = TypeVar("T")


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
