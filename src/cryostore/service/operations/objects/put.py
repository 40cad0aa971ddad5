"""PutObject and DeleteObject: whole objects in a job's view (Backup Storage B.1 to B.7)."""

from __future__ import annotations

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import chunk_lists, lineages, objects
from cryostore.catalog.rows.chunk_lists import ChunkEntry
from cryostore.catalog.rows.jobs import JobRow
from cryostore.catalog.rows.objects import ObjectContent
from cryostore.core.digest import Checksum, Form, Payload, digest_text, summary
from cryostore.model.errors import DataAlreadyExistsException, IllegalArgumentException, ResourceNotFoundException
from cryostore.model.objects import DeleteObject, PutObject, PutObjectOutput
from cryostore.model.operation import Nothing
from cryostore.service.context import Caller, Context
from cryostore.service.operations.jobs.commit import commit_backup_job, commit_of, commits_job, repeats_commit
from cryostore.service.operations.jobs.lookup import (
    require_running,
    require_still_running,
    running_job,
    started_job_with,
)
from cryostore.service.operations.payloads import check_payload, find_presence, store_payload


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
