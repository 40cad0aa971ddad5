"""Claims on background work: of all processes on a store, one does it.

The rows and the rules: `catalog.processes.claims`.

Whoever has claimed a piece of work does all of it with the context of the claim: each transaction there makes sure that
the claim still stands, and the lease is renewed by reading and writing. What is done outside the catalog is not fenced,
and must be safe when a holder does it late: each place that does such a thing says why it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Generator, Iterator
from functools import partial

from cryostore.catalog.database import Answer, Database, Transaction
from cryostore.catalog.processes import claims
from cryostore.catalog.processes.claims import ClaimRow
from cryostore.core.errors import CryostoreError
from cryostore.maintenance.progress import Progress
from cryostore.service import Context

BACKGROUND_TASKS = "round of duties"
GARBAGE_COLLECTION = "garbage collection"
SCRUB = "scrub"
KEY_ROTATION = "key rotation"
RENEWALS_PER_LEASE = 10


class Claim:
    """A piece of work that this process has claimed. `context` is the one to do it with.

    `doing` and `place` may be set at any time; they are written with the next renewal, the place also at the end.
    `finishes` may be set to False by work that stops before its end.
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
        """Renew the lease from time to time. Raises ClaimLostError."""
        since_ms = self._plain.clock() - self._renewed_ms
        if not 0 <= since_ms < self._plain.settings.claim_lease_ms // RENEWALS_PER_LEASE:
            self.renew()

    def renew(self) -> None:
        """Renew the lease, and say how far the work is. Raises ClaimLostError."""
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
        """Make sure that the claim still stands. Raises ClaimLostError."""
        claims.require_held(transaction, self._work, self._fencing_token)

    def saying(self, steps: Generator[Progress, None, None]) -> Iterator[Progress]:
        """The steps, each of which is said to be what this process does, and a sign of life. Raises ClaimLostError."""
        with contextlib.closing(steps):
            for step in steps:
                self.doing = step.words
                self.renew_if_due()
                yield step

    def release(self, *, finished: bool) -> bool:
        """Give the claim back; false if it does not stand any more."""
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
    """The catalog of a store, for as long as a claim stands. Raises ClaimLostError from then on."""

    def __init__(self, database: Database, claim: Claim) -> None:
        self._database = database
        self._claim = claim

    def read(self, work: Callable[[Transaction], Answer]) -> Answer:
        """See `Database.read`. Long reading renews the lease, too."""
        self._claim.renew_if_due()
        return self._database.read(work)

    def write(self, work: Callable[[Transaction], Answer]) -> Answer:
        """See `Database.write`."""
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
    """Claim a piece of work for the block. At its end the work is finished, unless it raised or says otherwise.

    Raises ClaimHeldError if another process has it, ClaimLostError if one took it meanwhile, StorageUnavailableError.
    """
    now_ms, lease_ms = context.clock(), context.settings.claim_lease_ms
    take = partial(claims.claim, work=work, holder=this_process(), now_ms=now_ms, lease_ms=lease_ms)
    with context.reserve.spending():
        row = context.database.write(take)
    claim = Claim(context, row, now_ms=now_ms)
    try:
        yield claim
        if not claim.release(finished=claim.finishes):
            context.database.read(claim.hold)  # which says who has it now
    except BaseException:
        with contextlib.suppress(CryostoreError):
            claim.release(finished=False)
        raise


def this_process() -> str:
    """What claims of this process are known by: the machine's name and the number of the process."""
    return f"{os.uname().nodename}/{os.getpid()}"


def is_free(context: Context, row: ClaimRow) -> bool:
    """Whether a piece of work may be claimed now, as far as its row says."""
    return row.is_free(now_ms=context.clock(), lease_ms=context.settings.claim_lease_ms)
