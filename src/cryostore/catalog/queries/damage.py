"""Damaged chunks: their marks, and the object versions, recovery points, jobs and uploads that need them.

A mark belongs to a chunk at one location, and holds while the row points there: a chunk that was moved or stored again
meanwhile is sound. Writers are not offered a marked chunk, so the next upload of its bytes heals it. The walk through
what damage affects: `maintenance.verification.affected`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import chunks
from cryostore.catalog.rows.chunks import DIGESTS_PER_QUERY


class LocatedChunk(NamedTuple):
    """A chunk of a vault, and the location that its row has, or had when it was read."""

    vault_id: int
    digest: bytes
    pack_number: int
    pack_offset: int


class ChunkState(NamedTuple):
    """Whether a chunk is marked as damaged, and its length."""

    damaged: bool
    length: int


AT_LOCATION = "vault_id = :vault_id AND digest = :digest AND pack_number = :pack_number AND pack_offset = :pack_offset"


def mark(transaction: Transaction, chunk: LocatedChunk, *, now_ms: int) -> bool:
    """Mark a chunk that was found damaged, if its row still points there. Return whether it was unmarked before."""
    marked = transaction.run(
        f"UPDATE chunk SET damaged_ms = :now_ms WHERE {AT_LOCATION} AND damaged_ms IS NULL",
        now_ms=now_ms,
        **chunk._asdict(),
    )
    return marked == 1


def clear(transaction: Transaction, chunk: LocatedChunk) -> bool:
    """Remove the mark of a chunk that was found sound, if its row still points there. Return whether it had one."""
    cleared = transaction.run(
        f"UPDATE chunk SET damaged_ms = NULL WHERE {AT_LOCATION} AND damaged_ms IS NOT NULL", **chunk._asdict()
    )
    return cleared == 1


def stands(transaction: Transaction, chunk: LocatedChunk) -> bool:
    """Whether the chunk's row still points there, and its vault exists."""
    row = transaction.row(
        f"SELECT 1 FROM chunk WHERE {AT_LOCATION}"
        " AND EXISTS (SELECT 1 FROM vault WHERE vault.vault_id = chunk.vault_id)",
        **chunk._asdict(),
    )
    return row is not None


def count(transaction: Transaction) -> int:
    """Return the number of damaged chunks."""
    row = transaction.row("SELECT count(*) FROM chunk WHERE damaged_ms IS NOT NULL")
    return int(row[0]) if row else 0


def page(transaction: Transaction, *, after: tuple[int, bytes], limit: int) -> list[tuple[int, bytes]]:
    """Return damaged chunks by vault and digest, after `after`."""
    rows = transaction.rows(
        "SELECT vault_id, digest FROM chunk WHERE damaged_ms IS NOT NULL AND (vault_id, digest) > (:vault_id, :digest)"
        " ORDER BY vault_id, digest LIMIT :limit",
        vault_id=after[0],
        digest=after[1],
        limit=limit,
    )
    return [(row[0], row[1]) for row in rows]


def states(transaction: Transaction, vault_id: int, digests: Sequence[bytes]) -> dict[bytes, ChunkState]:
    """Return the state of each of the digests that the vault has a row for."""
    found: dict[bytes, ChunkState] = {}
    for start in range(0, len(digests), DIGESTS_PER_QUERY):
        some = digests[start : start + DIGESTS_PER_QUERY]
        names = ", ".join(f":d{index}" for index in range(len(some)))
        rows = transaction.rows(
            "SELECT digest, damaged_ms IS NOT NULL, length FROM chunk"
            f" WHERE vault_id = :vault_id AND digest IN ({names})",
            vault_id=vault_id,
            **{f"d{index}": digest for index, digest in enumerate(some)},
        )
        found.update((row[0], ChunkState(bool(row[1]), row[2])) for row in rows)
    return found


def mark_if_there(transaction: Transaction, vault_id: int, digest: bytes, chunk: chunks.ChunkRow, now_ms: int) -> bool:
    """As `mark`, for a reader, which knows the pack by its name."""
    row = transaction.row("SELECT pack_number FROM pack WHERE name = :name", name=chunk.pack_name)
    return row is not None and mark(
        transaction, LocatedChunk(vault_id, digest, row[0], chunk.pack_offset), now_ms=now_ms
    )


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


def object_version(transaction: Transaction, object_id: int) -> ObjectVersion | None:
    """Return an object version by its id."""
    row = transaction.row(
        "SELECT lineage_id, name, from_generation, to_generation, removed FROM object WHERE object_id = :object_id",
        object_id=object_id,
    )
    return ObjectVersion(*row) if row else None


def version_ranges(transaction: Transaction, lineage_id: int, name: bytes) -> list[tuple[int, int]]:
    """Return the generation ranges in which a lineage has rows of its own for a name, in order."""
    rows = transaction.rows(
        "SELECT from_generation, to_generation FROM object WHERE lineage_id = :lineage_id AND name = :name"
        " ORDER BY from_generation",
        lineage_id=lineage_id,
        name=name,
    )
    return [(row[0], row[1]) for row in rows]


def affected_points(transaction: Transaction, lineage_id: int, begin: int, end: int) -> list[AffectedPoint]:
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


def affected_jobs(transaction: Transaction, lineage_id: int, begin: int, end: int) -> list[AffectedJob]:
    """Return the open jobs that write at such generations."""
    rows = transaction.rows(
        "SELECT job_id, vault.name, resource_arn FROM backup_job JOIN vault ON vault.vault_id = backup_job.vault_id"
        " WHERE lineage_id = :lineage_id AND generation >= :begin AND generation < :end AND completed_ms IS NULL",
        lineage_id=lineage_id,
        begin=begin,
        end=end,
    )
    return [AffectedJob(*row) for row in rows]


def child_lineages(transaction: Transaction, lineage_id: int, begin: int, end: int) -> list[ChildLineage]:
    """Return the lineages that began on such generations."""
    rows = transaction.rows(
        "SELECT lineage_id, parent_generation FROM lineage WHERE parent_lineage_id = :lineage_id"
        " AND parent_generation >= :begin AND parent_generation < :end",
        lineage_id=lineage_id,
        begin=begin,
        end=end,
    )
    return [ChildLineage(*row) for row in rows]


def affected_upload(transaction: Transaction, upload_number: int) -> tuple[AffectedJob, bytes] | None:
    """Return the job of an upload, and the name that it writes; None if the upload is gone or its job has ended."""
    row = transaction.row(
        "SELECT backup_job.job_id, vault.name, resource_arn, upload.name FROM upload"
        " JOIN backup_job ON backup_job.job_id = upload.job_id JOIN vault ON vault.vault_id = backup_job.vault_id"
        " WHERE upload_number = :upload_number AND completed_ms IS NULL",
        upload_number=upload_number,
    )
    return (AffectedJob(*row[:3]), row[3]) if row else None
