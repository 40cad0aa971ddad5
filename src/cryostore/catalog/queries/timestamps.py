"""Timestamps in the future: a clock was wrong when they were written, so nothing may wait for them.

`STAMPS` declares every timestamp that decides something, and what one later than now is corrected to. `SHOWN` declares
the others. A test compares both with the schema, so that a new timestamp cannot be forgotten.
"""

from __future__ import annotations

from typing import NamedTuple

from cryostore.catalog.database import Transaction


class Stamp(NamedTuple):
    """A column that is corrected in rows that meet `where`: to `never`, or to the current time if that is None."""

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
    "chunk.condemned_ms": "a collection reads every chunk anyway: `maintenance.garbage_collection.collect.sweep`",
    "claim.until_ms": "a lease that ends too far ahead counts as lapsed: `ClaimRow.is_free`",
    "claim.finished_ms": "a schedule does not wait for work that ended in the future: `maintenance.schedule`",
    "backup_job.start_by_ms": "a job that was created in the future starts its window again: `jobs.overdue`",
    "backup_job.complete_by_ms": "a job without a heartbeat ends anyway, whatever its window",
    "recovery_point.completed_ms": "grows with each point of a resource, whatever the clock (`jobs.commit`)",
}
"""The other timestamps that decide something, and what handles those in the future."""
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
"""Timestamps for display and sorting. For some it matters only whether they are set."""


def correct_future(transaction: Transaction, *, now_ms: int) -> int:
    """Correct the timestamps that are later than now; return how many there were. May be repeated."""
    corrected = 0
    for stamp in STAMPS:
        corrected += transaction.run(
            f"UPDATE {stamp.table} SET {stamp.column} = :value WHERE {stamp.where} AND {stamp.column} > :now_ms",
            value=now_ms if stamp.never is None else stamp.never,
            now_ms=now_ms,
        )
    return corrected
