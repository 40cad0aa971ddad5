"""Backup jobs as time passes: windows close, silent agents time out, what ended jobs wrote is taken back."""

from __future__ import annotations

from cryostore.catalog import jobs, lineages
from cryostore.catalog.database import Transaction
from cryostore.service import Context
from cryostore.service.lineages import clean, delete_uploads as delete_uploads_of, end

JOBS_PER_ROUND = 100
BATCHES_PER_LINEAGE = 200


def end_overdue(context: Context) -> None:
    """End jobs past their start or completion window, and running ones without a sign of life for too long (2.6)."""
    now_ms = context.clock()
    idle_before_ms = now_ms - context.settings.idle_job_ms

    def work(transaction: Transaction) -> None:
        for job in jobs.overdue(transaction, now_ms=now_ms, idle_before_ms=idle_before_ms, limit=JOBS_PER_ROUND):
            if job.state != "RUNNING":
                message = "The job did not start within its start window."
                end(transaction, job, "EXPIRED", message, "Timeout", now_ms=now_ms)
            elif job.complete_by_ms < now_ms:
                message = "The job did not complete within its completion window."
                end(transaction, job, "EXPIRED", message, "Timeout", now_ms=now_ms)
            else:
                end(transaction, job, "FAILED", "The agent gave no sign of life.", "Timeout", now_ms=now_ms)

    context.database.write(work)


def clean_lineages(context: Context) -> None:
    """Take back what jobs wrote that ended without a commit."""
    for segment in context.database.read(lambda transaction: lineages.dirty(transaction, JOBS_PER_ROUND)):
        clean(context, segment, batches_max=BATCHES_PER_LINEAGE)


def delete_uploads(context: Context) -> None:
    """Remove the uploads of ended jobs."""
    for job_id in context.database.read(lambda transaction: jobs.with_uploads(transaction, JOBS_PER_ROUND)):
        delete_uploads_of(context, job_id)
