"""Recovery points."""

from __future__ import annotations

from typing import Any, NamedTuple

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows.jobs import where_clause
from cryostore.catalog.rows.lineages import Segment


class PointRow(NamedTuple):
    """A recovery point. `lineage_id` and `generation` are set when it is complete. JSON: lifecycle, metadata, tags."""

    point_id: str
    vault_id: int
    job_id: str
    lineage_id: int | None
    generation: int | None
    resource_arn: str
    resource_type: str
    resource_name: str | None
    role_arn: str
    status: str
    status_message: str | None
    created_ms: int
    initiated_ms: int | None
    completed_ms: int | None
    last_restore_ms: int | None
    size_bytes: int
    object_count: int
    lifecycle: str | None
    restore_metadata: str
    tags: str

    @property
    def segment(self) -> Segment | None:
        """The segment at which the recovery point's view begins, once it is complete."""
        return None if self.lineage_id is None or self.generation is None else Segment(self.lineage_id, self.generation)


COLUMNS = ", ".join(PointRow._fields)
VALUES = ", ".join(f":{field}" for field in PointRow._fields)


def insert(transaction: Transaction, point: PointRow) -> None:
    """Insert a recovery point that is being created."""
    transaction.run(f"INSERT INTO recovery_point ({COLUMNS}) VALUES ({VALUES})", **point._asdict())


def find(transaction: Transaction, point_id: str) -> PointRow | None:
    """Return the recovery point with this id."""
    row = transaction.row(f"SELECT {COLUMNS} FROM recovery_point WHERE point_id = :point_id", point_id=point_id)
    return PointRow(*row) if row else None


def at(transaction: Transaction, segment: Segment) -> PointRow | None:
    """Return the recovery point that was committed at a segment."""
    row = transaction.row(
        f"SELECT {COLUMNS} FROM recovery_point WHERE lineage_id = :lineage_id AND generation = :generation",
        **segment._asdict(),
    )
    return PointRow(*row) if row else None


def latest(transaction: Transaction, vault_id: int, resource_arn: str) -> PointRow | None:
    """Return the newest complete recovery point of a resource in a vault."""
    row = transaction.row(
        f"SELECT {COLUMNS} FROM recovery_point WHERE resource_arn = :resource_arn AND vault_id = :vault_id"
        " AND status = 'COMPLETED' ORDER BY completed_ms DESC, generation DESC, point_id DESC LIMIT 1",
        vault_id=vault_id,
        resource_arn=resource_arn,
    )
    return PointRow(*row) if row else None


def complete(transaction: Transaction, point_id: str, segment: Segment, **values: Any) -> PointRow:
    """Complete a recovery point at a segment and set further columns by name; return its row."""
    columns = "".join(f", {column} = :{column}" for column in values)
    row = transaction.row(
        "UPDATE recovery_point SET status = 'COMPLETED', lineage_id = :lineage_id, generation = :generation"
        f"{columns} WHERE point_id = :point_id RETURNING {COLUMNS}",
        point_id=point_id,
        **segment._asdict(),
        **values,
    )
    assert row is not None
    return PointRow(*row)


def mark_deleting(transaction: Transaction, point_id: str) -> None:
    """Hide a recovery point from restores and from jobs that look for a base.

    Objects that only it sees are removed next.
    """
    transaction.run("UPDATE recovery_point SET status = 'DELETING' WHERE point_id = :point_id", point_id=point_id)


def mark_partial(transaction: Transaction, point_id: str, message: str) -> None:
    """Note that a complete recovery point is damaged: it can be restored, but is no base any more."""
    transaction.run(
        "UPDATE recovery_point SET status = 'PARTIAL', status_message = :message WHERE point_id = :point_id",
        point_id=point_id,
        message=message,
    )


def segments(transaction: Transaction, *, after: str, limit: int) -> list[PointRow]:
    """Return complete recovery points by id, after `after`."""
    rows = transaction.rows(
        f"SELECT {COLUMNS} FROM recovery_point WHERE lineage_id IS NOT NULL AND point_id > :after"
        " ORDER BY point_id LIMIT :limit",
        after=after,
        limit=limit,
    )
    return [PointRow(*row) for row in rows]


def deleting(transaction: Transaction, limit: int) -> list[PointRow]:
    """Return recovery points that are being deleted."""
    rows = transaction.rows(
        f"SELECT {COLUMNS} FROM recovery_point WHERE status = 'DELETING' ORDER BY point_id LIMIT :limit", limit=limit
    )
    return [PointRow(*row) for row in rows]


def delete(transaction: Transaction, point_id: str) -> None:
    """Delete the row of a recovery point."""
    transaction.run("DELETE FROM recovery_point WHERE point_id = :point_id", point_id=point_id)


def count_in_vault(transaction: Transaction, vault_id: int) -> int:
    """Return how many recovery points a list of the vault shows, including those being created or deleted."""
    row = transaction.row("SELECT count(*) FROM recovery_point WHERE vault_id = :vault_id", vault_id=vault_id)
    return int(row[0]) if row else 0


def count(transaction: Transaction) -> int:
    """Return the number of complete recovery points."""
    row = transaction.row("SELECT count(*) FROM recovery_point WHERE status = 'COMPLETED'")
    return int(row[0]) if row else 0


def set_restored(transaction: Transaction, point_id: str, *, now_ms: int) -> None:
    """Note that the recovery point was restored."""
    transaction.run(
        "UPDATE recovery_point SET last_restore_ms = :now_ms WHERE point_id = :point_id",
        point_id=point_id,
        now_ms=now_ms,
    )


def page(
    transaction: Transaction, *, conditions: dict[str, tuple[str, Any]], before: tuple[int, str] | None, limit: int
) -> list[PointRow]:
    """Return recovery points, newest first, after the one at `before`.

    `conditions`: SQL and value by parameter name.
    """
    where, values = where_clause(conditions, before, "point_id")
    rows = transaction.rows(
        f"SELECT {COLUMNS} FROM recovery_point{where} ORDER BY created_ms DESC, point_id DESC LIMIT :limit",
        **values,
        limit=limit,
    )
    return [PointRow(*row) for row in rows]
