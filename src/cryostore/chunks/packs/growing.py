"""Pack writer for blob stores in which blobs can grow: one open pack per process, one flush for many threads.

Rules:

- Bytes are written in order under a lock, so that a crash leaves a torn tail and never a hole.
- A location is returned only when its bytes are durable.
- After a failed flush the pack is never written or flushed again, and nothing behind its last successful flush is
  trusted.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from cryostore.chunks.blobs import Appendable, Appender
from cryostore.chunks.packs.format import PACK_HEADER_BYTES, encode_header, pack_key
from cryostore.chunks.packs.writer import EAGER_BYTES_MIN, PACK_BYTES_TARGET, Append, GroupFlush, Location, PackWriter
from cryostore.core.digest import Buffer
from cryostore.core.errors import CryostoreError, StorageFullError, StorageUnavailableError
from cryostore.core.ids import NewId


class _OpenPack:
    """A pack being written. This process owns it until it is finished and no append waits for a flush of it."""

    def __init__(self, pack_id: str, appender: Appender, whole: deque[str]) -> None:
        """`whole` receives the id once the pack is finished and all of its bytes are durable."""
        self.pack_id = pack_id
        self.appender = appender
        self.is_sound = True
        self._whole = whole
        self.flushed_bytes = 0  # only the flush changes it and `failure`
        self.failure: CryostoreError | None = None
        self._waiting = 0
        self._is_finished = False
        self._lock = threading.Lock()

    def add_waiting(self, appends: int) -> None:
        """Count appends that wait for a flush; a negative number for those that no longer do."""
        with self._lock:
            self._waiting += appends
            self._close_if_done()

    def finish(self) -> None:
        """Accept no more appends."""
        with self._lock:
            self._is_finished = True
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self._is_finished and not self._waiting:
            is_flushed = self.failure is None and self.flushed_bytes == self.appender.size
            self.appender.close()
            if self.is_sound and is_flushed:
                self._whole.append(self.pack_id)


@dataclass(slots=True, eq=False)
class _Append(Append):
    """An append, and the open pack that its bytes were written to."""

    pack: _OpenPack | None = None


class GrowingPackWriter(PackWriter):
    """Appends envelopes to an open pack. Safe to call from many threads."""

    def __init__(self, blobs: Appendable, new_id: NewId, *, pack_bytes_target: int = PACK_BYTES_TARGET) -> None:
        self._blobs = blobs
        self._new_id = new_id
        self._pack_bytes_target = pack_bytes_target
        self._lock = threading.Lock()
        self._current: _OpenPack | None = None
        self._whole: deque[str] = deque()
        self._closed = False
        self._flushes = GroupFlush(self._flush)

    def append_all(self, envelopes: Sequence[Buffer]) -> list[Location]:
        """See PackWriter. The envelopes share one flush."""
        append = _Append(envelopes, sum(map(len, envelopes)))
        if append.length >= EAGER_BYTES_MIN:
            self._write([append])  # large ones while an earlier flush still runs, small ones together
        if append.failure is None:
            self._flushes.join(append)
        return append.locations()

    def roll(self, pack_id: str) -> None:
        """See PackWriter. Does nothing if another pack is open."""
        with self._lock:
            if self._current and self._current.pack_id == pack_id:
                self._finish()

    def take_whole(self) -> list[str]:
        """See PackWriter."""
        found = []
        with contextlib.suppress(IndexError):  # another thread may take them at the same time
            while self._whole:
                found.append(self._whole.popleft())
        return found

    def close(self) -> None:
        """See PackWriter."""
        with self._lock:
            self._closed = True
            self._finish()

    def _flush(self, appends: list[_Append]) -> None:
        unwritten = [append for append in appends if append.pack is None]
        if unwritten:
            self._write(unwritten)
        packs = {append.pack for append in appends if append.pack is not None}
        for pack in packs:
            self._sync(pack)
        for append in appends:
            if append.pack and append.offset + append.length > append.pack.flushed_bytes:
                append.failure = append.pack.failure
        for pack in packs:
            pack.add_waiting(-sum(append.pack is pack for append in appends))

    def _write(self, appends: list[_Append]) -> None:
        """Append all to the open pack, or set the failure on each of them."""
        with self._lock:
            try:
                pack = self._open_pack()
                offset = pack.appender.append([envelope for append in appends for envelope in append.envelopes])
            except CryostoreError as failure:
                for append in appends:
                    append.failure = failure
                if self._current is not None:
                    self._current.is_sound = False  # bytes may follow its last envelope
                # Also on a full disk, since garbage collection only frees packs that no process writes to. An empty
                # pack stays open: otherwise each attempt would leave another one behind.
                empty = self._current is not None and self._current.appender.size <= PACK_HEADER_BYTES
                if not (isinstance(failure, StorageFullError) and empty):
                    self._finish()
                return
            pack.add_waiting(len(appends))
            for append in appends:
                append.pack, append.pack_id, append.offset = pack, pack.pack_id, offset
                offset += append.length

    def _sync(self, pack: _OpenPack) -> None:
        written_bytes = pack.appender.size  # read before the flush, which covers this many bytes
        if pack.failure or pack.flushed_bytes >= written_bytes:
            return
        try:
            pack.appender.sync()
        except CryostoreError as failure:
            with self._lock:
                pack.failure = failure
                if pack is self._current:
                    self._finish()
        else:
            pack.flushed_bytes = written_bytes

    def _open_pack(self) -> _OpenPack:
        """Return the pack to append to, a new one if necessary. The caller holds the lock."""
        if self._closed:
            raise StorageUnavailableError("the chunk store is closed")
        if self._current and self._current.appender.size >= self._pack_bytes_target:
            self._finish()
        if self._current is None:
            pack_id = self._new_id()
            appender = self._blobs.open_append(pack_key(pack_id))
            try:
                appender.append([encode_header(pack_id)])
            except BaseException:
                appender.close()
                with contextlib.suppress(CryostoreError):
                    self._blobs.delete(pack_key(pack_id))  # otherwise a full disk would collect empty packs
                raise
            self._current = _OpenPack(pack_id, appender, self._whole)
        return self._current

    def _finish(self) -> None:
        """Stop appending to the open pack. The caller holds the lock."""
        if self._current:
            self._current.finish()
            self._current = None
