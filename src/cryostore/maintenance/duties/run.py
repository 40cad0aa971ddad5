"""The periodic round of duties that a server makes. One file per noun does the work.

Of all processes on a store one makes the round, under a claim; each duty is safe all the same if two do it at once.
What a process owes itself, it does in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from cryostore.catalog.processes.claims import ClaimHeldError, ClaimLostError
from cryostore.maintenance import nodes, stamps
from cryostore.maintenance.claims import ROUND, claimed
from cryostore.maintenance.duties import (
    idempotency,
    jobs,
    keys,
    lineages,
    recovery_points,
    reserve,
    restore_jobs,
    uploads,
    vaults,
)
from cryostore.maintenance.gc import records
from cryostore.service import Context, Service

Duty: TypeAlias = Callable[[Context], None]
DUTIES: tuple[Duty, ...] = (
    stamps.correct_future,
    records.write_due,
    jobs.end_overdue,
    lineages.clean_dirty,
    uploads.delete_of_ended_jobs,
    restore_jobs.end_idle,
    recovery_points.forget_deleted,
    lineages.settle_retired,
    vaults.delete_chunks_of_deleted,
    idempotency.forget_lapsed,
    nodes.forget_dead,
    jobs.forget_ended,
)
"""What is done once in a store."""
OF_EACH_PROCESS: tuple[Duty, ...] = (keys.drop_destroyed, reserve.keep)


def maintain(service: Service, *, others: bool = False) -> None:
    """Make one round. May be cut off at any point: the next round goes on.

    Only what the process owes itself is done if `others` make the round, or one is making it at this moment. A duty
    that fails does not keep the others from being done; what went wrong is raised at the end, as a group.
    """
    errors: list[Exception] = []
    if not others:
        try:
            with claimed(service.context, ROUND) as claim:
                _do(DUTIES, claim.context, errors)
                claim.finishes = not errors
        except (ClaimHeldError, ClaimLostError):
            pass  # another process makes the round
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)
    _do(OF_EACH_PROCESS, service.context, errors)
    if errors:
        raise ExceptionGroup("duties failed", errors)


def _do(duties: Iterable[Duty], context: Context, errors: list[Exception]) -> None:
    """Do one after the other, and note what fails. Raises ClaimLostError: then nothing more may be done."""
    for duty in duties:
        try:
            with context.reserve.spending():
                duty(context)
        except ClaimLostError:
            raise
        except Exception as error:  # noqa: BLE001 - raised in the end
            errors.append(error)
