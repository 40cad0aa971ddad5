"""One round of the periodic background tasks of a server.

Of all processes of a store, one runs the store-wide tasks, under a claim; each task is safe even if two processes run
it at once. The per-process tasks run in every process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from cryostore.catalog.processes.claims import ClaimHeldError, ClaimLostError
from cryostore.maintenance import nodes
from cryostore.maintenance.background_tasks import deleted_data, jobs
from cryostore.maintenance.claims import BACKGROUND_TASKS, claimed
from cryostore.maintenance.clock_correction import correct_future_timestamps
from cryostore.service import Context, Service
from cryostore.service.records.recording import write_all_due_records

Task: TypeAlias = Callable[[Context], None]


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
    jobs.end_overdue_backup_jobs,
    deleted_data.roll_back_failed_jobs,
    jobs.delete_uploads_of_ended_jobs,
    jobs.end_idle_restore_jobs,
    deleted_data.finish_point_deletions,
    deleted_data.delete_unused_lineages,
    deleted_data.delete_chunks_of_deleted_vaults,
    deleted_data.forget_expired_tokens,
    nodes.forget_dead,
    jobs.forget_ended_jobs,
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
