"""Declarations of the operations on objects: write those of a backup job, read those of a storage job.

StartObject, PutObject, DeleteObject, NotifyObjectComplete, ListObjects, GetObjectMetadata (Backup Storage A.2). A
storage job is a restore job or a backup job in progress. The chunks of an object are in `chunks`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from cryostore.core.digest import Payload
from cryostore.model.errors import (
    AccessDeniedException,
    DataAlreadyExistsException,
    IllegalArgumentException,
    KMSInvalidKeyUsageException,
    NotReadableInputStreamException,
    ResourceNotFoundException,
    RetryableException,
    ServiceInternalException,
    ServiceUnavailableException,
    ThrottlingException,
)
from cryostore.model.operation import (
    Api,
    Body,
    Header,
    Label,
    Nothing,
    Operation,
    Output,
    Query,
    Shape,
    Timestamp,
    operation,
)
from cryostore.model.rules import Between, ChecksumText, Length, NotDots, Printable

BackupJobId = Annotated[str, Label("jobId"), Length(1, 1024), "Backup job Id for the in-progress backup."]
UploadId = Annotated[str, Label("uploadId"), Length(1, 1024), "Upload Id for the in-progress upload."]
ObjectName = Annotated[
    str, Label("objectName"), Length(1, "object_name_bytes_max"), Printable(), NotDots(), "The name of the object."
]

StorageJobId = Annotated[str, Label("jobId"), Length(1, 1024), "Storage job id."]
ObjectToken = Annotated[str, Label("objectToken"), Length(1, 1024), "Object token."]
MaxResults = Annotated[int | None, Query("max-results"), Between(1, "page_items_max"), "Maximum number of items."]
NextToken = Annotated[str | None, Query("next-token"), Length(0, 8192), "Pagination token."]

STREAMING_ERRORS = (
    ServiceUnavailableException,
    ServiceInternalException,
    NotReadableInputStreamException,
    RetryableException,
    IllegalArgumentException,
    ThrottlingException,
    KMSInvalidKeyUsageException,
    AccessDeniedException,
)

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


class StartObjectOutput(Output, frozen=True, kw_only=True):
    """The upload that StartObject opened."""

    upload_id: Annotated[str, "Upload Id for a given upload."]


@operation(
    Api.BACKUP_STORAGE,
    "PUT",
    "/backup-jobs/{jobId}/object/{objectName}",
    output=StartObjectOutput,
    errors=(
        ServiceUnavailableException,
        ServiceInternalException,
        RetryableException,
        IllegalArgumentException,
        ResourceNotFoundException,
        DataAlreadyExistsException,
        ThrottlingException,
        AccessDeniedException,
    ),
    action="backup-storage:StartObject",
)
class StartObject(Operation[StartObjectOutput], frozen=True, kw_only=True):
    """Start an upload of one or many chunks."""

    backup_job_id: BackupJobId
    object_name: ObjectName
    throw_on_duplicate: Annotated[bool | None, "Throw an exception if an object of this name exists already."] = None


class PutObjectOutput(Output, frozen=True, kw_only=True):
    """The checksums of the stored object."""

    inline_chunk_checksum: Annotated[str, "Inline chunk checksum."]
    inline_chunk_checksum_algorithm: Annotated[Literal["SHA256"], "Inline chunk checksum algorithm."]
    object_checksum: Annotated[str, "Object checksum."]
    object_checksum_algorithm: Annotated[Literal["SUMMARY"], "Object checksum algorithm."]


@operation(
    Api.BACKUP_STORAGE,
    "PUT",
    "/backup-jobs/{jobId}/object/{objectName}/put-object",
    output=PutObjectOutput,
    errors=STREAMING_ERRORS,
    action="backup-storage:PutObject",
    unsigned_payload=True,
)
class PutObject(Operation[PutObjectOutput], frozen=True, kw_only=True):
    """Store an object of at most one chunk, with its metadata string, in a single call."""

    backup_job_id: BackupJobId
    object_name: ObjectName
    metadata_string: Annotated[
        str | None,
        Query("metadata-string"),
        Length(0, "metadata_string_inline_bytes_max"),
        Printable(),
        "User defined metadata, such as a backup checksum, disk ids or restore metadata.",
    ] = None
    inline_chunk: Annotated[Payload | None, Body(), Length(0, "chunk_bytes_max"), "Inline chunk data."] = None
    inline_chunk_length: Annotated[
        int | None, Query("length"), Between(0, "chunk_bytes_max"), "Length of the inline chunk data."
    ] = None
    inline_chunk_checksum: Annotated[str | None, Query("checksum"), ChecksumText(), "Inline chunk checksum."] = None
    inline_chunk_checksum_algorithm: Annotated[
        Literal["SHA256"] | None, Query("checksum-algorithm"), "Inline chunk checksum algorithm."
    ] = None
    object_checksum: Annotated[str | None, Query("object-checksum"), ChecksumText(), "Object checksum."] = None
    object_checksum_algorithm: Annotated[
        Literal["SUMMARY"] | None, Query("object-checksum-algorithm"), "Object checksum algorithm."
    ] = None
    throw_on_duplicate: Annotated[
        bool | None, Query("throwOnDuplicate"), "Throw an exception if an object of this name exists already."
    ] = None


@operation(
    Api.BACKUP_STORAGE,
    "DELETE",
    "/backup-jobs/{jobId}/object/{objectName}",
    errors=(
        ServiceUnavailableException,
        ServiceInternalException,
        RetryableException,
        IllegalArgumentException,
        ResourceNotFoundException,
        ThrottlingException,
        AccessDeniedException,
    ),
    action="backup-storage:DeleteObjects",
)
class DeleteObject(Operation[Nothing], frozen=True, kw_only=True):
    """Remove an object, inherited from the incremental base or written in this job, from the job's view."""

    backup_job_id: BackupJobId
    object_name: ObjectName


class NotifyObjectCompleteOutput(Output, frozen=True, kw_only=True):
    """The checksum of the completed object."""

    object_checksum: Annotated[str, "Object checksum."]
    object_checksum_algorithm: Annotated[Literal["SUMMARY"], "Checksum algorithm."]


@operation(
    Api.BACKUP_STORAGE,
    "PUT",
    "/backup-jobs/{jobId}/object/{uploadId}/complete",
    output=NotifyObjectCompleteOutput,
    errors=STREAMING_ERRORS,
    action="backup-storage:NotifyObjectComplete",
    unsigned_payload=True,
)
class NotifyObjectComplete(Operation[NotifyObjectCompleteOutput], frozen=True, kw_only=True):
    """Complete an upload: its object enters the job's view."""

    backup_job_id: BackupJobId
    upload_id: UploadId
    object_checksum: Annotated[str, Query("checksum"), ChecksumText(), "Object checksum."]
    object_checksum_algorithm: Annotated[Literal["SUMMARY"], Query("checksum-algorithm"), "Checksum algorithm."]
    metadata_string: Annotated[
        str | None,
        Query("metadata-string"),
        Length(1, "metadata_string_bytes_max"),
        Printable(),
        "Optional metadata associated with an object.",
    ] = None
    metadata_blob: Annotated[
        Payload | None, Body(), Length(0, "metadata_blob_bytes_max"), "Optional metadata associated with an object."
    ] = None
    metadata_blob_length: Annotated[
        int | None, Query("metadata-blob-length"), Between(0, "metadata_blob_bytes_max"), "The size of MetadataBlob."
    ] = None
    metadata_blob_checksum: Annotated[
        str | None, Query("metadata-checksum"), ChecksumText(), "Checksum of MetadataBlob."
    ] = None
    metadata_blob_checksum_algorithm: Annotated[
        Literal["SHA256"] | None, Query("metadata-checksum-algorithm"), "Checksum algorithm."
    ] = None


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
