"""Incremental base of a run: the archive whose unchanged parts the new one inherits.

Dead bytes are the bytes of content objects that no file of the tree needs any more. A run frees them as follows.
Files in mostly dead content objects, and small files in mostly dead ("sparse") chunks, are read again and stored at a
new place, so that later runs can drop the old object or chunk. A run also merges small objects if there are too many.

A content object is inherited as a whole, so a single live file would keep all of its chunks. Therefore objects are
trimmed: listed again without their dead chunks. A trimmed object has the same name and the same chunk indexes, with
gaps: the place of no file changes, and no byte is sent. Older recovery points keep the object as it was.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cryostore.agent.archive.chunks import ChunkPages
from cryostore.agent.archive.reader import Archive, digest_of
from cryostore.agent.block import Block, Extra, ExtraKind, Kind, order_key
from cryostore.agent.entry import CONTENT, NO_DIGEST, ROW, UNTRUSTED_CTIME, Content, Row
from cryostore.agent.header import ContentObject, content_name
from cryostore.agent.upload.content import Read
from cryostore.agent.upload.digest_table import DigestTable
from cryostore.agent.upload.object_upload import BASE_LINKS_MAX, SealedSegment, SegmentUpload
from cryostore.core.limits import KIB, MIB
from cryostore.core.process_resources import unfilled
from cryostore.model.chunks import Chunk, LinkChunks, LinkedChunk
from cryostore.model.operation import Call

MOVED_DIGEST = b"\xff" * len(NO_DIGEST)
"""Digest of a small file in a sparse chunk: equal to no other, so that the file is stored at a new place."""
OBJECTS_MAX = 64
REWRITE_DEAD_BYTES_MIN = 4 * MIB
MERGED_BYTES_MAX = 64 * MIB
SIZE = Row._fields.index("size")
SPARSE_DEAD_BYTES_MIN = 512 * KIB
SPARSE_DEAD_SHARE = 8
"""Sparse chunks are searched in objects with more dead bytes than the minimum and than this fraction (1/8)."""
MOVED_SHARE = 16
MOVED_BYTES_MIN = 2 * MIB
"""A run moves files out of sparse chunks up to this fraction (1/16) of all file bytes, or up to this many bytes."""
TRIM_DEAD_BYTES_MIN = 64 * KIB
TRIM_DEAD_SHARE = 32
"""An object may keep dead bytes up to this fraction (1/32) of its content."""
NewSegment = Callable[[Call, str, str], SegmentUpload | SealedSegment]
"""Returns the upload of an object of a job, given its name."""


def objects_to_rewrite(objects: list[ContentObject]) -> frozenset[int]:
    """Return the content objects whose files are to be stored again: mostly dead ones, small ones of too many."""
    going = {
        each.number
        for each in objects
        if each.content_bytes - each.live_bytes > REWRITE_DEAD_BYTES_MIN and 2 * each.live_bytes < each.content_bytes
    }
    left = sorted((each for each in objects if each.number not in going), key=lambda each: each.live_bytes)
    merged_bytes = 0
    for each in left[: max(len(left) - OBJECTS_MAX // 2, 0)] if len(left) > OBJECTS_MAX else []:
        merged_bytes += each.live_bytes
        if merged_bytes > MERGED_BYTES_MAX:
            break
        going.add(each.number)
    return frozenset(going)


def sparse_chunks(archive: Archive, to_rewrite: frozenset[int]) -> frozenset[tuple[int, int]]:
    """Return the chunks, as object number and index, that are less than half live: their small files move.

    `to_rewrite` are objects that are left out because they move as a whole. The sparsest chunks come first, up to the
    limit of bytes that one run moves. A file that lies in a chunk twice counts twice.
    """
    objects = archive.header.objects
    worn = {
        each.number
        for each in objects
        if each.number not in to_rewrite
        and each.content_bytes - each.live_bytes > max(SPARSE_DEAD_BYTES_MIN, each.content_bytes // SPARSE_DEAD_SHARE)
    }
    if not worn:
        return frozenset()
    live_bytes = _small_file_bytes(archive, worn)
    found = []
    for number in sorted(worn):
        for chunk in archive.object_chunks(content_name(number)):
            needed = live_bytes[number, chunk.index]
            if 0 < 2 * needed < chunk.length:
                found.append((needed / chunk.length, needed, (number, chunk.index)))
    sparse: set[tuple[int, int]] = set()
    left = max(sum(each.live_bytes for each in objects) // MOVED_SHARE, MOVED_BYTES_MIN)
    for _, needed, place in sorted(found):
        if needed <= left:
            left -= needed
            sparse.add(place)
    return frozenset(sparse)


def _small_file_bytes(archive: Archive, numbers: set[int]) -> Counter[tuple[int, int]]:
    """Return how many bytes of small files start in each chunk of the objects `numbers`."""
    found: Counter[tuple[int, int]] = Counter()
    for block in archive.raw_blocks():
        if not numbers.isdisjoint(memoryview(block.contents).cast("I")[:: CONTENT.size // 4]):
            rows = ROW.iter_unpack(block.rows)
            for (number, chunk, _, digest), row in zip(CONTENT.iter_unpack(block.contents), rows, strict=True):
                if number in numbers and digest != NO_DIGEST:
                    found[number, chunk] += row[SIZE]
    return found


class TrimmedObject(NamedTuple):
    """A replacement for an object of the base. The caller must complete its upload."""

    upload: SegmentUpload | SealedSegment
    content_bytes: int


def is_worth_trimming(each: ContentObject, live_bytes: int) -> bool:
    """Return whether to look at the chunks of an object: files have gone since the base and left many dead bytes."""
    dead_bytes = each.content_bytes - live_bytes
    return live_bytes < each.live_bytes and dead_bytes > max(TRIM_DEAD_BYTES_MIN, each.content_bytes // TRIM_DEAD_SHARE)


def trim_object(
    call: Call, job_id: str, new_segment: NewSegment, archive: Archive, each: ContentObject, ends: array[int]
) -> TrimmedObject | None:
    """List an object again without its dead chunks; None if that gains little or if the store lacks a live chunk.

    `ends` tells, by chunk index, how many bytes files need from the start of a chunk, including the chunks after it.
    """
    name = content_name(each.number)
    chunks = list(archive.object_chunks(name))
    live = live_chunks(chunks, ends)
    live_bytes = sum(chunk.length for chunk in live)
    dead_bytes = sum(chunk.length for chunk in chunks) - live_bytes
    if not live or dead_bytes <= max(TRIM_DEAD_BYTES_MIN, each.content_bytes // TRIM_DEAD_SHARE):
        return None
    stored = {chunk.index: chunk for chunk in archive.stored_object_chunks(name)}
    upload = new_segment(call, job_id, name)
    for first in range(0, len(live), BASE_LINKS_MAX):
        batch = [(chunk, stored[chunk.index]) for chunk in live[first : first + BASE_LINKS_MAX]]
        for chunk, held in batch:
            upload.inherit(chunk.index, chunk, held)
        linked = [
            LinkedChunk(index=held.index, length=held.length, checksum=held.checksum, checksum_algorithm="SHA256")
            for _, held in batch
        ]
        if call.call(LinkChunks(backup_job_id=job_id, upload_id=upload.open(), chunks=linked)).missing:
            return None  # the commit discards the upload, and the object stays as it is
    return TrimmedObject(upload, live_bytes)


def live_chunks(chunks: list[Chunk], ends: array[int]) -> list[Chunk]:
    """Return the chunks that files need; all chunks if the bytes of a file are not where they should be."""
    live: list[Chunk] = []
    needed, expected = 0, -1
    for chunk in chunks:
        if needed > 0 and chunk.index != expected:
            return chunks
        if chunk.index < len(ends):
            needed = max(needed, ends[chunk.index])
        if needed > 0:
            live.append(chunk)
        needed -= chunk.length
        expected = chunk.index + 1
    return chunks if needed > 0 else live


class ArchivedEntry(NamedTuple):
    """An entry as an archive has it, without its name."""

    row: Row
    content: Content
    extras: list[Extra]


class ArchiveBase:
    """The base of a run that can read it. Directories must be asked for in the order of the listing."""

    def __init__(self, archive: Archive, *, same_root: bool, damaged: frozenset[int] = frozenset()) -> None:
        """The store has lost bytes of the content objects `damaged`: their files are to be stored again as well."""
        self.archive = archive
        self.to_rewrite = objects_to_rewrite(archive.header.objects) | damaged
        self._damaged = damaged
        self._sparse = sparse_chunks(archive, self.to_rewrite)
        self._sparse_objects = frozenset(number for number, _ in self._sparse)
        self._blocks: Iterator[Block] = archive.raw_blocks() if same_root else iter(())
        self._next: Block | None = None
        self._next_key = (0, b"")
        self._pages = ChunkPages(archive)
        self._advance()

    def _advance(self) -> None:
        self._next = next(self._blocks, None)
        if self._next is not None:
            self._next_key = (self._next.kind, order_key(self._next.path))

    @property
    def objects(self) -> list[ContentObject]:
        """The content objects of the archive."""
        return self.archive.header.objects

    @property
    def last_number(self) -> int:
        """The highest number of a content object."""
        return max((each.number for each in self.objects), default=0)

    def object_checksums(self) -> dict[str, bytes]:
        """Return the checksum of each object of the archive, by name."""
        return self.archive.object_checksums()

    def entries(self, path: bytes, blocks: list[Block]) -> BaseEntries:  # noqa: ARG002 - for a base without blocks
        """Return the entries of a directory, whose `blocks` come from `take`."""
        return BaseEntries(blocks, self.to_rewrite, self._sparse, self._damaged)

    def take(self, kind: Kind, path: bytes) -> list[Block]:
        """Return the blocks of a directory; none if the base does not have it."""
        wanted = (kind, order_key(path))
        found = []
        while self._next is not None and self._next_key <= wanted:
            if self._next_key == wanted:
                found.append(self._next)
            self._advance()
        return found

    def usable(self, block: Block) -> bool:
        """Return whether a block may be inherited as it is: no content in it is to be stored again."""
        if not block.contents or not (self.to_rewrite or self._sparse):
            return True
        words = memoryview(block.contents).cast("I")
        numbers = words[:: CONTENT.size // 4]
        if not self.to_rewrite.isdisjoint(numbers):
            return False
        if self._sparse_objects.isdisjoint(numbers):
            return True
        return self._sparse.isdisjoint(zip(numbers, words[1 :: CONTENT.size // 4], strict=True))

    def holds(self, content: Content, size: int, read: Read) -> bool:
        """Return whether the chunks from `content` on equal, one after the other, the next `size` bytes of `read`.

        Passes on the errors of `read`.
        """
        left = size
        for chunk in self._pages.from_chunk(content.object_number, content.chunk):
            data = memoryview(unfilled(chunk.length))
            if chunk.length > left or read(data) != chunk.length or self.archive.chunk_id(data) != digest_of(chunk):
                return False
            left -= chunk.length
            if not left:
                return True
        return False

    def load_small_files(self, table: DigestTable) -> None:
        """Add the place of each small file of the base, except those that are to be stored again."""
        for block in self.archive.raw_blocks():
            for number, chunk, offset, digest in CONTENT.iter_unpack(block.contents):
                if digest != NO_DIGEST and number not in self.to_rewrite and (number, chunk) not in self._sparse:
                    table.add(digest, number, chunk, offset)

    def load_chunks(self, table: DigestTable) -> None:
        """Add the digest of each stored chunk of the base."""
        for chunk in self.archive.stored_chunks():
            table.add(digest_of(chunk))


class BaseEntries:
    """The entries of a directory of the base, by name."""

    def __init__(
        self,
        blocks: list[Block],
        to_rewrite: frozenset[int],
        sparse: frozenset[tuple[int, int]] = frozenset(),
        damaged: frozenset[int] = frozenset(),
    ) -> None:
        self._to_rewrite = to_rewrite
        self._sparse = sparse
        self._damaged = damaged
        self._places = {name: (block, index) for block in blocks for index, name in enumerate(block.name_list())}
        self._extras: dict[int, dict[int, list[Extra]]] = {}

    def unchanged(self, name: bytes, row: Row) -> ArchivedEntry | None:
        """Return the entry of this name if it has not changed since and its content may stay where it is."""
        if (known := self.held(name, row)) is None:
            return None
        number, chunk = known.content.object_number, known.content.chunk
        return None if number in self._to_rewrite or (number, chunk) in self._sparse else known

    def held(self, name: bytes, row: Row) -> ArchivedEntry | None:
        """Return the entry of this name if neither bytes nor attributes can have changed since.

        Its content may be one that is to be stored again. None if the store has lost bytes of the content object.
        """
        if (place := self._places.get(name)) is None:
            return None
        block, index = place
        old = Row.unpack(block.rows, index)
        if old.ctime_ns == UNTRUSTED_CTIME or stat_identity(old) != stat_identity(row):
            return None
        content = Content.unpack(block.contents, index)
        if content.object_number in self._damaged:
            return None
        if id(block) not in self._extras:
            self._extras[id(block)] = block.extras_of()
        return ArchivedEntry(old, content, self._extras[id(block)].get(index, []))

    def alike(self, name: bytes, row: Row) -> Content | None:
        """Return the content of a file that looks unchanged but was too young to be trusted; None if it had holes."""
        if (place := self._places.get(name)) is None:
            return None
        block, index = place
        old = Row.unpack(block.rows, index)
        content = Content.unpack(block.contents, index)
        looks = stat_identity(old._replace(ctime_ns=row.ctime_ns)) == stat_identity(row)
        if not looks or not content.object_number or content.offset or content.object_number in self._to_rewrite:
            return None
        extras = block.extras_of().get(index, [])
        return None if any(extra.kind == ExtraKind.HOLES for extra in extras) else content

    def digest(self, name: bytes) -> bytes:
        """Return the digest of a small file; zeros if the base has none, MOVED_DIGEST if the file is to be moved."""
        if (place := self._places.get(name)) is None:
            return NO_DIGEST
        block, index = place
        content = Content.unpack(block.contents, index)
        return MOVED_DIGEST if (content.object_number, content.chunk) in self._sparse else content.digest

    def __contains__(self, name: bytes) -> bool:
        return name in self._places


def stat_identity(row: Row) -> tuple[int, int, int, int, int]:
    """Return the stat fields that show together that a file has not changed."""
    return row.mode, row.size, row.mtime_ns, row.ctime_ns, row.inode
