"""Keys in the catalog, each wrapped by the master key: a vault's data keys, the store's secrets, callers' access keys.

Nothing here can be used without the keyring.
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
    """A caller's access key; `wrapped` holds its secret."""

    access_key_id: str
    wrapped: bytes
    root: bool
    enabled: bool


def insert_vault_key(
    transaction: Transaction, *, key_id: bytes, vault_id: int, wrapped: bytes, created_ms: int
) -> None:
    """Add a data key; the newest one of a vault seals from now on."""
    transaction.run(
        "INSERT INTO vault_key (key_id, vault_id, wrapped, created_ms)"
        " VALUES (:key_id, :vault_id, :wrapped, :created_ms)",
        key_id=key_id,
        vault_id=vault_id,
        wrapped=wrapped,
        created_ms=created_ms,
    )


def newest_vault_keys(transaction: Transaction, vault_id: int, limit: int) -> list[VaultKeyRow]:
    """Keys of the vault, the newest first."""
    rows = transaction.rows(
        "SELECT key_number, key_id, vault_id, wrapped FROM vault_key"
        " WHERE vault_id = :vault_id ORDER BY key_number DESC LIMIT :limit",
        vault_id=vault_id,
        limit=limit,
    )
    return [VaultKeyRow(*row) for row in rows]


def vault_key(transaction: Transaction, key_number: int) -> VaultKeyRow | None:
    """The key of this number."""
    row = transaction.row(
        "SELECT key_number, key_id, vault_id, wrapped FROM vault_key WHERE key_number = :key_number",
        key_number=key_number,
    )
    return VaultKeyRow(*row) if row else None


def secret(transaction: Transaction, name: str) -> bytes | None:
    """A wrapped secret of the store."""
    row = transaction.row("SELECT wrapped FROM secret WHERE name = :name", name=name)
    return row[0] if row else None


def insert_secret(transaction: Transaction, name: str, wrapped: bytes) -> None:
    """Keep a wrapped secret; one that is there already stays."""
    transaction.run(
        "INSERT INTO secret (name, wrapped) VALUES (:name, :wrapped) ON CONFLICT (name) DO NOTHING",
        name=name,
        wrapped=wrapped,
    )


def delete_secret(transaction: Transaction, name: str) -> None:
    """Remove a wrapped secret; absent is not an error."""
    transaction.run("DELETE FROM secret WHERE name = :name", name=name)


def access_key(transaction: Transaction, access_key_id: str) -> AccessKeyRow | None:
    """The access key of this id."""
    row = transaction.row(
        "SELECT access_key_id, wrapped, root, enabled FROM access_key WHERE access_key_id = :access_key_id",
        access_key_id=access_key_id,
    )
    return AccessKeyRow(row[0], row[1], bool(row[2]), bool(row[3])) if row else None


def root_access_key(transaction: Transaction) -> AccessKeyRow | None:
    """The oldest access key that may do everything."""
    row = transaction.row(
        "SELECT access_key_id, wrapped, root, enabled FROM access_key WHERE root = 1"
        " ORDER BY created_ms, access_key_id LIMIT 1"
    )
    return AccessKeyRow(row[0], row[1], bool(row[2]), bool(row[3])) if row else None


def insert_access_key(
    transaction: Transaction, *, access_key_id: str, wrapped: bytes, root: bool, created_ms: int
) -> None:
    """Add an enabled access key."""
    transaction.run(
        "INSERT INTO access_key (access_key_id, wrapped, root, enabled, created_ms)"
        " VALUES (:access_key_id, :wrapped, :root, 1, :created_ms)",
        access_key_id=access_key_id,
        wrapped=wrapped,
        root=int(root),
        created_ms=created_ms,
    )


def enable_access_key(transaction: Transaction, access_key_id: str, *, enabled: bool) -> None:
    """Switch an access key on or off; takes effect on every server within its cache's lifetime."""
    transaction.run(
        "UPDATE access_key SET enabled = :enabled WHERE access_key_id = :access_key_id",
        enabled=int(enabled),
        access_key_id=access_key_id,
    )


VAULT_KEY_COLUMNS = ("key_number", "key_id", "vault_id", "wrapped", "created_ms")
ACCESS_KEY_COLUMNS = ("access_key_id", "wrapped", "root", "enabled", "created_ms")


def vault_keys_in_full(transaction: Transaction, vault_id: int) -> list[dict[str, Any]]:
    """Every column of a vault's data keys, oldest first: what it takes to put them back."""
    rows = transaction.rows(
        f"SELECT {', '.join(VAULT_KEY_COLUMNS)} FROM vault_key WHERE vault_id = :vault_id ORDER BY key_number",
        vault_id=vault_id,
    )
    return [dict(zip(VAULT_KEY_COLUMNS, row, strict=True)) for row in rows]


def access_keys_in_full(transaction: Transaction) -> list[dict[str, Any]]:
    """Every column of all access keys: what it takes to put them back."""
    rows = transaction.rows(f"SELECT {', '.join(ACCESS_KEY_COLUMNS)} FROM access_key ORDER BY access_key_id")
    return [dict(zip(ACCESS_KEY_COLUMNS, row, strict=True)) for row in rows]


def put_back_vault_key(transaction: Transaction, row: dict[str, Any]) -> None:
    """Add a data key with every column as `vault_keys_in_full` gave it."""
    _put_back(transaction, "vault_key", VAULT_KEY_COLUMNS, row)
    transaction.pass_number("vault_key", "key_number", row["key_number"])


def put_back_access_key(transaction: Transaction, row: dict[str, Any]) -> None:
    """Add an access key with every column as `access_keys_in_full` gave it."""
    _put_back(transaction, "access_key", ACCESS_KEY_COLUMNS, row)


def _put_back(transaction: Transaction, table: str, columns: tuple[str, ...], row: dict[str, Any]) -> None:
    transaction.run(
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(f':{column}' for column in columns)})",
        **{column: row[column] for column in columns},
    )


class WrappedRow(NamedTuple):
    """Anything that a master key has wrapped; `name` tells it from others in its table."""

    table: str
    name: Any
    wrapped: bytes
    label: bytes
    """What the wrapping is bound to, but for the prefix of its table."""
    vault_id: int | None


WRAPPED = {
    "secret": ("name", "name", "NULL"),
    "access_key": ("access_key_id", "access_key_id", "NULL"),
    "vault_key": ("key_number", "key_id", "vault_id"),
}
"""By table: what names a row, what its wrapping is bound to, and its vault."""


def wrapped_page(transaction: Transaction, table: str, after: Any, limit: int) -> list[WrappedRow]:
    """Rows of one of the tables of WRAPPED in the order of their names, after `after` (None: from the first)."""
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
    """Put other wrapped bytes in the place of a row's; False, and nothing is done, if they are not those any more."""
    changed = transaction.run(
        f"UPDATE {row.table} SET wrapped = :wrapped WHERE {WRAPPED[row.table][0]} = :name AND wrapped = :old",
        wrapped=wrapped,
        name=row.name,
        old=row.wrapped,
    )
    return changed == 1


def existing_vault_keys(transaction: Transaction, key_numbers: Iterable[int]) -> set[int]:
    """Those of the numbers that a key has."""
    statement = "SELECT 1 FROM vault_key WHERE key_number = :key_number"
    return {number for number in key_numbers if transaction.row(statement, key_number=number)}


def overwrite_vault_keys(transaction: Transaction, vault_id: int) -> list[int]:
    """Put zeros over a vault's wrapped keys, in as many bytes, so that the engine writes them to the same place.

    For a vault that is about to be deleted: what only is deleted may stand in a file for long. Answers their numbers.
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
    """The number of the data key that envelopes name by this id, and its vault, which exists."""
    row = transaction.row(
        "SELECT key_number, vault.vault_id FROM vault_key JOIN vault ON vault.vault_id = vault_key.vault_id"
        " WHERE key_id = :key_id",
        key_id=key_id,
    )
    return (row[0], row[1]) if row else None


def is_vault_key_used(transaction: Transaction, key_number: int) -> bool:
    """Whether any vault that exists has this data key."""
    row = transaction.row(
        "SELECT 1 FROM vault_key JOIN vault ON vault.vault_id = vault_key.vault_id WHERE key_number = :key_number",
        key_number=key_number,
    )
    return row is not None
