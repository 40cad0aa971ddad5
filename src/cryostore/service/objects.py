"""What the operations that write objects mean (Backup Storage B.1 to B.7)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from cryostore.catalog import chunk_lists, lineages, objects, uploads
from cryostore.catalog.chunk_lists import PART_CHUNKS, ChunkEntry
from cryostore.catalog.database import Transaction
from cryostore.catalog.jobs import JobRow
from cryostore.catalog.objects import ObjectContent
from cryostore.catalog.uploads import UploadRow
from cryostore.chunks.envelope import Kind
from cryostore.core.digest import Checksum, Form, Payload, digest_text, sha256, summary
from cryostore.model.errors import DataAlreadyExistsException, IllegalArgumentException, ResourceNotFoundException
from cryostore.model.jobs import CommitBackupJob
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
from cryostore.service.chunks import find_upload
from cryostore.service.commits import commit_backup_job
from cryostore.service.context import Caller, Context
from cryostore.service.storing import check_payload, fence, running_job, write

PARTS_PER_TRANSACTION = 50


def start_object(context: Context, operation: StartObject, caller: Caller) -> StartObjectOutput:
    """Open an upload. The object of that name, if there is one, stays in the view until the upload is complete."""
    job = running_job(context, operation.backup_job_id, operation.declaration.action, caller)
    name = operation.object_name.encode()
    upload_id = context.new_id()

    def work(transaction: Transaction) -> None:
        fence(context, transaction, job)
        if operation.throw_on_duplicate:
            _refuse_duplicate(transaction, job, name)
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


def _refuse_duplicate(transaction: Transaction, job: JobRow, name: bytes) -> None:
    """Raise DataAlreadyExistsException, with the checksum of what is there, if the name is in the job's view (B.6)."""
    assert job.segment is not None  # noqa: S101 - a running job has its base
    row = objects.find(transaction, lineages.view(transaction, job.segment), name)
    if row is not None:
        raise DataAlreadyExistsException(
            f"ObjectName: {ascii(name.decode())} exists already",
            checksum=digest_text(row.summary, row.summary_form),
            checksum_algorithm="SUMMARY",
        )


def put_object(context: Context, operation: PutObject, caller: Caller) -> PutObjectOutput:
    """Store an object of no chunk or one, in a single durable step."""
    job = running_job(context, operation.backup_job_id, operation.declaration.action, caller)
    payload = operation.inline_chunk if operation.inline_chunk is not None else Payload()
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
    if _commits(job, operation.object_name):
        _commit(context, job, None, caller)
        return answer
    name = operation.object_name.encode()

    def work(transaction: Transaction) -> None:
        if operation.throw_on_duplicate:
            _refuse_duplicate(transaction, job, name)
        _place(context, transaction, job, name, content, bytes_transferred=len(payload))

    write(context, job.vault_id, payload if has_chunk else None, work)
    return answer


def _inline_content(
    context: Context, operation: PutObject, payload: Payload, checksum: Checksum, *, has_chunk: bool
) -> ObjectContent:
    entries = [ChunkEntry(0, len(payload), checksum.digest, checksum.form)] if has_chunk else []
    computed = summary(entry.digest for entry in entries)
    form = checksum.form
    if operation.object_checksum is not None:
        given = Checksum.parse(operation.object_checksum)
        computed = _verified_summary(context, "ObjectChecksum", given, computed)
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


def _verified_summary(context: Context, name: str, given: Checksum, computed: bytes) -> bytes:
    """The SUMMARY to keep: the computed one, which must be the given one, or the given one as it is (B.4)."""
    if context.settings.summary_checksum == "store":
        return given.digest
    if given.digest != computed:
        raise IllegalArgumentException(
            f"{name}: {given.text()}, but the object's chunks give {digest_text(computed, given.form)}"
        )
    return computed


def _place(
    context: Context,
    transaction: Transaction,
    job: JobRow,
    name: bytes,
    content: ObjectContent,
    *,
    bytes_transferred: int,
) -> None:
    """Put a durable object into the job's view."""
    assert job.segment is not None  # noqa: S101 - a running job has its base
    fence(context, transaction, job, bytes_transferred=bytes_transferred, changes=1)
    objects.put(transaction, job.segment, name, content)


def delete_object(context: Context, operation: DeleteObject, caller: Caller) -> Nothing:
    """Take a name out of the job's view."""
    job = running_job(context, operation.backup_job_id, operation.declaration.action, caller)
    name = operation.object_name.encode()

    def work(transaction: Transaction) -> None:
        assert job.segment is not None  # noqa: S101 - a running job has its base
        fence(context, transaction, job, changes=1)
        view = lineages.view(transaction, job.segment)
        if not objects.remove(transaction, view, name, now_ms=context.clock()):
            raise ResourceNotFoundException(f"ObjectName: {ascii(operation.object_name)} is not in the job's view")

    context.database.write(work)
    return Nothing()


class _Chunks(NamedTuple):
    """An upload's chunks as its object will have them."""

    chunk_count: int
    length: int
    summary: bytes
    packed: bytes | None
    chunk_list_id: int | None


def notify_object_complete(
    context: Context, operation: NotifyObjectComplete, caller: Caller
) -> NotifyObjectCompleteOutput:
    """Turn an upload into an object of the job's view. The same request again answers the same (B.7)."""
    job = running_job(context, operation.backup_job_id, operation.declaration.action, caller)
    upload = context.database.read(lambda transaction: find_upload(transaction, job, operation.upload_id))
    blob = operation.metadata_blob if operation.metadata_blob is not None else Payload()
    stated = check_payload(
        blob,
        ("MetadataBlobLength", "MetadataBlobChecksum"),
        operation.metadata_blob_length,
        operation.metadata_blob_checksum,
    )
    given = Checksum.parse(operation.object_checksum)
    digest = _completion_digest(operation, given, blob)
    answer = NotifyObjectCompleteOutput(object_checksum=given.text(), object_checksum_algorithm="SUMMARY")
    if _is_repeat(upload, digest):
        return answer
    chunks = _gather(context, upload)
    verified = _verified_summary(context, "ObjectChecksum", given, chunks.summary)
    if _commits(job, upload.name.decode()):
        context.database.write(lambda transaction: uploads.complete(transaction, upload.upload_number, digest))
        _commit(context, job, blob, caller)
        return answer
    has_blob = len(blob) > 0 or stated is not None or operation.metadata_blob_length is not None
    content = ObjectContent(
        created_ms=context.clock(),
        length=chunks.length,
        chunk_count=chunks.chunk_count,
        summary=verified,
        summary_form=given.form,
        metadata_string=operation.metadata_string,
        metadata_digest=blob.sha256 if has_blob else None,
        metadata_length=len(blob) if has_blob else None,
        metadata_form=(stated.form if stated else given.form) if has_blob else None,
        chunk_list_id=chunks.chunk_list_id,
        chunks=chunks.packed,
    )
    _complete(context, job, upload, content, digest, blob if has_blob else None)
    return answer


def _completion_digest(operation: NotifyObjectComplete, given: Checksum, blob: Payload) -> bytes:
    text = (operation.metadata_string or "").encode()
    return sha256(given.digest + sha256(text) + blob.sha256 + bytes((operation.metadata_string is not None,)))


def _is_repeat(upload: UploadRow, digest: bytes) -> bool:
    """Whether the upload was completed by this very request; raises IllegalArgumentException if by another."""
    if upload.completion_digest is None:
        return False
    if upload.completion_digest != digest:
        raise IllegalArgumentException(f"UploadId: {upload.upload_id} was completed before with other arguments")
    return True


def _gather(context: Context, upload: UploadRow) -> _Chunks:
    """Read an upload's chunks in index order; a chunk list of several parts is written ahead of its object."""
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
            _write_ahead(context, upload, ahead)
            ahead = []
    if not several:
        return _Chunks(count, length, whole.digest(), packed, None)
    _write_ahead(context, upload, ahead)
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


def _write_ahead(context: Context, upload: UploadRow, parts: list[tuple[int, int, bytes]]) -> None:
    context.database.write(lambda transaction: chunk_lists.insert_parts(transaction, upload.upload_number, parts))


def _complete(
    context: Context, job: JobRow, upload: UploadRow, content: ObjectContent, digest: bytes, blob: Payload | None
) -> None:
    def work(transaction: Transaction) -> None:
        current = find_upload(transaction, job, upload.upload_id)
        if _is_repeat(current, digest):
            return
        if current.chunk_count != content.chunk_count:
            raise IllegalArgumentException("UploadId: chunks arrived while the upload was being completed")
        if upload.throw_on_duplicate:
            _refuse_duplicate(transaction, job, upload.name)
        _place(context, transaction, job, upload.name, content, bytes_transferred=0)
        uploads.complete(transaction, upload.upload_number, digest)

    write(context, job.vault_id, blob, work, Kind.METADATA)


def _commits(job: JobRow, name: str) -> bool:
    """Whether completing this name commits the job (CommitOnObject, control plane 3.5)."""
    options = job.options
    return options != "{}" and msgspec.json.decode(options).get("CommitOnObject") == name


def _commit(context: Context, job: JobRow, blob: Payload | None, caller: Caller) -> None:
    metadata: dict[str, str] | None = None
    if blob is not None and len(blob):
        try:
            metadata = msgspec.json.decode(blob.data, type=dict[str, str])
        except msgspec.DecodeError as error:
            raise IllegalArgumentException(
                "MetadataBlob: must be a JSON object of texts, it commits the job"
            ) from error
    commit_backup_job(context, CommitBackupJob(backup_job_id=job.job_id, restore_metadata=metadata), caller)
