"""One run of garbage collection: what it may do, and what it counts. The rules: `gc`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from cryostore.catalog.database import Answer, Transaction
from cryostore.catalog.processes import epoch as collections
from cryostore.catalog.queries import timestamps
from cryostore.service import Context


@dataclass
class CollectionResult:
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
    passes: int = 0
    false_share: float = 0.0
    """The part of the garbage that the run took for needed, in the worst of its passes."""

    @property
    def marking(self) -> CollectionSummary:
        """How the run marked."""
        return CollectionSummary(self.passes, self.false_share, self.waiting_bytes)


class CollectionSummary(NamedTuple):
    """How the last run marked, and how many bytes of garbage it left in quarantine; zeros before the first one."""

    passes: int = 0
    false_share: float = 0.0
    garbage_bytes: int = 0

    @property
    def place(self) -> str:
        """The same as a text, which the row of the claim keeps until the next run ends."""
        return f"{self.passes} {self.false_share:.6f} {self.garbage_bytes}"

    @classmethod
    def of_place(cls, place: str) -> CollectionSummary:
        """Read such a text; what is none counts as nothing."""
        try:
            passes, false_share, *garbage = place.split()
            return cls(int(passes), float(false_share), *map(int, garbage[:1]))
        except ValueError:
            return cls()


@dataclass
class CollectionRun:
    """A run under its claim, whose context it has; a dry one has none, and writes nothing."""

    context: Context
    outcome: CollectionResult
    quarantine_ms: int
    dry_run: bool
    epoch: int

    @classmethod
    def begin(cls, context: Context, outcome: CollectionResult, *, quarantine_ms: int, dry_run: bool) -> CollectionRun:
        """Raise the epoch: see rule 1. `context` is that of the claim, except in a dry run."""
        if dry_run:
            epoch = context.database.read(collections.epoch)
        else:
            with context.reserve.spending():
                epoch = context.database.write(partial(_next_epoch, now_ms=context.clock()))
        return cls(context, outcome, quarantine_ms, dry_run, epoch)

    @property
    def before_ms(self) -> int:
        """What was given up then or earlier has been in quarantine for long enough."""
        return self.context.clock() - self.quarantine_ms

    def read(self, work: Callable[[Transaction], Answer]) -> Answer:
        """Read the catalog. Raises ClaimLostError where the lease was to be renewed and the run has lost it."""
        return self.context.database.read(work)

    def write(self, work: Callable[[Transaction], Answer]) -> Answer:
        """Change the catalog, if the run still has its claim. Raises ClaimLostError if not."""
        assert not self.dry_run
        with self.context.reserve.spending():
            return self.context.database.write(work)


def _next_epoch(transaction: Transaction, now_ms: int) -> int:
    timestamps.correct_future(transaction, now_ms=now_ms)
    return collections.next_epoch(transaction)
