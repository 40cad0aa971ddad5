"""Background work of a server: its periodic tasks, and the schedule of tasks, garbage collection and scrubbing.

The tasks of a store end overdue jobs and remove rows that nobody needs: of failed jobs, deleted points, deleted vaults
and old tokens. Each works in small batches and stops after a bounded number of them; the next round continues.
The bytes of chunks are not removed here but by garbage collection.

Of all processes of a store, one runs the store-wide tasks, under a claim; each task is safe even if two processes run
it at once. The per-process tasks run in every process.

Every process asks each schedule from time to time. A claim decides which process does the work (`claims`). Long work is
done in portions of a few seconds.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TypeAlias

from cryostore.catalog.database import Transaction
from cryostore.catalog.processes import claims
from cryostore.catalog.processes.claims import ClaimHeldError, ClaimLostError, ClaimRow
from cryostore.catalog.rows import chunks, idempotency, jobs, lineages, recovery_points, restore_jobs, uploads, vaults
from cryostore.core.digest import sha256
from cryostore.core.time import SECOND_MS
from cryostore.maintenance import nodes
from cryostore.maintenance.claims import BACKGROUND_TASKS, GARBAGE_COLLECTION, SCRUB, Progress, claimed, is_free
from cryostore.maintenance.clock_correction import correct_future_timestamps
from cryostore.maintenance.garbage_collection.collect import collect
from cryostore.maintenance.garbage_collection.run import CollectionResult
from cryostore.maintenance.verification import scrub
from cryostore.maintenance.verification.scrub import ScrubResult
from cryostore.service import Context, Service
from cryostore.service.lineages import (
    delete_point,
    delete_uploads,
    end_job,
    remove_unneeded_lineages,
    roll_back_job,
    run_in_batches,
)
from cryostore.service.recording import write_all_due_records

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
SECONDS_PER_ROUND = 5.0
JITTER_SHARE = 8
RETRY_SHARE = 12
PASSES_PER_PERIOD = 30
"""A scrub period has so many passes. Each verifies the packs that would be overdue before the next pass."""
_log = logging.getLogger(__name__)


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


class ScheduledTasks:
    """Runs the background tasks of the store, unless another process of the store runs them.

    Another process runs them if a round has finished since this process last looked. So one process runs all rounds, at
    its own pace; if it dies, or its rounds fail, the next process that looks takes over. The per-process tasks run in
    every process.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._seen_ms = self._finished_ms()

    def run_if_due(self) -> None:
        """Run the tasks that are due. Raises as `maintain` does."""
        others = self._finished_ms() != self._seen_ms
        try:
            maintain(self._service, others=others)
        finally:
            self._seen_ms = self._finished_ms()

    def _finished_ms(self) -> int:
        return _row(self._service.context, BACKGROUND_TASKS).finished_ms


class ScheduledGarbageCollection:
    """Collects garbage when `collection_period_ms` have passed since the last run of any process.

    One thread at a time may use it. A run pauses between two calls; if they are far apart, another process may take the
    work over.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._steps: Iterator[Progress] | None = None
        self._tried_ms: int | None = None
        self._retry_ms = context.settings.collection_period_ms // RETRY_SHARE
        share_ms = max(context.settings.collection_period_ms // JITTER_SHARE, 1)
        self._jitter_ms = int.from_bytes(sha256(context.new_id().encode())[:8]) % share_ms

    def run_if_due(self, *, seconds: float = SECONDS_PER_ROUND) -> None:
        """Start a run if one is due, or continue the current one, for about `seconds` at most.

        Errors are raised; the run is then not started again at once.
        """
        if self._steps is None:
            if not self._is_due():
                return
            self._steps = collect(self._context, CollectionResult())
        steps, self._steps = self._steps, None
        now_ms, end = self._context.clock(), time.monotonic() + seconds
        self._tried_ms = now_ms
        with contextlib.suppress(ClaimHeldError, ClaimLostError):  # another process does the work
            for _ in steps:
                if time.monotonic() >= end:
                    self._steps = steps
                    break

    def _is_due(self) -> bool:
        now_ms = self._context.clock()
        if self._tried_ms is not None and 0 <= now_ms - self._tried_ms < self._retry_ms:
            return False
        row = _row(self._context, GARBAGE_COLLECTION)
        since_ms = now_ms - row.finished_ms
        is_time = since_ms >= self._context.settings.collection_period_ms + self._jitter_ms
        return is_free(self._context, row) and (is_time or since_ms < 0)  # the clock was set back


class ScheduledScrub:
    """Verifies packs so that each is read about once in `scrub_period_ms`, and a new one soon after it was written.

    One thread at a time may use it. The processes of a store share one pass: each continues where another stopped.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._period_ms = context.settings.scrub_period_ms
        self._pass_ms = max(self._period_ms // PASSES_PER_PERIOD, 1)
        self._failed_ms: int | None = None

    def run_if_due(self, *, seconds: float = SECONDS_PER_ROUND) -> ScrubResult | None:
        """Continue the pass for about `seconds`, if one is due or in progress. Returns None if none is.

        Between two portions of any processes there is a pause of the same length, in which a manual scrub can claim the
        work. Damage is logged. Errors of the scrub itself are raised; this process then does not retry at once.
        """
        now_ms = self._context.clock()
        if not self._period_ms or not self._is_due(now_ms, rest_ms=round(seconds * SECOND_MS)):
            return None
        outcome = ScrubResult()
        before_ms = now_ms - self._period_ms + self._pass_ms
        try:
            scrub.continue_pass(self._context, outcome, before_ms=before_ms, seconds=seconds)
        except (ClaimHeldError, ClaimLostError):
            pass  # another process does the work
        except Exception:
            self._failed_ms = now_ms
            raise
        finally:
            _log_damage(outcome)
        return outcome

    def _is_due(self, now_ms: int, *, rest_ms: int) -> bool:
        if self._failed_ms is not None and 0 <= now_ms - self._failed_ms < self._pass_ms // RETRY_SHARE:
            return False
        row = _row(self._context, SCRUB)
        rests = 0 <= now_ms - row.until_ms < rest_ms
        is_under_way = bool(row.place) or not 0 <= now_ms - row.finished_ms < self._pass_ms
        return is_under_way and not rests and is_free(self._context, row)


def _row(context: Context, work: str) -> ClaimRow:
    return context.database.read(partial(claims.find, work=work))


def _log_damage(outcome: ScrubResult) -> None:
    """Log the damage that was found."""
    found = (outcome.damaged, outcome.packs_missing, outcome.no_key, outcome.unreadable)
    if any(found):
        _log.error(
            "scrub: %d chunks found damaged, %d packs missing, %d chunks without their key, %d chunks unreadable:"
            " `cryo scrub` names the affected recovery points",
            *found,
        )
