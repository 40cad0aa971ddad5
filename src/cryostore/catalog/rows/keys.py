"""Keys, each wrapped by the master key: data keys of vaults, secrets of the store, access keys of callers.

None of them can be used without the keyring.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from cryostore.catalog.database import Transaction


class VaultKeyRow(NamedTuple):
    """A data key of a vault."""

    key_number: int
    key_id: bytes
    vault_id: int
    wrapped: bytes


class AccessKeyRow(NamedTuple):
    """An access key of a caller; `wrapped` holds its secret."""

    access_key_id: str
    wrapped: bytes
    root: bool
    enabled: bool


def insert_vault_key(
    transaction: Transaction, *, key_id: bytes, vault_id: int, wrapped: bytes, created_ms: int
) -> None:
    """Insert a data key. The newest key of a vault seals new data."""
    transaction.run(
        "INSERT INTO vault_key (key_id, vault_id, wrapped, created_ms)"
        " VALUES (:key_id, :vault_id, :wrapped, :created_ms)",
        key_id=key_id,
        vault_id=vault_id,
        wrapped=wrapped,
        created_ms=created_ms,
    )


def newest_vault_keys(transaction: Transaction, vault_id: int, limit: int) -> list[VaultKeyRow]:
    """Return keys of the vault, newest first."""
    rows = transaction.rows(
        "SELECT key_number, key_id, vault_id, wrapped FROM vault_key"
        " WHERE vault_id = :vault_id ORDER BY key_number DESC LIMIT :limit",
        vault_id=vault_id,
        limit=limit,
    )
    return [VaultKeyRow(*row) for row in rows]


def vault_key(transaction: Transaction, key_number: int) -> VaultKeyRow | None:
    """Return the key with this number."""
    row = transaction.row(
        "SELECT key_number, key_id, vault_id, wrapped FROM vault_key WHERE key_number = :key_number",
        key_number=key_number,
    )
    return VaultKeyRow(*row) if row else None


def secret(transaction: Transaction, name: str) -> bytes | None:
    """Return a wrapped secret of the store."""
    row = transaction.row("SELECT wrapped FROM secret WHERE name = :name", name=name)
    return row[0] if row else None


def insert_secret(transaction: Transaction, name: str, wrapped: bytes) -> None:
    """Insert a wrapped secret; keep one that exists."""
    transaction.run(
        "INSERT INTO secret (name, wrapped) VALUES (:name, :wrapped) ON CONFLICT (name) DO NOTHING",
        name=name,
        wrapped=wrapped,
    )


def delete_secret(transaction: Transaction, name: str) -> None:
    """Delete a wrapped secret; absent is not an error."""
    transaction.run("DELETE FROM secret WHERE name = :name", name=name)


def access_key(transaction: Transaction, access_key_id: str) -> AccessKeyRow | None:
    """Return the access key with this id."""
    row = transaction.row(
        "SELECT access_key_id, wrapped, root, enabled FROM access_key WHERE access_key_id = :access_key_id",
        access_key_id=access_key_id,
    )
    return AccessKeyRow(row[0], row[1], bool(row[2]), bool(row[3])) if row else None


def root_access_key(transaction: Transaction) -> AccessKeyRow | None:
    """Return the oldest access key that may do everything."""
    row = transaction.row(
        "SELECT access_key_id, wrapped, root, enabled FROM access_key WHERE root = 1"
        " ORDER BY created_ms, access_key_id LIMIT 1"
    )
    return AccessKeyRow(row[0], row[1], bool(row[2]), bool(row[3])) if row else None


def insert_access_key(
    transaction: Transaction, *, access_key_id: str, wrapped: bytes, root: bool, created_ms: int
) -> None:
    """Insert an enabled access key."""
    transaction.run(
        "INSERT INTO access_key (access_key_id, wrapped, root, enabled, created_ms)"
        " VALUES (:access_key_id, :wrapped, :root, 1, :created_ms)",
        access_key_id=access_key_id,
        wrapped=wrapped,
        root=int(root),
        created_ms=created_ms,
    )


def enable_access_key(transaction: Transaction, access_key_id: str, *, enabled: bool) -> None:
    """Enable or disable an access key. Each server notices within the lifetime of its cache."""
    transaction.run(
        "UPDATE access_key SET enabled = :enabled WHERE access_key_id = :access_key_id",
        enabled=int(enabled),
        access_key_id=access_key_id,
    )


VAULT_KEY_COLUMNS = ("key_number", "key_id", "vault_id", "wrapped", "created_ms")
ACCESS_KEY_COLUMNS = ("access_key_id", "wrapped", "root", "enabled", "created_ms")


def vault_keys_in_full(transaction: Transaction, vault_id: int) -> list[dict[str, Any]]:
    """Return every column of a vault's data keys, oldest first, for putting them back."""
    rows = transaction.rows(
        f"SELECT {', '.join(VAULT_KEY_COLUMNS)} FROM vault_key WHERE vault_id = :vault_id ORDER BY key_number",
        vault_id=vault_id,
    )
    return [dict(zip(VAULT_KEY_COLUMNS, row, strict=True)) for row in rows]


def access_keys_in_full(transaction: Transaction) -> list[dict[str, Any]]:
    """Return every column of all access keys, for putting them back."""
    rows = transaction.rows(f"SELECT {', '.join(ACCESS_KEY_COLUMNS)} FROM access_key ORDER BY access_key_id")
    return [dict(zip(ACCESS_KEY_COLUMNS, row, strict=True)) for row in rows]


def put_back_vault_key(transaction: Transaction, row: dict[str, Any]) -> None:
    """Insert a data key with every column, as `vault_keys_in_full` returned it."""
    _put_back(transaction, "vault_key", VAULT_KEY_COLUMNS, row)
    transaction.pass_number("vault_key", "key_number", row["key_number"])


def put_back_access_key(transaction: Transaction, row: dict[str, Any]) -> None:
    """Insert an access key with every column, as `access_keys_in_full` returned it."""
    _put_back(transaction, "access_key", ACCESS_KEY_COLUMNS, row)


def _put_back(transaction: Transaction, table: str, columns: tuple[str, ...], row: dict[str, Any]) -> None:
    transaction.run(
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(f':{column}' for column in columns)})",
        **{column: row[column] for column in columns},
    )


class WrappedRow(NamedTuple):
    """A row that holds wrapped bytes; `name` identifies it in its table."""

    table: str
    name: Any
    wrapped: bytes
    label: bytes
    """The context that the wrapping is bound to, without the prefix of its table."""
    vault_id: int | None


WRAPPED = {
    "secret": ("name", "name", "NULL"),
    "access_key": ("access_key_id", "access_key_id", "NULL"),
    "vault_key": ("key_number", "key_id", "vault_id"),
}
"""By table: the column that identifies a row, the one its wrapping is bound to, and the one of its vault."""


def wrapped_page(transaction: Transaction, table: str, after: Any, limit: int) -> list[WrappedRow]:
    """Return rows of one of the tables of WRAPPED by name, after `after`; from the first one if that is None."""
    name, label, vault_id = WRAPPED[table]
    behind = "" if after is None else f" WHERE {name} > :after"
    more = {} if after is None else {"after": after}
    rows = transaction.rows(
        f"SELECT {name}, wrapped, {label}, {vault_id} FROM {table}{behind} ORDER BY {name} LIMIT :limit",
        limit=limit,
        **more,
    )
    return [
        WrappedRow(table, key, wrapped, bound.encode() if isinstance(bound, str) else bytes(bound), vault)
        for key, wrapped, bound, vault in rows
    ]


def rewrap(transaction: Transaction, row: WrappedRow, wrapped: bytes) -> bool:
    """Replace the wrapped bytes of a row; return False, and change nothing, if they have changed meanwhile."""
    changed = transaction.run(
        f"UPDATE {row.table} SET wrapped = :wrapped WHERE {WRAPPED[row.table][0]} = :name AND wrapped = :old",
        wrapped=wrapped,
        name=row.name,
        old=row.wrapped,
    )
    return changed == 1


def existing_vault_keys(transaction: Transaction, key_numbers: Iterable[int]) -> set[int]:
    """Return those of the numbers that a key has."""
    statement = "SELECT 1 FROM vault_key WHERE key_number = :key_number"
    return {number for number in key_numbers if transaction.row(statement, key_number=number)}


def overwrite_vault_keys(transaction: Transaction, vault_id: int) -> list[int]:
    """Overwrite a vault's wrapped keys with zeros of the same length, in place; return their numbers.

    For a vault that is about to be deleted: deleted bytes may stay in a file for long.
    """
    rows = transaction.rows("SELECT key_number, wrapped FROM vault_key WHERE vault_id = :vault_id", vault_id=vault_id)
    for key_number, wrapped in rows:
        transaction.run(
            "UPDATE vault_key SET wrapped = :zeros WHERE key_number = :key_number",
            zeros=bytes(len(wrapped)),
            key_number=key_number,
        )
    return [key_number for key_number, _ in rows]


def vault_key_owner(transaction: Transaction, key_id: bytes) -> tuple[int, int] | None:
    """Return the number and the vault of the data key with this envelope id, if the vault exists."""
    row = transaction.row(
        "SELECT key_number, vault.vault_id FROM vault_key JOIN vault ON vault.vault_id = vault_key.vault_id"
        " WHERE key_id = :key_id",
        key_id=key_id,
    )
    return (row[0], row[1]) if row else None


def is_vault_key_used(transaction: Transaction, key_number: int) -> bool:
    """Whether an existing vault has this data key."""
    row = transaction.row(
        "SELECT 1 FROM vault_key JOIN vault ON vault.vault_id = vault_key.vault_id WHERE key_number = :key_number",
        key_number=key_number,
    )
    return row is not None
