"""Stored moments that lie in the future: a clock was wrong when they were written, so nothing may wait for them.

`STAMPS` declares every stored moment that the store decides by, and what it means if it is later than now. `SHOWN`
declares the others. A test compares both with the schema, so that a new moment cannot be forgotten.
"""

from __future__ import annotations

from typing import NamedTuple

from cryostore.catalog.database import Transaction


class Stamp(NamedTuple):
    """A column whose rows `where` are corrected: to `never`, or to now if that is None."""

    table: str
    column: str
    where: str
    never: int | None = None


STAMPS = (
    Stamp("pack", "verified_ms", "retired_ms IS NULL", never=0),
    Stamp("pack", "retired_ms", "retired_ms IS NOT NULL"),
    Stamp("backup_job", "active_ms", "completed_ms IS NULL"),
    Stamp("restore_job", "active_ms", "completed_ms IS NULL"),
    Stamp("idempotency", "created_ms", "created_ms IS NOT NULL"),
)
ELSEWHERE = {
    "chunk.condemned_ms": "a collection looks at every chunk anyway: `maintenance.garbage_collection.sweep`",
    "claim.until_ms": "a lease that ends too far ahead counts as lapsed: `ClaimRow.is_free`",
    "claim.finished_ms": "a schedule does not wait for work that ended in the future: `maintenance.schedule`",
    "backup_job.start_by_ms": "a job that was created in the future starts its window anew: `jobs.overdue`",
    "backup_job.complete_by_ms": "a job that nobody works on ends for that reason, whatever its window",
    "recovery_point.completed_ms": "grows with each point of a resource, whatever the clock (`operations.commits`)",
}
"""The other moments that something is decided by, and what decides if they lie in the future."""
SHOWN = (
    "access_key.created_ms",
    "backup_job.completed_ms",
    "backup_job.created_ms",
    "backup_job.initiated_ms",
    "chunk.damaged_ms",
    "claim.begun_ms",
    "object.created_ms",
    "pack.created_ms",
    "recovery_point.created_ms",
    "recovery_point.initiated_ms",
    "recovery_point.last_restore_ms",
    "restore_job.completed_ms",
    "restore_job.created_ms",
    "restore_job.point_created_ms",
    "upload.created_ms",
    "vault.created_ms",
    "vault_key.created_ms",
)
"""Moments that are shown and listed by. Of some it matters only whether they are set."""


def correct_future(transaction: Transaction, *, now_ms: int) -> int:
    """Correct the stamps that are later than now; return how many there were. May be repeated."""
    corrected = 0
    for stamp in STAMPS:
        corrected += transaction.run(
            f"UPDATE {stamp.table} SET {stamp.column} = :value WHERE {stamp.where} AND {stamp.column} > :now_ms",
            value=now_ms if stamp.never is None else stamp.never,
            now_ms=now_ms,
        )
    return corrected
