"""Content of files as chunks: small files share chunks, large files are cut by content-defined chunking.

A shared chunk holds small files one after the other. It ends after a file whose digest says so: thus equal files in
equal order make equal chunks, wherever they begin. A small file that is known already is not stored again.
"""

from __future__ import annotations

from collections.abc import Callable

from cryostore.agent.entry import NO_CONTENT, NO_DIGEST, Content
from cryostore.agent.upload.cut_points import Chunker, is_disk
from cryostore.agent.upload.digest_table import DigestTable
from cryostore.agent.upload.object_upload import ObjectUpload
from cryostore.agent.upload.uploader import Uploader
from cryostore.core.limits import KIB, MIB
from cryostore.core.process_resources import unfilled

SMALL_BYTES_MAX = 512 * KIB
ALONE_BYTES_MIN = 64 * KIB
CHANGED_ALONE_BYTES_MIN = 16 * KIB
"""Files of ALONE_BYTES_MIN, or of CHANGED_ALONE_BYTES_MIN if they have changed before, get chunks of their own.

In a shared chunk, the other files would keep the old bytes alive.
"""
SHARED_BYTES_MIN = 1 * MIB
SHARED_BYTES_MAX = 3 * MIB
SHARED_BYTES_SPREAD = 1 * MIB
"""The average distance from the minimum to the end of a shared chunk."""
READ_BYTES = 4 * MIB

Read = Callable[[memoryview], int]
"""Fills a buffer and returns the number of bytes; fewer than its length only at the end of the file."""


class ContentWriter:
    """Takes the bytes of one file after the other, and returns the location of each."""

    def __init__(
        self, uploader: Uploader, upload: ObjectUpload, object_number: int, chunker: Chunker, small_files: DigestTable
    ) -> None:
        self._uploader = uploader
        self.upload = upload
        self.object_number = object_number
        self._chunker = chunker
        self._small_files = small_files
        self._shared = bytearray()
        self._view = memoryview(self._shared)
        self._filled = 0
        self._shared_index = -1

    def room(self, length: int) -> memoryview:
        """The buffer for a small file of `length` bytes, with one byte to spare. Call `small` after the read."""
        assert length <= SMALL_BYTES_MAX
        if self._filled + length + 1 > len(self._shared):
            self._end_shared()
            self._shared = unfilled(SHARED_BYTES_MAX)
            self._view = memoryview(self._shared)
        return self._view[self._filled : self._filled + length + 1]

    def small(self, length: int, *, base_digest: bytes = NO_DIGEST) -> Content:
        """Take the first `length` bytes in the buffer of `room`.

        `base_digest` is the digest of the file in the base.
        """
        if not length:
            return NO_CONTENT
        filled = self._filled
        digest = self.upload.chunk_id(self._view[filled : filled + length])[:16]
        changed = base_digest not in (NO_DIGEST, digest)  # a file stored again unchanged makes the same chunks
        alone = length >= (CHANGED_ALONE_BYTES_MIN if changed else ALONE_BYTES_MIN)
        begins = alone or self._shared_index < 0
        index = self.upload.chunks_count if begins else self._shared_index
        known = self._small_files.find_or_add(digest, self.object_number, index, 0 if alone else filled)
        if known is not None:
            return Content(known.object_number, known.chunk, known.offset, digest)
        if alone:
            self._uploader.submit(self.upload, self.upload.reserve(), bytes(self._view[filled : filled + length]))
            self.upload.content_bytes += length
            return Content(self.object_number, index, 0, digest)
        if self._shared_index < 0:
            self._shared_index = self.upload.reserve()
        content = Content(self.object_number, index, filled, digest)
        self._filled = filled + length
        self.upload.content_bytes += length
        if self._filled >= SHARED_BYTES_MIN and self._ends_behind(digest, length):
            self._end_shared()
        return content

    def _ends_behind(self, digest: bytes, length: int) -> bool:
        # Each byte has the same chance of an end, whatever the sizes of the files, so a long file has a higher one.
        return self._chunker.chance(digest) * SHARED_BYTES_SPREAD < length << 32

    def _end_shared(self) -> None:
        if self._filled:
            self._uploader.submit(self.upload, self._shared_index, self._view[: self._filled])
        self._shared = bytearray()
        self._view = memoryview(self._shared)
        self._filled = 0
        self._shared_index = -1

    def large(self, read: Read, length: int) -> tuple[Content, int]:
        """Take a large file to its end.

        Returns its content and its length, which may differ from the expected `length`.

        Raises the errors of `read`; the bytes read before are then stored for nothing.
        """
        first = self.upload.chunks_count
        total = got = wanted = 0
        of_disk = False
        held: memoryview = memoryview(b"")
        while got == wanted:
            wanted = min(READ_BYTES, length - total + 1) if total <= length else READ_BYTES
            buffer = memoryview(unfilled(len(held) + wanted))
            buffer[: len(held)] = held
            got = read(buffer[len(held) :])
            of_disk = of_disk if total else is_disk(buffer[:got])
            total += got
            held = self._cut(buffer[: len(held) + got], of_disk=of_disk, at_end=got < wanted)
        self.upload.content_bytes += total
        return (Content(self.object_number, first, 0) if total else NO_CONTENT), total

    def _cut(self, data: memoryview, *, of_disk: bool, at_end: bool) -> memoryview:
        """Submit the chunks of `data`, except the last one if it may continue. Returns the bytes that remain."""
        start = 0
        for length in self._chunker.cuts(data, of_disk=of_disk):
            if start + length == len(data) and not at_end:
                break
            self._uploader.submit(self.upload, self.upload.reserve(), data[start : start + length])
            start += length
        return data[start:]

    def finish(self) -> None:
        """Submit the last shared chunk."""
        self._end_shared()
