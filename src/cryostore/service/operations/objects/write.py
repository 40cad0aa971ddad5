"""PutObject, DeleteObject, StartObject, NotifyObjectComplete: objects in the view of a job (Backup Storage B.1 to B.7).

An object arrives whole, or as an upload that becomes an object once it is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import chunk_lists, lineages, objects, uploads
from cryostore.catalog.rows.chunk_lists import PART_CHUNKS, ChunkEntry
from cryostore.catalog.rows.jobs import JobRow
from cryostore.catalog.rows.objects import ObjectContent
from cryostore.catalog.rows.uploads import UploadRow
from cryostore.chunks.envelope import PayloadKind
from cryostore.core.digest import Checksum, Form, Payload, digest_text, sha256, summary
from cryostore.model.errors import DataAlreadyExistsException, IllegalArgumentException, ResourceNotFoundException
from cryostore.model.objects import (
    DeleteObject,
    NotifyObjectComplete,
    NotifyObjectCompleteOutput,
    PutObject,
    PutObjectOutput,
    StartObject,
    StartObjectOutput,
)
from cryostore.model.operation import Nothing
from cryostore.service.context import Caller, Context
from cryostore.service.operations.jobs.commit import (
    commit_backup_job,
    commit_of,
    commit_with_last_write,
    commits_job,
    repeats_commit,
)
from cryostore.service.operations.jobs.lookup import (
    require_running,
    require_still_running,
    running_job,
    started_job,
    started_job_with,
)
from cryostore.service.operations.payloads import check_payload, find_presence, store_payload
from cryostore.service.operations.uploads import find_upload

PARTS_PER_TRANSACTION = 50
ATTEMPTS = 3


def refuse_duplicate(transaction: Transaction, job: JobRow, name: bytes) -> None:
    """Raise DataAlreadyExistsException, with the present checksum, if the name is in the job's view (B.6)."""
    assert job.segment is not None
    row = objects.find(transaction, lineages.view(transaction, job.segment), name)
    if row is not None:
        raise DataAlreadyExistsException(
            f"ObjectName: {name.decode()!a} exists already",
            checksum=digest_text(row.summary, row.summary_form),
            checksum_algorithm="SUMMARY",
        )


def put_object(context: Context, operation: PutObject, caller: Caller) -> PutObjectOutput:
    """Store an object with at most one chunk, in a single durable step."""
    payload = operation.inline_chunk if operation.inline_chunk is not None else Payload()
    payload.sha256  # noqa: B018 - computed here, so that the snapshot below is short
    job, presence = started_job_with(
        context,
        operation.backup_job_id,
        operation.declaration.action,
        caller,
        lambda transaction, job: find_presence(transaction, job.vault_id, payload),
    )
    commits = commits_job(job, operation.object_name)
    if not (commits and repeats_commit(job, None)):
        require_running(job)
    stated = check_payload(
        payload,
        ("InlineChunkLength", "InlineChunkChecksum"),
        operation.inline_chunk_length,
        operation.inline_chunk_checksum,
    )
    checksum = stated or Checksum(payload.sha256, Form.BASE64)
    has_chunk = len(payload) > 0 or operation.inline_chunk_length is not None or stated is not None
    content = _inline_content(context, operation, payload, checksum, has_chunk=has_chunk)
    answer = PutObjectOutput(
        inline_chunk_checksum=checksum.text(),
        inline_chunk_checksum_algorithm="SHA256",
        object_checksum=digest_text(content.summary, content.summary_form),
        object_checksum_algorithm="SUMMARY",
    )
    if commits:
        commit_backup_job(context, commit_of(job, None), caller)
        return answer
    name = operation.object_name.encode()
    if operation.throw_on_duplicate:  # checked again below; here it avoids storing the bytes
        context.database.read(lambda transaction: refuse_duplicate(transaction, job, name))

    def work(transaction: Transaction) -> None:
        if operation.throw_on_duplicate:
            refuse_duplicate(transaction, job, name)
        put_into_view(context, transaction, job, name, content, bytes_transferred=len(payload))

    store_payload(context, job.vault_id, payload if has_chunk else None, work, presence=presence)
    return answer


def _inline_content(
    context: Context, operation: PutObject, payload: Payload, checksum: Checksum, *, has_chunk: bool
) -> ObjectContent:
    entries = [ChunkEntry(0, len(payload), checksum.digest, checksum.form)] if has_chunk else []
    computed = summary(entry.digest for entry in entries)
    form = checksum.form
    if operation.object_checksum is not None:
        given = Checksum.parse(operation.object_checksum)
        computed = verified_summary(context, "ObjectChecksum", given, computed)
        form = given.form
    return ObjectContent(
        created_ms=context.clock(),
        length=len(payload),
        chunk_count=len(entries),
        summary=computed,
        summary_form=form,
        metadata_string=operation.metadata_string,
        chunks=chunk_lists.pack(entries) if entries else None,
    )


def verified_summary(context: Context, name: str, given: Checksum, computed: bytes) -> bytes:
    """The SUMMARY to store: the computed one, which must equal the given one; or, by a setting, the given one (B.4)."""
    if context.settings.summary_checksum == "store":
        return given.digest
    if given.digest != computed:
        raise IllegalArgumentException(
            f"{name}: {given.text()}, but the object's chunks give {digest_text(computed, given.form)}"
        )
    return computed


def put_into_view(
    context: Context,
    transaction: Transaction,
    job: JobRow,
    name: bytes,
    content: ObjectContent,
    *,
    bytes_transferred: int,
) -> None:
    """Put an object whose bytes are durable into the job's view."""
    assert job.segment is not None
    require_still_running(context, transaction, job, bytes_transferred=bytes_transferred, changes=1)
    objects.put(transaction, job.segment, name, content)


def delete_object(context: Context, operation: DeleteObject, caller: Caller) -> Nothing:
    """Remove a name from the job's view."""
    job = running_job(context, operation.backup_job_id, operation.declaration.action, caller)
    name = operation.object_name.encode()

    def work(transaction: Transaction) -> None:
        assert job.segment is not None
        require_still_running(context, transaction, job, changes=1)
        view = lineages.view(transaction, job.segment)
        if not objects.remove(transaction, view, name, now_ms=context.clock()):
            raise ResourceNotFoundException(f"ObjectName: {operation.object_name!a} is not in the job's view")

    context.database.write(work)
    return Nothing()


class _UploadChangedError(Exception):
    """The upload changed while its chunks were gathered. Never leaves this module."""


class _Completion(NamedTuple):
    """The arguments that complete an upload. `digest` tells two different requests apart."""

    digest: bytes
    given: Checksum
    metadata_string: str | None
    blob: Payload
    blob_form: Form
    has_blob: bool


class _Chunks(NamedTuple):
    """The chunks of an upload in the form that its object gets."""

    chunk_count: int
    length: int
    summary: bytes
    packed: bytes | None
    chunk_list_id: int | None


def start_object(context: Context, operation: StartObject, caller: Caller) -> StartObjectOutput:
    """Open an upload. An object of that name stays in the view until the upload is complete."""
    job = running_job(context, operation.backup_job_id, operation.declaration.action, caller)
    name = operation.object_name.encode()
    upload_id = context.new_id()

    def work(transaction: Transaction) -> None:
        require_still_running(context, transaction, job)
        if operation.throw_on_duplicate:
            refuse_duplicate(transaction, job, name)
        uploads.insert(
            transaction,
            upload_id=upload_id,
            job_id=job.job_id,
            name=name,
            throw_on_duplicate=bool(operation.throw_on_duplicate),
            now_ms=context.clock(),
        )

    context.database.write(work)
    return StartObjectOutput(upload_id=upload_id)


def notify_object_complete(
    context: Context, operation: NotifyObjectComplete, caller: Caller
) -> NotifyObjectCompleteOutput:
    """Turn an upload into an object of the job's view. A repeated request gets the same answer (B.7)."""
    blob = operation.metadata_blob if operation.metadata_blob is not None else Payload()
    stated = check_payload(
        blob,
        ("MetadataBlobLength", "MetadataBlobChecksum"),
        operation.metadata_blob_length,
        operation.metadata_blob_checksum,
    )
    given = Checksum.parse(operation.object_checksum)
    completion = _Completion(
        digest=_completion_digest(operation, given, blob),
        given=given,
        metadata_string=operation.metadata_string,
        blob=blob,
        blob_form=stated.form if stated else given.form,
        has_blob=len(blob) > 0 or stated is not None or operation.metadata_blob_length is not None,
    )
    for _ in range(ATTEMPTS):
        job = started_job(context, operation.backup_job_id, operation.declaration.action, caller)
        with contextlib.suppress(_UploadChangedError):  # changed by a repetition of this request, or by another one
            _complete(context, job, operation.upload_id, completion, caller)
            return NotifyObjectCompleteOutput(object_checksum=given.text(), object_checksum_algorithm="SUMMARY")
    raise IllegalArgumentException("UploadId: chunks arrived while the upload was being completed")


def _complete(context: Context, job: JobRow, upload_id: str, completion: _Completion, caller: Caller) -> None:
    """Complete the upload unless that is done already."""
    if repeats_commit(job, completion.blob):
        return
    require_running(job)
    upload = context.database.read(lambda transaction: find_upload(transaction, job, upload_id))
    if _is_repeat(upload, completion.digest):
        return
    chunks = _gather(context, job, upload)
    summary = verified_summary(context, "ObjectChecksum", completion.given, chunks.summary)

    def close(transaction: Transaction) -> None:
        _require_unchanged(transaction, job, upload)
        uploads.complete(transaction, upload.upload_number, completion.digest)

    if commits_job(job, upload.name.decode()):
        commit_with_last_write(context, commit_of(job, completion.blob), caller, close)
        return
    content = _content(context, completion, chunks, summary)

    def work(transaction: Transaction) -> None:
        close(transaction)
        if upload.throw_on_duplicate:
            refuse_duplicate(transaction, job, upload.name)
        put_into_view(context, transaction, job, upload.name, content, bytes_transferred=0)

    store_payload(context, job.vault_id, completion.blob if completion.has_blob else None, work, PayloadKind.METADATA)


def _content(context: Context, completion: _Completion, chunks: _Chunks, summary: bytes) -> ObjectContent:
    has_blob = completion.has_blob
    return ObjectContent(
        created_ms=context.clock(),
        length=chunks.length,
        chunk_count=chunks.chunk_count,
        summary=summary,
        summary_form=completion.given.form,
        metadata_string=completion.metadata_string,
        metadata_digest=completion.blob.sha256 if has_blob else None,
        metadata_length=len(completion.blob) if has_blob else None,
        metadata_form=completion.blob_form if has_blob else None,
        chunk_list_id=chunks.chunk_list_id,
        chunks=chunks.packed,
    )


def _completion_digest(operation: NotifyObjectComplete, given: Checksum, blob: Payload) -> bytes:
    text = (operation.metadata_string or "").encode()
    return sha256(given.digest + sha256(text) + blob.sha256 + bytes((operation.metadata_string is not None,)))


def _is_repeat(upload: UploadRow, digest: bytes) -> bool:
    """Whether this request completed the upload before. Raises IllegalArgumentException if another request did."""
    if upload.completion_digest is None:
        return False
    if upload.completion_digest != digest:
        raise IllegalArgumentException(f"UploadId: {upload.upload_id} was completed before with other arguments")
    return True


def _require_unchanged(transaction: Transaction, job: JobRow, upload: UploadRow) -> None:
    """Raise _UploadChangedError unless the upload is open and has the same chunks as `upload`.

    Chunks are only added while it is open, and none replaces another, so an equal count means the same chunks.
    """
    current = find_upload(transaction, job, upload.upload_id)
    if current.completion_digest is not None or current.chunk_count != upload.chunk_count:
        raise _UploadChangedError


def _gather(context: Context, job: JobRow, upload: UploadRow) -> _Chunks:
    """Read an upload's chunks in index order. A chunk list of several parts is written before its object.

    Raises _UploadChangedError if chunks were added, or the upload was completed, meanwhile.
    """
    several = upload.chunk_count > PART_CHUNKS
    whole = hashlib.sha256()
    count = length = 0
    packed: bytes | None = None
    ahead: list[tuple[int, int, bytes]] = []
    for entries in _pages(context, upload):
        for entry in entries:
            whole.update(entry.digest)
        packed = chunk_lists.pack(entries)
        ahead.append((count // PART_CHUNKS, entries[0].chunk_index, packed))
        count, length = count + len(entries), length + sum(entry.length for entry in entries)
        if several and len(ahead) == PARTS_PER_TRANSACTION:
            _write_ahead(context, job, upload, ahead)
            ahead = []
    if count != upload.chunk_count:
        raise _UploadChangedError
    if not several:
        return _Chunks(count, length, whole.digest(), packed, None)
    _write_ahead(context, job, upload, ahead)
    return _Chunks(count, length, whole.digest(), None, upload.upload_number)


def _pages(context: Context, upload: UploadRow) -> Iterator[Sequence[ChunkEntry]]:
    after = -1
    while entries := _page(context, upload, after):
        yield entries
        after = entries[-1].chunk_index


def _page(context: Context, upload: UploadRow, after: int) -> Sequence[ChunkEntry]:
    return context.database.read(
        lambda transaction: uploads.chunk_page(transaction, upload.upload_number, after=after, limit=PART_CHUNKS)
    )


def _write_ahead(context: Context, job: JobRow, upload: UploadRow, parts: list[tuple[int, int, bytes]]) -> None:
    def work(transaction: Transaction) -> None:
        require_still_running(context, transaction, job)
        _require_unchanged(transaction, job, upload)  # or the parts could replace those of an existing object
        chunk_lists.insert_parts(transaction, upload.upload_number, parts)

    context.database.write(work)
