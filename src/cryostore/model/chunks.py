"""Declarations of the operations on chunks: write those of an upload, read those of an object.

PutChunk, ListChunks and GetChunk (Backup Storage A.2), and the extensions LinkChunks and ListDamagedChunks (3.2).
"""

from __future__ import annotations

from typing import Annotated, Literal

from cryostore.core.digest import Payload
from cryostore.model.errors import (
    AccessDeniedException,
    IllegalArgumentException,
    KMSInvalidKeyUsageException,
    ResourceNotFoundException,
    RetryableException,
    ServiceInternalException,
    ServiceUnavailableException,
    ThrottlingException,
)
from cryostore.model.objects import (
    LIST_ERRORS,
    STREAMING_ERRORS,
    BackupJobId,
    MaxResults,
    NextToken,
    ObjectToken,
    StorageJobId,
    UploadId,
)
from cryostore.model.operation import Api, Body, Header, Label, Operation, Output, Query, Shape, operation
from cryostore.model.rules import INTEGER_MAX, Between, ChecksumText, Length


class PutChunkOutput(Output, frozen=True, kw_only=True):
    """The checksum of the stored chunk, in the form that the caller used."""

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
    """A chunk that the caller has and that the server may hold already."""

    index: Annotated[int, Between(0, INTEGER_MAX), "Chunk index."]
    length: Annotated[int, Between(0, "chunk_bytes_max"), "Chunk length."]
    checksum: Annotated[str, ChecksumText(), "Chunk checksum."]
    checksum_algorithm: Annotated[Literal["SHA256"], "Checksum algorithm."]


class LinkChunksOutput(Output, frozen=True, kw_only=True):
    """The chunks that are left to send."""

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


class Chunk(Shape, frozen=True, kw_only=True):
    """A chunk in a list."""

    index: Annotated[int, "Chunk index."]
    length: Annotated[int, "Chunk length."]
    checksum: Annotated[str, "Chunk checksum."]
    checksum_algorithm: Annotated[Literal["SHA256"], "Checksum algorithm."]
    chunk_token: Annotated[str, "Chunk token."]


class ListChunksOutput(Output, frozen=True, kw_only=True):
    """A page of chunks."""

    chunk_list: Annotated[list[Chunk], "List of chunks."]
    next_token: Annotated[str | None, "Pagination token."] = None


@operation(
    Api.BACKUP_STORAGE,
    "GET",
    "/restore-jobs/{jobId}/chunks/{objectToken}/list",
    output=ListChunksOutput,
    errors=(
        ServiceUnavailableException,
        ResourceNotFoundException,
        ServiceInternalException,
        RetryableException,
        IllegalArgumentException,
        AccessDeniedException,
    ),
    action="backup-storage:ListChunks",
)
class ListChunks(Operation[ListChunksOutput], frozen=True, kw_only=True):
    """List the chunks of a given object, in ascending index order."""

    storage_job_id: StorageJobId
    object_token: ObjectToken
    max_results: MaxResults = None
    next_token: NextToken = None


class GetChunkOutput(Output, frozen=True, kw_only=True):
    """A chunk."""

    data: Annotated[Payload, Body(), "Chunk data."]
    length: Annotated[int, Header("x-amz-data-length"), "Data length."]
    checksum: Annotated[str, Header("x-amz-checksum"), "Data checksum."]
    checksum_algorithm: Annotated[Literal["SHA256"], Header("x-amz-checksum-algorithm"), "Checksum algorithm."]


@operation(
    Api.BACKUP_STORAGE,
    "GET",
    "/restore-jobs/{jobId}/chunk/{chunkToken}",
    output=GetChunkOutput,
    errors=(
        IllegalArgumentException,
        RetryableException,
        ResourceNotFoundException,
        ServiceInternalException,
        ThrottlingException,
        KMSInvalidKeyUsageException,
        AccessDeniedException,
    ),
    action="backup-storage:GetChunk",
)
class GetChunk(Operation[GetChunkOutput], frozen=True, kw_only=True):
    """Get a chunk of an object."""

    storage_job_id: StorageJobId
    chunk_token: Annotated[str, Label("chunkToken"), Length(1, 1024), "Chunk token."]


class DamagedChunk(Shape, frozen=True, kw_only=True):
    """A chunk of a recovery point that is known to be damaged. Without an index it is the metadata of the object."""

    object_name: Annotated[str, "Object name."]
    chunk_index: Annotated[int | None, "Chunk index within the object."] = None


class ListDamagedChunksOutput(Output, frozen=True, kw_only=True):
    """A page of damaged chunks. It may be empty although another page follows."""

    next_token: str | None = None
    damaged_chunks: list[DamagedChunk]


@operation(
    Api.BACKUP_STORAGE,
    "GET",
    "/backup-vaults/{backupVaultName}/recovery-points/{recoveryPointArn}/damaged-chunks",
    output=ListDamagedChunksOutput,
    errors=LIST_ERRORS,
    action="backup-storage:ListDamagedChunks",
    extension=True,
)
class ListDamagedChunks(Operation[ListDamagedChunksOutput], frozen=True, kw_only=True):
    """List the chunks of a recovery point that are known to be damaged, by object name and index."""

    backup_vault_name: Annotated[str, Label("backupVaultName"), Length(1, 50), "The vault of the recovery point."]
    recovery_point_arn: Annotated[str, Label("recoveryPointArn"), Length(1, 2048), "The recovery point."]
    next_token: NextToken = None
    max_results: MaxResults = None
