"""Lookup of the backup job that a request names, and the check that it is running.

The first write of a job starts it. Every write checks again, within its own transaction, that the job still runs.
"""

from __future__ import annotations

from collections.abc import Callable

from cryostore.catalog.database import Answer, Transaction
from cryostore.catalog.rows import jobs
from cryostore.catalog.rows.jobs import JobRow
from cryostore.model.errors import IllegalArgumentException, ResourceNotFoundException
from cryostore.service.access import authorise
from cryostore.service.context import Caller, Context
from cryostore.service.lineages import start_job
from cryostore.service.operations.steps import Step, run_steps
from cryostore.service.operations.vaults import vault_name


def find_job(transaction: Transaction, job_id: str) -> JobRow:
    """The backup job with this id. Raises ResourceNotFoundException."""
    if (job := jobs.find(transaction, job_id.upper())) is None:
        raise no_job_error(job_id)
    return job


def no_job_error(job_id: str) -> ResourceNotFoundException:
    """The error for a backup job that does not exist."""
    return ResourceNotFoundException(f"Backup job {job_id!a} does not exist.")


def authorised_job(context: Context, job_id: str, action: str, caller: Caller) -> JobRow:
    """The backup job with this id, in whatever state. Raises ResourceNotFoundException, AccessDeniedException."""
    found = context.database.read(lambda transaction: jobs.find_with_vault(transaction, job_id.upper()))
    if found is None:
        raise no_job_error(job_id)
    job, name = found
    authorise(caller, action, name)
    return job


def running_job(context: Context, job_id: str, action: str, caller: Caller) -> JobRow:
    """The job that a write goes to; a waiting job is started.

    Raises ResourceNotFoundException, AccessDeniedException, ThrottlingException while the job must wait, and
    IllegalArgumentException once it has ended.
    """
    return require_running(started_job(context, job_id, action, caller))


def require_running(job: JobRow) -> JobRow:
    """The job itself. Raises IllegalArgumentException once it has ended."""
    if job.state != "RUNNING" or job.segment is None:
        raise _not_running_error(job)
    return job


def started_job(context: Context, job_id: str, action: str, caller: Caller) -> JobRow:
    """As `running_job`, but a job that has ended is returned, too."""
    return started_job_with(context, job_id, action, caller, lambda _transaction, _job: None)[0]


def started_job_with(
    context: Context, job_id: str, action: str, caller: Caller, look_up: Callable[[Transaction, JobRow], Answer]
) -> tuple[JobRow, Answer]:
    """The job, as `started_job` gives it, and what `look_up` finds in the same snapshot."""

    def find(transaction: Transaction) -> tuple[JobRow, Answer]:
        job = find_job(transaction, job_id)
        return job, look_up(transaction, job)

    return start_and_authorise(context, action, caller, find)


def start_and_authorise(
    context: Context, action: str, caller: Caller, find: Callable[[Transaction], tuple[JobRow, Answer]]
) -> tuple[JobRow, Answer]:
    """As `started_job_with`, where `find` looks up the job and what goes with it, for instance in one statement."""

    def work(transaction: Transaction) -> tuple[JobRow, Answer]:
        job, answer = find(transaction)
        if not caller.root:
            authorise(caller, action, vault_name(transaction, job.vault_id))
        return job, answer

    job, answer = context.database.read(work)
    return start_job(context, job) if job.state in ("CREATED", "PENDING") else job, answer


def touch_running_job(job: JobRow, *, bytes_transferred: int = 0, changes: int = 0, now_ms: int) -> Step:
    """The step that counts a write of the job; it raises if the job does not run any more.

    It makes sure, in the transaction of every write, that no write comes after the end of its job. `changes` counts the
    changes of the job's view. Raises ResourceNotFoundException, IllegalArgumentException.
    """

    def refuse(transaction: Transaction) -> bool:
        current = jobs.find(transaction, job.job_id)
        if current is None:
            raise ResourceNotFoundException(f"Backup job {job.job_id} does not exist.")
        raise _not_running_error(current)

    statement = jobs.touch_statement(job.job_id, bytes_transferred=bytes_transferred, now_ms=now_ms, changes=changes)
    return Step(statement, refuse)


def require_still_running(
    context: Context, transaction: Transaction, job: JobRow, *, bytes_transferred: int = 0, changes: int = 0
) -> None:
    """Run the step of `touch_running_job` within the transaction of a write."""
    now_ms = context.clock()
    run_steps(
        transaction, [touch_running_job(job, bytes_transferred=bytes_transferred, changes=changes, now_ms=now_ms)]
    )


def _not_running_error(job: JobRow) -> IllegalArgumentException:
    return IllegalArgumentException(f"BackupJobId: {job.job_id} is {job.state} and takes no more writes")
