"""Lineages: how a backup job starts on one, how an ended job is rolled back, and how unneeded rows are removed.

- Start: one job of a resource runs at a time, on an incremental base that it pins.
- End: a job without a recovery point is ended, what it wrote is rolled back, and its uploads are deleted.
- Pruning removes the rows that no recovery point and no job sees any more. A deleted recovery point takes its rows with
  it, and a lineage that nobody needs is removed.

The rules of who sees which row are in `catalog.rows.lineages`; the order of rows and records in `service.recording`.
"""

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
from cryostore.service.recording import remove_records_above, rewrite_record, update_record

BATCH_ROWS = 500
"""Rows that one transaction removes at most, so that no other writer waits long."""


class _RecordsAboveError(Exception):
    """The rows to remove are in records of commits above this segment: those records must be removed first."""

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment)
        self.segment = segment


class _RecordsBuildOnError(Exception):
    """The rows to remove are in these records, or these build on them: they must be written again first."""

    def __init__(self, keys: list[RecordKey]) -> None:
        super().__init__(keys)
        self.keys = keys


def run_in_batches(context: Context, step: Callable[[Transaction], bool], batches_max: int) -> bool:
    """Run a step, each time in a transaction of its own, until it returns that all is done.

    Returns whether it did so within `batches_max` transactions.
    """
    return any(context.database.write(step) for _ in range(batches_max))


def delete_point(context: Context, point: PointRow, *, batches_max: int) -> bool:
    """Remove the rows that only a point in state DELETING sees, then the point itself.

    The record of the point no longer names it when this returns. Returns whether all is done; stops early after
    `batches_max` transactions. May be repeated, and several processes may do it at once.
    """
    if context.database.read(collections.unknown_commits):
        return False
    if point.segment is not None:
        update_record(context, of_commit(point.segment))
    done = _run_with_records(
        context, lambda transaction: _remove_rows_of_point(transaction, point.point_id), batches_max
    )
    if done:
        context.database.write(lambda transaction: _delete_row_of_point(transaction, point.point_id))
    remove_unneeded_lineages(context, batches_max=batches_max)
    return done


def remove_unneeded_lineages(context: Context, *, batches_max: int) -> bool:
    """Remove retired lineages, and the rows of their parents that only they saw. Returns whether none is left.

    Stops early after `batches_max` transactions. May be repeated, and several processes may do it at once.
    """
    if context.database.read(lineages.first_retired) is None:
        return True
    if context.database.read(collections.unknown_commits):
        return False
    return _run_with_records(context, _remove_lineage_batch, batches_max)


def retire_lineage_unless_needed(transaction: Transaction, lineage_id: int) -> None:
    """Mark a lineage for removal if no point, job or other lineage needs it."""
    if not lineages.is_needed(transaction, lineage_id):
        lineages.retire(transaction, lineage_id)


def _run_with_records(context: Context, step: Callable[[Transaction], bool], batches_max: int) -> bool:
    """As `run_in_batches`, for a step that may require records to be removed, or written again, before it."""
    for _ in range(batches_max):
        try:
            if context.database.write(step):
                return True
        except _RecordsAboveError as error:
            remove_records_above(context, error.segment)
        except _RecordsBuildOnError as error:
            for key in error.keys:
                rewrite_record(context, key)
    return False


def _remove_rows_of_point(transaction: Transaction, point_id: str) -> bool:
    """Remove a batch of the rows that only a point in state DELETING sees; returns whether none is left."""
    point = recovery_points.find(transaction, point_id)
    if point is None or point.segment is None:
        return True
    assert point.status == "DELETING"
    return _release_segment(transaction, point.segment)


def _delete_row_of_point(transaction: Transaction, point_id: str) -> None:
    """Delete the row of a point in state DELETING."""
    point = recovery_points.find(transaction, point_id)
    if point is None:
        return
    recovery_points.delete(transaction, point_id)
    if point.segment is not None:
        retire_lineage_unless_needed(transaction, point.segment.lineage_id)


def _release_segment(transaction: Transaction, segment: Segment) -> bool:
    """Remove a batch of the rows that only `segment` sees, unless another point or job sees the segment.

    Returns whether none is left. Raises _RecordsAboveError, _RecordsBuildOnError.
    """
    below, above = lineages.neighbours(transaction, segment)
    if above is not None:
        if keys := records.between(transaction, segment.lineage_id, below, above):
            raise _RecordsBuildOnError(keys)
        return objects.forget(transaction, segment.lineage_id, below, above, BATCH_ROWS)
    _require_no_records_above(transaction, segment._replace(generation=below))
    if not objects.truncate(transaction, segment.lineage_id, below, BATCH_ROWS):
        return False
    lineages.set_tip(transaction, segment._replace(generation=below))
    return True


def _require_no_records_above(transaction: Transaction, segment: Segment) -> None:
    """Raise _RecordsAboveError if a generation of the lineage above the segment has a record."""
    if records.above(transaction, segment, 1):
        raise _RecordsAboveError(segment)


def _remove_lineage_batch(transaction: Transaction) -> bool:
    lineage = lineages.first_retired(transaction)
    if lineage is None:
        return True
    if lineage.parent is None or _release_segment(transaction, lineage.parent):
        _require_no_records_above(transaction, Segment(lineage.lineage_id, 0))
        lineages.delete(transaction, lineage.lineage_id)
        if lineage.parent is not None:
            retire_lineage_unless_needed(transaction, lineage.parent.lineage_id)
    return False


ROLL_BACK_BATCHES_MAX = 20
"""Transactions that a request that ends a job spends at most on rolling it back; maintenance does the rest."""


def end_job(transaction: Transaction, job: JobRow, state: str, message: str, category: str, *, now_ms: int) -> None:
    """End a job without a recovery point. `roll_back_job` removes what the job wrote, afterwards."""
    jobs.end(transaction, job.job_id, state, now_ms=now_ms, status_message=message, message_category=category)
    recovery_points.delete(transaction, job.point_id)
    if job.segment is not None:
        lineages.set_dirty(transaction, job.segment)


def roll_back_job(context: Context, segment: Segment, *, batches_max: int) -> bool:
    """Remove what a job wrote that ended without a commit; a job that was ABORTING is ABORTED then.

    Returns whether nothing is left to remove; stops early after `batches_max` transactions. May be repeated, and
    several processes may do it at once.
    """
    done = run_in_batches(
        context, lambda transaction: _roll_back_batch(transaction, segment, context.clock()), batches_max
    )
    remove_unneeded_lineages(context, batches_max=batches_max)
    return done


def _roll_back_batch(transaction: Transaction, segment: Segment, now_ms: int) -> bool:
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
    retire_lineage_unless_needed(transaction, segment.lineage_id)
    return True


def delete_uploads(context: Context, job_id: str, *, batches_max: int = 4) -> None:
    """Delete the uploads of an ended job. Maintenance deletes what is left after `batches_max` transactions."""
    for _ in range(batches_max):
        if context.database.write(lambda transaction: uploads.delete_of_job(transaction, job_id, BATCH_ROWS)):
            return


BATCHES_BEFORE_START = 50
"""Transactions that a job's first request spends at most on rolling back an earlier job; then the client retries."""
HEARTBEAT_SECONDS = "HeartbeatSeconds"
"""The backup option by which an agent promises at least one request in so many seconds while its job is open."""


class _Queued(NamedTuple):
    """Another job of the resource is running."""

    other: JobRow


def start_job(context: Context, job: JobRow) -> JobRow:
    """Start a waiting job on its base (control plane 3.4), in one transaction that also pins the base.

    Returns the row of the job afterwards; another request may have started or ended the job meanwhile. Ends a job of
    the same resource that missed its heartbeats. Raises ThrottlingException while another job of the resource runs, or
    while the rows of an ended job are being removed. May be repeated.
    """
    while True:
        started = context.database.write(lambda transaction: _try_start(transaction, job.job_id, context.clock()))
        if isinstance(started, JobRow):
            return started
        if isinstance(started, _Queued):
            raise ThrottlingException(_reason_to_wait(job, started.other, context.clock()))
        if isinstance(started, RecordKey):
            update_record(context, started)
        elif not roll_back_job(context, started, batches_max=BATCHES_BEFORE_START):
            raise ThrottlingException(f"BackupJobId: {job.job_id} waits for an ended job to be taken back; retry later")


def _reason_to_wait(job: JobRow, other: JobRow, now_ms: int) -> str:
    """Why a job waits: the id and age of the running job, and how to end that one."""
    began = span(now_ms - (other.initiated_ms or other.created_ms))
    return (
        f"BackupJobId: {job.job_id} waits for backup job {other.job_id} of the same resource, which started {began} ago"
        f" and sent its last request {span(now_ms - other.active_ms)} ago; retry later. If the client of that job is"
        f" dead, end the job with StopBackupJob"
    )


def _missed_heartbeats(job: JobRow, now_ms: int) -> bool:
    """Whether an agent that promised heartbeats has been silent for too long. False for a job without that promise."""
    promised = msgspec.json.decode(job.options, type=dict[str, str]).get(HEARTBEAT_SECONDS)
    silent_ms_max = int(promised or 0) * HEARTBEATS_MISSED_MAX * SECOND_MS
    return promised is not None and now_ms - job.active_ms > silent_ms_max


def _try_start(transaction: Transaction, job_id: str, now_ms: int) -> JobRow | _Queued | Segment | RecordKey:
    """The started job; or what must happen first.

    _Queued: another job must end. A segment: it must be rolled back. A record key: that record must be written, because
    a record may only build on a written one, and the commit of the base may have failed before it wrote its record.
    """
    job = jobs.find(transaction, job_id)
    if job is None:
        raise ResourceNotFoundException(f"BackupJobId: {job_id} does not exist")
    if job.state not in ("CREATED", "PENDING"):
        return job
    if job.start_by_ms < now_ms:
        end_job(transaction, job, "EXPIRED", "The job did not start within its start window.", "Timeout", now_ms=now_ms)
        return job._replace(state="EXPIRED")
    other = jobs.running(transaction, job.vault_id, job.resource_arn)
    if other is not None and other.state == "RUNNING" and _missed_heartbeats(other, now_ms):
        message = f"The agent sent no heartbeat; job {job_id} of the same resource took its place."
        end_job(transaction, other, "FAILED", message, "Timeout", now_ms=now_ms)
        other = None
    if other is not None:
        jobs.queue(transaction, job_id)
        return _Queued(other)
    base = _choose_base(transaction, job)
    base_record = records.find(transaction, of_commit(base.segment)) if base and base.segment else None
    if base_record is not None and not base_record.recorded:
        return base_record.key
    lineage = lineages.find(transaction, base.segment.lineage_id) if base and base.segment else None
    extends_lineage = (
        not collections.unknown_commits(transaction)  # the lineage may have commits that this catalog does not know
        and base is not None
        and lineage is not None
        and base.segment == Segment(lineage.lineage_id, lineage.tip_generation)
        and base.resource_arn == job.resource_arn
    )
    if lineage is not None and extends_lineage and lineage.dirty_generation is not None:
        return Segment(lineage.lineage_id, lineage.dirty_generation)
    if lineage is not None and extends_lineage:
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


def _choose_base(transaction: Transaction, job: JobRow) -> PointRow | None:
    if job.base_selection == "NONE":
        return None
    if job.base_selection == "EXPLICIT":  # pinned since StartBackupJob
        return recovery_points.find(transaction, job.base_point_id or "")
    return recovery_points.latest(transaction, job.vault_id, job.resource_arn)
