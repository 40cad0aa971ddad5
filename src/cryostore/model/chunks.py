"""The operations that write the chunks of an upload.

PutChunk (Backup Storage A.2) and LinkChunks (control plane 3.2).
"""

from __future__ import annotations

from typing import Annotated, Literal

from cryostore.core.digest import Payload
from cryostore.model.errors import ResourceNotFoundException
from cryostore.model.objects import STREAMING_ERRORS, BackupJobId, UploadId
from cryostore.model.operation import Api, Body, Label, Operation, Output, Query, Shape, operation
from cryostore.model.rules import INTEGER_MAX, Between, ChecksumText, Length


class PutChunkOutput(Output, frozen=True, kw_only=True):
    """The checksum of the stored chunk, in the caller's own form."""

    chunk_checksum: Annotated[str, "Chunk checksum."]
    chunk_checksum_algorithm: Annotated[Literal["SHA256"], "Checksum algorithm."]


@operation(
    Api.BACKUP_STORAGE,
    "PUT",
    "/backup-jobs/{jobId}/chunk/{uploadId}/{chunkIndex}",
    output=PutChunkOutput,
    errors=STREAMING_ERRORS,
    action="backup-storage:PutChunk",
    unsigned_payload=True,
)
class PutChunk(Operation[PutChunkOutput], frozen=True, kw_only=True):
    """Upload one chunk of an open upload. The same chunk may be sent again; it is stored once."""

    backup_job_id: BackupJobId
    upload_id: UploadId
    chunk_index: Annotated[
        int,
        Label("chunkIndex"),
        Between(0, INTEGER_MAX),
        "Describes this chunk's position relative to the other chunks.",
    ]
    data: Annotated[Payload, Body(), Length(0, "chunk_bytes_max"), "Data to be uploaded."]
    length: Annotated[int, Query("length"), Between(0, "chunk_bytes_max"), "Data length."]
    checksum: Annotated[str, Query("checksum"), ChecksumText(), "Data checksum."]
    checksum_algorithm: Annotated[Literal["SHA256"], Query("checksum-algorithm"), "Checksum algorithm."]


class LinkedChunk(Shape, frozen=True, kw_only=True):
    """A chunk the caller has and the server may hold already."""

    index: Annotated[int, Between(0, INTEGER_MAX), "Chunk index."]
    length: Annotated[int, Between(0, "chunk_bytes_max"), "Chunk length."]
    checksum: Annotated[str, ChecksumText(), "Chunk checksum."]
    checksum_algorithm: Annotated[Literal["SHA256"], "Checksum algorithm."]


class LinkChunksOutput(Output, frozen=True, kw_only=True):
    """What is left to send."""

    missing: Annotated[list[int], "The indexes to send with PutChunk; all others are attached."]


@operation(
    Api.BACKUP_STORAGE,
    "PUT",
    "/backup-jobs/{jobId}/chunk/{uploadId}",
    output=LinkChunksOutput,
    errors=(*STREAMING_ERRORS, ResourceNotFoundException),
    action="backup-storage:LinkChunks",
    extension=True,
)
class LinkChunks(Operation[LinkChunksOutput], frozen=True, kw_only=True):
    """Attach chunks that the server already holds, so that their bytes never cross the network."""

    backup_job_id: BackupJobId
    upload_id: UploadId
    chunks: Annotated[list[LinkedChunk], Length(1, "link_chunks_max"), "The chunks to attach."]
