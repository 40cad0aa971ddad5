"""Reading a sealed archive: opens its chunks and lists them as if they were plain.

A listed chunk has the length and the chunk id of its plain bytes, from the table of its object, and the token of the
stored chunk. The store's own checksums cover only sealed bytes; they prove nothing about the plain ones.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from msgspec import structs

from cryostore.agent.encryption.agent_key import AgentKey
from cryostore.agent.encryption.archive_key import ArchiveKey
from cryostore.agent.encryption.key_objects import ArchiveKeys, read_archive_keys
from cryostore.agent.encryption.keyed_call import KeyedCall
from cryostore.agent.encryption.sealed_object import (
    ChunkKind,
    ChunkTable,
    SealedHead,
    is_sealed,
    key_id_of,
    mark_of,
    open_chunk,
)
from cryostore.agent.errors import ArchiveDamagedError
from cryostore.agent.header import CATALOG, DiskLayout, Header, content_name
from cryostore.client import pages
from cryostore.core.digest import Buffer
from cryostore.model.chunks import Chunk, GetChunk
from cryostore.model.objects import BackupObject, GetObjectMetadata
from cryostore.model.operation import Call


class SealedArchive:
    """The sealed part of an `Archive`: its keys and its chunk tables. Thread safe."""

    def __init__(self, call: Call, job_id: str, objects: dict[str, BackupObject], key: AgentKey) -> None:
        """Open the head of the listing. Raises KeyUnavailableError, ArchiveDamagedError."""
        self._call = call
        self._job_id = job_id
        self._objects = objects
        learned = call.learned if isinstance(call, KeyedCall) else ArchiveKeys()
        found = read_archive_keys(call, job_id, objects, key, learned)
        self.keys = found.keys
        blob = self._blob(CATALOG)
        key_id = key_id_of(blob)
        self.head = SealedHead.decode(bytes(open_chunk(self.keys, ChunkKind.HEAD, CATALOG.encode(), blob)))
        self.active: ArchiveKey = self.keys[key_id]
        self.is_owned = key_id in found.owned
        """Whether the active archive key carries the owner tag. Without it, anybody could have written this archive."""
        self._lock = threading.Lock()
        self._tables: dict[str, ChunkTable] = {}
        self._marks: dict[str, bytes] = {}

    def listing_chunks(self, header: Header) -> tuple[list[Chunk], list[Chunk]]:
        """The chunks of the listing as `shown`, and as they are stored. `header` vouches for all other objects."""
        self._marks = {content_name(each.number): each.mark for each in header.objects}
        if isinstance(header.disk, DiskLayout):
            self._marks |= header.disk.marks
        stored = list(pages.chunks(self._call, self._job_id, self._objects[CATALOG].object_token))
        table = self._table_of(self.head, stored)
        with self._lock:
            self._tables[CATALOG] = table
        stored = stored[: len(table)]
        return self.shown(CATALOG, stored), stored

    def shown(self, name: str, stored: Iterable[Chunk]) -> list[Chunk]:
        """The chunks of an object's content, with the length and chunk id of their plain bytes.

        The chunks of its table are left out.
        """
        table = self.table(name)
        return [
            structs.replace(chunk, length=facts.length, checksum=facts.chunk_id.hex())
            for chunk in stored
            if chunk.index < len(table) and (facts := table[chunk.index])
        ]

    def open(self, chunk: Chunk, sealed: Buffer) -> Buffer:
        """The plain bytes of a chunk that `shown` returned. Raises ArchiveDamagedError, KeyUnavailableError."""
        kind = ChunkKind.CATALOG if sealed[5:6] == bytes([ChunkKind.CATALOG]) else ChunkKind.CONTENT
        data = open_chunk(self.keys, kind, bytes.fromhex(chunk.checksum), sealed)
        if len(data) != chunk.length:
            raise ArchiveDamagedError(f"chunk {chunk.index} does not have the length that its table says")
        return data

    def chunk_id(self, data: Buffer) -> bytes:
        """The chunk id of these plain bytes."""
        return self.active.chunk_id(data)

    def table(self, name: str) -> ChunkTable:
        """The chunk table of an object, read at the first call."""
        with self._lock:
            if name not in self._tables:
                self._tables[name] = self._read_table(name)
            return self._tables[name]

    def _read_table(self, name: str) -> ChunkTable:
        if (entry := self._objects.get(name)) is None:
            raise ArchiveDamagedError(f"the archive has no object {name}")
        plain = bytes(open_chunk(self.keys, ChunkKind.HEAD, name.encode(), self._blob(name)))
        if self._marks.get(name) != mark_of(self.active, plain):
            raise ArchiveDamagedError(f"object {name} is not the one that the archive's header refers to")
        head = SealedHead.decode(plain)
        last: list[Chunk] = []
        for chunk in pages.chunks(self._call, self._job_id, entry.object_token):
            last = [*last, chunk][-max(len(head.table), 1) :]
        return self._table_of(head, last)

    def _table_of(self, head: SealedHead, chunks: list[Chunk]) -> ChunkTable:
        parts = []
        if len(chunks) < len(head.table):
            raise ArchiveDamagedError("a sealed object is cut short")
        for chunk_id, chunk in zip(head.table, chunks[len(chunks) - len(head.table) :], strict=True):
            parts.append(bytes(open_chunk(self.keys, ChunkKind.TABLE, chunk_id, self._get(chunk))))
        table = ChunkTable(b"".join(parts))
        if chunks and chunks[-1].index + 1 != len(table) + len(head.table):
            raise ArchiveDamagedError("a sealed object has more or fewer chunks than its table lists")
        return table

    def _get(self, chunk: Chunk) -> Buffer:
        return self._call.call(GetChunk(storage_job_id=self._job_id, chunk_token=chunk.chunk_token)).data.data

    def _blob(self, name: str) -> bytes:
        if (entry := self._objects.get(name)) is None:
            raise ArchiveDamagedError(f"the archive has no object {name}")
        operation = GetObjectMetadata(storage_job_id=self._job_id, object_token=entry.object_token)
        blob = self._call.call(operation).metadata_blob
        if blob is None or not is_sealed(blob.data):
            raise ArchiveDamagedError(f"object {name} of the archive has no sealed head")
        return bytes(blob.data)
