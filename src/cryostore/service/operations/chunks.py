"""What PutChunk and LinkChunks mean (Backup Storage B.2 to B.7, control plane 3.2)."""

from __future__ import annotations

from cryostore.catalog.database import Statement, Transaction
from cryostore.catalog.queries import arrivals
from cryostore.catalog.queries.arrivals import Arrival
from cryostore.catalog.rows import chunks, jobs, uploads
from cryostore.catalog.rows.chunk_lists import ChunkEntry
from cryostore.catalog.rows.jobs import JobRow
from cryostore.catalog.rows.uploads import UploadRow
from cryostore.core.digest import Checksum, digest_text
from cryostore.model.chunks import LinkChunks, LinkChunksOutput, LinkedChunk, PutChunk, PutChunkOutput
from cryostore.model.errors import DataAlreadyExistsException, IllegalArgumentException, ResourceNotFoundException
from cryostore.service.access import allows
from cryostore.service.context import Caller, Context
from cryostore.service.operations.jobs import no_job
from cryostore.service.operations.storing import (
    Known,
    check_payload,
    fence,
    require_running,
    running_job,
    started_and_seen,
    write,
)
from cryostore.service.operations.vaults import vault_name


def put_chunk(context: Context, operation: PutChunk, caller: Caller) -> PutChunkOutput:
    """Store a chunk under its index. Durable when answered; the same chunk again changes nothing."""
    operation.data.sha256  # noqa: B018 - worked out here, so that the snapshot below is short
    job, seen = started_and_seen(
        context, operation.declaration.action, caller, lambda transaction: _seen(transaction, operation)
    )
    require_running(job)
    checksum = check_payload(operation.data, ("Length", "Checksum"), operation.length, operation.checksum)
    assert checksum is not None
    entry = ChunkEntry(operation.chunk_index, operation.length, checksum.digest, checksum.form)
    answer = PutChunkOutput(chunk_checksum=checksum.text(), chunk_checksum_algorithm="SHA256")
    if (upload := seen.upload) is None:
        raise _no_upload(operation.upload_id)
    if seen.present is not None:
        _check_same(seen.present, entry)
        return answer
    check_open(upload)
    if upload.chunk_count >= context.limits.chunks_per_object_max:
        raise _too_many(context, entry)

    def work(transaction: Transaction) -> None:
        fence(context, transaction, job, bytes_transferred=operation.length)
        attach(context, transaction, upload, entry)

    def at_once() -> list[Statement]:
        return [
            jobs.touch_statement(job.job_id, bytes_transferred=operation.length, now_ms=context.clock()),
            uploads.add_chunk_statement(upload.upload_number, entry),
            uploads.count_chunk_statement(upload.upload_number, chunks_max=context.limits.chunks_per_object_max),
        ]

    known = Known(seen.held, seen.epoch)
    write(context, job.vault_id, operation.data, work, known=known, at_once=at_once)
    return answer


def _seen(transaction: Transaction, operation: PutChunk) -> tuple[JobRow, Arrival]:
    """What the catalog says before the chunk is stored. Raises ResourceNotFoundException if there is no such job."""
    job_id, digest = operation.backup_job_id.upper(), operation.data.sha256
    seen = arrivals.find(transaction, job_id, operation.upload_id, operation.chunk_index, digest)
    if seen is None:
        raise no_job(operation.backup_job_id)
    return seen.job, seen


def find_upload(transaction: Transaction, job: JobRow, upload_id: str) -> UploadRow:
    """The job's upload with this id. Raises ResourceNotFoundException."""
    if (upload := uploads.find(transaction, job.job_id, upload_id)) is None:
        raise _no_upload(upload_id)
    return upload


def _no_upload(upload_id: str) -> ResourceNotFoundException:
    return ResourceNotFoundException(f"UploadId: {upload_id!a} is no upload of this job")


def check_open(upload: UploadRow) -> None:
    """Raise IllegalArgumentException if the upload is complete."""
    if upload.completion_digest is not None:
        raise IllegalArgumentException(f"UploadId: {upload.upload_id} is complete and takes no more chunks")


def attach(context: Context, transaction: Transaction, upload: UploadRow, entry: ChunkEntry) -> None:
    """Attach a recorded chunk to an open upload, unless the same one is attached already."""
    present = uploads.add_chunk(transaction, upload.upload_number, entry)
    if present is not None:
        _check_same(present, entry)
    elif not uploads.count_chunk(transaction, upload.upload_number, chunks_max=context.limits.chunks_per_object_max):
        current = uploads.find(transaction, upload.job_id, upload.upload_id)
        check_open(current or upload)
        raise _too_many(context, entry)


def _too_many(context: Context, entry: ChunkEntry) -> IllegalArgumentException:
    chunks_max = context.limits.chunks_per_object_max
    return IllegalArgumentException(f"ChunkIndex: {entry.chunk_index} would be more than {chunks_max} chunks")


def _check_same(present: ChunkEntry, entry: ChunkEntry) -> None:
    if present.digest != entry.digest:
        raise DataAlreadyExistsException(
            f"ChunkIndex: {entry.chunk_index} holds another chunk already",
            checksum=digest_text(present.digest, present.form),
            checksum_algorithm="SHA256",
        )


def link_chunks(context: Context, operation: LinkChunks, caller: Caller) -> LinkChunksOutput:
    """Attach those of the chunks that the vault holds, and answer the indexes of the others.

    The answer reveals only what the caller could read anyway: without leave to read the vault, everything is missing.
    """
    job = running_job(context, operation.backup_job_id, operation.declaration.action, caller)
    upload = context.database.read(lambda transaction: find_upload(transaction, job, operation.upload_id))
    check_open(upload)
    entries = [_entry(chunk) for chunk in operation.chunks]

    def work(transaction: Transaction) -> list[int]:
        fence(context, transaction, job)
        if not allows(caller, "backup-storage:GetChunk", vault_name(transaction, job.vault_id)):
            return [entry.chunk_index for entry in entries]
        lengths = chunks.known_lengths(transaction, job.vault_id, [entry.digest for entry in entries])
        missing: list[int] = []
        for entry in entries:
            if lengths.get(entry.digest) == entry.length and chunks.mark_used(transaction, job.vault_id, entry.digest):
                attach(context, transaction, upload, entry)
            else:
                missing.append(entry.chunk_index)
        return missing

    return LinkChunksOutput(missing=context.database.write(work))


def _entry(chunk: LinkedChunk) -> ChunkEntry:
    checksum = Checksum.parse(chunk.checksum)
    return ChunkEntry(chunk.index, chunk.length, checksum.digest, checksum.form)
