"""The table of a sealed object: the length and the identity of each of its chunks.

Byte table: docs/reference/archive.md.

A store lists sealed chunks with their sealed lengths and digests; what a reader needs instead stands here, sealed too.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from typing import NamedTuple

from cryostore.agent.errors import ArchiveDamagedError

ENTRY = struct.Struct("<I32s")
"""bytes of the payload, identity"""
ENTRIES_MAX = 100_000
"""In one chunk of a table."""


class Entry(NamedTuple):
    """One chunk: the bytes it holds, and the identity of these."""

    length: int
    identity: bytes


class PieceTable:
    """Entries by the index of their chunk, in 36 bytes each."""

    def __init__(self, data: bytes = b"") -> None:
        if len(data) % ENTRY.size:
            raise ArchiveDamagedError("the table of a sealed object is cut short")
        self._data = bytearray(data)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._data) // ENTRY.size

    def __getitem__(self, index: int) -> Entry:
        """The entry of a chunk. Raises ArchiveDamagedError if it has none."""
        if not 0 <= index < len(self):
            raise ArchiveDamagedError(f"a sealed object has a chunk {index}, which its table does not know")
        return Entry._make(ENTRY.unpack_from(self._data, index * ENTRY.size))

    def set(self, index: int, entry: Entry) -> None:
        """Note a chunk; those before it may follow later, or never, and are empty then. Thread safe."""
        with self._lock:
            missing = index + 1 - len(self)
            if missing > 0:
                self._data += bytes(missing * ENTRY.size)
            ENTRY.pack_into(self._data, index * ENTRY.size, *entry)

    def parts(self) -> Iterator[bytes]:
        """The table in pieces that fit into a chunk each."""
        step = ENTRIES_MAX * ENTRY.size
        for start in range(0, len(self._data), step):
            yield bytes(self._data[start : start + step])
