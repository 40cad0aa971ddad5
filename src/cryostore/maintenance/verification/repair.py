"""Repair: what is damaged or missing is looked for in all packs, and packs nobody knows are taken up.

Lives here: the order of the work. The search, and why it is safe: `salvage`. Deletes nothing but torn tails; every step
stands for itself, so that repair may be killed anywhere and repeated.

1. Rows that point to no envelope of theirs are marked as damaged, while they still do (`pack_check`).
2. Wanted are all chunks that are marked, and all that something refers to and that have no row (`reference_check`).
3. All packs are searched for these; unknown packs are adopted, and torn tails cut (`salvage`).
4. What is still wanted is lost until it is uploaded again, and what that hurts is named.
5. Records that are not whole are written anew (`record_check`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from cryostore.catalog.queries import damage
from cryostore.catalog.queries.damage import LocatedChunk
from cryostore.maintenance.gc.mark import ROWS_PER_PAGE, START
from cryostore.maintenance.gc.marking import Marking
from cryostore.maintenance.progress import Progress
from cryostore.maintenance.verification import finding
from cryostore.maintenance.verification.damage import Damage, Naming
from cryostore.maintenance.verification.finding import Finding, Findings
from cryostore.maintenance.verification.pack_check import PackCheck
from cryostore.maintenance.verification.record_check import RecordCheck
from cryostore.maintenance.verification.reference_check import ReferenceCheck
from cryostore.maintenance.verification.salvage import Salvage, Salvaged
from cryostore.service import Context

WANTED_MAX = 500_000
"""So many chunks are looked for at once, in at most some 100 MB."""


@dataclass
class Repaired:
    """What was wrong, and what became of it; in a dry run, what would.

    `marked` rows were found to point to nothing of theirs. Of the `wanted` chunks, so many are still `lost`; `more`
    says that there were too many to look for at once. So many `records` were written anew. `left` is what repair cannot
    or may not help.
    """

    marked: int = 0
    wanted: int = 0
    lost: int = 0
    more: bool = False
    records: int = 0
    salvaged: Salvaged = field(default_factory=Salvaged)
    left: list[Finding] = field(default_factory=list)
    damage: Damage = field(default_factory=Damage)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to be seen to."""
        return not (self.lost or self.more or any(not found.kind.harmless for found in self.left))


def repair(context: Context, outcome: Repaired, *, dry_run: bool = False) -> Iterator[Progress]:
    """Repair the store, step by step, and fill `outcome`. Raises StorageUnavailableError."""
    wanted: set[tuple[int, bytes]] = set()
    left, seen = Findings(), Findings()
    yield from _mark(context, outcome, seen, wanted, dry_run=dry_run)
    yield from _want_marked(context, wanted)
    yield from ReferenceCheck(context, seen, Naming(context), wanted.add).run()
    left.take(seen, finding.LIST_DAMAGED, finding.NO_KEY, finding.UNREADABLE)
    outcome.more = len(wanted) > WANTED_MAX
    while len(wanted) > WANTED_MAX:
        wanted.pop()
    outcome.wanted = len(wanted)
    salvage = Salvage(context, left, wanted, dry_run=dry_run)
    outcome.salvaged = salvage.outcome
    yield from salvage.run()
    outcome.lost = len(wanted)
    if outcome.lost or outcome.more:
        left.take(seen, finding.PACK_MISSING)
    naming = Naming(context)
    if wanted:
        lost = Findings()
        yield from ReferenceCheck(context, lost, naming, bad=wanted).run()
        left.take(lost, finding.CHUNK_MISSING)
    for _ in RecordCheck(context).write_anew(dry_run=dry_run):
        outcome.records += 1
        yield Progress("records", outcome.records)
    outcome.left = left.all()
    outcome.damage = naming.result()


def _mark(
    context: Context, outcome: Repaired, seen: Findings, wanted: set[tuple[int, bytes]], *, dry_run: bool
) -> Iterator[Progress]:
    """Mark the rows that point to no envelope of theirs; a dry run wants their chunks all the same."""
    marking = Marking(context)

    def on_bad(place: LocatedChunk) -> None:
        if dry_run:
            outcome.marked += 1
            wanted.add((place.vault_id, place.digest))
        else:
            marking.add(place)

    pack_check = PackCheck(context, seen, on_bad)
    for step in pack_check.run():
        marking.settle_if_due()
        yield step
    marking.settle()
    outcome.marked += marking.marked
    wanted.update(marking.left)
    pack_check.say_missing_keys()


def _want_marked(context: Context, wanted: set[tuple[int, bytes]]) -> Iterator[Progress]:
    after = START
    while len(wanted) <= WANTED_MAX and (
        rows := context.database.read(partial(damage.page, after=after, limit=ROWS_PER_PAGE))
    ):
        wanted.update(rows)
        after = rows[-1]
        yield Progress("damaged", len(wanted))
