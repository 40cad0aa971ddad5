"""Where large content is cut into chunks. The only home of the chunker library.

A chunker looks at the bytes alone, so that an insertion moves the cuts around it and no others. Which parameters an
archive was cut with stands in its header, for its successors to cut alike; reading needs none of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from pyfastcdc import FastCDC

from cryostore.core.limits import KIB, MIB

CHUNK_BYTES_MIN = 256 * KIB
CHUNK_BYTES_MEAN = 1 * MIB
CHUNK_BYTES_MAX = 4 * MIB


class Chunker(Protocol):
    """The seam between content and the way it is cut."""

    chunk_bytes_max: int

    def cuts(self, data: memoryview) -> Iterator[int]:
        """The lengths of the chunks of `data`, as if it ended where it ends: the last one may be cut short."""


class ContentChunker:
    """FastCDC as published in 2020. Not for several threads at once."""

    def __init__(self) -> None:
        self.chunk_bytes_max = CHUNK_BYTES_MAX
        self._cutter = FastCDC(CHUNK_BYTES_MEAN, min_size=CHUNK_BYTES_MIN, max_size=CHUNK_BYTES_MAX)

    def cuts(self, data: memoryview) -> Iterator[int]:
        for chunk in self._cutter.cut_buf(data):
            yield chunk.length
