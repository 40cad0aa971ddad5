"""The threads of a run that reads or writes much at a time. What they do is not here."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from typing import TypeVar

from cryostore.core import interrupts
from cryostore.core.interrupts import LOOK_SECONDS

T = TypeVar("T")


def result(future: Future[T]) -> T:
    """What came of a task, as soon as it is done. Raises what the task raised, KeyboardInterrupt if told to end."""
    while True:
        interrupts.check()
        try:
            return future.result(LOOK_SECONDS)
        except NotYet:
            if future.done():  # it is the task's own error, or came just now
                return future.result()
        except BaseException:
            interrupts.check()  # it may have ended only since the run is to
            raise


def wait(event: threading.Event) -> None:
    """Return once an event is set. Raises KeyboardInterrupt if told to end."""
    while not event.wait(LOOK_SECONDS):
        interrupts.check()


class Threads(ThreadPoolExecutor):
    """A pool that is at rest once it was shut down: what was not begun by then never is, and no thread is left.

    A KeyboardInterrupt that comes while a thread is being started makes the library's own pool forget that thread: it
    would go on with descriptors that are closed, or are those of other files by then.
    """

    def __init__(self, count: int, name: str) -> None:
        self._begun: list[threading.Thread] = []
        super().__init__(count, name, initializer=self._begin)

    def _begin(self) -> None:
        """Runs in each thread, before it takes anything on."""
        self._begun.append(threading.current_thread())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = True) -> None:  # noqa: FBT001, FBT002 - as the base
        """End the threads. One that has not come to `_begin` yet finds nothing to do."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        if wait:
            for thread in self._begun:
                thread.join()
