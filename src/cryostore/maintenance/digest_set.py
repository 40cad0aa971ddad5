"""A set of chunks in little memory: a Bloom filter over digests, which are random bits already and need no hashing.

May claim to hold what it does not, one time in 400 while it has 16 bits for each chunk; never the other way round.
"""

from __future__ import annotations

import struct

from cryostore.core.digest import DIGEST_BYTES, sha256
from cryostore.core.limits import KIB, MIB

BYTES_PER_CHUNK = 2
BYTES_MIN = 64 * KIB
BYTES_MAX = 128 * MIB
_WORDS = struct.Struct("<4Q")


class DigestSet:
    """Chunks by vault and digest, room for `expected` of them and, with more false claims, for any number.

    `seed` decides which false claims: what one set claims falsely, a set with another seed does most likely not.
    """

    def __init__(self, expected: int, seed: int) -> None:
        wanted = min(max(expected * BYTES_PER_CHUNK, BYTES_MIN), BYTES_MAX)
        self._bits = bytearray(1 << (wanted - 1).bit_length())
        self._mask = len(self._bits) * 8 - 1
        self._seed = seed
        self._words: dict[int, tuple[int, ...]] = {}

    def add(self, vault_id: int, digests: bytes) -> None:
        """Add the chunks with these digests, which stand one behind the other."""
        bits, mask = self._bits, self._mask
        one, two, three, four = self._vault(vault_id)
        for a, b, c, d in _WORDS.iter_unpack(digests):
            bit = (a ^ one) & mask
            bits[bit >> 3] |= 1 << (bit & 7)
            bit = (b ^ two) & mask
            bits[bit >> 3] |= 1 << (bit & 7)
            bit = (c ^ three) & mask
            bits[bit >> 3] |= 1 << (bit & 7)
            bit = (d ^ four) & mask
            bits[bit >> 3] |= 1 << (bit & 7)

    def holds(self, vault_id: int, digest: bytes) -> bool:
        """Whether the set holds the chunk, or claims to."""
        bits, mask = self._bits, self._mask
        for word, seed in zip(_WORDS.unpack(digest), self._vault(vault_id), strict=True):
            bit = (word ^ seed) & mask
            if not bits[bit >> 3] >> (bit & 7) & 1:
                return False
        return True

    def _vault(self, vault_id: int) -> tuple[int, ...]:
        """What tells a vault's chunks from the same bytes in another."""
        if (words := self._words.get(vault_id)) is None:
            words = self._words[vault_id] = _WORDS.unpack(sha256(f"{self._seed} {vault_id}".encode()))
        return words


assert _WORDS.size == DIGEST_BYTES
