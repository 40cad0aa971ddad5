"""Trimmed content objects: objects of the base without the chunks that no file needs any more.

A content object is inherited as a whole, so a single live file would keep all of its chunks. A trimmed object has the
same name and the same chunk indexes, with gaps: the place of no file changes, and no byte is sent. Older recovery
points keep the object as it was.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

from cryostore.agent.archive.reader import Archive
from cryostore.agent.backup.encryption_policy import PlainPolicy
from cryostore.agent.header import ContentObject, content_name
from cryostore.agent.upload.object_upload import SealedSegment, SegmentUpload
from cryostore.core.limits import KIB
from cryostore.model.chunks import Chunk, LinkChunks, LinkedChunk
from cryostore.model.operation import Call

DEAD_BYTES_MIN = 64 * KIB
DEAD_SHARE = 32
"""An object may keep dead bytes up to this fraction (1/32) of its content."""
LINKS_MAX = 1000


class TrimmedObject(NamedTuple):
    """A replacement for an object of the base. The caller must complete its upload."""

    upload: SegmentUpload | SealedSegment
    content_bytes: int


def is_worth_trimming(each: ContentObject, live_bytes: int) -> bool:
    """Return whether to look at the chunks of an object: files have gone since the base and left many dead bytes."""
    dead_bytes = each.content_bytes - live_bytes
    return live_bytes < each.live_bytes and dead_bytes > max(DEAD_BYTES_MIN, each.content_bytes // DEAD_SHARE)


def trim_object(
    call: Call, job_id: str, policy: PlainPolicy, archive: Archive, each: ContentObject, ends: array[int]
) -> TrimmedObject | None:
    """List an object again without its dead chunks; None if that gains little or if the store lacks a live chunk.

    `ends` tells, by chunk index, how many bytes files need from the start of a chunk, including the chunks after it.
    """
    name = content_name(each.number)
    chunks = list(archive.object_chunks(name))
    live = live_chunks(chunks, ends)
    live_bytes = sum(chunk.length for chunk in live)
    dead_bytes = sum(chunk.length for chunk in chunks) - live_bytes
    if not live or dead_bytes <= max(DEAD_BYTES_MIN, each.content_bytes // DEAD_SHARE):
        return None
    stored = {chunk.index: chunk for chunk in archive.stored_object_chunks(name)}
    upload = policy.segment(call, job_id, name)
    for first in range(0, len(live), LINKS_MAX):
        batch = [(chunk, stored[chunk.index]) for chunk in live[first : first + LINKS_MAX]]
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
