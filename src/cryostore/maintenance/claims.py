"""Claims on background work: of all processes of a store, one does each piece of work.

The process that holds a claim does the work with the context of the claim. Every write transaction of that context
first checks that the claim still stands, and reads and writes renew the lease. Effects outside the catalog are not
protected in this way, so they must be safe even if a former holder causes them late; each place that causes such an
effect says why it is safe.

`catalog.processes.claims` has the rows and their rules.

`Progress` says how far such work, or any other long piece of work, has come.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import NamedTuple

from cryostore.catalog.database import Answer, Database, Transaction
from cryostore.catalog.processes import claims
from cryostore.catalog.processes.claims import ClaimRow
from cryostore.core.errors import CryostoreError
from cryostore.service import Context

BACKGROUND_TASKS = "round of duties"  # the names are stored in catalogs
GARBAGE_COLLECTION = "garbage collection"
SCRUB = "scrub"
KEY_ROTATION = "key rotation"
RENEWALS_PER_LEASE = 10


class Progress(NamedTuple):
    """How far a stage has come. `total` is None if it is not known."""

    stage: str
    done: int
    total: int | None = None

    @property
    def words(self) -> str:
        """The progress as text for people."""
        return f"{self.stage} {self.done}" + ("" if self.total is None else f" of {self.total}")


class Claim:
    """A piece of work that this process has claimed, to be done with `context`.

    `doing` (for people) and `place` (where the next holder continues) may be set at any time. Both are written with the
    next renewal, and `place` at the end too. Work that stops early sets `finishes` to False.
    """

    def __init__(self, context: Context, row: ClaimRow, *, now_ms: int) -> None:
        self.doing = ""
        self.place = row.place
        self.finishes = True
        self.context = dataclasses.replace(context, database=ClaimedDatabase(context.database, self))
        self._plain = context
        self._work, self._fencing_token = row.work, row.fencing_token
        self._renewed_ms = now_ms

    def renew_if_due(self) -> None:
        """Renew the lease if a part of it has passed. Raises ClaimLostError."""
        since_ms = self._plain.clock() - self._renewed_ms
        if not 0 <= since_ms < self._plain.settings.claim_lease_ms // RENEWALS_PER_LEASE:
            self.renew()

    def renew(self) -> None:
        """Renew the lease and record how far the work has come. Raises ClaimLostError."""
        now_ms = self._plain.clock()
        until_ms = now_ms + self._plain.settings.claim_lease_ms
        work = partial(
            claims.renew,
            work=self._work,
            fencing_token=self._fencing_token,
            until_ms=until_ms,
            doing=self.doing,
            place=self.place,
        )
        with self._plain.reserve.spending():
            self._plain.database.write(work)
        self._renewed_ms = now_ms

    def hold(self, transaction: Transaction) -> None:
        """Check in a transaction that the claim still stands. Raises ClaimLostError."""
        claims.require_held(transaction, self._work, self._fencing_token)

    def saying(self, steps: Generator[Progress, None, None]) -> Iterator[Progress]:
        """Pass steps through, and record each as what this process does; renews the lease. Raises ClaimLostError."""
        with contextlib.closing(steps):
            for step in steps:
                self.doing = step.words
                self.renew_if_due()
                yield step

    def release(self, *, finished: bool) -> bool:
        """Release the claim. Returns False if it was lost before."""
        now_ms = self._plain.clock()
        work = partial(
            claims.release,
            work=self._work,
            fencing_token=self._fencing_token,
            now_ms=now_ms,
            finished_ms=now_ms if finished else None,
            place=self.place,
        )
        with self._plain.reserve.spending():
            return self._plain.database.write(work)


class ClaimedDatabase:
    """A database that can be used only while a claim stands; afterwards it raises ClaimLostError."""

    def __init__(self, database: Database, claim: Claim) -> None:
        self._database = database
        self._claim = claim

    def read(self, work: Callable[[Transaction], Answer]) -> Answer:
        """See `Database.read`. Renews the lease if due."""
        self._claim.renew_if_due()
        return self._database.read(work)

    def write(self, work: Callable[[Transaction], Answer]) -> Answer:
        """See `Database.write`. Checks the claim in the transaction; renews the lease if due."""
        self._claim.renew_if_due()

        def fenced(transaction: Transaction) -> Answer:
            self._claim.hold(transaction)
            return work(transaction)

        return self._database.write(fenced)

    def migrate(self) -> None:
        """See `Database.migrate`."""
        self._database.migrate()

    def close(self) -> None:
        """See `Database.close`."""
        self._database.close()


@contextlib.contextmanager
def claimed(context: Context, work: str) -> Iterator[Claim]:
    """Claim a piece of work for the duration of the block.

    The work counts as finished if the block ends without an exception and leaves `finishes` set. Raises ClaimHeldError
    if another process holds the claim, ClaimLostError if another process took it meanwhile, StorageUnavailableError.
    """
    now_ms, lease_ms = context.clock(), context.settings.claim_lease_ms
    take = partial(claims.claim, work=work, holder=this_process(), now_ms=now_ms, lease_ms=lease_ms)
    with context.reserve.spending():
        row = context.database.write(take)
    claim = Claim(context, row, now_ms=now_ms)
    try:
        yield claim
        if not claim.release(finished=claim.finishes):
            context.database.read(claim.hold)  # raises an error that names the new holder
    except BaseException:
        with contextlib.suppress(CryostoreError):
            claim.release(finished=False)
        raise


def this_process() -> str:
    """Return the name of this process in claims: host name and process id."""
    return f"{os.uname().nodename}/{os.getpid()}"


def is_free(context: Context, row: ClaimRow) -> bool:
    """Whether a piece of work can be claimed now, according to its row."""
    return row.is_free(now_ms=context.clock(), lease_ms=context.settings.claim_lease_ms)
