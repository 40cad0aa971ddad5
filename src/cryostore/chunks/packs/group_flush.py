"""Group flush: many threads that each need a flush share one. It knows nothing of files.

Items that arrive while a flush runs gather in the next batch, which the first of them leads. Every thread sleeps and
wakes at most once, and a thread alone flushes at once. If several flushes may run at a time, items gather while that
many run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")


class _Batch(Generic[Item]):
    def __init__(self, item: Item) -> None:
        self.items = [item]
        self.sleepers: list[threading.Lock] = []
        self.failure: BaseException | None = None


class GroupFlush(Generic[Item]):
    """Calls `flush(items)`, at most `flushes_max` calls at a time, so that each item is in exactly one call.

    An item for which `has_room(items, item)` is false begins the next batch. `flush` stores a failure on the item that
    it concerns; if it raises instead, every thread of the batch gets that exception.
    """

    def __init__(
        self,
        flush: Callable[[list[Item]], None],
        *,
        flushes_max: int = 1,
        has_room: Callable[[Sequence[Item], Item], bool] = lambda _items, _item: True,
    ) -> None:
        self._flush = flush
        self._has_room = has_room
        self._gate = threading.Lock()
        # At most one leader waits for it, and one for each full batch; batches form meanwhile.
        self._turn = threading.Lock() if flushes_max == 1 else threading.Semaphore(flushes_max)
        self._gathering: _Batch[Item] | None = None

    def join(self, item: Item) -> None:
        """Return when a call of `flush` that began after this call, and had the item, has ended."""
        with self._gate:
            batch = self._gathering
            if batch is None or not self._has_room(batch.items, item):
                batch = self._gathering = _Batch(item)
                sleeper = None
            else:
                sleeper = threading.Lock()
                sleeper.acquire()
                batch.items.append(item)
                batch.sleepers.append(sleeper)
        if sleeper is None:
            self._lead(batch)
            return
        sleeper.acquire()  # the leader releases it
        if batch.failure is not None:
            raise batch.failure

    def _lead(self, batch: _Batch[Item]) -> None:
        try:
            with self._turn:
                self._close(batch)
                self._flush(batch.items)
        except BaseException as failure:
            batch.failure = failure
            raise
        finally:
            self._close(batch)
            for sleeper in batch.sleepers:
                sleeper.release()

    def _close(self, batch: _Batch[Item]) -> None:
        """Accept no more items."""
        with self._gate:
            if self._gathering is batch:
                self._gathering = None
