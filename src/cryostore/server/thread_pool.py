"""The bounded thread pool that carries out operations for one event loop.

Cheaper than `loop.run_in_executor`: one queue, and one wake-up of the loop for all calls that ended since the last.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar, cast

Result = TypeVar("Result")
_Job = tuple[Callable[..., Any], tuple[Any, ...], "asyncio.Future[Any]"]


class ThreadPool:
    """A pool of daemon threads. `run` may be awaited on one event loop only."""

    def __init__(self, threads: int) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._ended: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._waking = False
        self._unanswered = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"pool-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call `function(*arguments)` in a thread of the pool; return or raise its result.

        Cancelling the wait does not stop the thread: the call runs to its end, and its result is discarded.
        """
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._jobs.put((function, arguments, future))
        self._unanswered += 1
        try:
            return cast("Result", await future)
        finally:
            self._unanswered -= 1

    @property
    def waiting(self) -> int:
        """About how many calls wait for a thread."""
        return self._jobs.qsize()

    @property
    def running(self) -> int:
        """About how many calls run now, without those whose wait was cancelled."""
        return max(self._unanswered - self._jobs.qsize(), 0)

    def close(self, *, wait_seconds_max: float) -> bool:
        """Stop the threads after the calls that are queued; returns false if one takes longer than the time given."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(wait_seconds_max)
            if thread.is_alive():
                return False
        return True

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, arguments, future = job
            try:
                self._end(future, function(*arguments), None)
            except BaseException as error:  # noqa: BLE001 - `run` raises it again
                self._end(future, None, error)
            del job, function, arguments, future  # an idle thread must not keep a body alive

    def _end(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        self._ended.append((future, result, error))
        # Append before the flag is read, and clear the flag before the queue is emptied: no result is missed.
        if not self._waking and self._loop is not None:
            self._waking = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed: no call is awaited any more
                self._ended.clear()

    def _deliver(self) -> None:
        self._waking = False
        while self._ended:
            future, result, error = self._ended.popleft()
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
