"""Claims: which process does which background work, so that each piece of work is done once.

1. A process that claims a piece of work gets a lease, and a fencing token that is one higher than that of any holder
   before.
2. The holder renews the lease while it works. After the lease has expired it still holds the claim until another
   process takes it over; from then on it can no longer renew, use or release it.
3. Each transaction of the work first calls `require_held`. So all that a holder commits comes before all that its
   successors commit, and nothing of it comes later, however long the holder stood still.
4. Rows are never deleted, so that the tokens only grow.

All times are of one clock, the database's, and are parameters. A wrong clock can make a second process take over too
early or too late. By rules 2 and 3 that costs time, and never lets two of them write.

In this module: the rows. Not here: which process claims what, and what renews a lease (`maintenance.claims`).
"""

from __future__ import annotations

from typing import NamedTuple

from cryostore.catalog.database import Transaction
from cryostore.core.errors import CryostoreError
from cryostore.core.time import SECOND_MS, iso_text

LEASES_AHEAD_MAX = 2
"""A lease that ends more than this many lease periods from now came from a wrong clock and does not count.

It is more than one, because the reader may have read its clock a little before the holder did.
"""


class ClaimRow(NamedTuple):
    """A piece of work and its holder, which is None between two claims.

    `until_ms` is when the lease ends, or when the claim was released. `finished_ms` is when the work was last
    completed, 0 if never. `doing` is what the holder last reported, for people; `place` is how far the work is, in a
    form that the next holder understands.
    """

    work: str
    holder: str | None = None
    fencing_token: int = 0
    until_ms: int = 0
    begun_ms: int = 0
    finished_ms: int = 0
    doing: str = ""
    place: str = ""

    def is_free(self, *, now_ms: int, lease_ms: int) -> bool:
        """Whether the work may be claimed: it has no holder, or the lease has expired."""
        return self.holder is None or not now_ms <= self.until_ms <= now_ms + LEASES_AHEAD_MAX * lease_ms

    @property
    def words(self) -> str:
        """A sentence for people: which process does what, since when."""
        doing = f" ({self.doing})" if self.doing else ""
        return f"{self.work} is done by {self.holder} since {iso_text(self.begun_ms / SECOND_MS)}{doing}"


COLUMNS = "work, holder, fence, until_ms, begun_ms, finished_ms, doing, place"
IS_OURS = "work = :work AND fence = :fence AND holder IS NOT NULL"


class ClaimHeldError(CryostoreError):
    """Another process holds the claim; see `row`."""

    def __init__(self, row: ClaimRow) -> None:
        lapses = iso_text(row.until_ms / SECOND_MS)
        hint = f"`cryo jobs` shows how far it is; without a renewal the claim lapses at {lapses}"
        super().__init__(row.words, hint=hint)
        self.row = row


class ClaimLostError(CryostoreError):
    """The holder did not renew its lease in time, and another process has taken over."""


def find(transaction: Transaction, work: str) -> ClaimRow:
    """Return the row of a piece of work; an empty one if it was never claimed."""
    row = transaction.row(f"SELECT {COLUMNS} FROM claim WHERE work = :work", work=work)
    return ClaimRow(*row) if row else ClaimRow(work)


def held(transaction: Transaction) -> list[ClaimRow]:
    """Return all claims that were not released, expired ones included, by the name of the work."""
    rows = transaction.rows(f"SELECT {COLUMNS} FROM claim WHERE holder IS NOT NULL ORDER BY work")
    return [ClaimRow(*row) for row in rows]


def claim(transaction: Transaction, work: str, holder: str, *, now_ms: int, lease_ms: int) -> ClaimRow:
    """Claim a piece of work that is free; return the new row. Raises ClaimHeldError."""
    row = transaction.row(
        "INSERT INTO claim (work, holder, fence, until_ms, begun_ms, finished_ms, doing, place)"
        " VALUES (:work, :holder, 1, :until_ms, :now_ms, 0, '', '')"
        " ON CONFLICT (work) DO UPDATE SET holder = excluded.holder, fence = claim.fence + 1,"
        " until_ms = excluded.until_ms, begun_ms = excluded.begun_ms, doing = ''"
        " WHERE claim.holder IS NULL OR claim.until_ms < :now_ms OR claim.until_ms > :ahead_ms"
        f" RETURNING {COLUMNS}",
        work=work,
        holder=holder,
        now_ms=now_ms,
        until_ms=now_ms + lease_ms,
        ahead_ms=now_ms + LEASES_AHEAD_MAX * lease_ms,
    )
    if row is None:
        raise ClaimHeldError(find(transaction, work))
    return ClaimRow(*row)


def require_held(transaction: Transaction, work: str, fencing_token: int) -> None:
    """Raise ClaimLostError unless this token still holds the claim. Each transaction of the work calls it first."""
    if transaction.row(f"SELECT 1 FROM claim WHERE {IS_OURS}", work=work, fence=fencing_token) is None:
        raise _lost(transaction, work)


def renew(transaction: Transaction, work: str, fencing_token: int, *, until_ms: int, doing: str, place: str) -> None:
    """Extend the lease and report progress. Raises ClaimLostError."""
    renewed = transaction.run(
        f"UPDATE claim SET until_ms = :until_ms, doing = :doing, place = :place WHERE {IS_OURS}",
        work=work,
        fence=fencing_token,
        until_ms=until_ms,
        doing=doing,
        place=place,
    )
    if not renewed:
        raise _lost(transaction, work)


def release(
    transaction: Transaction, work: str, fencing_token: int, *, now_ms: int, finished_ms: int | None, place: str
) -> bool:
    """Release the claim; return False, and change nothing, if it was lost or released before.

    `finished_ms` is None if the work was not completed.
    """
    released = transaction.run(
        "UPDATE claim SET holder = NULL, until_ms = :now_ms, finished_ms = coalesce(:finished_ms, finished_ms),"
        f" doing = '', place = :place WHERE {IS_OURS}",
        work=work,
        fence=fencing_token,
        now_ms=now_ms,
        finished_ms=finished_ms,
        place=place,
    )
    return released == 1


def _lost(transaction: Transaction, work: str) -> ClaimLostError:
    row = find(transaction, work)
    successor = row.words if row.holder is not None else f"{work} was taken over"
    return ClaimLostError(f"this process stood still for too long: {successor}")
