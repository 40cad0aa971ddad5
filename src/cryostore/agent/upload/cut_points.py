"""Content-defined chunking: the cut points of large content, plain or keyed. The only home of the chunker library.

The bytes alone decide the cut points, so that an insertion moves the cuts around it and no others. The header of an
archive has the parameters, so that its successors cut alike; reading needs none of them.

Keyed cut points are for sealed content, and only the holder of the key can predict them. An observer of the lengths
that a public rule cuts from known content can tell which content it is. So the bytes pass through a secret permutation
before the rolling hash, which has a secret seed. Several pieces of its cuts make one chunk, and a keyed digest of a
piece decides whether the piece ends the chunk. The store sees only padded lengths of whole chunks.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from typing import Protocol

from pyfastcdc import FastCDC

from cryostore.agent.encryption.cipher import derive
from cryostore.core.compression import BLOCK_BYTES
from cryostore.core.limits import KIB, MIB

CHUNK_BYTES_MIN = 512 * KIB
CHUNK_BYTES_MEAN = 2 * MIB
CHUNK_BYTES_MAX = 4 * MIB
DISK_MARKS = ((510, b"\x55\xaa"), (1080, b"\x53\xef"), (0, b"XFSB"), (0, b"QFI\xfb"), (64 * KIB + 64, b"_BHRfS_M"))
"""Offset and bytes that a disk image has: a boot sector; ext2, 3 and 4; XFS; QCOW2; Btrfs."""

PIECE_BYTES_MIN = 32 * KIB
PIECE_BYTES_MEAN = 128 * KIB
PIECE_BYTES_MAX = 512 * KIB
KEYED_CHUNK_BYTES_MIN = 1 * MIB
ENDS_ONE_IN = 8
TAIL_BYTES = 64
"""How many bytes at the end of a piece decide whether it ends the chunk: the cut depends on no others."""
SEED_LABEL = b"seed"
ORDER_LABEL = b"permutation"
SMALL_LABEL = b"small files"
PIECE_LABEL = b"pieces"
PATH_LABEL = b"paths"


class Chunker(Protocol):
    """Decides where content is cut into chunks."""

    chunk_bytes_max: int

    def cuts(self, data: memoryview, *, of_disk: bool = False) -> Iterator[int]:
        """The lengths of the chunks of `data`. The last chunk may be cut short, since `data` ends there.

        A disk image may be cut at block boundaries alone, because a store compresses whole blocks harder.
        """

    def chance(self, digest: bytes) -> int:
        """32 bits that decide whether a shared chunk ends after the small file with this digest."""


class PlainChunker:
    """FastCDC as published in 2020. Not thread safe."""

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
        """See Chunker."""
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
        """See Chunker."""
        return int.from_bytes(digest[8:12], "little")


class KeyedChunker:
    """Cut points under a secret. Each chunk has one or more pieces. Not thread safe."""

    def __init__(self, secret: bytes) -> None:
        self.chunk_bytes_max = CHUNK_BYTES_MAX
        seed = int.from_bytes(derive(secret, SEED_LABEL, 8), "little") >> 1 | 1
        self._pieces = PlainChunker(PIECE_BYTES_MEAN, PIECE_BYTES_MIN, PIECE_BYTES_MAX, seed)
        self._permutation = _permutation(derive(secret, ORDER_LABEL, 1024))
        self._small_key = derive(secret, SMALL_LABEL)
        self._piece_key = derive(secret, PIECE_LABEL)

    def cuts(self, data: memoryview, *, of_disk: bool = False) -> Iterator[int]:  # noqa: ARG002 - see below
        """See Chunker. Disk images are cut like other content, because their chunks are compressed before sealing."""
        hidden = memoryview(bytes(data).translate(self._permutation))
        start = end = 0
        for length in self._pieces.cuts(hidden):
            if end + length - start > CHUNK_BYTES_MAX:
                yield end - start
                start = end
            end += length
            if end - start >= KEYED_CHUNK_BYTES_MIN and self._ends(data[max(end - TAIL_BYTES, start) : end]):
                yield end - start
                start = end
        if end > start:
            yield end - start

    def _ends(self, tail: memoryview) -> bool:
        return int.from_bytes(hmac.digest(self._piece_key, tail, "sha256")[:4], "little") % ENDS_ONE_IN == 0

    def chance(self, digest: bytes) -> int:
        """See Chunker."""
        return int.from_bytes(hmac.digest(self._small_key, digest, "sha256")[:4], "little")


def is_disk(beginning: memoryview) -> bool:
    """Whether content begins like a disk image."""
    return any(beginning[offset : offset + len(mark)] == mark for offset, mark in DISK_MARKS)


def keyed_path_hash(secret: bytes, path: bytes) -> int:
    """A keyed hash of a path, of 32 bits, which decides where a sealed listing is cut into chunks."""
    return int.from_bytes(hmac.digest(secret, PATH_LABEL + path, "sha256")[:4], "little")


def _permutation(randomness: bytes) -> bytes:
    """All 256 byte values, sorted by four bytes of `randomness` each."""
    order = sorted(range(256), key=lambda value: (randomness[4 * value : 4 * value + 4], value))
    return bytes(order)
