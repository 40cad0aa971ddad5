"""What damage hurts, said for people: the same words for every verb that finds some."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cryostore.core.time import SECOND_MS, iso_text

if TYPE_CHECKING:
    from cryostore.maintenance.damage import Damage


def lines(damage: Damage) -> Iterator[str]:
    """The recovery points and running jobs that are hurt, each with the objects."""
    for point in damage.points:
        yield f"hurt: {point.recovery_point_arn}"
        resource = shown(point.resource_name or point.resource_arn)
        yield f"  of {resource} in vault {point.vault}, created {iso_text(point.created_ms / SECOND_MS)}"
        yield from _objects(point.objects, point.names)
    for job in damage.jobs:
        yield f"hurt: backup job {job.backup_job_id}, in progress"
        yield f"  of {shown(job.resource_arn)} in vault {job.vault}"
        yield from _objects(job.objects, job.names)


def _objects(count: int, names: list[str]) -> Iterator[str]:
    yield f"  {count} objects:" if count != 1 else "  1 object:"
    yield from (f"    {shown(name)}" for name in names)
    if count > len(names):
        yield f"    and {count - len(names)} more"


def shown(name: str) -> str:
    """A name on one line of a terminal, whatever it holds."""
    return name if name.isprintable() else ascii(name)
