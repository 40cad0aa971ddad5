"""The periodic round of duties that a server makes. One file per noun does the work."""

from __future__ import annotations

from cryostore.maintenance import idempotency, jobs, recovery_points, restore_jobs
from cryostore.service import Service

DUTIES = (
    jobs.end_overdue,
    jobs.clean_lineages,
    jobs.delete_uploads,
    restore_jobs.end_idle,
    recovery_points.forget_deleted,
    idempotency.forget_lapsed,
)


def maintain(service: Service) -> None:
    """Make one round. Quick, and may be cut off at any point: the next round goes on."""
    for duty in DUTIES:
        duty(service.context)
