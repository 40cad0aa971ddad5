"""Open uploads: finding one, and attaching chunks to it. Shared by the operations on chunks and on objects."""

from __future__ import annotations

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import uploads
from cryostore.catalog.rows.chunk_lists import ChunkEntry
from cryostore.catalog.rows.jobs import JobRow
from cryostore.catalog.rows.uploads import UploadRow
from cryostore.core.digest import digest_text
from cryostore.model.errors import DataAlreadyExistsException, IllegalArgumentException, ResourceNotFoundException
from cryostore.service.context import Context
from cryostore.service.operations.steps import Step


def find_upload(transaction: Transaction, job: JobRow, upload_id: str) -> UploadRow:
    """The job's upload with this id. Raises ResourceNotFoundException."""
    if (upload := uploads.find(transaction, job.job_id, upload_id)) is None:
        raise no_upload_error(upload_id)
    return upload


def no_upload_error(upload_id: str) -> ResourceNotFoundException:
    """The error for an upload that the job does not have."""
    return ResourceNotFoundException(f"UploadId: {upload_id!a} is no upload of this job")


def check_upload_open(upload: UploadRow) -> None:
    """Raise IllegalArgumentException if the upload is complete."""
    if upload.completion_digest is not None:
        raise IllegalArgumentException(f"UploadId: {upload.upload_id} is complete and takes no more chunks")


def check_same_chunk(present: ChunkEntry, entry: ChunkEntry) -> None:
    """Raise DataAlreadyExistsException if the chunk at the index of `entry` has other bytes."""
    if present.digest != entry.digest:
        raise DataAlreadyExistsException(
            f"ChunkIndex: {entry.chunk_index} holds another chunk already",
            checksum=digest_text(present.digest, present.form),
            checksum_algorithm="SHA256",
        )


def too_many_chunks_error(context: Context, entry: ChunkEntry) -> IllegalArgumentException:
    """The error for a chunk that is one more than an object may have."""
    chunks_max = context.limits.chunks_per_object_max
    return IllegalArgumentException(f"ChunkIndex: {entry.chunk_index} would be more than {chunks_max} chunks")


def attach_chunk(context: Context, upload: UploadRow, entry: ChunkEntry) -> list[Step]:
    """The steps that attach a recorded chunk to an upload. Attaching the same chunk again changes nothing.

    They raise DataAlreadyExistsException if another chunk has the index, and IllegalArgumentException if the upload is
    complete or full.
    """

    def is_still_to_count(transaction: Transaction) -> bool:
        present = uploads.chunk(transaction, upload.upload_number, entry.chunk_index)
        if present is None:
            return True
        check_same_chunk(present, entry)
        return False

    def refuse(transaction: Transaction) -> bool:
        check_upload_open(uploads.find(transaction, upload.job_id, upload.upload_id) or upload)
        raise too_many_chunks_error(context, entry)

    chunks_max = context.limits.chunks_per_object_max
    return [
        Step(uploads.add_chunk_statement(upload.upload_number, entry), is_still_to_count),
        Step(uploads.count_chunk_statement(upload.upload_number, chunks_max=chunks_max), refuse),
    ]
