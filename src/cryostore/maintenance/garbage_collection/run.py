"""State of one garbage collection: its access to the catalog, its counts, and the summary it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from cryostore.catalog.database import Answer, Transaction
from cryostore.catalog.processes import epoch as epochs
from cryostore.catalog.queries import timestamps
from cryostore.service import Context


@dataclass
class CollectionResult:
    """Counts of what a run found and did.

    `waiting` chunks are condemned and in quarantine. `packs_skipped` were worth compacting, but there was no space.
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
    """The share of the garbage that the run kept by mistake, in its worst pass."""

    @property
    def summary(self) -> CollectionSummary:
        """The summary of the run."""
        return CollectionSummary(self.passes, self.false_share, self.waiting_bytes)


class CollectionSummary(NamedTuple):
    """How the last run marked, and how much garbage it left in quarantine. All zero before the first run."""

    passes: int = 0
    false_share: float = 0.0
    garbage_bytes: int = 0

    @property
    def place(self) -> str:
        """The summary as text. The row of the claim keeps it until the next run ends."""
        return f"{self.passes} {self.false_share:.6f} {self.garbage_bytes}"

    @classmethod
    def of_place(cls, place: str) -> CollectionSummary:
        """Parse such a text. Any other text counts as zeros."""
        try:
            passes, false_share, *garbage = place.split()
            return cls(int(passes), float(false_share), *map(int, garbage[:1]))
        except ValueError:
            return cls()


@dataclass
class CollectionRun:
    """A run with the context of its claim. A dry run has no claim and writes nothing."""

    context: Context
    outcome: CollectionResult
    quarantine_ms: int
    dry_run: bool
    epoch: int

    @classmethod
    def begin(cls, context: Context, outcome: CollectionResult, *, quarantine_ms: int, dry_run: bool) -> CollectionRun:
        """Raise the epoch (rule 1 of `collect`). `context` is that of the claim, except in a dry run."""
        if dry_run:
            epoch = context.database.read(epochs.epoch)
        else:
            with context.reserve.spending():
                epoch = context.database.write(partial(_next_epoch, now_ms=context.clock()))
        return cls(context, outcome, quarantine_ms, dry_run, epoch)

    @property
    def before_ms(self) -> int:
        """Chunks and packs given up at this time or earlier have passed their quarantine."""
        return self.context.clock() - self.quarantine_ms

    def read(self, work: Callable[[Transaction], Answer]) -> Answer:
        """Read the catalog. Raises ClaimLostError if the lease was due for renewal and the claim is lost."""
        return self.context.database.read(work)

    def write(self, work: Callable[[Transaction], Answer]) -> Answer:
        """Change the catalog under the claim. Raises ClaimLostError if the claim is lost."""
        assert not self.dry_run
        with self.context.reserve.spending():
            return self.context.database.write(work)


def _next_epoch(transaction: Transaction, now_ms: int) -> int:
    timestamps.correct_future(transaction, now_ms=now_ms)
    return epochs.next_epoch(transaction)
