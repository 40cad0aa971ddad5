"""Start of a backup job: one job of a resource runs at a time, on an incremental base that it pins.

The rules of lineages are in `catalog.rows.lineages`.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from cryostore.catalog.database import Transaction
from cryostore.catalog.processes import epoch as collections
from cryostore.catalog.rows import jobs, lineages, records, recovery_points
from cryostore.catalog.rows.jobs import JobRow
from cryostore.catalog.rows.lineages import Segment
from cryostore.catalog.rows.records import RecordKey, of_commit
from cryostore.catalog.rows.recovery_points import PointRow
from cryostore.core.time import SECOND_MS, span
from cryostore.model.errors import ResourceNotFoundException, ThrottlingException
from cryostore.model.jobs import HEARTBEATS_MISSED_MAX
from cryostore.service.context import Context
from cryostore.service.lineages.ended_jobs import end_job, roll_back_job
from cryostore.service.records.recording import update_record

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
