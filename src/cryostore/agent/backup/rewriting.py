"""Choice of the content that a run stores again, because most of the bytes around it are dead.

Files in mostly dead content objects, and small files in mostly dead ("sparse") chunks, are read again and stored at a
new place, so that later runs can drop the old object or chunk. A run also merges small objects if there are too many.
"""

from __future__ import annotations

from collections import Counter

from cryostore.agent.archive.reader import Archive
from cryostore.agent.entry import CONTENT, NO_DIGEST, ROW, Row
from cryostore.agent.header import ContentObject, content_name
from cryostore.core.limits import KIB, MIB

OBJECTS_MAX = 64
DEAD_BYTES_MIN = 4 * MIB
MERGED_BYTES_MAX = 64 * MIB
SIZE = Row._fields.index("size")
SPARSE_DEAD_BYTES_MIN = 512 * KIB
SPARSE_DEAD_SHARE = 8
"""Sparse chunks are searched in objects with more dead bytes than the minimum and than this fraction (1/8)."""
MOVED_SHARE = 16
MOVED_BYTES_MIN = 2 * MIB
"""A run moves files out of sparse chunks up to this fraction (1/16) of all file bytes, or up to this many bytes."""


def objects_to_rewrite(objects: list[ContentObject]) -> frozenset[int]:
    """Return the content objects whose files are to be stored again: mostly dead ones, small ones of too many."""
    going = {
        each.number
        for each in objects
        if each.content_bytes - each.live_bytes > DEAD_BYTES_MIN and 2 * each.live_bytes < each.content_bytes
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
