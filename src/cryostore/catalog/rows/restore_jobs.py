"""Restore jobs. An open restore job keeps its recovery point from being deleted."""

from __future__ import annotations

from typing import Any, NamedTuple

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows.jobs import where_clause
from cryostore.catalog.rows.lineages import Segment


class RestoreJobRow(NamedTuple):
    """A restore job. `metadata` is a JSON object."""

    job_id: str
    point_id: str
    vault_id: int
    lineage_id: int
    generation: int
    resource_arn: str
    resource_type: str
    role_arn: str | None
    status: str
    status_message: str | None
    metadata: str
    created_ms: int
    completed_ms: int | None
    active_ms: int
    point_created_ms: int
    size_bytes: int
    created_resource_arn: str | None
    completion_digest: bytes | None

    @property
    def segment(self) -> Segment:
        """The segment at which the view of the restored recovery point begins."""
        return Segment(self.lineage_id, self.generation)


COLUMNS = ", ".join(RestoreJobRow._fields)
VALUES = ", ".join(f":{field}" for field in RestoreJobRow._fields)


def insert(transaction: Transaction, job: RestoreJobRow) -> None:
    """Add a job."""
    transaction.run(f"INSERT INTO restore_job ({COLUMNS}) VALUES ({VALUES})", **job._asdict())


def find(transaction: Transaction, job_id: str) -> RestoreJobRow | None:
    """Return the job with this id."""
    row = transaction.row(f"SELECT {COLUMNS} FROM restore_job WHERE job_id = :job_id", job_id=job_id)
    return RestoreJobRow(*row) if row else None


def open_job_of_point(transaction: Transaction, point_id: str) -> str | None:
    """Return an open job that restores this recovery point."""
    row = transaction.row(
        "SELECT job_id FROM restore_job WHERE point_id = :point_id AND completed_ms IS NULL LIMIT 1", point_id=point_id
    )
    return row[0] if row else None


def touch(transaction: Transaction, job_id: str, *, now_ms: int) -> None:
    """Note that a job was read from, which starts it."""
    transaction.run(
        "UPDATE restore_job SET status = 'RUNNING', active_ms = :now_ms"
        " WHERE job_id = :job_id AND completed_ms IS NULL",
        job_id=job_id,
        now_ms=now_ms,
    )


def end(transaction: Transaction, job_id: str, status: str, *, now_ms: int, **values: Any) -> None:
    """Move a job to a final status and set further columns by name. A final status never changes."""
    columns = "".join(f", {column} = :{column}" for column in values)
    transaction.run(
        f"UPDATE restore_job SET status = :status, completed_ms = :now_ms{columns}"
        " WHERE job_id = :job_id AND completed_ms IS NULL",
        job_id=job_id,
        status=status,
        now_ms=now_ms,
        **values,
    )


def idle(transaction: Transaction, *, idle_before_ms: int, limit: int) -> list[str]:
    """Return jobs without a heartbeat since `idle_before_ms`."""
    rows = transaction.rows(
        "SELECT job_id FROM restore_job WHERE completed_ms IS NULL AND active_ms < :idle_before_ms LIMIT :limit",
        idle_before_ms=idle_before_ms,
        limit=limit,
    )
    return [row[0] for row in rows]


def not_ended(transaction: Transaction) -> list[RestoreJobRow]:
    """Return all open jobs."""
    rows = transaction.rows(f"SELECT {COLUMNS} FROM restore_job WHERE completed_ms IS NULL")
    return [RestoreJobRow(*row) for row in rows]


def delete_ended(transaction: Transaction, before_ms: int, limit: int) -> int:
    """Delete at most `limit` jobs that began and ended before a time; return how many."""
    return transaction.run(
        "DELETE FROM restore_job WHERE job_id IN (SELECT job_id FROM restore_job"
        " WHERE created_ms < :before_ms AND completed_ms < :before_ms ORDER BY created_ms LIMIT :limit)",
        before_ms=before_ms,
        limit=limit,
    )


def count_open(transaction: Transaction) -> int:
    """Return the number of open jobs."""
    row = transaction.row("SELECT count(*) FROM restore_job WHERE completed_ms IS NULL")
    return int(row[0]) if row else 0


def page(
    transaction: Transaction, *, conditions: dict[str, tuple[str, Any]], before: tuple[int, str] | None, limit: int
) -> list[RestoreJobRow]:
    """Return jobs, newest first, after the one at `before`.

    `conditions`: SQL and value by parameter name, all must hold.
    """
    where, values = where_clause(conditions, before, "job_id")
    rows = transaction.rows(
        f"SELECT {COLUMNS} FROM restore_job{where} ORDER BY created_ms DESC, job_id DESC LIMIT :limit",
        **values,
        limit=limit,
    )
    return [RestoreJobRow(*row) for row in rows]
