"""Where sealed content is cut: at places that only the holder of the key can foretell.

Whoever sees lengths of known content that a public rule has cut can tell which content it is. So here the bytes pass
through a secret permutation before the rolling hash, which is seeded; several of its pieces make one chunk, and which
of them ends it a keyed digest of the piece decides. A store sees padded lengths of whole chunks alone.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator

from cryostore.agent.keys.cipher import derive
from cryostore.agent.upload.chunker import ContentChunker
from cryostore.core.limits import KIB, MIB

PIECE_BYTES_MIN = 32 * KIB
PIECE_BYTES_MEAN = 128 * KIB
PIECE_BYTES_MAX = 512 * KIB
CHUNK_BYTES_MIN = 1 * MIB
CHUNK_BYTES_MAX = 4 * MIB
ENDS_ONE_IN = 8
TAIL_BYTES = 64
"""How much of a piece's end decides: the cut in it depends on no more."""
SEED_LABEL = b"seed"
ORDER_LABEL = b"permutation"
SMALL_LABEL = b"small files"
PIECE_LABEL = b"pieces"
PATH_LABEL = b"paths"


class KeyedCutPoints:
    """Chunks of some pieces each, under a secret. Not for several threads at once."""

    def __init__(self, secret: bytes) -> None:
        self.chunk_bytes_max = CHUNK_BYTES_MAX
        seed = int.from_bytes(derive(secret, SEED_LABEL, 8), "little") >> 1 | 1
        self._pieces = ContentChunker(PIECE_BYTES_MEAN, PIECE_BYTES_MIN, PIECE_BYTES_MAX, seed)
        self._permutation = _permutation(derive(secret, ORDER_LABEL, 1024))
        self._small_key = derive(secret, SMALL_LABEL)
        self._piece_key = derive(secret, PIECE_LABEL)

    def cuts(self, data: memoryview, *, of_disk: bool = False) -> Iterator[int]:  # noqa: ARG002 - see below
        """See Chunker. A disk is cut as everything else: the agent compresses what it seals."""
        hidden = memoryview(bytes(data).translate(self._permutation))
        start = end = 0
        for length in self._pieces.cuts(hidden):
            if end + length - start > CHUNK_BYTES_MAX:
                yield end - start
                start = end
            end += length
            if end - start >= CHUNK_BYTES_MIN and self._ends(data[max(end - TAIL_BYTES, start) : end]):
                yield end - start
                start = end
        if end > start:
            yield end - start

    def _ends(self, tail: memoryview) -> bool:
        return int.from_bytes(hmac.digest(self._piece_key, tail, "sha256")[:4], "little") % ENDS_ONE_IN == 0

    def chance(self, digest: bytes) -> int:
        """See Chunker."""
        return int.from_bytes(hmac.digest(self._small_key, digest, "sha256")[:4], "little")


def path_cut(secret: bytes, key: bytes) -> int:
    """A number for a path, by which the catalog is cut."""
    return int.from_bytes(hmac.digest(secret, PATH_LABEL + key, "sha256")[:4], "little")


def _permutation(randomness: bytes) -> bytes:
    """All 256 bytes in an order that the randomness says: sorted by four bytes of it each."""
    order = sorted(range(256), key=lambda value: (randomness[4 * value : 4 * value + 4], value))
    return bytes(order)
