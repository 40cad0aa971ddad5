"""Sealed objects of a backup job while they are written.

The upload threads seal each chunk before they send it. The chunk table follows as the last chunks of the object.
"""

from __future__ import annotations

from cryostore.agent.encryption.archive_key import ArchiveKey
from cryostore.agent.encryption.sealed_chunk import ChunkKind, seal_chunk
from cryostore.agent.encryption.sealed_object import ChunkFacts, ChunkTable, Recipient, SealedHead, mark_of
from cryostore.agent.header import CATALOG
from cryostore.agent.upload.cut_points import keyed_path_hash
from cryostore.agent.upload.object_upload import ObjectUpload, summary_by_index
from cryostore.core.digest import Buffer, sha256
from cryostore.model.chunks import Chunk
from cryostore.model.operation import Call


class SealedUpload(ObjectUpload):
    """An object that is sealed with an archive key. The head of the listing also gets the `recipients`."""

    def __init__(
        self, call: Call, job_id: str, name: str, key: ArchiveKey, resource: str, recipients: list[Recipient]
    ) -> None:
        super().__init__(call, job_id, name)
        self.table = ChunkTable()
        self._key = key
        self._resource = resource
        self._recipients = recipients if name == CATALOG else []
        self._kind = ChunkKind.CATALOG if name == CATALOG else ChunkKind.CONTENT

    def reserve(self) -> int:
        """See ObjectUpload."""
        index = super().reserve()
        self.table.set(index, ChunkFacts(0, bytes(32)))
        return index

    def chunk_id(self, data: Buffer) -> bytes:
        """See ObjectUpload."""
        return self._key.chunk_id(data)

    def path_hash(self, path: bytes) -> int:
        """See ObjectUpload."""
        return keyed_path_hash(self._key.cut_secret, path)

    def note(self, index: int, data: Buffer, chunk_id: bytes) -> None:
        """Enter the chunk at an index into the table: its plain bytes and their chunk id."""
        self.table.set(index, ChunkFacts(len(data), chunk_id))

    def stored_form(self, index: int, data: Buffer) -> Buffer | None:
        """See ObjectUpload."""
        chunk_id = self._key.chunk_id(data)
        self.note(index, data, chunk_id)
        return seal_chunk(self._key, self._kind, chunk_id, data)

    def inherit(self, index: int, chunk: Chunk, stored: Chunk) -> None:
        """See ObjectUpload."""
        super().inherit(index, chunk, stored)
        self.table.set(index, ChunkFacts(chunk.length, bytes.fromhex(chunk.checksum)))

    def mark(self) -> bytes:
        """See ObjectUpload."""
        return mark_of(self._key, self._head(b""))

    def _head(self, header: bytes) -> bytes:
        table = [self._key.chunk_id(part) for part in self.table.parts()]
        head = SealedHead(resource=self._resource, table=table, header=header, recipients=self._recipients)
        return head.encode()

    def complete(self, blob: bytes | None = None) -> None:
        """See ObjectUpload. Sends the table first."""
        head = self._head(blob or b"")
        for index, part in enumerate(list(self.table.parts()), len(self.table)):
            sealed = seal_chunk(self._key, ChunkKind.TABLE, self._key.chunk_id(part), part)
            digest = sha256(sealed)
            self.put(index, sealed, digest)
            self.set(index, digest)
        super().complete(seal_chunk(self._key, ChunkKind.HEAD, self.name.encode(), head))


class SealedSegment(SealedUpload):
    """A sealed segment of a disk. Its table has rows for the gaps too, and follows the last block."""

    def __init__(self, call: Call, job_id: str, name: str, key: ArchiveKey, resource: str) -> None:
        super().__init__(call, job_id, name, key, resource, [])
        self._by_index: dict[int, bytes] = {}

    def set(self, index: int, digest: bytes) -> None:
        """See ObjectUpload. No `reserve` comes before."""
        self._by_index[index] = digest

    def summary(self) -> bytes:
        """See ObjectUpload."""
        return summary_by_index(self._by_index)
