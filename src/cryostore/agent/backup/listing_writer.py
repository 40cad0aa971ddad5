"""Writer of the listing of an archive, and the statistics of the entries that are listed.

The listing is the stored object `catalog`. The writer packs blocks into chunks and reuses the chunks of the base's
listing. A chunk is a number of whole blocks; its last block is chosen by the path of that block, so a change in one
directory changes one chunk. Nothing is written as long as the chunks are those of the base: an unchanged tree costs
nothing.
"""

from __future__ import annotations

import struct
from array import array
from collections import Counter, defaultdict

from cryostore.agent.archive.reader import Archive, digest_of
from cryostore.agent.block import order_key
from cryostore.agent.entry import CONTENT, ROW
from cryostore.agent.upload.object_upload import BASE_LINKS_MAX, ObjectUpload
from cryostore.agent.upload.uploader import Uploader
from cryostore.core.limits import KIB, MIB
from cryostore.model.chunks import LinkChunks, LinkedChunk
from cryostore.model.operation import Call

CHUNK_BYTES_MIN = 128 * KIB
CHUNK_BYTES_MAX = 1024 * KIB
CHUNK_BYTES_BOUND = 48 * MIB
"""Maximum length of a chunk of several blocks: a store accepts chunks of at most 64 MiB."""
CUT_MASK = 127
FORMAT_BITS = 0o170000
REGULAR = 0o100000
_MODE_AND_SIZE = struct.Struct("<I16xq24x")
CHUNKS_MAX = 10_000_000
"""An object has fewer chunks."""
_ROW_WORDS = ROW.size // 4
_CONTENT_WORDS = CONTENT.size // 4


class ListingWriter:
    """Writes blocks, in their order, to the upload of the listing."""

    def __init__(self, call: Call, uploader: Uploader, upload: ObjectUpload, base: Archive | None) -> None:
        self._call = call
        self._uploader = uploader
        self._upload = upload
        self._base = base
        self._base_chunks = base.listing_chunks if base else []
        self._same = base is not None
        self._blocks: list[bytes] = []
        self._bytes = 0
        self._chunks = 0

    def add(self, path: bytes, block: bytes) -> None:
        """Add the next block, which belongs to the directory at `path`."""
        if self._bytes + len(block) > CHUNK_BYTES_BOUND:
            self._end_chunk()
        self._blocks.append(block)
        self._bytes += len(block)
        if self._bytes < CHUNK_BYTES_MIN:
            return
        if self._bytes >= CHUNK_BYTES_MAX or not self._upload.path_hash(order_key(path)) & CUT_MASK:
            self._end_chunk()

    def _end_chunk(self) -> None:
        if not self._blocks:
            return
        data = b"".join(self._blocks)
        self._blocks = []
        self._bytes = 0
        if self._same and not self._is_next_of_base(data):
            self._diverge()
        if not self._same:
            self._uploader.submit(self._upload, self._upload.reserve(), data)
        self._chunks += 1

    def _is_next_of_base(self, data: bytes) -> bool:
        if self._chunks >= len(self._base_chunks):
            return False
        chunk = self._base_chunks[self._chunks]
        return chunk.length == len(data) and digest_of(chunk) == self._upload.chunk_id(data)

    def _diverge(self) -> None:
        """Start a listing of its own, which begins with the chunks that were equal to those of the base so far."""
        self._same = False
        assert self._base is not None
        for first in range(0, self._chunks, BASE_LINKS_MAX):
            chunks = self._base.stored_listing_chunks[first : min(first + BASE_LINKS_MAX, self._chunks)]
            for number, chunk in enumerate(chunks, first):
                self._upload.inherit(self._upload.reserve(), self._base_chunks[number], chunk)
            linked = [
                LinkedChunk(
                    index=first + number, length=chunk.length, checksum=chunk.checksum, checksum_algorithm="SHA256"
                )
                for number, chunk in enumerate(chunks)
            ]
            answer = self._call.call(
                LinkChunks(backup_job_id=self._upload.job_id, upload_id=self._upload.open(), chunks=linked)
            )
            for index in answer.missing:
                self._uploader.submit(self._upload, index, self._base.chunk_bytes(self._base_chunks[index]))

    def copy_base(self) -> None:
        """Write all chunks of the base's listing to the upload, which the caller completes afterwards."""
        self._chunks = len(self._base_chunks)
        self._diverge()

    def finish(self) -> None:
        """Submit the blocks that are left."""
        self._end_chunk()

    def complete(self, header: bytes) -> bool:
        """Complete the listing unless it equals the base's. Return whether there is a new one.

        Everything submitted must be stored by now.
        """
        if self._same and self._base is not None:
            if self._chunks == len(self._base_chunks) and header == self._base.header_bytes:
                return False
            self._diverge()
            self._uploader.flush()
        self._upload.complete(header)
        return True


class ArchiveStatistics:
    """Numbers of entries, files and bytes, owners, and the live bytes of each content object."""

    def __init__(self) -> None:
        self.entries = 0
        self.files = 0
        self.file_bytes = 0
        self.live_bytes: Counter[int] = Counter()
        """By content object. Bytes shared by several files count once for each, so this is only an estimate."""
        self.ends: defaultdict[int, array[int]] = defaultdict(lambda: array("Q"))
        """By content object and chunk index: how many bytes, from the start of the chunk, the files in it need."""
        self.unplaced: set[int] = set()
        """Content objects for which `ends` is incomplete."""
        self.users: set[int] = set()
        self.groups: set[int] = set()

    def add(self, rows: bytes, contents: bytes) -> int:
        """Count the entries of a block. Return the number of files in it."""
        places = memoryview(contents).cast("I")
        numbers = places[::_CONTENT_WORDS]
        begins = zip(numbers, places[1::_CONTENT_WORDS], places[2::_CONTENT_WORDS], strict=True)
        files = file_bytes = 0
        live_bytes = self.live_bytes
        for (mode, size), (number, chunk, offset) in zip(_MODE_AND_SIZE.iter_unpack(rows), begins, strict=True):
            if mode & FORMAT_BITS == REGULAR:
                files += 1
                file_bytes += size
                if number:
                    live_bytes[number] += size
                    ends = self.ends[number]
                    if chunk >= len(ends) and not self._lengthen(number, chunk):
                        continue
                    ends[chunk] = max(ends[chunk], offset + size)
        words = memoryview(rows).cast("I")
        self.users.update(words[1::_ROW_WORDS])
        self.groups.update(words[2::_ROW_WORDS])
        self.entries += len(numbers)
        self.files += files
        self.file_bytes += file_bytes
        return files

    def _lengthen(self, number: int, chunk: int) -> bool:
        """Make room for a chunk. Return False if the index is higher than that of any chunk."""
        if chunk >= CHUNKS_MAX:
            self.unplaced.add(number)
            return False
        ends = self.ends[number]
        ends.frombytes(bytes(ends.itemsize * (chunk + 1 - len(ends))))
        return True
