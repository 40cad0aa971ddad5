"""Periodic background tasks of a server.

The tasks of a store end overdue jobs and remove rows that nobody needs: of failed jobs, deleted points, deleted vaults
and old tokens. Each works in small batches and stops after a bounded number of them; the next round continues.
The bytes of chunks are not removed here but by garbage collection.

Of all processes of a store, one runs the store-wide tasks, under a claim; each task is safe even if two processes run
it at once. The per-process tasks run in every process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import TypeAlias

from cryostore.catalog.database import Transaction
from cryostore.catalog.processes.claims import ClaimHeldError, ClaimLostError
from cryostore.catalog.rows import chunks, idempotency, jobs, lineages, recovery_points, restore_jobs, uploads, vaults
from cryostore.maintenance import nodes
from cryostore.maintenance.claims import BACKGROUND_TASKS, claimed
from cryostore.maintenance.clock_correction import correct_future_timestamps
from cryostore.service import Context, Service
from cryostore.service.lineages.ended_jobs import delete_uploads, end_job, roll_back_job
from cryostore.service.lineages.pruning import delete_point, remove_unneeded_lineages, run_in_batches
from cryostore.service.records.recording import write_all_due_records

Task: TypeAlias = Callable[[Context], None]
BATCHES_MAX = 200
"""The transactions that a task spends on one lineage, recovery point or vault in a round."""
LINEAGES_PER_ROUND = 100
POINTS_PER_ROUND = 20
CHUNKS_PER_BATCH = 5000
TOKENS_PER_ROUND = 1000
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


def roll_back_failed_jobs(context: Context) -> None:
    """Delete the rows that backup jobs wrote to their lineages before they ended without a commit."""
    for segment in context.database.read(lambda transaction: lineages.dirty(transaction, LINEAGES_PER_ROUND)):
        roll_back_job(context, segment, batches_max=BATCHES_MAX)


def finish_point_deletions(context: Context) -> None:
    """Finish the deletions of recovery points that were begun: remove the rows that only these points could see."""
    for point in context.database.read(lambda transaction: recovery_points.deleting(transaction, POINTS_PER_ROUND)):
        delete_point(context, point, batches_max=BATCHES_MAX)


def delete_unused_lineages(context: Context) -> None:
    """Delete lineages that no recovery point, job or child lineage uses."""
    remove_unneeded_lineages(context, batches_max=BATCHES_MAX)


def delete_chunks_of_deleted_vaults(context: Context) -> None:
    """Delete the chunk rows of deleted vaults. Vault ids are never reused."""

    def gone(transaction: Transaction) -> int | None:
        ids = chunks.vault_ids(transaction)
        return next((vault_id for vault_id in ids if not vaults.exists(transaction, vault_id)), None)

    def work(transaction: Transaction) -> bool:
        if (vault_id := gone(transaction)) is not None:
            chunks.delete_of_vault(transaction, vault_id, CHUNKS_PER_BATCH)
        return vault_id is None

    if context.database.read(gone) is not None:
        run_in_batches(context, work, BATCHES_MAX)


def forget_expired_tokens(context: Context) -> None:
    """Delete idempotency tokens that are older than the time for which they are honoured."""
    before_ms = context.clock() - context.settings.idempotency_ms
    context.database.write(lambda transaction: idempotency.delete_before(transaction, before_ms, TOKENS_PER_ROUND))


def drop_destroyed_keys(context: Context) -> None:
    """Remove from memory the data keys of vaults that another process has deleted."""
    context.keys.drop_destroyed()


def restore_reserve(context: Context) -> None:
    """Take the disk reserve back if it was given up and there is room again, so that ordinary writes are accepted.

    Closes the files that other processes have deleted first; until then their space is not freed. Raises
    StorageUnavailableError.
    """
    context.store.forget_deleted()
    context.reserve.take_back()


STORE_TASKS: tuple[Task, ...] = (
    correct_future_timestamps,
    write_all_due_records,
    end_overdue_backup_jobs,
    roll_back_failed_jobs,
    delete_uploads_of_ended_jobs,
    end_idle_restore_jobs,
    finish_point_deletions,
    delete_unused_lineages,
    delete_chunks_of_deleted_vaults,
    forget_expired_tokens,
    nodes.forget_dead,
    forget_ended_jobs,
)
"""One process does these for the whole store."""
PROCESS_TASKS: tuple[Task, ...] = (drop_destroyed_keys, restore_reserve)
"""Every process does these for itself."""


def maintain(service: Service, *, others: bool = False) -> None:
    """Run one round of tasks. May be killed at any point: the next round continues.

    Runs only the per-process tasks if `others` is set, which says that other processes run the store-wide ones, or if
    another process holds their claim. If a task fails, the others still run; all failures are raised at the end as an
    ExceptionGroup.
    """
    errors: list[Exception] = []
    if not others:
        try:
            with claimed(service.context, BACKGROUND_TASKS) as claim:
                _run_tasks(STORE_TASKS, claim.context, errors)
                claim.finishes = not errors
        except (ClaimHeldError, ClaimLostError):
            pass  # another process runs the round
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)
    _run_tasks(PROCESS_TASKS, service.context, errors)
    if errors:
        raise ExceptionGroup("background tasks failed", errors)


def _run_tasks(tasks: Iterable[Task], context: Context, errors: list[Exception]) -> None:
    """Run tasks one after the other and collect their errors. Raises ClaimLostError: then no other task may run."""
    for task in tasks:
        try:
            with context.reserve.spending():
                task(context)
        except ClaimLostError:
            raise
        except Exception as error:  # noqa: BLE001 - raised at the end of the round
            errors.append(error)
