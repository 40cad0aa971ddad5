"""Epoch of garbage collection, and whether the catalog is older than the store.

The rules: `maintenance.garbage_collection.collect`. Which process collects: `claims`.
"""

from __future__ import annotations

from cryostore.catalog.database import Transaction


def epoch(transaction: Transaction) -> int:
    """Return the current epoch."""
    row = transaction.row("SELECT epoch FROM collection")
    assert row is not None
    return int(row[0])


def unknown_commits(transaction: Transaction) -> int:
    """Return how many commits have records but are missing in the catalog, as far as is known."""
    row = transaction.row("SELECT unknown_commits FROM collection")
    assert row is not None
    return int(row[0])


def set_unknown_commits(transaction: Transaction, count: int) -> None:
    """Store that number."""
    transaction.run("UPDATE collection SET unknown_commits = :count", count=count)


def next_epoch(transaction: Transaction) -> int:
    """Raise the epoch; return the new one."""
    row = transaction.row("UPDATE collection SET epoch = epoch + 1 RETURNING epoch")
    assert row is not None
    return int(row[0])
