"""The garbage collector's epoch in the catalog. Its rules: `maintenance.gc`. Who collects: `claims`."""

from __future__ import annotations

from cryostore.catalog.database import Transaction


def epoch(transaction: Transaction) -> int:
    """The current epoch."""
    row = transaction.row("SELECT epoch FROM collection")
    assert row is not None
    return int(row[0])


def next_epoch(transaction: Transaction) -> int:
    """Raise the epoch and answer it."""
    row = transaction.row("UPDATE collection SET epoch = epoch + 1 RETURNING epoch")
    assert row is not None
    return int(row[0])
