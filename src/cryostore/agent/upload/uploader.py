"""Sending chunks: a few threads, with a bound on the bytes in flight.

A chunk that the store may already hold is attached with LinkChunks, many in one request; chunks that it lacks are sent.
The store may hold the chunks of the base. It may hold any other chunk too, for example from another machine or from a
killed run: the uploader asks for those as long as the answers show that it pays. The first failure stops all threads;
the next call from outside raises it.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

from cryostore.agent.upload.digest_table import DigestTable
from cryostore.agent.upload.object_upload import ObjectUpload
from cryostore.core import interrupts
from cryostore.core.digest import Buffer, sha256
from cryostore.core.interrupts import POLL_SECONDS
from cryostore.core.limits import MIB
from cryostore.model.chunks import LinkChunks, LinkedChunk
from cryostore.model.operation import Call

THREADS = 4
BYTES_IN_FLIGHT_MAX = 16 * MIB
LINKS_MAX = 32
"""Chunks in one LinkChunks."""
MISSES_MAX = 32
"""After so many chunks in a row that the store lacked, it is asked only for one unknown chunk in PROBE_EVERY."""
PROBE_EVERY = 32


class _Item(NamedTuple):
    """A chunk that is queued or in flight."""

    upload: ObjectUpload
    number: int
    data: Buffer
    counted_bytes: int
    """Its share of the bytes in flight: the plain length, which differs from the sealed one."""


class Uploader:
    """Sends chunks with a few threads.

    `known` has the digests that the store probably holds. The digests of sent chunks are added to it.
    """

    def __init__(
        self, call: Call, known: DigestTable, *, threads: int = THREADS, bytes_max: int = BYTES_IN_FLIGHT_MAX
    ) -> None:
        self._call = call
        self._known = known
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._ready = threading.Condition(self._lock)
        """Signals that there is something to send, or that nothing more will come."""
        self._room = threading.Condition(self._lock)
        """Signals that fewer bytes are in flight."""
        self._items: deque[_Item] = deque()
        self._bytes_in_flight = 0
        self._failure: BaseException | None = None
        self._misses = 0
        self._closed = False
        self.bytes_sent = 0
        self.chunks_sent = 0
        self.chunks_linked = 0
        self._threads = [
            threading.Thread(target=self._work, name=f"upload-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, upload: ObjectUpload, index: int, data: Buffer) -> None:
        """Queue a chunk; wait while too many bytes are in flight. The data must not change afterwards."""
        interrupts.check()
        with self._lock:
            while self._bytes_in_flight and self._bytes_in_flight + len(data) > self._bytes_max and not self._failure:
                self._room.wait(POLL_SECONDS)
                interrupts.check()
            self._raise_failure()
            self._bytes_in_flight += len(data)
            self._items.append(_Item(upload, index, data, len(data)))
            self._ready.notify()

    def flush(self) -> None:
        """Return when every submitted chunk is stored. Raises the first failure."""
        with self._lock:
            while self._bytes_in_flight and not self._failure:
                self._room.wait(POLL_SECONDS)
                interrupts.check()
            self._raise_failure()

    def close(self) -> None:
        """End the threads. Chunks that are not stored yet may be dropped."""
        with self._lock:
            self._closed = True
            self._items.clear()
            self._ready.notify_all()
        for thread in self._threads:
            thread.join()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            interrupts.check()  # a shutdown ends retries, so it may be the cause of the failure
            raise self._failure

    def _work(self) -> None:
        links: list[tuple[_Item, bytes]] = []
        while (item := self._next(wait=not links)) is not None or links:
            try:
                if item is not None:
                    made = item.upload.stored_form(item.number, item.data)
                    if made is None:
                        self._done(item.counted_bytes)
                        continue
                    item = item._replace(data=made)
                    digest = sha256(item.data)
                    item.upload.set(item.number, digest)
                    if not self._may_be_held(digest, item.number):
                        self._put(item, digest)
                        continue
                    links.append((item, digest))
                if item is None or len(links) >= LINKS_MAX or links[0][0].upload is not links[-1][0].upload:
                    ready, links = links, []
                    self._link(ready)
            except BaseException as failure:  # noqa: BLE001 - submit and flush raise it
                with self._lock:
                    self._failure = self._failure or failure
                    self._items.clear()
                    self._ready.notify_all()
                    self._room.notify_all()
                return

    def _may_be_held(self, digest: bytes, number: int) -> bool:
        """Whether to ask the store for a chunk: always if it is known, else only while enough answers are yes."""
        with self._lock:  # another thread may add to the table meanwhile
            if digest in self._known:
                return True
        return self._misses < MISSES_MAX or number % PROBE_EVERY == 0

    def _next(self, *, wait: bool) -> _Item | None:
        with self._lock:
            while not self._items:
                if self._closed or self._failure or not wait:
                    return None
                self._ready.wait()
            return self._items.popleft()

    def _done(self, data_bytes: int) -> None:
        with self._lock:
            self._bytes_in_flight -= data_bytes
            self._room.notify_all()

    def _put(self, item: _Item, digest: bytes) -> None:
        item.upload.put(item.number, item.data, digest)
        with self._lock:
            self._known.add(digest)
            self.bytes_sent += len(item.data)
            self.chunks_sent += 1
        self._done(item.counted_bytes)

    def _link(self, links: list[tuple[_Item, bytes]]) -> None:
        """Attach chunks that the store probably holds, and send those it lacks.

        Only the last may be of another upload.
        """
        upload = links[0][0].upload
        group = [(item, digest) for item, digest in links if item.upload is upload]
        chunks = [
            LinkedChunk(index=item.number, length=len(item.data), checksum=digest.hex(), checksum_algorithm="SHA256")
            for item, digest in group
        ]
        answer = self._call.call(LinkChunks(backup_job_id=upload.job_id, upload_id=upload.open(), chunks=chunks))
        missing = set(answer.missing)
        self._misses = self._misses + len(missing) if len(missing) == len(group) else 0
        for item, digest in group:
            if item.number in missing:
                self._put(item, digest)
            else:
                with self._lock:
                    self.chunks_linked += 1
                self._done(item.counted_bytes)
        if rest := links[len(group) :]:
            self._link(rest)
