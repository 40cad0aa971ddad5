"""Backup jobs as time passes: windows close, silent agents time out, ended jobs are forgotten."""

from __future__ import annotations

from functools import partial

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import jobs, restore_jobs
from cryostore.service import Context
from cryostore.service.lineages.ended_jobs import end_job

JOBS_PER_ROUND = 100
JOBS_PER_BATCH = 500
BATCHES_PER_ROUND = 20


def forget_ended(context: Context) -> None:
    """Forget backup and restore jobs once they are not listed any more. Recovery points stay."""
    before_ms = context.clock() - context.settings.listed_jobs_ms
    for forget in (jobs.delete_ended, restore_jobs.delete_ended):
        for _ in range(BATCHES_PER_ROUND):
            if context.database.write(partial(forget, before_ms=before_ms, limit=JOBS_PER_BATCH)) < JOBS_PER_BATCH:
                break


def end_overdue(context: Context) -> None:
    """End jobs past their start or completion window, and running ones without a sign of life for too long (2.6)."""
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
                end_job(transaction, job, "FAILED", "The agent gave no sign of life.", "Timeout", now_ms=now_ms)

    context.database.write(work)
