"""Interface of pack writers, the location of an envelope, and the group flush that writers share.

Two writers exist: `growing` for blob stores in which blobs can grow, `immutable` for all others.

Group flush: many threads that each need a flush share one. It knows nothing of files. Items that arrive while a flush
runs gather in the next batch, which the first of them leads. Every thread sleeps and wakes at most once, and a thread
alone flushes at once. If several flushes may run at a time, items gather while that many run.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Generic, NamedTuple, TypeVar

from cryostore.core.digest import Buffer
from cryostore.core.errors import CryostoreError, StorageUnavailableError
from cryostore.core.limits import KIB, MIB

PACK_BYTES_TARGET = 64 * MIB
EAGER_BYTES_MIN = 256 * KIB
"""Envelopes from this size on are written at once; smaller ones gather and are written together."""
Item = TypeVar("Item")


class Location(NamedTuple):
    """Where an envelope lies. `length` counts the whole envelope, header included.

    `pack_bytes` is the size of the pack, set only for a new envelope in a pack that does not grow.
    """

    pack_id: str
    offset: int
    length: int
    pack_bytes: int | None = None


@dataclass(slots=True, eq=False)
class Append:
    """Envelopes of one call, which lie one behind the other in a pack, and the outcome: a place or a failure."""

    envelopes: Sequence[Buffer]
    length: int
    pack_id: str = ""
    offset: int = 0
    pack_bytes: int | None = None
    failure: CryostoreError | None = None

    def locations(self) -> list[Location]:
        """Where each envelope lies. Raises the failure, if the append failed.

        Several appends may share one failure. Each raises an exception of its own, since threads would otherwise
        overwrite each other's traceback.
        """
        failure = self.failure
        if failure is not None:
            kind = type(failure) if isinstance(failure, StorageUnavailableError) else StorageUnavailableError
            raise kind(failure.message, hint=failure.hint) from failure
        offsets = accumulate(map(len, self.envelopes), initial=self.offset)
        return [
            Location(self.pack_id, offset, len(envelope), self.pack_bytes)
            for offset, envelope in zip(offsets, self.envelopes, strict=False)
        ]


class PackWriter(ABC):
    """Writes envelopes to packs. Safe to call from many threads."""

    def append(self, envelope: Buffer) -> Location:
        """Write an envelope durably and return its location.

        Raises StorageFullError or another StorageUnavailableError; then the envelope counts as not written, and a
        later call may succeed.
        """
        return self.append_all([envelope])[0]

    @abstractmethod
    def append_all(self, envelopes: Sequence[Buffer]) -> list[Location]:
        """Write several envelopes durably, one behind the other in one pack. Raises as `append` does."""

    @abstractmethod
    def roll(self, pack_id: str) -> None:
        """Append nothing more to this pack."""

    @abstractmethod
    def take_whole(self) -> list[str]:
        """Return the growing packs that were finished since the last call.

        All their bytes are durable, and nothing follows the last envelope.
        """

    @abstractmethod
    def close(self) -> None:
        """Accept no more envelopes; finish those in flight. May be called twice."""


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
