"""Where large content is cut into chunks. The only home of the chunker library.

A chunker looks at the bytes alone, so that an insertion moves the cuts around it and no others. Which parameters an
archive was cut with stands in its header, for its successors to cut alike; reading needs none of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from pyfastcdc import FastCDC

from cryostore.core.compression import BLOCK_BYTES
from cryostore.core.limits import KIB, MIB

CHUNK_BYTES_MIN = 512 * KIB
CHUNK_BYTES_MEAN = 2 * MIB
CHUNK_BYTES_MAX = 4 * MIB
DISK_MARKS = ((510, b"\x55\xaa"), (1080, b"\x53\xef"), (0, b"XFSB"), (0, b"QFI\xfb"), (64 * KIB + 64, b"_BHRfS_M"))
"""What stands where in the image of a disk: a boot sector; ext2, 3 and 4; XFS; QCOW2; Btrfs."""


class Chunker(Protocol):
    """The seam between content and the way it is cut."""

    chunk_bytes_max: int

    def cuts(self, data: memoryview, *, of_disk: bool = False) -> Iterator[int]:
        """The lengths of the chunks of `data`, as if it ended where it ends: the last one may be cut short.

        The content of a disk may be cut between its blocks alone: a store compresses whole blocks harder.
        """

    def chance(self, digest: bytes) -> int:
        """32 bits that say whether a shared chunk ends behind the small file with this digest."""


class ContentChunker:
    """FastCDC as published in 2020. Not for several threads at once."""

    def __init__(
        self,
        bytes_mean: int = CHUNK_BYTES_MEAN,
        bytes_min: int = CHUNK_BYTES_MIN,
        bytes_max: int = CHUNK_BYTES_MAX,
        seed: int = 0,
    ) -> None:
        self.chunk_bytes_max = bytes_max
        self._cutter = FastCDC(bytes_mean, min_size=bytes_min, max_size=bytes_max, seed=seed)

    def cuts(self, data: memoryview, *, of_disk: bool = False) -> Iterator[int]:
        if of_disk:
            yield from self._cuts_between_blocks(data)
            return
        for chunk in self._cutter.cut_buf(data):
            yield chunk.length

    def _cuts_between_blocks(self, data: memoryview) -> Iterator[int]:
        start = 0
        while start < len(data):
            length = next(iter(self._cutter.cut_buf(data[start:]))).length
            end = min(start + length + -length % BLOCK_BYTES, len(data))
            yield end - start
            start = end

    def chance(self, digest: bytes) -> int:
        return int.from_bytes(digest[8:12], "little")


def is_disk(beginning: memoryview) -> bool:
    """Whether content begins as the image of a disk does."""
    return any(beginning[offset : offset + len(mark)] == mark for offset, mark in DISK_MARKS)
