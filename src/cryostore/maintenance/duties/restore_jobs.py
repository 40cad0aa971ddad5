"""Restore jobs as time passes: those nobody reads from any more release their recovery points."""

from __future__ import annotations

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import restore_jobs
from cryostore.service import Context

JOBS_PER_ROUND = 100


def end_idle(context: Context) -> None:
    """Abort restore jobs without a sign of life for too long (control plane 3.4)."""
    now_ms = context.clock()
    idle_before_ms = now_ms - context.settings.idle_restore_job_ms

    def work(transaction: Transaction) -> None:
        for job_id in restore_jobs.idle(transaction, idle_before_ms=idle_before_ms, limit=JOBS_PER_ROUND):
            message = "Nothing was read for too long."
            restore_jobs.end(transaction, job_id, "ABORTED", now_ms=now_ms, status_message=message)

    context.database.write(work)
