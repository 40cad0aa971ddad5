"""PutChunk: store the bytes of a chunk and attach it to an upload (Backup Storage B.2 to B.7)."""

from __future__ import annotations

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows.chunk_lists import ChunkEntry
from cryostore.catalog.rows.jobs import JobRow
from cryostore.catalog.rows.uploads import Arrival, find_arrival
from cryostore.model.chunks import PutChunk, PutChunkOutput
from cryostore.service.context import Caller, Context
from cryostore.service.operations.jobs.lookup import (
    no_job_error,
    require_running,
    start_and_authorise,
    touch_running_job,
)
from cryostore.service.operations.payloads import Presence, check_payload, store_payload
from cryostore.service.operations.steps import Step, SteppedWrite
from cryostore.service.operations.uploads import (
    attach_chunk,
    check_same_chunk,
    check_upload_open,
    no_upload_error,
    too_many_chunks_error,
)


def put_chunk(context: Context, operation: PutChunk, caller: Caller) -> PutChunkOutput:
    """Store a chunk under its index. The chunk is durable when this returns; the same chunk again changes nothing."""
    operation.data.sha256  # noqa: B018 - computed here, so that the snapshot below is short
    job, seen = start_and_authorise(
        context, operation.declaration.action, caller, lambda transaction: _find_arrival(transaction, operation)
    )
    require_running(job)
    checksum = check_payload(operation.data, ("Length", "Checksum"), operation.length, operation.checksum)
    assert checksum is not None
    entry = ChunkEntry(operation.chunk_index, operation.length, checksum.digest, checksum.form)
    answer = PutChunkOutput(chunk_checksum=checksum.text(), chunk_checksum_algorithm="SHA256")
    if (upload := seen.upload) is None:
        raise no_upload_error(operation.upload_id)
    if seen.present is not None:
        check_same_chunk(seen.present, entry)
        return answer
    check_upload_open(upload)
    if upload.chunk_count >= context.limits.chunks_per_object_max:
        raise too_many_chunks_error(context, entry)

    def steps() -> list[Step]:
        touch = touch_running_job(job, bytes_transferred=operation.length, now_ms=context.clock())
        return [touch, *attach_chunk(context, upload, entry)]

    presence = Presence(seen.held, seen.epoch)
    store_payload(context, job.vault_id, operation.data, SteppedWrite(steps), presence=presence)
    return answer


def _find_arrival(transaction: Transaction, operation: PutChunk) -> tuple[JobRow, Arrival]:
    """The job, and the state of the catalog before the chunk is stored. Raises ResourceNotFoundException."""
    job_id, digest = operation.backup_job_id.upper(), operation.data.sha256
    seen = find_arrival(transaction, job_id, operation.upload_id, operation.chunk_index, digest)
    if seen is None:
        raise no_job_error(operation.backup_job_id)
    return seen.job, seen
