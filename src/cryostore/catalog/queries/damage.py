"""Damage in the catalog: which chunks are known to be damaged, and who sees the objects that need them.

A chunk is marked at the place where it was found bad, and only while its row points there: what was moved or stored
anew meanwhile is sound. A marked one is not offered to writers, so that the next upload of its bytes heals it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import chunks
from cryostore.catalog.rows.chunks import DIGESTS_PER_QUERY


class Place(NamedTuple):
    """Where the row of a vault's chunk points, or pointed when somebody looked."""

    vault_id: int
    digest: bytes
    pack_number: int
    pack_offset: int


class State(NamedTuple):
    """What the row of a chunk says of its bytes."""

    damaged: bool
    length: int


class Version(NamedTuple):
    """Which name an object version stands under, and who sees it: see `lineages`."""

    lineage_id: int
    name: bytes
    from_generation: int
    to_generation: int
    removed: int


class SeeingPoint(NamedTuple):
    """A recovery point that sees an object version."""

    point_id: str
    vault: str
    resource_arn: str
    resource_name: str | None
    created_ms: int


class SeeingJob(NamedTuple):
    """A backup job that has not ended and sees an object version, or writes an upload."""

    job_id: str
    vault: str
    resource_arn: str


class LineageBegun(NamedTuple):
    """A lineage that was begun on a generation of another."""

    lineage_id: int
    parent_generation: int


AT_PLACE = "vault_id = :vault_id AND digest = :digest AND pack_number = :pack_number AND pack_offset = :pack_offset"


def mark(transaction: Transaction, place: Place, *, now_ms: int) -> bool:
    """Mark a chunk that was found damaged, if its row still points there; answers whether it was not marked before."""
    marked = transaction.run(
        f"UPDATE chunk SET damaged_ms = :now_ms WHERE {AT_PLACE} AND damaged_ms IS NULL",
        now_ms=now_ms,
        **place._asdict(),
    )
    return marked == 1


def clear(transaction: Transaction, place: Place) -> bool:
    """Take the mark off a chunk that was found sound, if its row still points there; answers whether it had one."""
    cleared = transaction.run(
        f"UPDATE chunk SET damaged_ms = NULL WHERE {AT_PLACE} AND damaged_ms IS NOT NULL", **place._asdict()
    )
    return cleared == 1


def stands(transaction: Transaction, place: Place) -> bool:
    """Whether the chunk's row still points there, and its vault exists."""
    row = transaction.row(
        f"SELECT 1 FROM chunk WHERE {AT_PLACE} AND EXISTS (SELECT 1 FROM vault WHERE vault.vault_id = chunk.vault_id)",
        **place._asdict(),
    )
    return row is not None


def count(transaction: Transaction) -> int:
    """How many chunks are marked as damaged."""
    row = transaction.row("SELECT count(*) FROM chunk WHERE damaged_ms IS NOT NULL")
    return int(row[0]) if row else 0


def page(transaction: Transaction, *, after: tuple[int, bytes], limit: int) -> list[tuple[int, bytes]]:
    """Damaged chunks by vault and digest, after `after`."""
    rows = transaction.rows(
        "SELECT vault_id, digest FROM chunk WHERE damaged_ms IS NOT NULL AND (vault_id, digest) > (:vault_id, :digest)"
        " ORDER BY vault_id, digest LIMIT :limit",
        vault_id=after[0],
        digest=after[1],
        limit=limit,
    )
    return [(row[0], row[1]) for row in rows]


def states(transaction: Transaction, vault_id: int, digests: Sequence[bytes]) -> dict[bytes, State]:
    """Of `digests` those the vault has a row for, and what it says."""
    found: dict[bytes, State] = {}
    for start in range(0, len(digests), DIGESTS_PER_QUERY):
        some = digests[start : start + DIGESTS_PER_QUERY]
        names = ", ".join(f":d{place}" for place in range(len(some)))
        rows = transaction.rows(
            "SELECT digest, damaged_ms IS NOT NULL, length FROM chunk"
            f" WHERE vault_id = :vault_id AND digest IN ({names})",
            vault_id=vault_id,
            **{f"d{place}": digest for place, digest in enumerate(some)},
        )
        found.update((row[0], State(bool(row[1]), row[2])) for row in rows)
    return found


def mark_if_there(transaction: Transaction, vault_id: int, digest: bytes, chunk: chunks.ChunkRow, now_ms: int) -> bool:
    """As `mark`, for a reader, who knows the pack by its name."""
    row = transaction.row("SELECT pack_number FROM pack WHERE name = :name", name=chunk.pack_name)
    return row is not None and mark(transaction, Place(vault_id, digest, row[0], chunk.pack_offset), now_ms=now_ms)


def version(transaction: Transaction, object_id: int) -> Version | None:
    """Where an object version stands."""
    row = transaction.row(
        "SELECT lineage_id, name, from_generation, to_generation, removed FROM object WHERE object_id = :object_id",
        object_id=object_id,
    )
    return Version(*row) if row else None


def versions(transaction: Transaction, lineage_id: int, name: bytes) -> list[tuple[int, int]]:
    """From and up to which generations a lineage has rows of its own for a name, in order."""
    rows = transaction.rows(
        "SELECT from_generation, to_generation FROM object WHERE lineage_id = :lineage_id AND name = :name"
        " ORDER BY from_generation",
        lineage_id=lineage_id,
        name=name,
    )
    return [(row[0], row[1]) for row in rows]


def points(transaction: Transaction, lineage_id: int, begin: int, end: int) -> list[SeeingPoint]:
    """The recovery points at generations of a lineage from `begin` up to, not including, `end`."""
    rows = transaction.rows(
        "SELECT point_id, vault.name, resource_arn, resource_name, recovery_point.created_ms FROM recovery_point"
        " JOIN vault ON vault.vault_id = recovery_point.vault_id"
        " WHERE lineage_id = :lineage_id AND generation >= :begin AND generation < :end AND status <> 'DELETING'",
        lineage_id=lineage_id,
        begin=begin,
        end=end,
    )
    return [SeeingPoint(*row) for row in rows]


def jobs(transaction: Transaction, lineage_id: int, begin: int, end: int) -> list[SeeingJob]:
    """The jobs that have not ended and write at such generations."""
    rows = transaction.rows(
        "SELECT job_id, vault.name, resource_arn FROM backup_job JOIN vault ON vault.vault_id = backup_job.vault_id"
        " WHERE lineage_id = :lineage_id AND generation >= :begin AND generation < :end AND completed_ms IS NULL",
        lineage_id=lineage_id,
        begin=begin,
        end=end,
    )
    return [SeeingJob(*row) for row in rows]


def begun_on(transaction: Transaction, lineage_id: int, begin: int, end: int) -> list[LineageBegun]:
    """The lineages that were begun on such generations."""
    rows = transaction.rows(
        "SELECT lineage_id, parent_generation FROM lineage WHERE parent_lineage_id = :lineage_id"
        " AND parent_generation >= :begin AND parent_generation < :end",
        lineage_id=lineage_id,
        begin=begin,
        end=end,
    )
    return [LineageBegun(*row) for row in rows]


def uploading(transaction: Transaction, upload_number: int) -> tuple[SeeingJob, bytes] | None:
    """Whose upload it is, and of which name; None if it is gone, or its job has ended."""
    row = transaction.row(
        "SELECT backup_job.job_id, vault.name, resource_arn, upload.name FROM upload"
        " JOIN backup_job ON backup_job.job_id = upload.job_id JOIN vault ON vault.vault_id = backup_job.vault_id"
        " WHERE upload_number = :upload_number AND completed_ms IS NULL",
        upload_number=upload_number,
    )
    return (SeeingJob(*row[:3]), row[3]) if row else None


def key_owner(transaction: Transaction, key_id: bytes) -> tuple[int, int] | None:
    """The number of the data key that envelopes name by this id, and its vault, which exists."""
    row = transaction.row(
        "SELECT key_number, vault.vault_id FROM vault_key JOIN vault ON vault.vault_id = vault_key.vault_id"
        " WHERE key_id = :key_id",
        key_id=key_id,
    )
    return (row[0], row[1]) if row else None


def is_key_used(transaction: Transaction, key_number: int) -> bool:
    """Whether any vault that exists has this data key."""
    row = transaction.row(
        "SELECT 1 FROM vault_key JOIN vault ON vault.vault_id = vault_key.vault_id WHERE key_number = :key_number",
        key_number=key_number,
    )
    return row is not None
