"""Layout of a sparse file: which ranges of the file hold data, and where the stored data of each range begins.

An archive stores the data of a file without its holes. Three offsets occur: in the file, in its data (the file without
its holes), and in the chunks, which `pieces` and `files` handle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cryostore.agent.archive.listing import ArchiveEntry
from cryostore.agent.block import ExtraKind

Holes = Sequence[tuple[int, int]]
"""Offset and length of each hole, ascending, as `block.holes_of` returns them."""


class DataSegment(NamedTuple):
    """A range of a file between two holes: its offset and length in the file, and its offset in the file's data."""

    offset: int
    length: int
    data_offset: int


def data_segments(size: int, holes: Holes) -> Iterator[DataSegment]:
    """Return the ranges of a file of `size` bytes that hold data, in ascending order."""
    at = data_offset = 0
    for offset, length in [*holes, (size, 0)]:
        if offset > at:
            yield DataSegment(at, offset - at, data_offset)
            data_offset += offset - at
        at = offset + length


def data_bytes_of(size: int, holes: Holes) -> int:
    """Return how many bytes of a file are stored: its size without its holes."""
    return size - sum(length for _, length in holes)


def listed_data_bytes(entry: ArchiveEntry) -> int:
    """Return how many bytes of a listed file are stored. The holes are not validated, so this never raises."""
    holes = b"".join(extra.data for extra in entry.extras if extra.kind == ExtraKind.HOLES)
    return entry.row.size - sum(int.from_bytes(holes[at + 8 : at + 16], "little") for at in range(0, len(holes), 16))


def file_ranges(size: int, holes: Holes, data_offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Return offset and length, in the file, of the parts that `length` bytes at `data_offset` of its data fill."""
    if not holes:
        yield data_offset, length
        return
    for segment in data_segments(size, holes):
        skipped = max(data_offset - segment.data_offset, 0)
        part = min(segment.length - skipped, length)
        if skipped < segment.length and part > 0:
            yield segment.offset + skipped, part
            data_offset += part
            length -= part
