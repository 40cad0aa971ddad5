"""Backup jobs."""

from __future__ import annotations

from typing import Any, NamedTuple

from cryostore.catalog.database import Statement, Transaction
from cryostore.catalog.rows.lineages import Segment


class JobRow(NamedTuple):
    """A backup job. `lineage_id` and `generation` are set when its base is chosen, `completed_ms` when it has ended.

    `options` and `lifecycle` are JSON. `revision` counts the changes of the job's view.
    """

    job_id: str
    vault_id: int
    point_id: str
    resource_arn: str
    resource_type: str
    resource_name: str | None
    role_arn: str
    state: str
    status_message: str | None
    message_category: str | None
    created_ms: int
    initiated_ms: int | None
    start_by_ms: int
    complete_by_ms: int
    completed_ms: int | None
    active_ms: int
    lifecycle: str | None
    options: str
    base_selection: str
    base_point_id: str | None
    lineage_id: int | None
    generation: int | None
    revision: int
    bytes_transferred: int
    size_bytes: int
    commit_digest: bytes | None

    @property
    def segment(self) -> Segment | None:
        """The segment that the job writes, once its base is chosen."""
        return None if self.lineage_id is None or self.generation is None else Segment(self.lineage_id, self.generation)


COLUMNS = ", ".join(JobRow._fields)
VALUES = ", ".join(f":{field}" for field in JobRow._fields)


def insert(transaction: Transaction, job: JobRow) -> None:
    """Insert a job."""
    transaction.run(f"INSERT INTO backup_job ({COLUMNS}) VALUES ({VALUES})", **job._asdict())


def find(transaction: Transaction, job_id: str) -> JobRow | None:
    """Return the job with this id."""
    row = transaction.row(f"SELECT {COLUMNS} FROM backup_job WHERE job_id = :job_id", job_id=job_id)
    return JobRow(*row) if row else None


def find_with_vault(transaction: Transaction, job_id: str) -> tuple[JobRow, str] | None:
    """Return the job with this id and the name of its vault, in one statement."""
    row = transaction.row(
        f"SELECT {COLUMNS}, (SELECT name FROM vault WHERE vault.vault_id = backup_job.vault_id)"
        " FROM backup_job WHERE job_id = :job_id",
        job_id=job_id,
    )
    return (JobRow(*row[:-1]), row[-1]) if row else None


def touch(transaction: Transaction, job_id: str, *, bytes_transferred: int, now_ms: int, changes: int = 0) -> bool:
    """Count a write to a running job. Return whether the job is running: a write must not follow the end of its job."""
    statement = touch_statement(job_id, bytes_transferred=bytes_transferred, now_ms=now_ms, changes=changes)
    return transaction.run(statement.text, **statement.values) == 1


def touch_statement(job_id: str, *, bytes_transferred: int, now_ms: int, changes: int = 0) -> Statement:
    """Return the statement of `touch`. It changes one row, or none if the job is not running."""
    return Statement(
        "UPDATE backup_job SET bytes_transferred = bytes_transferred + :bytes_transferred, active_ms = :now_ms,"
        " revision = revision + :changes WHERE job_id = :job_id AND state = 'RUNNING'",
        {"job_id": job_id, "bytes_transferred": bytes_transferred, "now_ms": now_ms, "changes": changes},
    )


def running(transaction: Transaction, vault_id: int, resource_arn: str) -> JobRow | None:
    """Return the running or aborting job of this resource in this vault. There is at most one."""
    row = transaction.row(
        f"SELECT {COLUMNS} FROM backup_job WHERE vault_id = :vault_id AND resource_arn = :resource_arn"
        " AND completed_ms IS NULL AND state IN ('RUNNING', 'ABORTING')",
        vault_id=vault_id,
        resource_arn=resource_arn,
    )
    return JobRow(*row) if row else None


def open_job_on_base(transaction: Transaction, point_id: str) -> str | None:
    """Return an open job that has this recovery point as its base."""
    row = transaction.row(
        "SELECT job_id FROM backup_job WHERE base_point_id = :point_id AND completed_ms IS NULL LIMIT 1",
        point_id=point_id,
    )
    return row[0] if row else None


def queue(transaction: Transaction, job_id: str) -> None:
    """Make a created job wait for the job that runs now."""
    transaction.run(
        "UPDATE backup_job SET state = 'PENDING' WHERE job_id = :job_id AND state = 'CREATED'", job_id=job_id
    )


def run(
    transaction: Transaction,
    job_id: str,
    segment: Segment,
    *,
    base_selection: str,
    base_point_id: str | None,
    now_ms: int,
) -> None:
    """Start a waiting job on its base."""
    transaction.run(
        "UPDATE backup_job SET state = 'RUNNING', lineage_id = :lineage_id, generation = :generation,"
        " base_selection = :base_selection, base_point_id = :base_point_id, initiated_ms = :now_ms,"
        " active_ms = :now_ms WHERE job_id = :job_id AND state IN ('CREATED', 'PENDING')",
        job_id=job_id,
        base_selection=base_selection,
        base_point_id=base_point_id,
        now_ms=now_ms,
        **segment._asdict(),
    )


def abort(transaction: Transaction, job_id: str, message: str) -> None:
    """Stop a running job from writing. It ends when its rows are removed."""
    transaction.run(
        "UPDATE backup_job SET state = 'ABORTING', status_message = :message"
        " WHERE job_id = :job_id AND state = 'RUNNING'",
        job_id=job_id,
        message=message,
    )


def end(transaction: Transaction, job_id: str, state: str, *, now_ms: int, **values: Any) -> None:
    """Move a job to a final state and set further columns by name. A final state never changes."""
    columns = "".join(f", {column} = :{column}" for column in values)
    transaction.run(
        f"UPDATE backup_job SET state = :state, completed_ms = :now_ms{columns}"
        " WHERE job_id = :job_id AND completed_ms IS NULL",
        job_id=job_id,
        state=state,
        now_ms=now_ms,
        **values,
    )


def aborting_in(transaction: Transaction, lineage_id: int) -> list[str]:
    """Return the jobs of a lineage that wait for the removal of their rows."""
    rows = transaction.rows(
        "SELECT job_id FROM backup_job WHERE lineage_id = :lineage_id AND completed_ms IS NULL AND state = 'ABORTING'",
        lineage_id=lineage_id,
    )
    return [row[0] for row in rows]


def overdue(transaction: Transaction, *, now_ms: int, idle_before_ms: int, limit: int) -> list[JobRow]:
    """Return jobs past their start window or completion window, or without a heartbeat since `idle_before_ms`.

    The start window of a job that was created in the future begins with its last heartbeat (`timestamps`).
    """
    rows = transaction.rows(
        f"SELECT {COLUMNS} FROM backup_job WHERE completed_ms IS NULL AND ("
        " (state IN ('CREATED', 'PENDING') AND (start_by_ms < :now_ms"
        " OR created_ms > :now_ms AND active_ms + start_by_ms - created_ms < :now_ms))"
        " OR (state = 'RUNNING' AND (complete_by_ms < :now_ms OR active_ms < :idle_before_ms))) LIMIT :limit",
        now_ms=now_ms,
        idle_before_ms=idle_before_ms,
        limit=limit,
    )
    return [JobRow(*row) for row in rows]


def not_ended(transaction: Transaction) -> list[JobRow]:
    """Return all open jobs."""
    return [JobRow(*row) for row in transaction.rows(f"SELECT {COLUMNS} FROM backup_job WHERE completed_ms IS NULL")]


def has_ended(transaction: Transaction, job_id: str) -> bool:
    """Whether the job has ended, or is gone with its vault."""
    row = transaction.row("SELECT 1 FROM backup_job WHERE job_id = :job_id AND completed_ms IS NULL", job_id=job_id)
    return row is None


def delete_ended(transaction: Transaction, before_ms: int, limit: int) -> int:
    """Delete at most `limit` jobs that began and ended before a time; return how many."""
    return transaction.run(
        "DELETE FROM backup_job WHERE job_id IN (SELECT job_id FROM backup_job"
        " WHERE created_ms < :before_ms AND completed_ms < :before_ms ORDER BY created_ms LIMIT :limit)",
        before_ms=before_ms,
        limit=limit,
    )


def count_open(transaction: Transaction) -> int:
    """Return the number of open jobs."""
    row = transaction.row("SELECT count(*) FROM backup_job WHERE completed_ms IS NULL")
    return int(row[0]) if row else 0


def page(
    transaction: Transaction, *, conditions: dict[str, tuple[str, Any]], before: tuple[int, str] | None, limit: int
) -> list[JobRow]:
    """Return jobs, newest first, after the one at `before`.

    `conditions`: SQL and value by parameter name, all must hold.
    """
    where, values = where_clause(conditions, before, "job_id")
    rows = transaction.rows(
        f"SELECT {COLUMNS} FROM backup_job{where} ORDER BY created_ms DESC, job_id DESC LIMIT :limit",
        **values,
        limit=limit,
    )
    return [JobRow(*row) for row in rows]


def where_clause(
    conditions: dict[str, tuple[str, Any]], before: tuple[int, str] | None, id_column: str
) -> tuple[str, dict[str, Any]]:
    """Return the WHERE clause and the values of a list that is read newest first, page by page."""
    clauses = [clause for clause, _ in conditions.values()]
    values = {name: value for name, (_, value) in conditions.items()}
    if before is not None:
        clauses.append(f"(created_ms < :before_ms OR (created_ms = :before_ms AND {id_column} < :before_id))")
        values |= {"before_ms": before[0], "before_id": before[1]}
    return (f" WHERE {' AND '.join(clauses)}" if clauses else "", values)


def set_commit_digest(transaction: Transaction, job_id: str, digest: bytes) -> None:
    """Store the digest of the request that ended a job."""
    transaction.run(
        "UPDATE backup_job SET commit_digest = :digest WHERE job_id = :job_id", job_id=job_id, digest=digest
    )
