"""The garbage collector's row in the catalog: the epoch, and who collects. The rules: `maintenance.gc`."""

from __future__ import annotations

from typing import NamedTuple

from cryostore.catalog.database import Transaction


class CollectionRow(NamedTuple):
    """The state of garbage collection. `holder` is the run that has the lease, None between runs."""

    epoch: int
    holder: str | None
    lease_until_ms: int
    started_ms: int
    finished_ms: int


def state(transaction: Transaction) -> CollectionRow:
    """The only row there is."""
    row = transaction.row("SELECT epoch, holder, lease_until_ms, started_ms, finished_ms FROM collection")
    assert row is not None
    return CollectionRow(*row)


def epoch(transaction: Transaction) -> int:
    """The current epoch."""
    return state(transaction).epoch


def begin(transaction: Transaction, holder: str, *, now_ms: int, lease_ms: int) -> int | None:
    """Begin a run: take the lease, raise the epoch and answer it; None while another run holds the lease.

    A lease that ends further ahead than any lease is long was taken by a clock that went wrong, and does not count.
    """
    row = transaction.row(
        "UPDATE collection SET epoch = epoch + 1, holder = :holder, lease_until_ms = :until_ms, started_ms = :now_ms"
        " WHERE holder IS NULL OR lease_until_ms < :now_ms OR lease_until_ms > :until_ms RETURNING epoch",
        holder=holder,
        now_ms=now_ms,
        until_ms=now_ms + lease_ms,
    )
    return None if row is None else int(row[0])


def renew(transaction: Transaction, run_epoch: int, holder: str, *, until_ms: int) -> bool:
    """Renew a run's lease; answers whether the run still has it, which fences its writes against those of a later run.

    An expired lease that nobody took is as good as before.
    """
    renewed = transaction.run(
        "UPDATE collection SET lease_until_ms = :until_ms WHERE epoch = :run_epoch AND holder = :holder",
        run_epoch=run_epoch,
        holder=holder,
        until_ms=until_ms,
    )
    return renewed == 1


def end(transaction: Transaction, run_epoch: int, holder: str, *, finished_ms: int | None) -> None:
    """Give the lease back, if the run still has it; `finished_ms` is None for a run that did not get to its end."""
    transaction.run(
        "UPDATE collection SET holder = NULL, finished_ms = coalesce(:finished_ms, finished_ms)"
        " WHERE epoch = :run_epoch AND holder = :holder",
        run_epoch=run_epoch,
        holder=holder,
        finished_ms=finished_ms,
    )
