"""The epoch of garbage collections, and whether the catalog is older than the store.

The rules: `maintenance.garbage_collection.collect`.

Who collects: `claims`.
"""

from __future__ import annotations

from cryostore.catalog.database import Transaction


def epoch(transaction: Transaction) -> int:
    """The current epoch."""
    row = transaction.row("SELECT epoch FROM collection")
    assert row is not None
    return int(row[0])


def unknown_commits(transaction: Transaction) -> int:
    """How many commits are on record that the catalog does not have, as far as anybody found."""
    row = transaction.row("SELECT unknown_commits FROM collection")
    assert row is not None
    return int(row[0])


def set_unknown_commits(transaction: Transaction, count: int) -> None:
    """Note how many there are."""
    transaction.run("UPDATE collection SET unknown_commits = :count", count=count)


def next_epoch(transaction: Transaction) -> int:
    """Raise the epoch and answer it."""
    row = transaction.row("UPDATE collection SET epoch = epoch + 1 RETURNING epoch")
    assert row is not None
    return int(row[0])
