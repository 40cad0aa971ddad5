"""Mark phase: collects the chunks that uploads and objects refer to, in a Bloom filter.

This is rule 3 of `collect`. Digests are random bits already and need no hashing. The filter has false positives
(`false_share`) and no false negatives. If a store has too many chunks for the memory of one filter, `shares` splits the
digests into ranges, and a garbage collection marks and sweeps one range after the other.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from functools import partial
from itertools import groupby, pairwise

from cryostore.catalog.queries import references
from cryostore.catalog.queries.references import ObjectReferences
from cryostore.catalog.rows import chunk_lists, chunks
from cryostore.core.digest import DIGEST_BYTES, sha256
from cryostore.core.errors import DamagedDataError
from cryostore.core.limits import KIB, MIB
from cryostore.maintenance.claims import Progress
from cryostore.maintenance.garbage_collection.run import CollectionRun

ROWS_PER_PAGE = 2000
OBJECTS_PER_PAGE = 500
PARTS_PER_PAGE = 50
START = (0, b"")
BYTES_PER_CHUNK = 2
"""Memory per chunk if there is enough: 1 answer in 400 is a false positive."""
BYTES_PER_CHUNK_MIN = 1
"""The least memory per chunk, reached by splitting: 1 answer in 40 is a false positive."""
BYTES_MIN = 64 * KIB
BYTES_MAX = 128 * MIB
FIRST_BYTES = 256
_WORDS = struct.Struct("<4Q")


def shares(expected: int, bytes_max: int) -> list[range]:
    """Split all digests into ranges of their first byte, each small enough for a filter of `bytes_max` bytes.

    `expected` is the number of chunks in the store.
    """
    count = min(max(-(-expected * BYTES_PER_CHUNK_MIN // _power_of_two(bytes_max)), 1), FIRST_BYTES)
    bounds = [FIRST_BYTES * number // count for number in range(count + 1)]
    return [range(first, end) for first, end in pairwise(bounds)]


class DigestSet:
    """A set of chunks by vault and digest, restricted to digests whose first byte is in `share`.

    Sized for `expected` chunks within `bytes_max` bytes; more chunks fit, with more false positives. `seed` decides
    which answers are false positives: a set with another seed most likely answers the same question correctly.
    """

    def __init__(
        self, expected: int, seed: int, *, bytes_max: int = BYTES_MAX, share: range = range(FIRST_BYTES)
    ) -> None:
        wanted = min(max(expected * BYTES_PER_CHUNK, BYTES_MIN), bytes_max)
        self._bits = bytearray(min(1 << (wanted - 1).bit_length(), _power_of_two(bytes_max)))
        self._mask = len(self._bits) * 8 - 1
        self._seed = seed
        self._words: dict[int, tuple[int, ...]] = {}
        self.share = share

    def add(self, vault_id: int, digests: bytes) -> None:
        """Add chunks by their concatenated digests. Digests of other shares are left out."""
        bits, mask = self._bits, self._mask
        one, two, three, four = self._vault(vault_id)
        for a, b, c, d in self._own(digests):
            bit = (a >> 8 ^ one) & mask  # the digests of a share have almost the same first byte
            bits[bit >> 3] |= 1 << (bit & 7)
            bit = (b ^ two) & mask
            bits[bit >> 3] |= 1 << (bit & 7)
            bit = (c ^ three) & mask
            bits[bit >> 3] |= 1 << (bit & 7)
            bit = (d ^ four) & mask
            bits[bit >> 3] |= 1 << (bit & 7)

    def _own(self, digests: bytes) -> Iterator[tuple[int, ...]]:
        words = _WORDS.iter_unpack(digests)
        if len(self.share) == FIRST_BYTES:
            return words
        first, end = self.share.start, self.share.stop
        return (each for each in words if first <= each[0] & 0xFF < end)

    def holds(self, vault_id: int, digest: bytes) -> bool:
        """Whether the set holds the chunk, false positives included. Only for digests of its share."""
        bits, mask = self._bits, self._mask
        a, b, c, d = _WORDS.unpack(digest)
        for word, seed in zip((a >> 8, b, c, d), self._vault(vault_id), strict=True):
            bit = (word ^ seed) & mask
            if not bits[bit >> 3] >> (bit & 7) & 1:
                return False
        return True

    def false_share(self) -> float:
        """Return the rate of false positives, between 0 and 1."""
        bits = memoryview(self._bits)
        parts = (bits[start : start + BYTES_MIN] for start in range(0, len(bits), BYTES_MIN))
        bits_set = sum(int.from_bytes(part, "little").bit_count() for part in parts)
        return float((bits_set / (len(self._bits) * 8)) ** 4)

    def _vault(self, vault_id: int) -> tuple[int, ...]:
        """Return four words that distinguish the chunks of a vault from the same bytes in another vault."""
        if (words := self._words.get(vault_id)) is None:
            words = self._words[vault_id] = _WORDS.unpack(sha256(f"{self._seed} {vault_id}".encode()))
        return words


def _power_of_two(size: int) -> int:
    """Return the largest power of two up to `size`."""
    return 1 << (size.bit_length() - 1)


assert _WORDS.size == DIGEST_BYTES


def mark(run: CollectionRun, count: int, share: range) -> Generator[Progress, None, DigestSet]:
    """Return the set of all chunks of a share that anything refers to, in a store of `count` chunks.

    Raises DamagedDataError if the references cannot be read in full.
    """
    expected = count * len(share) // FIRST_BYTES
    marked = DigestSet(expected, run.epoch, bytes_max=run.context.settings.collection_memory_bytes, share=share)
    yield from _mark_uploads(run, marked)
    yield Progress("mark", 0)
    yield from _mark_objects(run, marked)
    return marked


def count_chunks(run: CollectionRun) -> Generator[Progress, None, int]:
    """Count the chunks, rounded up to the next step."""
    count, after = chunks.COUNT_STEP, START
    while (found := run.read(partial(chunks.count_step, after=after))) is not None:
        count, after = count + chunks.COUNT_STEP, found
        yield Progress("count", count)
    return count


def _mark_uploads(run: CollectionRun, marked: DigestSet) -> Generator[Progress, None, None]:
    after, done = (0, -1), 0
    while rows := run.read(partial(references.upload_chunks, after=after, limit=ROWS_PER_PAGE)):
        for vault_id, some in groupby(rows, key=lambda row: row.vault_id):
            if vault_id is not None:
                marked.add(vault_id, b"".join(row.digest for row in some))
        after, done = rows[-1][:2], done + len(rows)
        yield Progress("mark", done)


def _mark_objects(run: CollectionRun, marked: DigestSet) -> Generator[Progress, None, None]:
    after, done = 0, 0
    while rows := run.read(partial(references.objects, after=after, limit=OBJECTS_PER_PAGE)):
        for row in rows:
            yield from _mark_object(run, marked, row)
        after, done = rows[-1].object_id, done + len(rows)
        yield Progress("mark", done)


def _mark_object(run: CollectionRun, marked: DigestSet, row: ObjectReferences) -> Generator[Progress, None, None]:
    if row.vault_id is None:
        raise DamagedDataError(f"object {row.object_id} belongs to no vault, so no chunk can be removed safely")
    if row.metadata_digest is not None:
        marked.add(row.vault_id, row.metadata_digest)
    if row.chunks is not None:
        marked.add(row.vault_id, chunk_lists.digests(row.chunks))
    if (list_id := row.chunk_list_id) is not None:
        first = 0
        while parts := run.read(
            partial(references.list_parts, chunk_list_id=list_id, first=first, limit=PARTS_PER_PAGE)
        ):
            for part in parts:
                marked.add(row.vault_id, chunk_lists.digests(part))
            first += len(parts)
            yield Progress("mark", row.object_id)
