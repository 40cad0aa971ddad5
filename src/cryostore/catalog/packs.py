"""Packs in the catalog: which are still written to."""

from __future__ import annotations

from cryostore.catalog.database import Transaction


def open_packs(transaction: Transaction) -> list[str]:
    """The packs that were last known to be written to, by whatever process."""
    return [row[0] for row in transaction.rows("SELECT name FROM pack WHERE open = 1 ORDER BY pack_number")]


def close(transaction: Transaction, name: str) -> None:
    """Record that nothing will be appended to the pack any more."""
    transaction.run("UPDATE pack SET open = 0 WHERE name = :name", name=name)
