"""Chunks of an archive: found by index in the chunk lists of content objects, and a cache of their bytes.

Pages of a list have any size and chunk indexes have gaps, so a page is found by the index that it begins with. The
tokens that lead to the pages are kept. The cache drops the least recently used chunks beyond a number of bytes.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future

from cryostore.agent.archive.reader import Archive, digest_of
from cryostore.core.digest import Buffer
from cryostore.core.limits import MIB
from cryostore.core.threads import Threads, task_result
from cryostore.model.chunks import Chunk

BYTES_MAX = 64 * MIB
THREADS = 4
PAGES_HELD = 64


class ChunkPages:
    """Lists chunks page by page and keeps the token of each page, so that a later call starts in the right page."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._tokens: dict[int, list[str | None]] = {}
        self._starts: dict[int, list[int]] = {}

    def from_chunk(self, number: int, index: int) -> Iterator[Chunk]:
        """Return the chunks of content object `number`, from chunk `index` on."""
        page = self._page_of(number, index)
        for chunks, token in self._archive.content_pages(number, self._tokens[number][page]):
            self._note(number, page, chunks, token)
            page += 1
            for chunk in chunks:
                if chunk.index >= index:
                    yield chunk

    def _page_of(self, number: int, index: int) -> int:
        """Return the last page that is known to begin at or before a chunk."""
        self._tokens.setdefault(number, [None])
        return bisect_right(self._starts.setdefault(number, [0]), index) - 1

    def _note(self, number: int, page: int, chunks: list[Chunk], token: str | None) -> None:
        """Note where the page after this one begins, and its token."""
        tokens, starts = self._tokens[number], self._starts[number]
        if page + 1 == len(tokens) and token is not None:
            tokens.append(token)
            starts.append(chunks[-1].index + 1 if chunks else starts[-1])


class CachedChunkPages(ChunkPages):
    """Chunk pages for access in any order: the most recently used pages are kept. Thread safe."""

    def __init__(self, archive: Archive) -> None:
        super().__init__(archive)
        self._lock = threading.Lock()
        self._pages: OrderedDict[tuple[int, int], list[Chunk]] = OrderedDict()

    def from_chunk(self, number: int, index: int) -> Iterator[Chunk]:
        with self._lock:
            page = self._page_of(number, index)
        while (chunks := self._page(number, page)) is not None:
            for chunk in chunks:
                if chunk.index >= index:
                    yield chunk
            page += 1

    def _page(self, number: int, page: int) -> list[Chunk] | None:
        """Return a page, None after the last one. The page before it must have been listed."""
        with self._lock:
            tokens = self._tokens[number]
            if page >= len(tokens):
                return None
            if (number, page) not in self._pages:
                chunks, token = next(self._archive.content_pages(number, tokens[page]))
                self._note(number, page, chunks, token)
                self._pages[number, page] = chunks
                if len(self._pages) > PAGES_HELD:
                    self._pages.popitem(last=False)
            return self._pages[number, page]


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
