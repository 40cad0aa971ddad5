"""The content of one file of an archive, read from any offset, or from its beginning to its end."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from cryostore.agent.archive.chunk_cache import ChunkCache
from cryostore.agent.archive.listing import Entry
from cryostore.agent.archive.pieces import ChunkPages
from cryostore.agent.archive.reader import Archive
from cryostore.agent.block import holes_of
from cryostore.agent.entry import Content
from cryostore.agent.errors import DAMAGE, ArchiveDamagedError
from cryostore.core.limits import MIB
from cryostore.model.chunks import Chunk

AHEAD_CHUNKS = 4
PAGES_HELD = 64
PART_BYTES = 4 * MIB


class Readable(Protocol):
    """A file that can be read from any offset, by several threads."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """The bytes from an offset on: as many as asked for, fewer at the end, none behind it.

        Raises what the store raises, and ArchiveDamagedError.
        """

    def segments(self) -> Iterator[tuple[int, int]]:
        """Offset and length of what may hold other bytes than zeros, ascending."""


class HeldPages(ChunkPages):
    """As ChunkPages, for who asks in any order: the last used pages are kept. Thread safe."""

    def __init__(self, archive: Archive) -> None:
        super().__init__(archive)
        self._of = archive
        self._lock = threading.Lock()
        self._pages: OrderedDict[tuple[int, int], list[Chunk]] = OrderedDict()

    def from_chunk(self, number: int, index: int) -> Iterator[Chunk]:
        with self._lock:
            page = self._page_of(number, index)
        while chunks := self._page(number, page):
            for chunk in chunks:
                if chunk.index >= index:
                    yield chunk
            page += 1

    def _page(self, number: int, page: int) -> list[Chunk]:
        with self._lock:
            if (number, page) not in self._pages:
                self._list_up_to(number, page)
            return self._pages.get((number, page), [])

    def _list_up_to(self, number: int, page: int) -> None:
        tokens = self._tokens[number]
        at = min(page, len(tokens) - 1)
        for chunks, token in self._of.content_pages(number, tokens[at]):
            self._pages[number, at] = chunks
            if len(self._pages) > PAGES_HELD:
                self._pages.popitem(last=False)
            self._note(number, at, chunks, token)
            at += 1
            if at > page:
                return


class Extents:
    """Where the data of one file lies, in the order of its bytes; its chunks are listed as far as they are needed."""

    def __init__(self, pages: ChunkPages, content: Content, data_bytes: int) -> None:
        self._content = content
        self._data_bytes = data_bytes
        self._lock = threading.Lock()
        self._starts: list[int] = []
        self._chunks: list[Chunk] = []
        self._listed_bytes = 0
        self._rest = pages.from_chunk(content.object_number, content.chunk) if data_bytes else iter(())

    def find(self, offset: int) -> int:
        """The number, among the file's chunks, of the one that holds this byte of its data."""
        with self._lock:
            while offset >= self._listed_bytes:
                self._list_one()
            return bisect_right(self._starts, offset) - 1

    def chunk(self, number: int) -> tuple[Chunk, int, int] | None:
        """A chunk, where the file's data begins in it, and which byte of the data that is; None behind the last."""
        with self._lock:
            while number >= len(self._chunks):
                if self._listed_bytes >= self._data_bytes:
                    return None
                self._list_one()
            return self._chunks[number], 0 if number else self._content.offset, self._starts[number]

    def _list_one(self) -> None:
        chunk = next(self._rest, None)
        index = self._content.chunk + len(self._chunks)
        offset = 0 if self._chunks else self._content.offset
        if chunk is None or chunk.index != index or chunk.length <= offset:
            raise ArchiveDamagedError(f"content object {self._content.object_number} lacks chunk {index}")
        self._starts.append(self._listed_bytes)
        self._chunks.append(chunk)
        self._listed_bytes = min(self._listed_bytes + chunk.length - offset, self._data_bytes)


class ContentFile:
    """A file whose bytes lie in a content object."""

    def __init__(self, archive: Archive, pages: ChunkPages, cache: ChunkCache, entry: Entry) -> None:
        self.size = entry.row.size
        self._archive = archive
        self._cache = cache
        self._segments: list[tuple[int, int, int]] = []
        at = data = 0
        for offset, length in [*holes_of(entry.extras, self.size), (self.size, 0)]:
            if offset > at:
                self._segments.append((at, offset - at, data))
                data += offset - at
            at = offset + length
        if data and not entry.content.object_number:
            raise ArchiveDamagedError("a file has no content")
        self._content, self._data_bytes = entry.content, data
        self._extents = Extents(pages, entry.content, data)
        self._next = 0

    def segments(self) -> Iterator[tuple[int, int]]:
        for offset, length, _ in self._segments:
            yield offset, length

    def read(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        first = max(bisect_right(self._segments, (offset, self.size, self.size)) - 1, 0)
        parts: list[bytes] = []
        at = offset
        for start, size, data in self._segments[first:]:
            begin, end = max(start, offset), min(start + size, offset + length)
            if start >= offset + length:
                break
            if begin < end:
                parts.append(bytes(begin - at))
                at = begin
                try:
                    for part in self._data(data + begin - start, end - begin):
                        parts.append(part)
                        at += len(part)
                except DAMAGE as error:
                    raise ArchiveDamagedError(f"byte {at} and what follows cannot be read: {error.message}") from error
        parts.append(bytes(offset + length - at))
        return parts[1] if len(parts) == 3 and len(parts[1]) == length else b"".join(parts)

    def _data(self, offset: int, length: int) -> Iterator[bytes]:
        number = self._extents.find(offset)
        sequential = offset == self._next or not offset
        end = self._next = offset + length
        while offset < end:
            found = self._extents.chunk(number)
            assert found is not None
            chunk, skipped, start = found
            if sequential:
                self._read_ahead(number)
            begin = skipped + offset - start
            try:
                data = self._cache.get(self._archive, chunk)
            except DAMAGE:
                copy = self._archive.copy(self._content, self._data_bytes)
                if copy is None:
                    raise
                data, begin = copy, offset
            part = bytes(memoryview(data)[begin : begin + end - offset])
            yield part
            offset += len(part)
            number += 1

    def _read_ahead(self, number: int) -> None:
        for ahead in range(number, number + AHEAD_CHUNKS):
            if (found := self._extents.chunk(ahead)) is not None:
                self._cache.ahead(self._archive, found[0])


def parts_of(file: Readable) -> Iterator[bytes]:
    """All of a file, a part at a time."""
    for offset in range(0, file.size, PART_BYTES):
        yield file.read(offset, PART_BYTES)
