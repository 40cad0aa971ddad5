"""Trimmed content objects: the base's objects without the chunks that no file needs any more.

A content object is inherited as a whole, so one living file would keep all of its chunks. A trimmed object has the same
name and the same indexes, with gaps: no file's place changes, and no byte is sent. Older recovery points keep the
object as they had it.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

from cryostore.agent.archive.reader import Archive
from cryostore.agent.backup.policy import Plain
from cryostore.agent.header import ContentObject, content_name
from cryostore.agent.upload.object_upload import SegmentUpload
from cryostore.agent.upload.sealed_upload import SealedSegment
from cryostore.core.limits import KIB
from cryostore.model.chunks import Chunk, LinkChunks, LinkedChunk
from cryostore.model.operation import Call

DEAD_BYTES_MIN = 64 * KIB
DEAD_SHARE = 32
"""An object keeps dead bytes of up to one in so many of its own."""
LINKS_MAX = 1000


class Trimmed(NamedTuple):
    """An object in the place of the base's; its upload is still to be completed."""

    upload: SegmentUpload | SealedSegment
    content_bytes: int


def worth_trimming(each: ContentObject, live_bytes: int) -> bool:
    """Whether to look at an object's chunks: files have gone since the base, and left much behind."""
    dead_bytes = each.content_bytes - live_bytes
    return live_bytes < each.live_bytes and dead_bytes > max(DEAD_BYTES_MIN, each.content_bytes // DEAD_SHARE)


def trim(
    call: Call, job_id: str, secrecy: Plain, archive: Archive, each: ContentObject, ends: array[int]
) -> Trimmed | None:
    """List an object anew without its dead chunks; None if that gains little, or the store does not give it all.

    `ends` says of each chunk how many bytes from its beginning on files need, of the chunks behind it, too.
    """
    name = content_name(each.number)
    chunks = list(archive.object_chunks(name))
    living = living_chunks(chunks, ends)
    living_bytes = sum(chunk.length for chunk in living)
    dead_bytes = sum(chunk.length for chunk in chunks) - living_bytes
    if not living or dead_bytes <= max(DEAD_BYTES_MIN, each.content_bytes // DEAD_SHARE):
        return None
    stored = {chunk.index: chunk for chunk in archive.stored_object_chunks(name)}
    upload = secrecy.segment(call, job_id, name)
    for first in range(0, len(living), LINKS_MAX):
        batch = [(chunk, stored[chunk.index]) for chunk in living[first : first + LINKS_MAX]]
        for chunk, held in batch:
            upload.inherit(chunk.index, chunk, held)
        linked = [
            LinkedChunk(index=held.index, length=held.length, checksum=held.checksum, checksum_algorithm="SHA256")
            for _, held in batch
        ]
        if call.call(LinkChunks(backup_job_id=job_id, upload_id=upload.open(), chunks=linked)).missing:
            return None  # the commit discards the upload, and the object stays as it is
    return Trimmed(upload, living_bytes)


def living_chunks(chunks: list[Chunk], ends: array[int]) -> list[Chunk]:
    """The chunks that files need; all of them if a file's bytes are not where they should be."""
    living: list[Chunk] = []
    needed, expected = 0, -1
    for chunk in chunks:
        if needed > 0 and chunk.index != expected:
            return chunks
        if chunk.index < len(ends):
            needed = max(needed, ends[chunk.index])
        if needed > 0:
            living.append(chunk)
        needed -= chunk.length
        expected = chunk.index + 1
    return chunks if needed > 0 else living
