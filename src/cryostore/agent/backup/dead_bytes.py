"""Dead bytes of content objects: how a run frees the bytes that no file of the tree needs any more.

Files in mostly dead content objects, and small files in mostly dead ("sparse") chunks, are read again and stored at a
new place, so that later runs can drop the old object or chunk. A run also merges small objects if there are too many.

A content object is inherited as a whole, so a single live file would keep all of its chunks. Therefore objects are
trimmed: listed again without their dead chunks. A trimmed object has the same name and the same chunk indexes, with
gaps: the place of no file changes, and no byte is sent. Older recovery points keep the object as it was.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from cryostore.agent.archive.reader import Archive
from cryostore.agent.entry import CONTENT, NO_DIGEST, ROW, Row
from cryostore.agent.header import ContentObject, content_name
from cryostore.agent.upload.object_upload import BASE_LINKS_MAX, SealedSegment, SegmentUpload
from cryostore.core.limits import KIB, MIB
from cryostore.model.chunks import Chunk, LinkChunks, LinkedChunk
from cryostore.model.operation import Call

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
