"""Uploads as time passes: those of ended jobs go."""

from __future__ import annotations

from itertools import islice

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import jobs, uploads
from cryostore.service import Context
from cryostore.service.lineages.ended_jobs import delete_uploads

JOBS_PER_ROUND = 100
BATCHES_PER_JOB = 200


def delete_of_ended_jobs(context: Context) -> None:
    """Remove the uploads of jobs that have ended, or are gone with their vault."""

    def work(transaction: Transaction) -> list[str]:
        with_uploads = uploads.jobs_with_uploads(transaction)
        return list(islice((job for job in with_uploads if jobs.has_ended(transaction, job)), JOBS_PER_ROUND))

    for job_id in context.database.read(work):
        delete_uploads(context, job_id, batches_max=BATCHES_PER_JOB)
