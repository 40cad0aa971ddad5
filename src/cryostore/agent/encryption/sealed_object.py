"""Head and chunk table of a sealed object: the facts that a reader needs and the store must not learn.

Tables: docs/reference/archive.md. The store lists only the lengths and digests of sealed chunks; the chunk table,
itself sealed, has the lengths and ids of their plain bytes.

Trust in an archive starts at the head of the listing. That head holds the header, the header holds the marks of the
heads of all content objects, each head holds the ids of its table's chunks, and each table holds the ids of the content
chunks. So no part of another time, place or archive can be passed off as a part of this one.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from cryostore.agent.encryption.archive_key import ArchiveKey
from cryostore.agent.errors import ArchiveDamagedError

FORMAT = 1
MARK_BYTES = 16
ROW = struct.Struct("<I32s")
"""bytes of the payload, chunk id"""
ROWS_MAX = 100_000
"""In one chunk of a table."""


class Recipient(msgspec.Struct, frozen=True):
    """A public key that the archive is encrypted for, and its name for people."""

    public: bytes
    name: str


class SealedHead(msgspec.Struct, frozen=True, kw_only=True):
    """The metadata of a sealed object. Only the head of the listing has `header` and `recipients`."""

    format: int = FORMAT
    resource: str
    """The resource that the archive is a backup of, so that none is taken for another's."""
    table: list[bytes]
    """The ids of the chunks of the object's table, which are the object's last chunks."""
    header: bytes = b""
    recipients: list[Recipient] = []

    def encode(self) -> bytes:
        """The head as JSON, not sealed yet."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> SealedHead:
        """Read the JSON of an opened head. Raises ArchiveDamagedError."""
        try:
            head = msgspec.json.decode(data, type=cls)
        except msgspec.DecodeError:
            raise ArchiveDamagedError("the head of a sealed object is damaged") from None
        if head.format != FORMAT:
            raise ArchiveDamagedError(
                f"a sealed object has format {head.format}, unknown to this version",
                hint="read it with the version that wrote it, or a later one",
            )
        return head


def mark_of(key: ArchiveKey, head: bytes) -> bytes:
    """The mark by which the header identifies the head of a content object."""
    return key.chunk_id(head)[:MARK_BYTES]


class ChunkFacts(NamedTuple):
    """The length and the chunk id of the plain bytes of a sealed chunk."""

    length: int
    chunk_id: bytes


class ChunkTable:
    """The facts of each chunk of a sealed object, by the index of the chunk, in 36 bytes each."""

    def __init__(self, data: bytes = b"") -> None:
        if len(data) % ROW.size:
            raise ArchiveDamagedError("the table of a sealed object is cut short")
        self._data = bytearray(data)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._data) // ROW.size

    def __getitem__(self, index: int) -> ChunkFacts:
        """The facts of a chunk. Raises ArchiveDamagedError if the table does not reach that far."""
        if not 0 <= index < len(self):
            raise ArchiveDamagedError(f"a sealed object has a chunk {index} that its table does not list")
        return ChunkFacts._make(ROW.unpack_from(self._data, index * ROW.size))

    def set(self, index: int, facts: ChunkFacts) -> None:
        """Set the facts of a chunk. Chunks before it may be set later; those that never are stay empty. Thread safe."""
        with self._lock:
            missing = index + 1 - len(self)
            if missing > 0:
                self._data += bytes(missing * ROW.size)
            ROW.pack_into(self._data, index * ROW.size, *facts)

    def parts(self) -> Iterator[bytes]:
        """The table in parts that each fit into a chunk."""
        step = ROWS_MAX * ROW.size
        for start in range(0, len(self._data), step):
            yield bytes(self._data[start : start + step])
