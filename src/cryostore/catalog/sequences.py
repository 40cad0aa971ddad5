"""Identity columns: how far the database has counted in each, and how another catalog continues from there.

A number is never given out twice, even after its row is gone, because records, tokens and envelopes still name it.
These functions need no engine-specific SQL: they insert an empty row and either roll the transaction back or delete
the row.
"""

from __future__ import annotations

from typing import Any

from cryostore.catalog.database import Transaction
from cryostore.catalog.tables import Table

NOBODYS_VAULT = 0
"""Id of a vault that exists only within one transaction, for rows that must refer to a vault.

Real ids begin above it.
"""
EMPTY: dict[str, dict[str, Any]] = {
    "vault": {"name": "", "tags": "{}", "created_ms": 0},
    "vault_key": {"key_id": b"", "vault_id": NOBODYS_VAULT, "wrapped": b"", "created_ms": 0},
    "lineage": {"vault_id": NOBODYS_VAULT, "next_generation": 0, "tip_generation": 0, "retired": 0},
    "object": {
        "lineage_id": 0,
        "name": b"",
        "from_generation": 0,
        "to_generation": 0,
        "removed": 0,
        "created_ms": 0,
        "length": 0,
        "chunk_count": 0,
        "summary_form": 0,
    },
    "upload": {
        "upload_id": "",
        "job_id": "",
        "name": b"",
        "throw_on_duplicate": 0,
        "created_ms": 0,
        "chunk_count": 0,
    },
    "pack": {"name": "", "open": 0, "created_ms": 0},
}
"""By table: the values of an empty row, which no table contains otherwise."""


class CountedTo(Exception):  # noqa: N818 - no error: it carries an answer out of a transaction that is to be taken back
    """The result of `count_to`: the highest number that a table has given out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def count_to(transaction: Transaction, table: Table) -> None:
    """Raise CountedTo with the highest number that was given out, or a higher one.

    It raises so that the transaction is rolled back and no row remains.
    """
    if EMPTY[table.name].get("vault_id") == NOBODYS_VAULT:
        _insert(transaction, "vault", {"vault_id": NOBODYS_VAULT, **EMPTY["vault"]})
    columns, places = _written(EMPTY[table.name])
    row = transaction.row(
        f"INSERT INTO {table.name} ({columns}) VALUES ({places}) RETURNING {table.number}", **EMPTY[table.name]
    )
    assert row is not None
    raise CountedTo(int(row[0]) - 1)


def count_from(transaction: Transaction, table: Table, number: int) -> None:
    """Give out no number up to `number` any more. May be repeated."""
    if number < 1 or table.number is None:
        return
    found = transaction.row(f"SELECT 1 FROM {table.name} WHERE {table.number} = :number", number=number)
    if found is None:
        of_nobody = EMPTY[table.name].get("vault_id") == NOBODYS_VAULT
        if of_nobody:
            _insert(transaction, "vault", {"vault_id": NOBODYS_VAULT, **EMPTY["vault"]})
        _insert(transaction, table.name, {table.number: number, **EMPTY[table.name]})
        transaction.run(f"DELETE FROM {table.name} WHERE {table.number} = :number", number=number)
        if of_nobody:
            transaction.run("DELETE FROM vault WHERE vault_id = :vault_id", vault_id=NOBODYS_VAULT)
    transaction.pass_number(table.name, table.number, number)


def highest(transaction: Transaction, table: Table) -> int:
    """Return the highest number of any row, 0 if there is none."""
    row = transaction.row(f"SELECT max({table.number}) FROM {table.name}")
    return int(row[0] or 0) if row else 0


def _insert(transaction: Transaction, table: str, values: dict[str, Any]) -> None:
    columns, places = _written(values)
    transaction.run(f"INSERT INTO {table} ({columns}) VALUES ({places})", **values)


def _written(values: dict[str, Any]) -> tuple[str, str]:
    return ", ".join(values), ", ".join(f":{name}" for name in values)
