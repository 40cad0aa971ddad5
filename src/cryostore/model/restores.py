"""The operations that read objects back from a storage job, which is a restore job or a backup job in progress.

Backup Storage A.2: ListObjects, ListChunks, GetChunk, GetObjectMetadata.
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
from cryostore.model.operation import Api, Body, Header, Label, Operation, Output, Query, Shape, Timestamp, operation
from cryostore.model.rules import Between, Length

StorageJobId = Annotated[str, Label("jobId"), Length(1, 1024), "Storage job id."]
ObjectToken = Annotated[str, Label("objectToken"), Length(1, 1024), "Object token."]
MaxResults = Annotated[int | None, Query("max-results"), Between(1, "page_items_max"), "Maximum number of items."]
NextToken = Annotated[str | None, Query("next-token"), Length(0, 8192), "Pagination token."]

LIST_ERRORS = (
    ServiceUnavailableException,
    ServiceInternalException,
    RetryableException,
    IllegalArgumentException,
    ThrottlingException,
    ResourceNotFoundException,
    KMSInvalidKeyUsageException,
    AccessDeniedException,
)


class BackupObject(Shape, frozen=True, kw_only=True):
    """An object in a list."""

    name: Annotated[str, "Object name."]
    chunks_count: Annotated[int | None, "Number of chunks in object."] = None
    metadata_string: Annotated[str | None, "Metadata string associated with the object."] = None
    object_checksum: Annotated[str, "Object checksum."]
    object_checksum_algorithm: Annotated[Literal["SUMMARY"], "Checksum algorithm."]
    object_token: Annotated[str, "Object token."]


class ListObjectsOutput(Output, frozen=True, kw_only=True):
    """A page of objects."""

    object_list: Annotated[list[BackupObject], "Object list."]
    next_token: Annotated[str | None, "Pagination token."] = None


@operation(
    Api.BACKUP_STORAGE,
    "GET",
    "/restore-jobs/{jobId}/objects/list",
    output=ListObjectsOutput,
    errors=LIST_ERRORS,
    action="backup-storage:ListObjects",
)
class ListObjects(Operation[ListObjectsOutput], frozen=True, kw_only=True):
    """List all objects in a given backup, in ascending byte order of their names."""

    storage_job_id: StorageJobId
    starting_object_name: Annotated[
        str | None,
        Query("starting-object-name"),
        Length(0, "object_name_bytes_max"),
        "The name to list from, itself included. Ignored if NextToken is given.",
    ] = None
    starting_object_prefix: Annotated[
        str | None,
        Query("starting-object-prefix"),
        Length(0, "object_name_bytes_max"),
        "List only names that start with this. Ignored if NextToken is given.",
    ] = None
    max_results: MaxResults = None
    next_token: NextToken = None
    created_before: Annotated[Timestamp | None, Query("created-before"), "Created before filter, excluded."] = None
    created_after: Annotated[Timestamp | None, Query("created-after"), "Created after filter, included."] = None


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


class GetObjectMetadataOutput(Output, frozen=True, kw_only=True):
    """The metadata of an object; each member only if it was set."""

    metadata_string: Annotated[str | None, Header("x-amz-metadata-string"), "Metadata string."] = None
    metadata_blob: Annotated[Payload | None, Body(), "Metadata blob."] = None
    metadata_blob_length: Annotated[int | None, Header("x-amz-data-length"), "The size of MetadataBlob."] = None
    metadata_blob_checksum: Annotated[str | None, Header("x-amz-checksum"), "MetadataBlob checksum."] = None
    metadata_blob_checksum_algorithm: Annotated[
        Literal["SHA256"] | None, Header("x-amz-checksum-algorithm"), "Checksum algorithm."
    ] = None


@operation(
    Api.BACKUP_STORAGE,
    "GET",
    "/restore-jobs/{jobId}/object/{objectToken}/metadata",
    output=GetObjectMetadataOutput,
    errors=LIST_ERRORS,
    action="backup-storage:GetObjectMetadata",
)
class GetObjectMetadata(Operation[GetObjectMetadataOutput], frozen=True, kw_only=True):
    """Get the metadata associated with an object."""

    storage_job_id: StorageJobId
    object_token: ObjectToken


class DamagedChunk(Shape, frozen=True, kw_only=True):
    """A chunk of a recovery point that is known to be damaged. Without an index it is the metadata of the object."""

    object_name: Annotated[str, "Object name."]
    chunk_index: Annotated[int | None, "Chunk index within the object."] = None


class ListDamagedChunksOutput(Output, frozen=True, kw_only=True):
    """A page of damaged chunks; it may be empty although another one follows."""

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
