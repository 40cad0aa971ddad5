"""Sound copies of small files: read from newer recovery points when the chunk that the file shares is damaged.

Small files share chunks. If one of these files is gone when the chunk is damaged, no later run can upload the same
chunk again. The next backup stores the remaining files in new chunks, and a reader of an older recovery point finds
them there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

from cryostore.agent.archive.chunk_cache import ChunkCache
from cryostore.agent.archive.chunk_pages import CachedChunkPages
from cryostore.agent.archive.reader import Archive
from cryostore.agent.entry import CONTENT, NO_DIGEST
from cryostore.agent.errors import DAMAGE
from cryostore.agent.header import content_name
from cryostore.agent.upload.digest_table import DigestTable
from cryostore.core.errors import KeyUnavailableError
from cryostore.core.limits import MIB
from cryostore.model.errors import AccessDeniedException, ResourceNotFoundException

CACHE_BYTES = 32 * MIB
FILES_MAX = 4_000_000
"""At most this many small files of a newer recovery point are indexed by digest, in about 160 MB."""


class SoundCopies:
    """Searches the archives of newer recovery points for small files by digest; opens them at the first search.

    `newer` returns a few archives, newest first, not opened yet. Thread safe. `close` closes the opened archives.
    """

    def __init__(self, archive: Archive, newer: Callable[[], Iterator[AbstractContextManager[Archive]]]) -> None:
        self._archive = archive
        self._newer = newer
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._opened: list[_Newer] | None = None

    def find(self, digest: bytes, length: int) -> bytes | None:
        """Return the bytes of a small file, verified by digest; None if no newer recovery point has them."""
        with self._lock:
            if self._opened is None:
                self._opened = list(self._open())
            for each in self._opened:
                data = each.find(digest, length)
                if data is not None and self._archive.chunk_id(data)[:16] == digest:
                    return data
        return None

    def close(self) -> None:
        """Close the archives that were opened."""
        self._stack.close()

    def _open(self) -> Iterator[_Newer]:
        for opening in self._newer():
            try:
                newer = _Newer(self._stack.enter_context(opening), self._archive)
            except (*DAMAGE, AccessDeniedException, KeyUnavailableError, ResourceNotFoundException):
                continue  # without this archive, another may still have a copy
            self._stack.callback(newer.close)
            yield newer


class _Newer:
    """The small files of a newer archive, except those in objects that it shares with the older archive."""

    def __init__(self, archive: Archive, older: Archive) -> None:
        self._archive = archive
        self._pages = CachedChunkPages(archive)
        self._cache = ChunkCache(CACHE_BYTES)
        self._table = DigestTable()
        ours, theirs = archive.object_checksums(), older.object_checksums()
        numbers = [each.number for each in archive.header.objects]
        shared = {number for number in numbers if _is_same(content_name(number), ours, theirs)}
        for block in archive.blocks():
            for number, chunk, offset, digest in CONTENT.iter_unpack(block.contents):
                if digest != NO_DIGEST and number not in shared and len(self._table) < FILES_MAX:
                    self._table.add(digest, number, chunk, offset)

    def find(self, digest: bytes, length: int) -> bytes | None:
        """Return the bytes of a small file, not verified yet."""
        place = self._table.find(digest)
        if place is None:
            return None
        chunk = next(self._pages.from_chunk(place.object_number, place.chunk), None)
        if chunk is None or chunk.index != place.chunk:
            return None
        try:
            data = memoryview(self._cache.get(self._archive, chunk))
        except DAMAGE:
            return None
        return bytes(data[place.offset : place.offset + length])

    def close(self) -> None:
        """End the threads."""
        self._cache.close()


def _is_same(name: str, ours: dict[str, bytes], theirs: dict[str, bytes]) -> bool:
    return name in ours and ours[name] == theirs.get(name)
