"""Claims in the catalog: which process does which piece of background work, so that it is done once.

1. Whoever claims a piece of work gets a fence number, one higher than any holder of it before, and a lease.
2. The holder renews the lease by working. One whose lease has lapsed still has the claim until another process takes
   it; from then on it is fenced, and can neither renew, hold nor release it.
3. Each transaction of the work asks `require_held` first. So all that a holder commits is in order before all that its
   successors commit, and nothing of it comes later, however long it stood still.
4. Rows are never removed, so that the numbers only grow.

All moments are of one clock, the database's, and are passed in. A clock that goes wrong can let a second process take
over too early or too late; by rules 2 and 3 that costs time, and never lets two of them write.

Lives here: the rows. Does not live here: who claims what, and when a lease is renewed (`maintenance.claims`).
"""

from __future__ import annotations

from typing import NamedTuple

from cryostore.catalog.database import Transaction
from cryostore.core.errors import CryostoreError
from cryostore.core.time import SECOND_MS, iso_text

LEASES_AHEAD_MAX = 2
"""A lease that ends so many of them ahead was given by a clock that went wrong, and does not count. More than one,
since whoever looks may have read its clock a little before the holder did."""


class ClaimRow(NamedTuple):
    """A piece of work, and who is at it: None between two claims.

    `until_ms` is when the lease ends, or when the claim was given back. `finished_ms` is when the work last came to its
    end, 0 if it never did. `doing` is what the holder last said, for people; `place` how far the work is, in its own
    words, for whoever goes on with it.
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
        """Whether the work may be claimed: nobody has it, or the lease has lapsed."""
        return self.holder is None or not now_ms <= self.until_ms <= now_ms + LEASES_AHEAD_MAX * lease_ms

    @property
    def words(self) -> str:
        """Who is at what since when, for people."""
        doing = f" ({self.doing})" if self.doing else ""
        return f"{self.work} is done by {self.holder} since {iso_text(self.begun_ms / SECOND_MS)}{doing}"


COLUMNS = "work, holder, fence, until_ms, begun_ms, finished_ms, doing, place"
IS_OURS = "work = :work AND fence = :fence AND holder IS NOT NULL"


class ClaimHeldError(CryostoreError):
    """Another process has claimed the work, as `row` says."""

    def __init__(self, row: ClaimRow) -> None:
        lapses = iso_text(row.until_ms / SECOND_MS)
        hint = f"`cryo jobs` shows how far it is; without a sign of life the claim lapses at {lapses}"
        super().__init__(row.words, hint=hint)
        self.row = row


class ClaimLostError(CryostoreError):
    """The holder gave no sign of life for too long, and another process has taken over."""


def find(transaction: Transaction, work: str) -> ClaimRow:
    """What is known of a piece of work; an empty row of one that was never claimed."""
    row = transaction.row(f"SELECT {COLUMNS} FROM claim WHERE work = :work", work=work)
    return ClaimRow(*row) if row else ClaimRow(work)


def held(transaction: Transaction) -> list[ClaimRow]:
    """All claims that were not given back, lapsed ones too, by the name of the work."""
    rows = transaction.rows(f"SELECT {COLUMNS} FROM claim WHERE holder IS NOT NULL ORDER BY work")
    return [ClaimRow(*row) for row in rows]


def claim(transaction: Transaction, work: str, holder: str, *, now_ms: int, lease_ms: int) -> ClaimRow:
    """Claim a piece of work that is free; answers the new row. Raises ClaimHeldError if somebody has it."""
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
    """Make sure, in a transaction of the work, that the holder with this number still has it. Raises ClaimLostError."""
    if transaction.row(f"SELECT 1 FROM claim WHERE {IS_OURS}", work=work, fence=fencing_token) is None:
        raise _lost(transaction, work)


def renew(transaction: Transaction, work: str, fencing_token: int, *, until_ms: int, doing: str, place: str) -> None:
    """Let the lease end later, and say how far the work is. Raises ClaimLostError."""
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
    """Give the claim back; `finished_ms` is None if the work did not come to its end.

    False if it was lost, or given back before: then nothing changes.
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
