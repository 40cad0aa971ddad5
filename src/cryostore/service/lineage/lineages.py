"""How a job gets its base, and how rows nobody can see any more are taken away. The rules: `catalog.rows.lineages`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from cryostore.catalog.database import Transaction
from cryostore.catalog.processes import epoch as collections
from cryostore.catalog.rows import jobs, lineages, objects, records, recovery_points, uploads
from cryostore.catalog.rows.jobs import JobRow
from cryostore.catalog.rows.lineages import Segment
from cryostore.catalog.rows.records import RecordKey, of_commit
from cryostore.catalog.rows.recovery_points import PointRow
from cryostore.core.time import SECOND_MS, span
from cryostore.model.errors import ResourceNotFoundException, ThrottlingException
from cryostore.model.jobs import HEARTBEATS_MISSED_MAX
from cryostore.service.context import Context
from cryostore.service.lineage.records import record, record_anew, void_above

BATCH_ROWS = 500
"""Rows one transaction takes away at most, so that no other writer waits long."""
BATCHES_BEFORE_START = 50
"""Transactions a job's first request spends at most on what an earlier job left; the client comes back for more."""


HEARTBEAT_SECONDS = "HeartbeatSeconds"
"""The backup option by which an agent promises a call at least every so many seconds while its job is open."""


class _Queued(NamedTuple):
    """Another job of the resource is running."""

    other: JobRow


def bind(context: Context, job: JobRow) -> JobRow:
    """Start a waiting job on its base (control plane 3.4), in one transaction that also pins the base.

    Answers the job as it is then, started or ended meanwhile. Ends a job of the same resource that missed its
    heartbeats. Raises ThrottlingException while another job of the resource runs, or while the rows of an ended one are
    being removed. May be repeated.
    """
    while True:
        bound = context.database.write(lambda transaction: _bind(transaction, job.job_id, context.clock()))
        if isinstance(bound, JobRow):
            return bound
        if isinstance(bound, _Queued):
            raise ThrottlingException(_waiting(job, bound.other, context.clock()))
        if isinstance(bound, RecordKey):
            record(context, bound)
        elif not clean(context, bound, batches_max=BATCHES_BEFORE_START):
            raise ThrottlingException(f"BackupJobId: {job.job_id} waits for an ended job to be taken back; retry later")


def _waiting(job: JobRow, other: JobRow, now_ms: int) -> str:
    """Why a job waits: the id and age of the job that runs, and how to end that one."""
    began = span(now_ms - (other.initiated_ms or other.created_ms))
    return (
        f"BackupJobId: {job.job_id} waits for backup job {other.job_id} of the same resource, which started {began} ago"
        f" and sent its last request {span(now_ms - other.active_ms)} ago; retry later. If the client of that job is"
        f" dead, end the job with StopBackupJob"
    )


def _missed_heartbeats(job: JobRow, now_ms: int) -> bool:
    """Whether an agent that promised heartbeats has been silent for too long. A job without that promise never is."""
    promised = restore_metadata(job.options).get(HEARTBEAT_SECONDS)
    silent_ms_max = int(promised or 0) * HEARTBEATS_MISSED_MAX * SECOND_MS
    return promised is not None and now_ms - job.active_ms > silent_ms_max


def _bind(transaction: Transaction, job_id: str, now_ms: int) -> JobRow | _Queued | Segment | RecordKey:
    """The started job; or why it did not start: it is queued, or a segment must be cleaned or its base recorded first.

    What a record builds on must be on record before it, and the commit of a base may have failed at that.
    """
    job = jobs.find(transaction, job_id)
    if job is None:
        raise ResourceNotFoundException(f"BackupJobId: {job_id} does not exist")
    if job.state not in ("CREATED", "PENDING"):
        return job
    if job.start_by_ms < now_ms:
        end(transaction, job, "EXPIRED", "The job did not start within its start window.", "Timeout", now_ms=now_ms)
        return job._replace(state="EXPIRED")
    other = jobs.running(transaction, job.vault_id, job.resource_arn)
    if other is not None and other.state == "RUNNING" and _missed_heartbeats(other, now_ms):
        message = f"The agent sent no heartbeat; job {job_id} of the same resource took its place."
        end(transaction, other, "FAILED", message, "Timeout", now_ms=now_ms)
        other = None
    if other is not None:
        jobs.queue(transaction, job_id)
        return _Queued(other)
    base = _base(transaction, job)
    on_record = records.find(transaction, of_commit(base.segment)) if base and base.segment else None
    if on_record is not None and not on_record.recorded:
        return on_record.key
    lineage = lineages.find(transaction, base.segment.lineage_id) if base and base.segment else None
    goes_on = (
        not collections.unknown_commits(transaction)  # which the lineage may go on with
        and base is not None
        and lineage is not None
        and base.segment == Segment(lineage.lineage_id, lineage.tip_generation)
        and base.resource_arn == job.resource_arn
    )
    if lineage is not None and goes_on and lineage.dirty_generation is not None:
        return Segment(lineage.lineage_id, lineage.dirty_generation)
    if lineage is not None and goes_on:
        lineage_id = lineage.lineage_id
    else:
        lineage_id = lineages.insert(transaction, job.vault_id, base.segment if base else None)
    jobs.run(
        transaction,
        job_id,
        Segment(lineage_id, lineages.take_generation(transaction, lineage_id)),
        base_selection=job.base_selection if base else "NONE",
        base_point_id=base.point_id if base else None,
        now_ms=now_ms,
    )
    return jobs.find(transaction, job_id) or job


def _base(transaction: Transaction, job: JobRow) -> PointRow | None:
    if job.base_selection == "NONE":
        return None
    if job.base_selection == "EXPLICIT":  # pinned since StartBackupJob
        return recovery_points.find(transaction, job.base_point_id or "")
    return recovery_points.latest(transaction, job.vault_id, job.resource_arn)


def end(transaction: Transaction, job: JobRow, state: str, message: str, category: str, *, now_ms: int) -> None:
    """End a job without a recovery point. What it wrote is taken back by `clean`."""
    jobs.end(transaction, job.job_id, state, now_ms=now_ms, status_message=message, message_category=category)
    recovery_points.delete(transaction, job.point_id)
    if job.segment is not None:
        lineages.set_dirty(transaction, job.segment)


def clean(context: Context, segment: Segment, *, batches_max: int) -> bool:
    """Take back what a job wrote that ended without a commit, then end it for good if it was being aborted.

    Answers whether all is done; stops early after `batches_max` transactions. May be repeated, by several at once.
    """
    done = repeat(context, lambda transaction: _clean(transaction, segment, context.clock()), batches_max)
    settle(context, batches_max=batches_max)
    return done


def repeat(context: Context, step: Callable[[Transaction], bool], batches_max: int) -> bool:
    """Run a step, each time in a transaction of its own, until it answers that all is done; answers whether it did."""
    return any(context.database.write(step) for _ in range(batches_max))


def _clean(transaction: Transaction, segment: Segment, now_ms: int) -> bool:
    lineage = lineages.find(transaction, segment.lineage_id)
    if lineage is None or lineage.dirty_generation != segment.generation:
        return True
    if not objects.truncate(transaction, segment.lineage_id, lineage.tip_generation, BATCH_ROWS):
        return False
    lineages.set_clean(transaction, segment.lineage_id)
    for job_id in jobs.aborting_in(transaction, segment.lineage_id):
        job = jobs.find(transaction, job_id)
        if job is not None and job.segment == segment:
            jobs.end(transaction, job_id, "ABORTED", now_ms=now_ms, message_category="Aborted")
            recovery_points.delete(transaction, job.point_id)
    _retire_unless_needed(transaction, segment.lineage_id)
    return True


def forget(context: Context, point: PointRow, *, batches_max: int) -> bool:
    """Take away what only a point that is being deleted could see, then the point itself.

    The point is off the record when this returns. Answers whether all is done; stops early after `batches_max`
    transactions. May be repeated, by several at once.
    """
    if context.database.read(collections.unknown_commits):
        return False
    if point.segment is not None:
        record(context, of_commit(point.segment))
    done = _repeat_voiding(context, lambda transaction: _free(transaction, point.point_id), batches_max)
    if done:
        context.database.write(lambda transaction: _delete(transaction, point.point_id))
    settle(context, batches_max=batches_max)
    return done


class _OnRecordError(Exception):
    """What is to be taken back stands in records that must go first: all above this segment."""

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment)
        self.segment = segment


class _BuiltOnError(Exception):
    """What is to be taken away is in these records, or they build on it: they are to be written anew first."""

    def __init__(self, keys: list[RecordKey]) -> None:
        super().__init__(keys)
        self.keys = keys


def _repeat_voiding(context: Context, step: Callable[[Transaction], bool], batches_max: int) -> bool:
    """As `repeat`, for a step that may ask for records to be removed, or written anew."""
    for _ in range(batches_max):
        try:
            if context.database.write(step):
                return True
        except _OnRecordError as error:
            void_above(context, error.segment)
        except _BuiltOnError as error:
            for key in error.keys:
                record_anew(context, key)
    return False


def _free(transaction: Transaction, point_id: str) -> bool:
    """Take away a batch of what only a point that is being deleted could see; answers whether that was all."""
    point = recovery_points.find(transaction, point_id)
    if point is None or point.segment is None:
        return True
    assert point.status == "DELETING"
    return _release(transaction, point.segment)


def _delete(transaction: Transaction, point_id: str) -> None:
    """Remove the row of a point that is being deleted."""
    point = recovery_points.find(transaction, point_id)
    if point is None:
        return
    recovery_points.delete(transaction, point_id)
    if point.segment is not None:
        _retire_unless_needed(transaction, point.segment.lineage_id)


def _release(transaction: Transaction, segment: Segment) -> bool:
    """Take away a batch of what only `segment` could see, unless somebody else does; answers whether that was all.

    Raises _OnRecordError, _BuiltOnError.
    """
    below, above = lineages.neighbours(transaction, segment)
    if above is not None:
        if keys := records.between(transaction, segment.lineage_id, below, above):
            raise _BuiltOnError(keys)
        return objects.forget(transaction, segment.lineage_id, below, above, BATCH_ROWS)
    _require_off_record(transaction, segment._replace(generation=below))
    if not objects.truncate(transaction, segment.lineage_id, below, BATCH_ROWS):
        return False
    lineages.set_tip(transaction, segment._replace(generation=below))
    return True


def _require_off_record(transaction: Transaction, segment: Segment) -> None:
    """Raise _OnRecordError if anything above a generation of its lineage is on record."""
    if records.above(transaction, segment, 1):
        raise _OnRecordError(segment)


def settle(context: Context, *, batches_max: int) -> bool:
    """Release what retired lineages were begun on, then remove them; answers whether none is left.

    Stops early after `batches_max` transactions. May be repeated, by several at once.
    """
    if context.database.read(lineages.first_retired) is None:
        return True
    if context.database.read(collections.unknown_commits):
        return False
    return _repeat_voiding(context, _settle, batches_max)


def _settle(transaction: Transaction) -> bool:
    lineage = lineages.first_retired(transaction)
    if lineage is None:
        return True
    if lineage.parent is None or _release(transaction, lineage.parent):
        _require_off_record(transaction, Segment(lineage.lineage_id, 0))
        lineages.delete(transaction, lineage.lineage_id)
        if lineage.parent is not None:
            _retire_unless_needed(transaction, lineage.parent.lineage_id)
    return False


def _retire_unless_needed(transaction: Transaction, lineage_id: int) -> None:
    if not lineages.is_needed(transaction, lineage_id):
        lineages.retire(transaction, lineage_id)


def restore_metadata(text: str) -> dict[str, str]:
    """The map kept as JSON in the catalog."""
    return msgspec.json.decode(text, type=dict[str, str])


def delete_uploads(context: Context, job_id: str, *, batches_max: int = 4) -> None:
    """Take away the uploads of an ended job; what is left after `batches_max` transactions is for maintenance."""
    for _ in range(batches_max):
        if context.database.write(lambda transaction: uploads.delete_of_job(transaction, job_id, BATCH_ROWS)):
            return
