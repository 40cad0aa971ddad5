"""StopBackupJob: end a job and roll back what it wrote (control plane 2.5)."""

from __future__ import annotations

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import jobs, lineages
from cryostore.catalog.rows.jobs import JobRow
from cryostore.model.errors import InvalidRequestException
from cryostore.model.jobs import StopBackupJob
from cryostore.model.operation import Nothing
from cryostore.service.access import authorise
from cryostore.service.context import Caller, Context
from cryostore.service.lineages.ended_jobs import ROLL_BACK_BATCHES_MAX, delete_uploads, end_job, roll_back_job
from cryostore.service.operations.jobs.lookup import find_job
from cryostore.service.operations.vaults import vault_name


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
