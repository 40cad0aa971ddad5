"""Disk image in an archive: its layout, the chunks of its segments, and reading from any offset.

A disk is divided into segments, one object each, and a segment into disk blocks, one chunk each. A disk block without a
chunk is zeros. (A "block" without "disk" is a block of an archive's listing; see `agent.block`.)
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise

from cryostore.agent.archive.chunks import ChunkCache
from cryostore.agent.archive.reader import Archive, digest_of
from cryostore.agent.errors import DAMAGE, ArchiveDamagedError
from cryostore.agent.header import DiskLayout
from cryostore.core.limits import MIB
from cryostore.model.chunks import Chunk

SEGMENT_PREFIX = "disk-"
"""The start of the name of each object that holds a segment."""
SEGMENTS_HELD = 16
AHEAD_BLOCKS = 4
DISK_BYTES_MAX = (1 << 63) - 1
BLOCK_BYTES_MAX = 64 * MIB
"""The largest chunk."""


def segment_name(number: int) -> str:
    """Return the name of the object that holds a segment."""
    return f"{SEGMENT_PREFIX}{number:08d}"


def segment_number(name: str) -> int:
    """Return the number of the segment that an object of this name holds."""
    return int(name.removeprefix(SEGMENT_PREFIX))


def disk_layout(archive: Archive) -> DiskLayout:
    """Return the layout of an archive's disk. Raises ArchiveDamagedError if there is none or it is invalid."""
    layout = archive.header.disk
    if not isinstance(layout, DiskLayout):
        raise ArchiveDamagedError("the archive has no disk")
    block, segment = layout.block_bytes, layout.segment_bytes
    if not (0 <= layout.disk_bytes <= DISK_BYTES_MAX and 0 < block <= BLOCK_BYTES_MAX and block <= segment):
        raise ArchiveDamagedError(f"the layout of the archive's disk is invalid: {_numbers(layout)}")
    if segment > DISK_BYTES_MAX or segment % block:
        raise ArchiveDamagedError(f"the layout of the archive's disk is invalid: {_numbers(layout)}")
    if any(left >= right for left, right in pairwise((-1, *layout.segments, -(-layout.disk_bytes // segment)))):
        raise ArchiveDamagedError(f"the archive's disk has segments beyond its end or out of order: {_numbers(layout)}")
    return layout


def _numbers(layout: DiskLayout) -> str:
    return f"{layout.disk_bytes} bytes in segments of {layout.segment_bytes} and blocks of {layout.block_bytes}"


def segment_chunks(archive: Archive, layout: DiskLayout, number: int) -> dict[int, Chunk]:
    """Return the chunks of a segment by disk block number within the segment; disk blocks of zeros have none.

    Raises ArchiveDamagedError if the segment is lost or a chunk does not have the length of its disk block.
    """
    name = segment_name(number)
    at = bisect_left(layout.segments, number)
    if at == len(layout.segments) or layout.segments[at] != number:
        return {}
    if name not in archive.object_names:
        raise ArchiveDamagedError(f"segment {number} of the disk is lost")
    found = {}
    for chunk in archive.object_chunks(name):
        offset = number * layout.segment_bytes + chunk.index * layout.block_bytes
        inside = 0 <= chunk.index < layout.segment_bytes // layout.block_bytes
        if not inside or chunk.length != min(layout.block_bytes, layout.disk_bytes - offset):
            problem = f"segment {number} of the disk has a block {chunk.index} of the wrong length or position"
            raise ArchiveDamagedError(problem)
        found[chunk.index] = chunk
    return found


class DiskImage:
    """The disk of an archive as a readable file. Thread safe."""

    def __init__(self, archive: Archive, cache: ChunkCache) -> None:
        self.layout = disk_layout(archive)
        self.size = self.layout.disk_bytes
        self._archive = archive
        self._cache = cache
        self._lock = threading.Lock()
        self._segments: OrderedDict[int, dict[int, Chunk]] = OrderedDict()
        self._next = 0

    def segment(self, number: int) -> dict[int, Chunk]:
        """Return the chunks of a segment by disk block number within the segment."""
        with self._lock:
            if (held := self._segments.get(number)) is None:
                held = self._segments[number] = segment_chunks(self._archive, self.layout, number)
                while len(self._segments) > SEGMENTS_HELD:
                    self._segments.popitem(last=False)
            self._segments.move_to_end(number)
            return held

    def holds(self, chunk: Chunk, data: bytes) -> bool:
        """Return whether `data` are the bytes of a chunk, by its digest."""
        return len(data) == chunk.length and self._archive.chunk_id(data) == digest_of(chunk)

    def segments(self) -> Iterator[tuple[int, int]]:
        layout = self.layout
        for number in layout.segments:  # the other segments are zeros
            for index, chunk in sorted(self.segment(number).items()):
                yield number * layout.segment_bytes + index * layout.block_bytes, chunk.length

    def read(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        block_bytes = self.layout.block_bytes
        sequential = offset == self._next or not offset
        end = self._next = offset + length
        parts = []
        while offset < end:
            block, skipped = divmod(offset, block_bytes)
            size = min(block_bytes - skipped, end - offset)
            if sequential:
                self._read_ahead(block)
            if (chunk := self._block(block)) is None:
                parts.append(bytes(size))
            else:
                try:
                    data = memoryview(self._cache.get(self._archive, chunk))
                except DAMAGE as error:
                    reason = f"{size} bytes from byte {offset} on cannot be read: {error.message}"
                    raise ArchiveDamagedError(reason) from error
                parts.append(bytes(data[skipped : skipped + size]))
            offset += size
        return b"".join(parts)

    def _read_ahead(self, block: int) -> None:
        for ahead in range(block, min(block + AHEAD_BLOCKS, -(-self.size // self.layout.block_bytes))):
            if (chunk := self._block(ahead)) is not None:
                self._cache.prefetch(self._archive, chunk)

    def _block(self, block: int) -> Chunk | None:
        number, index = divmod(block, self.layout.segment_bytes // self.layout.block_bytes)
        return self.segment(number).get(index)
