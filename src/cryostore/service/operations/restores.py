"""What the operations that read from a storage job mean (Backup Storage B.8 to B.10).

A storage job is a restore job, a backup job in progress (its current view), or the base of one.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from cryostore.catalog.database import Answer, Transaction
from cryostore.catalog.rows import chunk_lists, chunks, jobs, lineages, objects, recovery_points, restore_jobs
from cryostore.catalog.rows.chunk_lists import ChunkEntry
from cryostore.catalog.rows.chunks import ChunkRow
from cryostore.catalog.rows.lineages import Segment
from cryostore.catalog.rows.objects import ObjectRow
from cryostore.chunks.store import Location
from cryostore.core.digest import Payload, digest_text
from cryostore.core.errors import DamagedDataError
from cryostore.core.time import MINUTE_MS, milliseconds
from cryostore.model.chunks import Chunk, GetChunk, GetChunkOutput, ListChunks, ListChunksOutput
from cryostore.model.errors import IllegalArgumentException, ResourceNotFoundException
from cryostore.model.objects import (
    BackupObject,
    GetObjectMetadata,
    GetObjectMetadataOutput,
    ListObjects,
    ListObjectsOutput,
)
from cryostore.service.access import authorise
from cryostore.service.context import Caller, Context
from cryostore.service.lineages.start_job import start_job
from cryostore.service.operations import damage
from cryostore.service.operations.commits import BASE_SUFFIX
from cryostore.service.operations.vaults import vault_name

TOUCH_MS = MINUTE_MS
Touch = Callable[[Transaction], object]
_OBJECT = struct.Struct("<q")
_CHUNK = struct.Struct("<IB32s")
_INDEX = struct.Struct("<q")


class StorageJob(NamedTuple):
    """What a storage job id stands for. `frozen` means that what it sees cannot change."""

    job_id: str
    vault_id: int
    segment: Segment
    frozen: bool


def storage_job(context: Context, storage_job_id: str, action: str, caller: Caller) -> StorageJob:
    """The job to read from. Raises ResourceNotFoundException if there is none, or it has ended (B.8)."""
    return storage_job_and(context, storage_job_id, action, caller, lambda _transaction, _job: None)[0]


def storage_job_and(
    context: Context,
    storage_job_id: str,
    action: str,
    caller: Caller,
    look: Callable[[Transaction, StorageJob], Answer],
) -> tuple[StorageJob, Answer | None]:
    """The job, as `storage_job` gives it, and what `look` finds in the snapshot the job was found in.

    None for a backup job that was not started in that snapshot: nothing could be read from it yet.
    """
    job_id = storage_job_id.upper()

    def work(transaction: Transaction) -> tuple[StorageJob | None, Touch | None, Answer | None]:
        job, touch = _find(context, transaction, job_id, action, caller)
        return job, touch, None if job is None else look(transaction, job)

    found, touch, answer = context.database.read(work)
    if found is None:  # a backup job that waits for its first touch
        job = context.database.read(lambda transaction: jobs.find(transaction, job_id))
        job = start_job(context, job) if job is not None else None
        if job is None or job.segment is None or job.state != "RUNNING":
            raise _no_job(storage_job_id)
        return StorageJob(job_id, job.vault_id, job.segment, frozen=False), None
    if touch is not None:
        context.database.write(touch)
    return found, answer


def _find(
    context: Context, transaction: Transaction, job_id: str, action: str, caller: Caller
) -> tuple[StorageJob | None, Touch | None]:
    """The storage job, None for a backup job without its base yet; and how to give a sign of life, if one is due."""
    now_ms = context.clock()
    restore = restore_jobs.find(transaction, job_id)
    if restore is not None and restore.completed_ms is None:
        _authorise(transaction, caller, action, restore.vault_id)
        due = restore.status == "PENDING" or _is_due(restore.active_ms, now_ms)
        sign: Touch = partial(restore_jobs.touch, job_id=job_id, now_ms=now_ms)
        return StorageJob(job_id, restore.vault_id, restore.segment, frozen=True), sign if due else None
    job = jobs.find(transaction, job_id.removesuffix(BASE_SUFFIX))
    if restore is not None or job is None or job.state not in ("CREATED", "PENDING", "RUNNING"):
        raise _no_job(job_id)
    _authorise(transaction, caller, action, job.vault_id)
    due = _is_due(job.active_ms, now_ms)
    sign = partial(jobs.touch, job_id=job.job_id, bytes_transferred=0, now_ms=now_ms)
    touch = sign if due else None
    if not job_id.endswith(BASE_SUFFIX):
        found = None if job.segment is None else StorageJob(job_id, job.vault_id, job.segment, frozen=False)
        return found, touch
    base = recovery_points.find(transaction, job.base_point_id) if job.base_point_id else None
    if base is None or base.segment is None or job.state != "RUNNING":
        raise _no_job(job_id)
    return StorageJob(job_id, job.vault_id, base.segment, frozen=True), touch


def _is_due(active_ms: int, now_ms: int) -> bool:
    """Whether a job needs a sign of life; always if the last one lies in the future."""
    return not 0 <= now_ms - active_ms <= TOUCH_MS


def _authorise(transaction: Transaction, caller: Caller, action: str, vault_id: int) -> None:
    if not caller.root:
        authorise(caller, action, vault_name(transaction, vault_id))


def _no_job(job_id: str) -> ResourceNotFoundException:
    return ResourceNotFoundException(f"StorageJobId: {job_id!a} is no restore job or backup job in progress")


def list_objects(context: Context, operation: ListObjects, caller: Caller) -> ListObjectsOutput:
    """A page of the view, in ascending byte order of the names (B.10)."""
    job = storage_job(context, operation.storage_job_id, operation.declaration.action, caller)
    limit = operation.max_results or context.limits.page_items_max
    window = (operation.created_after, operation.created_before)
    kind = f"objects {window[0]} {window[1]}"
    start = (operation.starting_object_name or "").encode()
    prefix = (operation.starting_object_prefix or "").encode()
    if operation.next_token:
        content = _opened(context, kind, job.job_id, operation.next_token, "NextToken")
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
        object_token=context.tokens.make("object", job.job_id, _OBJECT.pack(row.object_id)),
    )


def _opened(context: Context, kind: str, job_id: str, token: str, member: str) -> bytes:
    content = context.tokens.open(kind, job_id, token)
    if content is None:
        raise _not_given_out(member)
    return content


def _not_given_out(member: str) -> IllegalArgumentException:
    return IllegalArgumentException(f"{member}: is not one that this job gave out for this request")


def _object(context: Context, transaction: Transaction, job: StorageJob, token: str) -> ObjectRow:
    """The object a token stands for, if it is still in the job's view."""
    (object_id,) = _OBJECT.unpack(_opened(context, "object", job.job_id, token, "ObjectToken"))
    row = objects.by_id(transaction, object_id)
    if row is not None and not job.frozen:
        current = objects.find(transaction, lineages.view(transaction, job.segment), row.name)
        row = row if current is not None and current.object_id == object_id else None
    if row is None:
        raise ResourceNotFoundException("ObjectToken: the object is no longer in the job's view")
    return row


def list_chunks(context: Context, operation: ListChunks, caller: Caller) -> ListChunksOutput:
    """A page of an object's chunks, in ascending index order."""
    job = storage_job(context, operation.storage_job_id, operation.declaration.action, caller)
    limit = operation.max_results or context.limits.page_items_max
    kind = "chunks " + hashlib.sha256(operation.object_token.encode()).hexdigest()
    first = 0
    if operation.next_token:
        first = _INDEX.unpack(_opened(context, kind, job.job_id, operation.next_token, "NextToken"))[0]
    entries = context.database.read(
        lambda transaction: _entries(
            transaction, _object(context, transaction, job, operation.object_token), first, limit + 1
        )
    )
    token = None
    if len(entries) > limit:
        token = context.tokens.make(kind, job.job_id, _INDEX.pack(entries[limit].chunk_index))
    chunk_list = [_chunk(context, job, entry) for entry in entries[:limit]]
    return ListChunksOutput(chunk_list=chunk_list, next_token=token)


def _entries(transaction: Transaction, row: ObjectRow, first: int, limit: int) -> list[ChunkEntry]:
    """At most `limit` chunks of an object from index `first` on."""
    if row.chunk_list_id is None:
        packed = objects.packed_chunks(transaction, row.object_id)
        parts = iter([] if packed is None else [packed])
    else:
        parts = chunk_lists.parts_from(transaction, row.chunk_list_id, first)
    entries: list[ChunkEntry] = []
    for part in parts:
        entries.extend(entry for entry in chunk_lists.unpack(part) if entry.chunk_index >= first)
        if len(entries) >= limit:
            break
    return entries[:limit]


def _chunk(context: Context, job: StorageJob, entry: ChunkEntry) -> Chunk:
    content = _CHUNK.pack(entry.length, entry.form, entry.digest)
    return Chunk(
        index=entry.chunk_index,
        length=entry.length,
        checksum=digest_text(entry.digest, entry.form),
        checksum_algorithm="SHA256",
        chunk_token=context.tokens.make("chunk", job.job_id, content),
    )


def get_chunk(context: Context, operation: GetChunk, caller: Caller) -> GetChunkOutput:
    """The bytes of a chunk, verified, or an error; never wrong bytes."""
    token = context.tokens.open("chunk", operation.storage_job_id.upper(), operation.chunk_token)
    length, form, digest = _CHUNK.unpack(token) if token is not None else (0, 0, b"")
    job, row = storage_job_and(
        context,
        operation.storage_job_id,
        operation.declaration.action,
        caller,
        lambda transaction, job: None if token is None else chunks.find(transaction, job.vault_id, digest),
    )
    if token is None:
        raise _not_given_out("ChunkToken")
    return GetChunkOutput(
        data=_read(context, job, digest, length, row, compressed=caller.takes_zstd),
        length=length,
        checksum=digest_text(digest, form),
        checksum_algorithm="SHA256",
    )


def _read(
    context: Context,
    job: StorageJob,
    digest: bytes,
    length: int,
    row: ChunkRow | None = None,
    *,
    compressed: bool = False,
) -> Payload:
    """The bytes with this digest, which lie at `row` if whoever calls has looked already.

    With `compressed` as they are stored, if that is compressed.
    """
    row = row or _chunk_row(context, job, digest)
    while True:
        key = context.keys.opening(row.key_number)
        location = Location(row.pack_name, row.pack_offset, row.sealed_length)
        try:
            if compressed:
                return context.store.get_compressed(location, key, digest, length)
            return Payload(context.store.get(location, key, digest, length), sha256=digest)
        except DamagedDataError as error:
            moved = _chunk_row(context, job, digest)  # compaction may have moved it, and its old pack be gone
            if moved == row:
                if row.length == length:  # else the list is wrong, not the chunk
                    damage.mark(context, job.vault_id, digest, row, error)
                raise
            row = moved


def _chunk_row(context: Context, job: StorageJob, digest: bytes) -> ChunkRow:
    row = context.database.read(lambda transaction: chunks.find(transaction, job.vault_id, digest))
    if row is None and job.frozen:
        raise DamagedDataError(f"the catalog lacks the chunk {digest.hex()}, which a recovery point needs")
    if row is None:
        raise ResourceNotFoundException("the chunk no longer exists")
    return row


def get_object_metadata(context: Context, operation: GetObjectMetadata, caller: Caller) -> GetObjectMetadataOutput:
    """The metadata of an object; of each kind only if it was set."""
    job = storage_job(context, operation.storage_job_id, operation.declaration.action, caller)
    row = context.database.read(lambda transaction: _object(context, transaction, job, operation.object_token))
    if row.metadata_digest is None or row.metadata_length is None or row.metadata_form is None:
        return GetObjectMetadataOutput(metadata_string=row.metadata_string)
    return GetObjectMetadataOutput(
        metadata_string=row.metadata_string,
        metadata_blob=_read(context, job, row.metadata_digest, row.metadata_length),
        metadata_blob_length=row.metadata_length,
        metadata_blob_checksum=digest_text(row.metadata_digest, row.metadata_form),
        metadata_blob_checksum_algorithm="SHA256",
    )
