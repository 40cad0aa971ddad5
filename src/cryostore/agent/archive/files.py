"""Files of an archive: found by path, and opened for reading from any offset."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator
from typing import Protocol

from cryostore.agent.archive.chunks import CachedChunkPages, ChunkCache, ChunkPages
from cryostore.agent.archive.disk_image import DiskImage
from cryostore.agent.archive.listing import ArchiveEntry, ArchiveTree, archive_path
from cryostore.agent.archive.reader import Archive
from cryostore.agent.archive.sparse_layout import data_bytes_of, data_segments
from cryostore.agent.block import holes_of
from cryostore.agent.entry import Content
from cryostore.agent.errors import DAMAGE, ArchiveDamagedError, shown
from cryostore.agent.header import DISK, FILESET
from cryostore.core.errors import ConfigurationError
from cryostore.core.limits import MIB
from cryostore.model.chunks import Chunk

AHEAD_CHUNKS = 4
PART_BYTES = 4 * MIB


class ReadableFile(Protocol):
    """A file that several threads can read from any offset."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes from an offset on: `length` of them, fewer at the end, none beyond it.

        Raises what the store raises, and ArchiveDamagedError.
        """

    def segments(self) -> Iterator[tuple[int, int]]:
        """Return offset and length of each range that may hold non-zero bytes, in ascending order."""


class ContentExtents:
    """Where the data of one file lies, in the order of its bytes. Chunks are listed only as far as needed."""

    def __init__(self, pages: ChunkPages, content: Content, data_bytes: int) -> None:
        self._content = content
        self._data_bytes = data_bytes
        self._lock = threading.Lock()
        self._starts: list[int] = []
        self._chunks: list[Chunk] = []
        self._listed_bytes = 0
        self._rest = pages.from_chunk(content.object_number, content.chunk) if data_bytes else iter(())

    def find(self, offset: int) -> int:
        """Return which of the file's chunks holds this byte of its data, counted from 0."""
        with self._lock:
            while offset >= self._listed_bytes:
                self._list_one()
            return bisect_right(self._starts, offset) - 1

    def chunk(self, number: int) -> tuple[Chunk, int, int] | None:
        """Return a chunk, the offset of the file's data in it, and that byte's data offset; None after the last."""
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
    """A file whose bytes lie in a content object: an entry of a file tree, or a stream."""

    def __init__(self, archive: Archive, pages: ChunkPages, cache: ChunkCache, entry: ArchiveEntry) -> None:
        self.size = entry.row.size
        self._archive = archive
        self._cache = cache
        holes = holes_of(entry.extras, self.size)
        self._segments = list(data_segments(self.size, holes))
        data_bytes = data_bytes_of(self.size, holes)
        if data_bytes and not entry.content.object_number:
            raise ArchiveDamagedError("a file has no content")
        self._content, self._data_bytes = entry.content, data_bytes
        self._extents = ContentExtents(pages, entry.content, data_bytes)
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
                    raise ArchiveDamagedError(f"the file cannot be read from byte {at} on: {error.message}") from error
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
                copy = self._archive.sound_copy(self._content, self._data_bytes)
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
                self._cache.prefetch(self._archive, found[0])


def file_parts(file: ReadableFile) -> Iterator[bytes]:
    """Return all bytes of a file, in parts of at most PART_BYTES."""
    for offset in range(0, file.size, PART_BYTES):
        yield file.read(offset, PART_BYTES)


class ArchiveFiles:
    """The file tree of an archive and the content of its files, for every kind of archive. Thread safe."""

    def __init__(self, archive: Archive, cache: ChunkCache) -> None:
        self.archive = archive
        self.tree = ArchiveTree(archive)
        self._cache = cache
        self._pages = CachedChunkPages(archive)

    def open(self, entry: ArchiveEntry) -> ReadableFile:
        """Return the content of a regular file."""
        if self.archive.header.kind == DISK:
            return DiskImage(self.archive, self._cache)
        return ContentFile(self.archive, self._pages, self._cache, entry)

    def only(self) -> ArchiveEntry:
        """Return the single file of an archive of a stream or disk. Raises ConfigurationError for a file tree."""
        if self.archive.header.kind != FILESET:
            for block in self.tree.directory(b""):
                if block.entries == 1 and (entry := self.tree.find(block.name_list()[0])) is not None:
                    return entry
        raise ConfigurationError("the recovery point holds a file tree", hint="name one file of it: POINT:PATH")

    def file(self, text: str) -> ArchiveEntry:
        """Return the regular file at a path as the user writes it; without a path, the single file.

        Raises ConfigurationError if there is no such file.
        """
        if not text:
            return self.only()
        path = archive_path(self.archive, text)
        entry = self.tree.require(path)
        if not entry.row.is_file:
            raise ConfigurationError(f"{shown(path)} is not a regular file")
        return entry
