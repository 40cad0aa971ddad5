"""Queries for what damage affects: the object versions, recovery points, jobs and uploads that need a chunk.

The walk through them: `maintenance.verification.affected`.
"""

from __future__ import annotations

from typing import NamedTuple

from cryostore.catalog.database import Transaction


class ObjectVersion(NamedTuple):
    """The name of an object version, and the generations that see it; see `lineages`."""

    lineage_id: int
    name: bytes
    from_generation: int
    to_generation: int
    removed: int


class AffectedPoint(NamedTuple):
    """A recovery point that sees an object version."""

    point_id: str
    vault: str
    resource_arn: str
    resource_name: str | None
    created_ms: int


class AffectedJob(NamedTuple):
    """An open backup job that sees an object version, or writes an upload."""

    job_id: str
    vault: str
    resource_arn: str


class ChildLineage(NamedTuple):
    """A lineage that began on a generation of another one."""

    lineage_id: int
    parent_generation: int


def version(transaction: Transaction, object_id: int) -> ObjectVersion | None:
    """Return an object version by its id."""
    row = transaction.row(
        "SELECT lineage_id, name, from_generation, to_generation, removed FROM object WHERE object_id = :object_id",
        object_id=object_id,
    )
    return ObjectVersion(*row) if row else None


def versions(transaction: Transaction, lineage_id: int, name: bytes) -> list[tuple[int, int]]:
    """Return the generation ranges in which a lineage has rows of its own for a name, in order."""
    rows = transaction.rows(
        "SELECT from_generation, to_generation FROM object WHERE lineage_id = :lineage_id AND name = :name"
        " ORDER BY from_generation",
        lineage_id=lineage_id,
        name=name,
    )
    return [(row[0], row[1]) for row in rows]


def points(transaction: Transaction, lineage_id: int, begin: int, end: int) -> list[AffectedPoint]:
    """Return the recovery points at generations of a lineage from `begin` up to, not including, `end`."""
    rows = transaction.rows(
        "SELECT point_id, vault.name, resource_arn, resource_name, recovery_point.created_ms FROM recovery_point"
        " JOIN vault ON vault.vault_id = recovery_point.vault_id"
        " WHERE lineage_id = :lineage_id AND generation >= :begin AND generation < :end AND status <> 'DELETING'",
        lineage_id=lineage_id,
        begin=begin,
        end=end,
    )
    return [AffectedPoint(*row) for row in rows]


def jobs(transaction: Transaction, lineage_id: int, begin: int, end: int) -> list[AffectedJob]:
    """Return the open jobs that write at such generations."""
    rows = transaction.rows(
        "SELECT job_id, vault.name, resource_arn FROM backup_job JOIN vault ON vault.vault_id = backup_job.vault_id"
        " WHERE lineage_id = :lineage_id AND generation >= :begin AND generation < :end AND completed_ms IS NULL",
        lineage_id=lineage_id,
        begin=begin,
        end=end,
    )
    return [AffectedJob(*row) for row in rows]


def lineages_on(transaction: Transaction, lineage_id: int, begin: int, end: int) -> list[ChildLineage]:
    """Return the lineages that began on such generations."""
    rows = transaction.rows(
        "SELECT lineage_id, parent_generation FROM lineage WHERE parent_lineage_id = :lineage_id"
        " AND parent_generation >= :begin AND parent_generation < :end",
        lineage_id=lineage_id,
        begin=begin,
        end=end,
    )
    return [ChildLineage(*row) for row in rows]


def open_upload(transaction: Transaction, upload_number: int) -> tuple[AffectedJob, bytes] | None:
    """Return the job of an upload, and the name that it writes; None if the upload is gone or its job has ended."""
    row = transaction.row(
        "SELECT backup_job.job_id, vault.name, resource_arn, upload.name FROM upload"
        " JOIN backup_job ON backup_job.job_id = upload.job_id JOIN vault ON vault.vault_id = backup_job.vault_id"
        " WHERE upload_number = :upload_number AND completed_ms IS NULL",
        upload_number=upload_number,
    )
    return (AffectedJob(*row[:3]), row[3]) if row else None
