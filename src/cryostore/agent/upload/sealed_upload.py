"""An object that is written sealed: chunks are sealed on their way, and its table follows them when it is completed."""

from __future__ import annotations

from cryostore.agent.formats.piece_table import Entry, PieceTable
from cryostore.agent.formats.sealed_chunk import Kind, seal_chunk
from cryostore.agent.formats.sealed_head import Recipient, SealedHead, mark_of
from cryostore.agent.header import CATALOG
from cryostore.agent.keys.archive_key import ArchiveKey
from cryostore.agent.upload.cut_points import path_cut
from cryostore.agent.upload.queue import ObjectUpload
from cryostore.core.digest import Buffer, Payload, sha256
from cryostore.model.chunks import Chunk, PutChunk
from cryostore.model.operation import Call


class SealedUpload(ObjectUpload):
    """As an ObjectUpload, under an archive key. `recipients` go into the head of the catalog."""

    def __init__(
        self, call: Call, job_id: str, name: str, key: ArchiveKey, resource: str, recipients: list[Recipient]
    ) -> None:
        super().__init__(call, job_id, name)
        self.table = PieceTable()
        self._key = key
        self._resource = resource
        self._recipients = recipients if name == CATALOG else []
        self._kind = Kind.CATALOG if name == CATALOG else Kind.CONTENT

    def reserve(self) -> int:
        """See ObjectUpload."""
        index = super().reserve()
        self.table.set(index, Entry(0, bytes(32)))
        return index

    def identity(self, data: Buffer) -> bytes:
        """See ObjectUpload."""
        return self._key.piece_id(data)

    def cut(self, path: bytes) -> int:
        """See ObjectUpload."""
        return path_cut(self._key.cut_secret, path)

    def note(self, index: int, data: Buffer, identity: bytes) -> None:
        """Note in the table what the chunk at an index holds."""
        self.table.set(index, Entry(len(data), identity))

    def made(self, index: int, data: Buffer) -> Buffer | None:
        """See ObjectUpload."""
        identity = self._key.piece_id(data)
        self.note(index, data, identity)
        return seal_chunk(self._key, self._kind, identity, data)

    def inherit(self, index: int, chunk: Chunk, stored: Chunk) -> None:
        """See ObjectUpload."""
        super().inherit(index, chunk, stored)
        self.table.set(index, Entry(chunk.length, bytes.fromhex(chunk.checksum)))

    def mark(self) -> bytes:
        """See ObjectUpload."""
        return mark_of(self._key, self._head(b""))

    def _head(self, header: bytes) -> bytes:
        table = [self._key.piece_id(part) for part in self.table.parts()]
        head = SealedHead(resource=self._resource, table=table, header=header, recipients=self._recipients)
        return head.encode()

    def complete(self, blob: bytes | None = None) -> None:
        """See ObjectUpload."""
        head = self._head(blob or b"")
        for index, part in enumerate(list(self.table.parts()), len(self.table)):
            self._put(index, seal_chunk(self._key, Kind.TABLE, self._key.piece_id(part), part))
        super().complete(seal_chunk(self._key, Kind.HEAD, self.name.encode(), head))

    def _put(self, index: int, sealed: bytes) -> None:
        digest = sha256(sealed)
        self._call.call(
            PutChunk(
                backup_job_id=self.job_id,
                upload_id=self.open(),
                chunk_index=index,
                data=Payload(sealed, sha256=digest),
                length=len(sealed),
                checksum=digest.hex(),
                checksum_algorithm="SHA256",
            )
        )
        self.set(index, digest)
