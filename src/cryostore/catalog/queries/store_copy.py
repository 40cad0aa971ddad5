"""Queries for copying a store (`maintenance.migrate.run`): progress notes, and facts about the two catalogs.

Notes say which blobs were copied. They live in the target's catalog, in a table that exists only during the copy. Not
here: copying rows (`tables`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cryostore.catalog.database import Row, Transaction

KEYS_PER_QUERY = 200
BEGUN = ""
"""The digest of a blob whose copy has begun. The blob may exist, whole, or not; if it does, it is ours."""


class Note(NamedTuple):
    """A blob whose copy has begun or ended: its size, the digest of its bytes in hex, and what was wrong with them."""

    key: str
    size: int
    digest: str = BEGUN
    flaw: str = ""


NOTE = ", ".join(Note._fields)


class NamedPack(NamedTuple):
    """A pack that still has a file."""

    pack_number: int
    name: str


def schema_version(transaction: Transaction) -> int:
    """Return the schema version of the catalog."""
    row = transaction.row("SELECT max(version) FROM schema_version")
    return int(row[0]) if row and row[0] else 0


def is_empty(transaction: Transaction) -> bool:
    """Whether the catalog belongs to no store yet."""
    tables = ("secret", "vault", "access_key", "pack", "lineage", "backup_job")
    return not any(transaction.row(f"SELECT 1 FROM {table} LIMIT 1") for table in tables)


def count_blobs(transaction: Transaction) -> int:
    """Return how many blobs the rows name: packs that have a file, and parts of records."""
    packs = transaction.row("SELECT count(*) FROM pack WHERE dropped_epoch IS NULL")
    parts = transaction.row("SELECT coalesce(sum(parts), 0) FROM record WHERE recorded > 0 AND gone = 0")
    return (int(packs[0]) if packs else 0) + (int(parts[0]) if parts else 0)


def chunk_bytes(transaction: Transaction, after: Row, until: Row) -> int:
    """Return the size of all envelopes of chunks after one key up to another; a key is a vault and a digest."""
    row = transaction.row(
        "SELECT coalesce(sum(sealed_length), 0) FROM chunk WHERE (vault_id, digest) > (:after_vault, :after_digest)"
        " AND (vault_id, digest) <= (:until_vault, :until_digest)",
        after_vault=after[0],
        after_digest=after[1],
        until_vault=until[0],
        until_digest=until[1],
    )
    return int(row[0]) if row else 0


def other_sessions(transaction: Transaction, ours: str) -> int:
    """Return how many other sessions this user has in this PostgreSQL database; `ours` is the name of our own ones."""
    row = transaction.row(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user"
        " AND backend_type = 'client backend' AND application_name <> :ours",
        ours=ours,
    )
    return int(row[0]) if row else 0


def packs(transaction: Transaction, *, after: int, limit: int) -> list[NamedPack]:
    """Return the packs that have a file, retired ones included, by number after `after`."""
    rows = transaction.rows(
        "SELECT pack_number, name FROM pack WHERE pack_number > :after AND dropped_epoch IS NULL"
        " ORDER BY pack_number LIMIT :limit",
        after=after,
        limit=limit,
    )
    return [NamedPack(*row) for row in rows]


def begin_notes(transaction: Transaction) -> None:
    """Create the table of notes. May be repeated."""
    transaction.run(
        "CREATE TABLE IF NOT EXISTS moved_blob"
        " (key TEXT PRIMARY KEY, size BIGINT NOT NULL, digest TEXT NOT NULL, flaw TEXT NOT NULL)"
    )


def end_notes(transaction: Transaction) -> None:
    """Drop the table of notes."""
    transaction.run("DROP TABLE moved_blob")


def notes(transaction: Transaction, keys: Sequence[str]) -> dict[str, Note]:
    """Return the notes on these blobs."""
    found: dict[str, Note] = {}
    for start in range(0, len(keys), KEYS_PER_QUERY):
        some = {f"k{place}": key for place, key in enumerate(keys[start : start + KEYS_PER_QUERY])}
        names = ", ".join(f":{name}" for name in some)
        rows = transaction.rows(f"SELECT {NOTE} FROM moved_blob WHERE key IN ({names})", **some)
        found.update((row[0], Note(*row)) for row in rows)
    return found


def notes_page(transaction: Transaction, *, after: str, limit: int) -> list[Note]:
    """Return notes in the order of their keys, after `after`."""
    rows = transaction.rows(
        f"SELECT {NOTE} FROM moved_blob WHERE key > :after ORDER BY key LIMIT :limit",
        after=after,
        limit=limit,
    )
    return [Note(*row) for row in rows]


def note(transaction: Transaction, some: Iterable[Note]) -> None:
    """Write notes."""
    for one in some:
        transaction.run(
            f"INSERT INTO moved_blob ({NOTE}) VALUES (:key, :size, :digest, :flaw)"
            " ON CONFLICT (key) DO UPDATE SET size = excluded.size, digest = excluded.digest, flaw = excluded.flaw",
            **one._asdict(),
        )


def forget_note(transaction: Transaction, key: str) -> None:
    """Delete the note on a blob that is gone."""
    transaction.run("DELETE FROM moved_blob WHERE key = :key", key=key)


def pack_names(transaction: Transaction, names: Sequence[str]) -> set[str]:
    """Return those of the names whose pack has a file."""
    statement = "SELECT 1 FROM pack WHERE name = :name AND dropped_epoch IS NULL"
    return {name for name in names if transaction.row(statement, name=name)}


def first_chunk(transaction: Transaction, pack_number: int) -> Row | None:
    """Return the first sound chunk of a pack: vault, digest, key number, offset, sealed length and length."""
    return transaction.row(
        "SELECT vault_id, digest, key_number, pack_offset, sealed_length, length FROM chunk"
        " WHERE pack_number = :pack_number AND damaged_ms IS NULL ORDER BY pack_offset LIMIT 1",
        pack_number=pack_number,
    )
