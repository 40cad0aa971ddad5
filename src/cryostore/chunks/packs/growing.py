"""Writing packs: one open pack a process, many threads, one flush for all who wait.

Rules: bytes are written in order under a lock, so that a crash leaves a torn tail and never a hole. A location is
given out only when its bytes are durable. A pack whose flush failed is never written or flushed again, and nothing
in it behind its last good flush is believed.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from cryostore.chunks.blobs import Appendable, Appender
from cryostore.chunks.packs.format import PACK_HEADER_BYTES, encode_header, pack_key
from cryostore.chunks.packs.group_flush import GroupFlush
from cryostore.core.digest import Buffer
from cryostore.core.errors import CryostoreError, StorageFullError, StorageUnavailableError
from cryostore.core.ids import NewId
from cryostore.core.limits import KIB, MIB

PACK_BYTES_TARGET = 64 * MIB
EAGER_BYTES_MIN = 256 * KIB


class Location(NamedTuple):
    """Where an envelope lies. `length` counts the whole envelope, header included.

    `pack_bytes` is said of what was just put, if its pack does not grow any more: how large that is.
    """

    pack_id: str
    offset: int
    length: int
    pack_bytes: int | None = None


def failed(failure: CryostoreError) -> StorageUnavailableError:
    """The error that one of several appends raises for a failure they share.

    A new exception for each thread: they would fight over one traceback.
    """
    kind = type(failure) if isinstance(failure, StorageUnavailableError) else StorageUnavailableError
    return kind(failure.message, hint=failure.hint)


class _OpenPack:
    """A pack being written. Owned until it is retired and nobody waits for a flush of it."""

    def __init__(self, pack_id: str, appender: Appender, whole: deque[str]) -> None:
        """`whole` gets the id once all of the pack is durable and nothing more will come."""
        self.pack_id = pack_id
        self.appender = appender
        self.is_sound = True
        self._whole = whole
        self.flushed_bytes = 0  # changed by the flush alone, as is `failure`
        self.failure: CryostoreError | None = None
        self._waiting = 0
        self._retired = False
        self._lock = threading.Lock()

    def expect(self, entries: int) -> None:
        """So many entries more wait for a flush, or fewer if negative."""
        with self._lock:
            self._waiting += entries
            self._close_if_done()

    def retire(self) -> None:
        """Take no more entries."""
        with self._lock:
            self._retired = True
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self._retired and not self._waiting:
            is_flushed = self.failure is None and self.flushed_bytes == self.appender.size
            self.appender.close()
            if self.is_sound and is_flushed:
                self._whole.append(self.pack_id)


@dataclass(slots=True, eq=False)
class _Entry:
    """Envelopes on their way into a pack, one behind the other."""

    envelopes: Sequence[Buffer]
    length: int
    pack: _OpenPack | None = None
    offset: int = 0
    failure: CryostoreError | None = None


class PackWriter:
    """Appends envelopes to packs. Safe to call from many threads."""

    def __init__(self, blobs: Appendable, new_id: NewId, *, pack_bytes_target: int = PACK_BYTES_TARGET) -> None:
        self._blobs = blobs
        self._new_id = new_id
        self._pack_bytes_target = pack_bytes_target
        self._lock = threading.Lock()
        self._current: _OpenPack | None = None
        self._whole: deque[str] = deque()
        self._closed = False
        self._flushes = GroupFlush(self._flush)

    def append(self, envelope: Buffer) -> Location:
        """Write an envelope; return where it lies, once it is durable.

        Raises StorageFullError or another StorageUnavailableError; then the envelope counts as not written, and a
        later call may work again.
        """
        return self.append_all([envelope])[0]

    def append_all(self, envelopes: Sequence[Buffer]) -> list[Location]:
        """As `append`, for envelopes that lie together and share one flush."""
        entry = _Entry(envelopes, sum(map(len, envelopes)))
        if entry.length >= EAGER_BYTES_MIN:
            self._write([entry])  # large ones are written while an earlier flush still runs, small ones together
        if entry.failure is None:
            self._flushes.join(entry)
        if (failure := entry.failure) is not None:
            raise failed(failure) from failure
        assert entry.pack is not None
        ends = accumulate(map(len, envelopes), initial=entry.offset)
        pack_id = entry.pack.pack_id
        return [Location(pack_id, start, len(envelope)) for start, envelope in zip(ends, envelopes, strict=False)]

    def roll(self, pack_id: str) -> None:
        """Append nothing more to this pack, if it is the one being written."""
        with self._lock:
            if self._current and self._current.pack_id == pack_id:
                self._retire()

    def take_whole(self) -> list[str]:
        """The packs that ended since the last call, every byte of them durable and none behind the last envelope."""
        found = []
        with contextlib.suppress(IndexError):  # another thread takes them, too
            while self._whole:
                found.append(self._whole.popleft())
        return found

    def close(self) -> None:
        """Take no more envelopes; those on their way are still finished. May be called twice."""
        with self._lock:
            self._closed = True
            self._retire()

    def _flush(self, entries: list[_Entry]) -> None:
        unwritten = [entry for entry in entries if entry.pack is None]
        if unwritten:
            self._write(unwritten)
        packs = {entry.pack for entry in entries if entry.pack is not None}
        for pack in packs:
            self._sync(pack)
        for entry in entries:
            if entry.pack and entry.offset + entry.length > entry.pack.flushed_bytes:
                entry.failure = entry.pack.failure
        for pack in packs:
            pack.expect(-sum(entry.pack is pack for entry in entries))

    def _write(self, entries: list[_Entry]) -> None:
        """Append entries to the current pack; on failure to none, and say so on each."""
        with self._lock:
            try:
                pack = self._open_pack()
                offset = pack.appender.append([envelope for entry in entries for envelope in entry.envelopes])
            except CryostoreError as failure:
                for entry in entries:
                    entry.failure = failure
                if self._current is not None:
                    self._current.is_sound = False  # something may stand behind its last envelope
                # On a full disk too: garbage collection can only free what nobody is about to write to. A pack that
                # is empty stays, or each attempt would leave another one.
                empty = self._current is not None and self._current.appender.size <= PACK_HEADER_BYTES
                if not (isinstance(failure, StorageFullError) and empty):
                    self._retire()
                return
            pack.expect(len(entries))
            for entry in entries:
                entry.pack, entry.offset = pack, offset
                offset += entry.length

    def _sync(self, pack: _OpenPack) -> None:
        written_bytes = pack.appender.size  # read before the flush: this much it covers
        if pack.failure or pack.flushed_bytes >= written_bytes:
            return
        try:
            pack.appender.sync()
        except CryostoreError as failure:
            with self._lock:
                pack.failure = failure
                if pack is self._current:
                    self._retire()
        else:
            pack.flushed_bytes = written_bytes

    def _open_pack(self) -> _OpenPack:
        """The pack to append to, a new one if need be. Lock held."""
        if self._closed:
            raise StorageUnavailableError("the chunk store is closed")
        if self._current and self._current.appender.size >= self._pack_bytes_target:
            self._retire()
        if self._current is None:
            pack_id = self._new_id()
            appender = self._blobs.open_append(pack_key(pack_id))
            try:
                appender.append([encode_header(pack_id)])
            except BaseException:
                appender.close()
                with contextlib.suppress(CryostoreError):
                    self._blobs.delete(pack_key(pack_id))  # else a full disk would fill with empty packs
                raise
            self._current = _OpenPack(pack_id, appender, self._whole)
        return self._current

    def _retire(self) -> None:
        """Append no more to the current pack. Lock held."""
        if self._current:
            self._current.retire()
            self._current = None
