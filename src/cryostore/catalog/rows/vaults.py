"""Vaults."""

from __future__ import annotations

from typing import NamedTuple

from cryostore.catalog.database import Transaction


class VaultRow(NamedTuple):
    """A vault. `tags` is a JSON object."""

    vault_id: int
    name: str
    creator_request_id: str | None
    encryption_key_arn: str | None
    tags: str
    created_ms: int


COLUMNS = ", ".join(VaultRow._fields)


def insert(
    transaction: Transaction,
    *,
    name: str,
    creator_request_id: str | None,
    encryption_key_arn: str | None,
    tags: str,
    created_ms: int,
) -> VaultRow | None:
    """Insert a vault; return None if the name is taken."""
    row = transaction.row(
        f"INSERT INTO vault (name, creator_request_id, encryption_key_arn, tags, created_ms)"
        f" VALUES (:name, :creator_request_id, :encryption_key_arn, :tags, :created_ms)"
        f" ON CONFLICT (name) DO NOTHING RETURNING {COLUMNS}",
        name=name,
        creator_request_id=creator_request_id,
        encryption_key_arn=encryption_key_arn,
        tags=tags,
        created_ms=created_ms,
    )
    return VaultRow(*row) if row else None


def put_back(transaction: Transaction, vault: VaultRow) -> None:
    """Insert a vault with its old id; for rebuilding the catalog."""
    values = ", ".join(f":{field}" for field in VaultRow._fields)
    transaction.run(f"INSERT INTO vault ({COLUMNS}) VALUES ({values})", **vault._asdict())
    transaction.pass_number("vault", "vault_id", vault.vault_id)


def by_name(transaction: Transaction, name: str) -> VaultRow | None:
    """Return the vault of this name."""
    row = transaction.row(f"SELECT {COLUMNS} FROM vault WHERE name = :name", name=name)
    return VaultRow(*row) if row else None


def by_id(transaction: Transaction, vault_id: int) -> VaultRow | None:
    """Return the vault with this id."""
    row = transaction.row(f"SELECT {COLUMNS} FROM vault WHERE vault_id = :vault_id", vault_id=vault_id)
    return VaultRow(*row) if row else None


def page(transaction: Transaction, *, after: str, limit: int) -> list[VaultRow]:
    """Return vaults by name, after `after`."""
    rows = transaction.rows(
        f"SELECT {COLUMNS} FROM vault WHERE name > :after ORDER BY name LIMIT :limit", after=after, limit=limit
    )
    return [VaultRow(*row) for row in rows]


def exists(transaction: Transaction, vault_id: int) -> bool:
    """Whether a vault with this id still exists."""
    return transaction.row("SELECT 1 FROM vault WHERE vault_id = :vault_id", vault_id=vault_id) is not None


def is_used(transaction: Transaction, vault_id: int) -> bool:
    """Whether the vault holds a recovery point, in any state, an open job, or rows that are still to be removed."""
    row = transaction.row(
        "SELECT EXISTS (SELECT 1 FROM recovery_point WHERE vault_id = :vault_id)"
        " OR EXISTS (SELECT 1 FROM backup_job WHERE vault_id = :vault_id AND completed_ms IS NULL)"
        " OR EXISTS (SELECT 1 FROM lineage WHERE vault_id = :vault_id)",
        vault_id=vault_id,
    )
    return bool(row and row[0])


def delete(transaction: Transaction, vault_id: int) -> None:
    """Delete an unused vault with its keys, without which its bytes cannot be read any more.

    Its bytes become garbage in their packs. The rows of its chunks, and of uploads of its jobs, are deleted later.
    """
    for statement in (
        "DELETE FROM restore_job WHERE vault_id = :vault_id",
        "DELETE FROM backup_job WHERE vault_id = :vault_id",
        "DELETE FROM vault_key WHERE vault_id = :vault_id",
        "DELETE FROM vault WHERE vault_id = :vault_id",
    ):
        transaction.run(statement, vault_id=vault_id)
