"""Hash table from digests to content locations, in about 40 bytes per entry where a dict takes 250."""

from __future__ import annotations

from array import array
from typing import NamedTuple

SLOTS_MIN = 1 << 10


class ContentLocation(NamedTuple):
    """Where stored bytes begin: a content object, a chunk of it, an offset in the chunk."""

    object_number: int
    chunk: int
    offset: int


class DigestTable:
    """Locations by digest, with open addressing. Digests have one length and are random, so they need no hashing."""

    def __init__(self, digest_bytes: int = 16) -> None:
        self._digest_bytes = digest_bytes
        self._digests = bytearray()
        self._objects = array("I")
        self._chunks = array("I")
        self._offsets = array("I")
        self._slots = array("I", bytes(4 * SLOTS_MIN))  # 0 is free, else one more than the number of the entry

    def __len__(self) -> int:
        return len(self._objects)

    def find(self, digest: bytes) -> ContentLocation | None:
        """The location of the digest, or None."""
        entry = self._slots[self._slot(digest)]
        if not entry:
            return None
        return ContentLocation(self._objects[entry - 1], self._chunks[entry - 1], self._offsets[entry - 1])

    def __contains__(self, digest: bytes) -> bool:
        return bool(self._slots[self._slot(digest)])

    def add(self, digest: bytes, object_number: int = 0, chunk: int = 0, offset: int = 0) -> None:
        """Add a location, unless the digest has one already."""
        self.find_or_add(digest, object_number, chunk, offset)

    def find_or_add(self, digest: bytes, object_number: int, chunk: int, offset: int) -> ContentLocation | None:
        """The location of the digest if it has one. Otherwise add this one and return None."""
        slot = self._slot(digest)
        if entry := self._slots[slot]:
            return ContentLocation(self._objects[entry - 1], self._chunks[entry - 1], self._offsets[entry - 1])
        self._digests += digest
        self._objects.append(object_number)
        self._chunks.append(chunk)
        self._offsets.append(offset)
        self._slots[slot] = len(self._objects)
        if 2 * len(self._objects) > len(self._slots):
            self._grow()
        return None

    def _slot(self, digest: bytes) -> int:
        """The slot of the digest, or the free slot for it."""
        slots = self._slots
        mask = len(slots) - 1
        slot = int.from_bytes(digest[:8], "little") & mask
        while entry := slots[slot]:
            if self._digests.startswith(digest, (entry - 1) * self._digest_bytes):
                return slot
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        self._slots = array("I", bytes(8 * len(self._slots)))
        mask = len(self._slots) - 1
        size = self._digest_bytes
        for entry in range(len(self._objects)):
            slot = int.from_bytes(self._digests[entry * size : entry * size + 8], "little") & mask
            while self._slots[slot]:
                slot = (slot + 1) & mask
            self._slots[slot] = entry + 1
