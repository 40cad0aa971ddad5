"""A sealed archive as a reader has it: chunks as if they were plain, and what opens them.

A chunk that is listed here has the length and the identity of what it holds, as its object's table says; its token is
the store's. The store's own checksums are those of sealed bytes and prove nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from msgspec import structs

from cryostore.agent.errors import ArchiveDamagedError
from cryostore.agent.formats.piece_table import PieceTable
from cryostore.agent.formats.sealed_chunk import Kind, is_sealed, key_id_of, open_chunk
from cryostore.agent.formats.sealed_head import SealedHead, mark_of
from cryostore.agent.header import CATALOG, DiskLayout, Header, content_name
from cryostore.agent.keys.agent_key import AgentKey
from cryostore.agent.keys.archive_key import ArchiveKey
from cryostore.agent.keys.archive_keys import ArchiveKeys, read_keys
from cryostore.agent.keys.keyed_call import KeyedCall
from cryostore.client import pages
from cryostore.core.digest import Buffer
from cryostore.model.chunks import Chunk, GetChunk
from cryostore.model.objects import BackupObject, GetObjectMetadata
from cryostore.model.operation import Call


class SealedArchive:
    """What `Archive` has behind it if the archive is sealed. Safe to use from several threads."""

    def __init__(self, call: Call, job_id: str, objects: dict[str, BackupObject], key: AgentKey) -> None:
        """Raises KeyUnavailableError, ArchiveDamagedError."""
        self._call = call
        self._job_id = job_id
        self._objects = objects
        learned = call.learned if isinstance(call, KeyedCall) else ArchiveKeys()
        found = read_keys(call, job_id, objects, key, learned)
        self.keys = found.keys
        blob = self._blob(CATALOG)
        key_id = key_id_of(blob)
        self.head = SealedHead.decode(bytes(open_chunk(self.keys, Kind.HEAD, CATALOG.encode(), blob)))
        self.active: ArchiveKey = self.keys[key_id]
        self.is_owned = key_id in found.owned
        """Whether the agent key's holder has begun this archive, or taken part in it."""
        self._lock = threading.Lock()
        self._tables: dict[str, PieceTable] = {}
        self._marks: dict[str, bytes] = {}

    def catalog(self, header: Header) -> tuple[list[Chunk], list[Chunk]]:
        """The chunks of the catalog, and the same ones as they are stored; `header` vouches for all other objects."""
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
        """Chunks of an object with the length and identity of what they hold; those of its table are left out."""
        table = self.table(name)
        return [
            structs.replace(chunk, length=entry.length, checksum=entry.identity.hex())
            for chunk in stored
            if chunk.index < len(table) and (entry := table[chunk.index])
        ]

    def open(self, chunk: Chunk, sealed: Buffer) -> Buffer:
        """What a chunk holds. Raises ArchiveDamagedError, KeyUnavailableError."""
        kind = Kind.CATALOG if sealed[5:6] == bytes([Kind.CATALOG]) else Kind.CONTENT
        data = open_chunk(self.keys, kind, bytes.fromhex(chunk.checksum), sealed)
        if len(data) != chunk.length:
            raise ArchiveDamagedError(f"chunk {chunk.index} is not as long as its table says")
        return data

    def identity(self, data: Buffer) -> bytes:
        """The identity that a chunk of these bytes has."""
        return self.active.piece_id(data)

    def table(self, name: str) -> PieceTable:
        """The table of an object, read when it is first asked for."""
        with self._lock:
            if name not in self._tables:
                self._tables[name] = self._read_table(name)
            return self._tables[name]

    def _read_table(self, name: str) -> PieceTable:
        if (entry := self._objects.get(name)) is None:
            raise ArchiveDamagedError(f"the archive has no object {name}")
        plain = bytes(open_chunk(self.keys, Kind.HEAD, name.encode(), self._blob(name)))
        if self._marks.get(name) != mark_of(self.active, plain):
            raise ArchiveDamagedError(f"object {name} is not the one that the archive's header means")
        head = SealedHead.decode(plain)
        last: list[Chunk] = []
        for chunk in pages.chunks(self._call, self._job_id, entry.object_token):
            last = [*last, chunk][-max(len(head.table), 1) :]
        return self._table_of(head, last)

    def _table_of(self, head: SealedHead, chunks: list[Chunk]) -> PieceTable:
        parts = []
        if len(chunks) < len(head.table):
            raise ArchiveDamagedError("a sealed object is cut short")
        for identity, chunk in zip(head.table, chunks[len(chunks) - len(head.table) :], strict=True):
            parts.append(bytes(open_chunk(self.keys, Kind.TABLE, identity, self._get(chunk))))
        table = PieceTable(b"".join(parts))
        if chunks and chunks[-1].index + 1 != len(table) + len(head.table):
            raise ArchiveDamagedError("a sealed object has more or fewer chunks than its table says")
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
