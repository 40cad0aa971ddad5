"""ListObjects and GetObjectMetadata: the objects of a storage job (Backup Storage B.10)."""

from __future__ import annotations

from cryostore.catalog.rows import lineages, objects
from cryostore.catalog.rows.objects import ObjectRow
from cryostore.core.digest import digest_text
from cryostore.core.time import milliseconds
from cryostore.model.objects import (
    BackupObject,
    GetObjectMetadata,
    GetObjectMetadataOutput,
    ListObjects,
    ListObjectsOutput,
)
from cryostore.service.context import Caller, Context
from cryostore.service.operations.chunks.read import read_bytes
from cryostore.service.operations.storage_jobs import (
    OBJECT_TOKEN,
    StorageJob,
    find_object_of_token,
    open_job_token,
    storage_job,
)


def list_objects(context: Context, operation: ListObjects, caller: Caller) -> ListObjectsOutput:
    """List a page of the view, in ascending byte order of the names (B.10)."""
    job = storage_job(context, operation.storage_job_id, operation.declaration.action, caller)
    limit = operation.max_results or context.limits.page_items_max
    window = (operation.created_after, operation.created_before)
    kind = f"objects {window[0]} {window[1]}"
    start = (operation.starting_object_name or "").encode()
    prefix = (operation.starting_object_prefix or "").encode()
    if operation.next_token:
        content = open_job_token(context, kind, job.job_id, operation.next_token, "NextToken")
        prefix_length = int.from_bytes(content[:2], "little")
        prefix, start = content[2 : 2 + prefix_length], content[2 + prefix_length :] + b"\0"
    rows = context.database.read(
        lambda transaction: objects.page(
            transaction,
            lineages.view(transaction, job.segment),
            start=start,
            prefix=prefix,
            limit=limit + 1,
            created_from_ms=None if window[0] is None else milliseconds(window[0]),
            created_to_ms=None if window[1] is None else milliseconds(window[1]),
        )
    )
    token = None
    if len(rows) > limit:
        rows = rows[:limit]
        content = len(prefix).to_bytes(2, "little") + prefix + rows[-1].name
        token = context.tokens.make(kind, job.job_id, content)
    return ListObjectsOutput(object_list=[_listed(context, job, row) for row in rows], next_token=token)


def _listed(context: Context, job: StorageJob, row: ObjectRow) -> BackupObject:
    return BackupObject(
        name=row.name.decode(),
        chunks_count=row.chunk_count,
        metadata_string=row.metadata_string,
        object_checksum=digest_text(row.summary, row.summary_form),
        object_checksum_algorithm="SUMMARY",
        object_token=context.tokens.make("object", job.job_id, OBJECT_TOKEN.pack(row.object_id)),
    )


def get_object_metadata(context: Context, operation: GetObjectMetadata, caller: Caller) -> GetObjectMetadataOutput:
    """Return the metadata of an object, each kind only if it was set."""
    job = storage_job(context, operation.storage_job_id, operation.declaration.action, caller)
    row = context.database.read(
        lambda transaction: find_object_of_token(context, transaction, job, operation.object_token)
    )
    if row.metadata_digest is None or row.metadata_length is None or row.metadata_form is None:
        return GetObjectMetadataOutput(metadata_string=row.metadata_string)
    return GetObjectMetadataOutput(
        metadata_string=row.metadata_string,
        metadata_blob=read_bytes(context, job, row.metadata_digest, row.metadata_length),
        metadata_blob_length=row.metadata_length,
        metadata_blob_checksum=digest_text(row.metadata_digest, row.metadata_form),
        metadata_blob_checksum_algorithm="SHA256",
    )
