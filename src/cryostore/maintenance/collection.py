"""One run of garbage collection: its lease, which fences all it writes, and what it counts. The rules: `gc`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from cryostore.catalog import collections
from cryostore.catalog.database import Answer, Transaction
from cryostore.core.errors import CryostoreError
from cryostore.service import Context

RENEWALS_PER_LEASE = 4


class CollectionRunsError(CryostoreError):
    """Another collection of this store is under way."""


class CollectionLostError(CryostoreError):
    """The collection gave no sign of life for too long, and another one began."""


class Progress(NamedTuple):
    """How far a stage is. `total` is None where nobody knows it."""

    stage: str
    done: int
    total: int | None = None


@dataclass
class Outcome:
    """What a run found and did. `waiting` chunks are condemned, in their quarantine.

    `packs_skipped` were worth compacting, and there was no room to do it.
    """

    chunks: int = 0
    condemned: int = 0
    condemned_bytes: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    removed: int = 0
    removed_bytes: int = 0
    packs_compacted: int = 0
    moved: int = 0
    moved_bytes: int = 0
    unreadable: int = 0
    packs_skipped: int = 0
    packs_retired: int = 0
    packs_deleted: int = 0
    deleted_bytes: int = 0


@dataclass
class Run:
    """A run under its lease; a dry one has none, and writes nothing."""

    context: Context
    outcome: Outcome
    quarantine_ms: int
    dry_run: bool
    epoch: int
    holder: str
    renewed_ms: int
    ended: bool = False

    @classmethod
    def begin(cls, context: Context, outcome: Outcome, *, quarantine_ms: int, dry_run: bool) -> Run:
        """Take the lease and raise the epoch. Raises CollectionRunsError if another run has it."""
        now_ms, holder = context.clock(), context.new_id()
        if dry_run:
            epoch: int | None = context.database.read(collections.epoch)
        else:
            lease_ms = context.settings.collection_lease_ms
            with context.reserve.spending():
                epoch = context.database.write(
                    lambda transaction: collections.begin(transaction, holder, now_ms=now_ms, lease_ms=lease_ms)
                )
        if epoch is None:
            raise CollectionRunsError("garbage is being collected already", hint="`cryo jobs` shows since when")
        return cls(context, outcome, quarantine_ms, dry_run, epoch, holder, now_ms)

    @property
    def before_ms(self) -> int:
        """What was given up then or earlier has been in quarantine for long enough."""
        return self.context.clock() - self.quarantine_ms

    def read(self, work: Callable[[Transaction], Answer]) -> Answer:
        """Read the catalog; renews the lease when that is due, so that long reading does not lose it."""
        lease_ms = self.context.settings.collection_lease_ms
        if not self.dry_run and self.context.clock() - self.renewed_ms >= lease_ms // RENEWALS_PER_LEASE:
            self.write(lambda _: None)
        return self.context.database.read(work)

    def write(self, work: Callable[[Transaction], Answer]) -> Answer:
        """Change the catalog, if the run still has its lease. Raises CollectionLostError if not."""
        assert not self.dry_run
        now_ms = self.context.clock()
        until_ms = now_ms + self.context.settings.collection_lease_ms

        def fenced(transaction: Transaction) -> Answer:
            if not collections.renew(transaction, self.epoch, self.holder, until_ms=until_ms):
                raise CollectionLostError("another collection has begun since")
            return work(transaction)

        with self.context.reserve.spending():
            answer = self.context.database.write(fenced)
        self.renewed_ms = now_ms
        return answer

    def end(self, *, finished: bool) -> None:
        """Give the lease back, once; a run that did not finish does so if it can."""
        if self.dry_run or self.ended:
            return
        finished_ms = self.context.clock() if finished else None
        suppressed = contextlib.nullcontext() if finished else contextlib.suppress(CryostoreError)
        with suppressed, self.context.reserve.spending():
            self.context.database.write(
                lambda transaction: collections.end(transaction, self.epoch, self.holder, finished_ms=finished_ms)
            )
        self.ended = True
