"""The end of a backup job: CommitBackupJob (control plane 3.2) and StopBackupJob (control plane 2.5).

A commit makes the job a recovery point, or gives it up; a stop rolls back what it wrote.

With CommitOnObject, completing an object with an agreed name commits the job (control plane 3.5). Clients that do not
know the extension operations use it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import jobs, lineages, objects, records, recovery_points, uploads
from cryostore.catalog.rows.jobs import JobRow
from cryostore.catalog.rows.lineages import View
from cryostore.catalog.rows.objects import Totals
from cryostore.catalog.rows.records import RecordRow, of_commit
from cryostore.catalog.rows.recovery_points import PointRow
from cryostore.core.digest import Checksum, Payload
from cryostore.core.time import seconds
from cryostore.model.errors import IllegalArgumentException, InvalidRequestException, JobStateConflictException
from cryostore.model.jobs import CommitBackupJob, CommitBackupJobOutput, StopBackupJob
from cryostore.model.operation import Nothing
from cryostore.service.access import authorise
from cryostore.service.context import Caller, Context
from cryostore.service.lineages import (
    BATCH_ROWS,
    ROLL_BACK_BATCHES_MAX,
    delete_uploads,
    end_job,
    roll_back_job,
    start_job,
)
from cryostore.service.operations.idempotency import arguments_digest
from cryostore.service.operations.jobs.lookup import authorised_job, find_job
from cryostore.service.operations.text_maps import check_map
from cryostore.service.operations.vaults import vault_name
from cryostore.service.recording import update_record, write_commit_record

PAGE_OBJECTS = 1000


class _ObjectsChecksum(NamedTuple):
    """The checksum over a job's objects, and the revision of the view that it was computed from."""

    checksum: bytes
    revision: int


class _Committed(NamedTuple):
    """The rows that the transaction of a commit wrote."""

    job: JobRow
    point: PointRow
    record: RecordRow
    uploads_left: bool


def commit_backup_job(context: Context, operation: CommitBackupJob, caller: Caller) -> CommitBackupJobOutput:
    """Make a job a recovery point, or end it as failed. Costs work in proportion to the changes of the job only."""
    return commit_with_last_write(context, operation, caller, lambda _: None)


def commit_digest(operation: CommitBackupJob) -> bytes:
    """A digest that tells a repeated commit from a different one."""
    return arguments_digest(operation, "backup_job_id", "commit_token")


def commit_with_last_write(
    context: Context, operation: CommitBackupJob, caller: Caller, last_write: Callable[[Transaction], None]
) -> CommitBackupJobOutput:
    """As `commit_backup_job`, with `last_write` as the last write of the job, in the transaction of the commit."""
    _check_metadata(context, operation.restore_metadata or {})
    digest = commit_digest(operation)
    job = authorised_job(context, operation.backup_job_id, operation.declaration.action, caller)
    if job.completed_ms is not None or job.state == "ABORTING":
        return _answer_ended_job(context, job, digest)
    if operation.outcome == "FAILED":
        return _fail_job(context, job, operation, digest)
    if job.state != "RUNNING":
        job = start_job(context, job)
    segment = job.segment
    view = context.database.read(lambda transaction: lineages.view(transaction, segment)) if segment else ()
    counted = None if operation.objects_checksum is None else _objects_checksum(context, job, view)
    now_ms = context.clock()

    def work(transaction: Transaction) -> JobRow | _Committed:
        current = find_job(transaction, job.job_id)
        if current.state != "RUNNING":
            return current
        last_write(transaction)
        return _commit(context, transaction, current, view, operation, counted, digest, now_ms)

    committed = context.database.write(work)
    if isinstance(committed, JobRow):
        delete_uploads(context, job.job_id)
        return _answer_ended_job(context, committed, digest)
    if committed.uploads_left:
        delete_uploads(context, job.job_id)
    write_commit_record(context, committed.record, committed.point, committed.job, view)
    return _answer(context, committed.job)


def _answer_ended_job(context: Context, job: JobRow, digest: bytes) -> CommitBackupJobOutput:
    """Answer a commit of a job that has ended: the repeated request gets the answer of the first one.

    Writes the record of the recovery point, since the first request may have failed before it did. Raises
    JobStateConflictException for any other request.
    """
    if job.commit_digest != digest or job.completed_ms is None:
        raise JobStateConflictException(
            f"BackupJobId: {job.job_id} is {job.state} and cannot be committed", state=job.state
        )
    if job.state == "COMPLETED" and job.segment is not None:
        update_record(context, of_commit(job.segment))
    return _answer(context, job)


def _answer(context: Context, job: JobRow) -> CommitBackupJobOutput:
    assert job.completed_ms is not None
    done = job.state == "COMPLETED"
    return CommitBackupJobOutput(
        backup_job_id=job.job_id,
        recovery_point_arn=context.arns.point(job.point_id) if done else None,
        state="COMPLETED" if done else "FAILED",
        backup_size_in_bytes=job.size_bytes if done else None,
        completion_date=seconds(job.completed_ms),
    )


def _fail_job(context: Context, job: JobRow, operation: CommitBackupJob, digest: bytes) -> CommitBackupJobOutput:
    def work(transaction: Transaction) -> JobRow:
        current = find_job(transaction, job.job_id)
        if current.state in ("CREATED", "PENDING", "RUNNING"):
            message = operation.status_message or "The agent gave the job up."
            category = operation.message_category or "AgentError"
            end_job(transaction, current, "FAILED", message, category, now_ms=context.clock())
            jobs.set_commit_digest(transaction, job.job_id, digest)
        return find_job(transaction, job.job_id)

    current = context.database.write(work)
    if current.segment is not None:
        roll_back_job(context, current.segment, batches_max=ROLL_BACK_BATCHES_MAX)
    delete_uploads(context, current.job_id)
    return _answer_ended_job(context, current, digest)


def _check_metadata(context: Context, metadata: dict[str, str]) -> None:
    limits = context.limits
    if len(metadata) > limits.restore_metadata_items_max:
        raise IllegalArgumentException(
            f"RestoreMetadata: {len(metadata)} items must be at most {limits.restore_metadata_items_max}"
        )
    check_map("RestoreMetadata", metadata, limits.restore_metadata_bytes_max, IllegalArgumentException)


def _objects_checksum(context: Context, job: JobRow, view: View) -> _ObjectsChecksum:
    """SHA-256 over each object's name, a zero byte and its raw checksum, in ascending order of names.

    The pages are read in separate transactions. If the job's revision is still the same at the commit, they belong to
    one view.
    """
    whole = hashlib.sha256()
    start, more = b"", bool(view)
    while more:
        rows = context.database.read(
            lambda transaction: objects.page(transaction, view, start=start, prefix=b"", limit=PAGE_OBJECTS)  # noqa: B023 - runs at once
        )
        for row in rows:
            whole.update(row.name + b"\0" + row.summary)
        if more := len(rows) == PAGE_OBJECTS:
            start = rows[-1].name + b"\0"
    return _ObjectsChecksum(whole.digest(), job.revision)


def _commit(
    context: Context,
    transaction: Transaction,
    job: JobRow,
    view: View,
    operation: CommitBackupJob,
    counted: _ObjectsChecksum | None,
    digest: bytes,
    now_ms: int,
) -> _Committed:
    """Make the job a recovery point."""
    assert job.segment is not None
    latest = recovery_points.latest(transaction, job.vault_id, job.resource_arn)
    base = latest if latest and latest.point_id == job.base_point_id else None
    if base is None and job.base_point_id:
        base = recovery_points.find(transaction, job.base_point_id)
    change = objects.change(transaction, view)
    totals = Totals(
        change.object_count + (base.object_count if base else 0), change.size_bytes + (base.size_bytes if base else 0)
    )
    upload_counts = uploads.counts(transaction, job.job_id)
    _check_commit(job, operation, totals, upload_counts.open, counted)
    issues = operation.issue_count or 0
    message = operation.status_message or (f"{issues} items were skipped." if issues else None)
    metadata = operation.restore_metadata
    if metadata is None:
        metadata = _metadata_of_objects(context, transaction, view)
    # The newest point is the next job's base, so it must be the newest even if the clock was set back.
    if latest is not None and latest.completed_ms is not None:
        now_ms = max(now_ms, latest.completed_ms + 1)
    point = recovery_points.complete(
        transaction,
        job.point_id,
        job.segment,
        resource_name=operation.resource_name,
        status_message=message,
        initiated_ms=job.initiated_ms,
        completed_ms=now_ms,
        size_bytes=totals.size_bytes,
        object_count=totals.object_count,
        restore_metadata=msgspec.json.encode(metadata).decode(),
    )
    row = records.begin_commit(transaction, job.segment)
    lineages.set_tip(transaction, job.segment)
    ended: dict[str, Any] = {
        "resource_name": operation.resource_name,
        "status_message": message,
        "message_category": operation.message_category or ("CompletedWithIssues" if issues else "SUCCESS"),
        "size_bytes": totals.size_bytes,
        "commit_digest": digest,
    }
    jobs.end(transaction, job.job_id, "COMPLETED", now_ms=now_ms, **ended)
    deleted = uploads.delete_complete(transaction, job.job_id, BATCH_ROWS) if upload_counts.complete else 0
    return _Committed(
        job._replace(state="COMPLETED", completed_ms=now_ms, **ended), point, row, deleted < sum(upload_counts)
    )


def _check_commit(
    job: JobRow, operation: CommitBackupJob, totals: Totals, open_uploads: int, counted: _ObjectsChecksum | None
) -> None:
    if open_uploads and not operation.discard_open_uploads:
        raise IllegalArgumentException(
            f"BackupJobId: {open_uploads} uploads are not complete; complete them or set DiscardOpenUploads"
        )
    if operation.object_count not in (None, totals.object_count):
        raise IllegalArgumentException(f"ObjectCount: {operation.object_count}, but the job has {totals.object_count}")
    if totals.object_count == 0 and job.base_point_id is None:
        raise IllegalArgumentException("BackupJobId: the job has no objects and no base to inherit any from")
    if operation.objects_checksum is None or counted is None:
        return
    if counted.revision != job.revision:
        raise IllegalArgumentException("ObjectsChecksum: objects were written while the job was being committed")
    given = Checksum.parse(operation.objects_checksum)
    if given.digest != counted.checksum:
        present = Checksum(counted.checksum, given.form).text()
        raise IllegalArgumentException(f"ObjectsChecksum: {operation.objects_checksum}, but the objects give {present}")


def _metadata_of_objects(context: Context, transaction: Transaction, view: lineages.View) -> dict[str, str]:
    """Restore metadata for a commit that gives none: the metadata strings of the first objects, by name (3.4)."""
    limits = context.limits
    metadata: dict[str, str] = {}
    size = 0
    for row in objects.page(transaction, view, start=b"", prefix=b"", limit=limits.restore_metadata_items_max):
        if row.metadata_string:
            size += len(row.name) + len(row.metadata_string.encode())
            if size > limits.restore_metadata_bytes_max:
                break
            metadata[row.name.decode()] = row.metadata_string
    return metadata


def commits_job(job: JobRow, name: str) -> bool:
    """Whether completing an object of this name commits the job."""
    return job.options != "{}" and msgspec.json.decode(job.options).get("CommitOnObject") == name


def commit_of(job: JobRow, blob: Payload | None) -> CommitBackupJob:
    """The commit that completing the object with this metadata stands for."""
    metadata: dict[str, str] | None = None
    if blob is not None and len(blob):
        try:
            metadata = msgspec.json.decode(blob.data, type=dict[str, str])
        except msgspec.DecodeError:
            raise IllegalArgumentException("MetadataBlob: must be a JSON object of texts, it commits the job") from None
    return CommitBackupJob(backup_job_id=job.job_id, restore_metadata=metadata)


def repeats_commit(job: JobRow, blob: Payload | None) -> bool:
    """Whether a request for an ended job repeats the one that committed it."""
    if job.state != "COMPLETED" or "CommitOnObject" not in msgspec.json.decode(job.options):
        return False
    return job.commit_digest == commit_digest(commit_of(job, blob))


def stop_backup_job(context: Context, operation: StopBackupJob, caller: Caller) -> Nothing:
    """Stop a job: it takes no more writes, and what it wrote is rolled back.

    Stopping a stopped job again changes nothing. Raises InvalidRequestException for a job that ended otherwise.
    """

    def work(transaction: Transaction) -> JobRow:
        job = find_job(transaction, operation.backup_job_id)
        authorise(caller, operation.declaration.action, vault_name(transaction, job.vault_id))
        if job.state in ("CREATED", "PENDING"):
            end_job(transaction, job, "ABORTED", "The job was stopped.", "Aborted", now_ms=context.clock())
        elif job.state == "RUNNING" and job.segment is not None:
            jobs.abort(transaction, job.job_id, "The job was stopped.")
            lineages.set_dirty(transaction, job.segment)
        elif job.state not in ("ABORTING", "ABORTED"):
            raise InvalidRequestException(f"Backup job {job.job_id} is {job.state} and cannot be stopped.")
        return job

    job = context.database.write(work)
    if job.segment is not None:
        roll_back_job(context, job.segment, batches_max=ROLL_BACK_BATCHES_MAX)
    delete_uploads(context, job.job_id)
    return Nothing()
