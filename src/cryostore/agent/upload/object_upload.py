"""Objects of a backup job while they are written.

`ObjectUpload` writes an object that the store may read; `SegmentUpload` writes a segment of a disk, whose chunks have
the numbers of their blocks and may have gaps. `SealedUpload` and `SealedSegment` are the same for encrypted archives:
the upload threads seal each chunk before they send it, and the chunk table follows as the last chunks of the object.
The threads are in `uploader`.
"""

from __future__ import annotations

import threading
import zlib

from cryostore.agent.encryption.archive_key import ArchiveKey
from cryostore.agent.encryption.sealed_object import (
    ChunkFacts,
    ChunkKind,
    ChunkTable,
    Recipient,
    SealedHead,
    mark_of,
    seal_chunk,
)
from cryostore.agent.header import CATALOG
from cryostore.agent.upload.cut_points import keyed_path_hash
from cryostore.core.digest import DIGEST_BYTES, Buffer, Checksum, Payload, sha256
from cryostore.core.limits import Limits
from cryostore.model.chunks import Chunk, PutChunk
from cryostore.model.objects import NotifyObjectComplete, StartObject
from cryostore.model.operation import Call

BASE_LINKS_MAX = Limits().link_chunks_max
"""How many chunks of the base one request attaches."""


class ObjectUpload:
    """An object that is being written.

    The first chunk opens the upload, so that an object without new chunks costs no request.
    """

    def __init__(self, call: Call, job_id: str, name: str) -> None:
        self._call = call
        self.job_id = job_id
        self.name = name
        self.upload_id = ""
        self.digests = bytearray()
        self.content_bytes = 0
        self._open_lock = threading.Lock()

    def open(self) -> str:
        """The id of the upload, which this opens if it is not open yet. Thread safe."""
        with self._open_lock:
            if not self.upload_id:
                started = self._call.call(StartObject(backup_job_id=self.job_id, object_name=self.name))
                self.upload_id = started.upload_id
        return self.upload_id

    @property
    def chunks_count(self) -> int:
        """How many chunks are reserved."""
        return len(self.digests) // DIGEST_BYTES

    def reserve(self) -> int:
        """The index of a new chunk. It must be `set` before the upload is completed."""
        self.digests += bytes(DIGEST_BYTES)
        return self.chunks_count - 1

    def set(self, index: int, digest: bytes) -> None:
        """Set the digest of a reserved chunk in its stored form."""
        self.digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES] = digest

    def chunk_id(self, data: Buffer) -> bytes:
        """The chunk id of these plain bytes, as the archive lists it."""
        return sha256(data)

    def path_hash(self, path: bytes) -> int:
        """A hash of a path, of 32 bits, which decides where the listing is cut into chunks."""
        return zlib.crc32(path)

    def stored_form(self, index: int, data: Buffer) -> Buffer | None:  # noqa: ARG002 - subclasses use it
        """The bytes to store for a chunk; None if the store has them and they are attached.

        Called by several threads.
        """
        return data

    def inherit(self, index: int, chunk: Chunk, stored: Chunk) -> None:  # noqa: ARG002 - as above
        """Use a chunk of the base, listed as `chunk` and stored as `stored`, for a reserved one."""
        self.set(index, Checksum.parse(stored.checksum).digest)

    def mark(self) -> bytes:
        """The mark by which the header identifies the object. All chunks must be set."""
        return b""

    def summary(self) -> bytes:
        """The checksum of the object (Backup Storage B.4). All chunks must be set."""
        return sha256(self.digests)

    def complete(self, blob: bytes | None = None) -> None:
        """Complete the object. All of its chunks must be stored. May be repeated."""
        payload = None if blob is None else Payload(blob)
        self._call.call(
            NotifyObjectComplete(
                backup_job_id=self.job_id,
                upload_id=self.open(),
                object_checksum=self.summary().hex(),
                object_checksum_algorithm="SUMMARY",
                metadata_blob=payload,
                metadata_blob_length=None if payload is None else len(payload),
                metadata_blob_checksum=None if payload is None else payload.sha256.hex(),
                metadata_blob_checksum_algorithm=None if payload is None else "SHA256",
            )
        )

    def put(self, index: int, data: Buffer, digest: bytes) -> None:
        """Send the stored form of a chunk. May be repeated. Called by several threads."""
        self._call.call(
            PutChunk(
                backup_job_id=self.job_id,
                upload_id=self.open(),
                chunk_index=index,
                data=Payload(data, sha256=digest),
                length=len(data),
                checksum=digest.hex(),
                checksum_algorithm="SHA256",
            )
        )


def _summary_by_index(digests: dict[int, bytes]) -> bytes:
    """The checksum of an object (Backup Storage B.4) whose chunks may have gaps."""
    return sha256(b"".join(digests[index] for index in sorted(digests)))


class SegmentUpload(ObjectUpload):
    """A segment of a disk. Its chunks are set without `reserve`, at the numbers of their blocks."""

    def __init__(self, call: Call, job_id: str, name: str) -> None:
        super().__init__(call, job_id, name)
        self._by_index: dict[int, bytes] = {}

    def set(self, index: int, digest: bytes) -> None:
        """See ObjectUpload."""
        self._by_index[index] = digest

    def summary(self) -> bytes:
        """See ObjectUpload."""
        return _summary_by_index(self._by_index)


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
        return _summary_by_index(self._by_index)
