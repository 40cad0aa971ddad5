"""Background tasks for jobs: end overdue and idle jobs, delete their uploads, forget ended jobs.

Covers backup jobs and restore jobs. What a backup job without a commit leaves in its lineage: `deleted_data`.
"""

from __future__ import annotations

from functools import partial
from itertools import islice

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import jobs, restore_jobs, uploads
from cryostore.service import Context
from cryostore.service.lineages.ended_jobs import delete_uploads, end_job

JOBS_PER_ROUND = 100
JOBS_PER_BATCH = 500
BATCHES_PER_ROUND = 20
BATCHES_PER_JOB = 200


def end_overdue_backup_jobs(context: Context) -> None:
    """End backup jobs past their start or completion window, and running jobs that have been idle too long (2.6)."""
    now_ms = context.clock()
    idle_before_ms = now_ms - context.settings.idle_job_ms

    def work(transaction: Transaction) -> None:
        for job in jobs.overdue(transaction, now_ms=now_ms, idle_before_ms=idle_before_ms, limit=JOBS_PER_ROUND):
            if job.state != "RUNNING":
                message = "The job did not start within its start window."
                end_job(transaction, job, "EXPIRED", message, "Timeout", now_ms=now_ms)
            elif job.complete_by_ms < now_ms:
                message = "The job did not complete within its completion window."
                end_job(transaction, job, "EXPIRED", message, "Timeout", now_ms=now_ms)
            else:
                end_job(transaction, job, "FAILED", "The agent sent no heartbeat in time.", "Timeout", now_ms=now_ms)

    context.database.write(work)


def end_idle_restore_jobs(context: Context) -> None:
    """Abort restore jobs that have been idle too long, which releases their recovery points (control plane 3.4)."""
    now_ms = context.clock()
    idle_before_ms = now_ms - context.settings.idle_restore_job_ms

    def work(transaction: Transaction) -> None:
        for job_id in restore_jobs.idle(transaction, idle_before_ms=idle_before_ms, limit=JOBS_PER_ROUND):
            message = "Nothing was read for too long."
            restore_jobs.end(transaction, job_id, "ABORTED", now_ms=now_ms, status_message=message)

    context.database.write(work)


def delete_uploads_of_ended_jobs(context: Context) -> None:
    """Delete the uploads of backup jobs that have ended or were removed with their vault."""

    def work(transaction: Transaction) -> list[str]:
        with_uploads = uploads.jobs_with_uploads(transaction)
        return list(islice((job for job in with_uploads if jobs.has_ended(transaction, job)), JOBS_PER_ROUND))

    for job_id in context.database.read(work):
        delete_uploads(context, job_id, batches_max=BATCHES_PER_JOB)


def forget_ended_jobs(context: Context) -> None:
    """Delete the rows of ended backup and restore jobs that are no longer listed. Recovery points stay."""
    before_ms = context.clock() - context.settings.listed_jobs_ms
    for forget in (jobs.delete_ended, restore_jobs.delete_ended):
        for _ in range(BATCHES_PER_ROUND):
            if context.database.write(partial(forget, before_ms=before_ms, limit=JOBS_PER_BATCH)) < JOBS_PER_BATCH:
                break
