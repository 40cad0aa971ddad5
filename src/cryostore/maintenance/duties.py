"""The periodic round of duties that a server makes. One file per noun does the work."""

from __future__ import annotations

from cryostore.maintenance import (
    idempotency,
    jobs,
    keys,
    lineages,
    records,
    recovery_points,
    reserve,
    restore_jobs,
    uploads,
    vaults,
)
from cryostore.service import Service

DUTIES = (
    records.write_due,
    jobs.end_overdue,
    lineages.clean_dirty,
    uploads.delete_of_ended_jobs,
    restore_jobs.end_idle,
    recovery_points.forget_deleted,
    lineages.settle_retired,
    vaults.delete_chunks_of_deleted,
    keys.drop_destroyed,
    idempotency.forget_lapsed,
    reserve.keep,
)


def maintain(service: Service) -> None:
    """Make one round. May be cut off at any point: the next round goes on.

    A duty that fails does not keep the others from being done; what went wrong is raised at the end, as a group.
    """
    errors: list[Exception] = []
    for duty in DUTIES:
        try:
            with service.context.reserve.spending():
                duty(service.context)
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)
    if errors:
        raise ExceptionGroup("duties failed", errors)
