"""Cache of fetched chunks: the least recently used are dropped beyond a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future

from cryostore.agent.archive.reader import Archive, digest_of
from cryostore.core.digest import Buffer
from cryostore.core.limits import MIB
from cryostore.core.threads import Threads, task_result
from cryostore.model.chunks import Chunk

BYTES_MAX = 64 * MIB
THREADS = 4


class ChunkCache:
    """Fetches each chunk once for all callers that need it at the same time. Thread safe. `close` ends its threads."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._lock = threading.Lock()
        self._held: OrderedDict[bytes, tuple[int, Future[Buffer]]] = OrderedDict()
        self._threads = Threads(THREADS, "chunks")

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    def get(self, archive: Archive, chunk: Chunk) -> Buffer:
        """Return the bytes of a chunk. Raises what the store raises; a failure is not cached."""
        digest = digest_of(chunk)
        future = self._future(digest, archive, chunk)
        try:
            return task_result(future)
        except BaseException:
            self._drop(digest, future)
            raise

    def prefetch(self, archive: Archive, chunk: Chunk) -> None:
        """Start to fetch a chunk that will be needed soon."""
        self._future(digest_of(chunk), archive, chunk)

    def _future(self, digest: bytes, archive: Archive, chunk: Chunk) -> Future[Buffer]:
        with self._lock:
            held = self._held.get(digest)
            if held is not None and not _has_failed(held[1]):
                self._held.move_to_end(digest)
                return held[1]
            if held is not None:
                self._bytes -= held[0]
            future = self._threads.submit(archive.chunk_buffer, chunk)
            self._held[digest] = (chunk.length, future)
            self._bytes += chunk.length
            while self._bytes > self._bytes_max and len(self._held) > 1:
                _, (length, _) = self._held.popitem(last=False)
                self._bytes -= length
            return future

    def _drop(self, digest: bytes, future: Future[Buffer]) -> None:
        with self._lock:
            held = self._held.get(digest)
            if held is not None and held[1] is future:
                del self._held[digest]
                self._bytes -= held[0]


def _has_failed(future: Future[Buffer]) -> bool:
    return future.done() and (future.cancelled() or future.exception() is not None)
