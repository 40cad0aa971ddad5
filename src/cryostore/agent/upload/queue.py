"""Sending chunks: a few threads, a bound on the bytes that are under way, and the objects they make.

A chunk that the store may hold is attached with LinkChunks, many in one request; what it lacks is sent. It may hold
what the base has and, as long as it proves so, anything else: the files of another machine, or what a killed run sent.
The first failure ends everything: it is raised by the next call from outside.
"""

from __future__ import annotations

import threading
import zlib
from collections import deque
from typing import NamedTuple

from cryostore.agent.upload.digest_table import DigestTable
from cryostore.core import interrupts
from cryostore.core.digest import DIGEST_BYTES, Buffer, Checksum, Payload, sha256
from cryostore.core.interrupts import LOOK_SECONDS
from cryostore.core.limits import MIB
from cryostore.model.chunks import Chunk, LinkChunks, LinkedChunk, PutChunk
from cryostore.model.objects import NotifyObjectComplete, StartObject
from cryostore.model.operation import Call

THREADS = 4
BYTES_UNDER_WAY_MAX = 16 * MIB
LINKS_MAX = 32
MISSES_MAX = 32
PROBE_EVERY = 32


class ObjectUpload:
    """An object that is being written. Its upload is opened by the first chunk, so that none costs nothing."""

    def __init__(self, call: Call, job_id: str, name: str) -> None:
        self._call = call
        self.job_id = job_id
        self.name = name
        self.upload_id = ""
        self.digests = bytearray()
        self.content_bytes = 0
        self._open_lock = threading.Lock()

    def open(self) -> str:
        """The id of the upload, opened if need be."""
        with self._open_lock:
            if not self.upload_id:
                started = self._call.call(StartObject(backup_job_id=self.job_id, object_name=self.name))
                self.upload_id = started.upload_id
        return self.upload_id

    @property
    def chunks_count(self) -> int:
        """How many chunks it has."""
        return len(self.digests) // DIGEST_BYTES

    def reserve(self) -> int:
        """The index of the next chunk, which must be set before the upload is completed."""
        self.digests += bytes(DIGEST_BYTES)
        return self.chunks_count - 1

    def set(self, index: int, digest: bytes) -> None:
        """The digest of a chunk that was reserved."""
        self.digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES] = digest

    def identity(self, data: Buffer) -> bytes:
        """By what a listed chunk of an archive is known to hold these bytes."""
        return sha256(data)

    def cut(self, path: bytes) -> int:
        """A number for a path, by which the catalog is cut."""
        return zlib.crc32(path)

    def made(self, index: int, data: Buffer) -> Buffer | None:  # noqa: ARG002 - for who seals it
        """What is stored for the chunk at an index; None if it is attached already. Called by several threads."""
        return data

    def inherit(self, index: int, chunk: Chunk, stored: Chunk) -> None:  # noqa: ARG002 - as above
        """Take a chunk of the base, listed as `chunk` and stored as `stored`, for one that was reserved."""
        self.set(index, Checksum.parse(stored.checksum).digest)

    def mark(self) -> bytes:
        """By what the header knows the object again, once all of its chunks are set."""
        return b""

    def summary(self) -> bytes:
        """The checksum of the object (Backup Storage B.4)."""
        return sha256(self.digests)

    def complete(self, blob: bytes | None = None) -> None:
        """Make the object take its place; all of its chunks must be stored. May be repeated."""
        payload = None if blob is None else Payload(blob)
        self._call.call(
            NotifyObjectComplete(
                backup_job_id=self.job_id,
                upload_id=self.open(),
                object_checksum=self.summary().hex(),
                object_checksum_algorithm="SUMMARY",
                metadata_blob=payload,
                metadata_blob_length=None if payload is None else len(payload),
                metadata_blob_checksum=None if payload is None else payload.sha256.hex(),
                metadata_blob_checksum_algorithm=None if payload is None else "SHA256",
            )
        )


class _Item(NamedTuple):
    """A chunk on its way."""

    upload: ObjectUpload
    number: int
    data: Buffer
    counted_bytes: int
    """What of the bytes under way it is; sealed, it may be longer or shorter than that."""


class Uploader:
    """Sends chunks with some threads. `known` tells digests that the store probably holds; it grows by what is sent."""

    def __init__(
        self, call: Call, known: DigestTable, *, threads: int = THREADS, bytes_max: int = BYTES_UNDER_WAY_MAX
    ) -> None:
        self._call = call
        self._known = known
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._ready = threading.Condition(self._lock)
        """That there is something to send, or nothing more will come."""
        self._room = threading.Condition(self._lock)
        """That less is under way."""
        self._items: deque[_Item] = deque()
        self._bytes_under_way = 0
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
        """Send a chunk, soon; waits while too many bytes are under way. The data must not change any more."""
        interrupts.check()
        with self._lock:
            while self._bytes_under_way and self._bytes_under_way + len(data) > self._bytes_max and not self._failure:
                self._room.wait(LOOK_SECONDS)
                interrupts.check()
            self._raise_failure()
            self._bytes_under_way += len(data)
            self._items.append(_Item(upload, index, data, len(data)))
            self._ready.notify()

    def flush(self) -> None:
        """Return when everything submitted is stored. Raises what went wrong with the first that is not."""
        with self._lock:
            while self._bytes_under_way and not self._failure:
                self._room.wait(LOOK_SECONDS)
                interrupts.check()
            self._raise_failure()

    def close(self) -> None:
        """End the threads; what is not stored yet may never be."""
        with self._lock:
            self._closed = True
            self._items.clear()
            self._ready.notify_all()
        for thread in self._threads:
            thread.join()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            interrupts.check()  # it may have failed only since nothing is tried again any more
            raise self._failure

    def _work(self) -> None:
        links: list[tuple[_Item, bytes]] = []
        while (item := self._next(wait=not links)) is not None or links:
            try:
                if item is not None:
                    made = item.upload.made(item.number, item.data)
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
            except BaseException as failure:  # noqa: BLE001 - raised again by who waits
                with self._lock:
                    self._failure = self._failure or failure
                    self._items.clear()
                    self._ready.notify_all()
                    self._room.notify_all()
                return

    def _may_be_held(self, digest: bytes, number: int) -> bool:
        """Whether to ask for a chunk: if it is known, and not always if not, once the answer has been no for long."""
        with self._lock:  # another thread may be adding to the table
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
            self._bytes_under_way -= data_bytes
            self._room.notify_all()

    def _put(self, item: _Item, digest: bytes) -> None:
        length = len(item.data)
        self._call.call(
            PutChunk(
                backup_job_id=item.upload.job_id,
                upload_id=item.upload.open(),
                chunk_index=item.number,
                data=Payload(item.data, sha256=digest),
                length=length,
                checksum=digest.hex(),
                checksum_algorithm="SHA256",
            )
        )
        with self._lock:
            self._known.add(digest)
            self.bytes_sent += length
            self.chunks_sent += 1
        self._done(item.counted_bytes)

    def _link(self, links: list[tuple[_Item, bytes]]) -> None:
        """Attach chunks that are probably held; send those that are not. All of one upload but perhaps the last."""
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
