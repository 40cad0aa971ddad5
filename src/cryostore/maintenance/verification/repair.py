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
from cryostore.maintenance.garbage_collection.mark import ROWS_PER_PAGE, START
from cryostore.maintenance.progress import Progress
from cryostore.maintenance.verification import finding_kinds
from cryostore.maintenance.verification.affected import Affected, AffectedSearch
from cryostore.maintenance.verification.damage_marks import DamageMarks
from cryostore.maintenance.verification.finding_kinds import Finding, Findings
from cryostore.maintenance.verification.pack_check import PackCheck
from cryostore.maintenance.verification.record_check import RecordCheck
from cryostore.maintenance.verification.reference_check import ReferenceCheck
from cryostore.maintenance.verification.salvage import Salvage, SalvageResult
from cryostore.service import Context

WANTED_MAX = 500_000
"""So many chunks are looked for at once, in at most some 100 MB."""


@dataclass
class RepairResult:
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
    salvaged: SalvageResult = field(default_factory=SalvageResult)
    left: list[Finding] = field(default_factory=list)
    damage: Affected = field(default_factory=Affected)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to be seen to."""
        return not (self.lost or self.more or any(not found.kind.harmless for found in self.left))


def repair(context: Context, outcome: RepairResult, *, dry_run: bool = False) -> Iterator[Progress]:
    """Repair the store, step by step, and fill `outcome`. Raises StorageUnavailableError."""
    wanted: set[tuple[int, bytes]] = set()
    left, seen = Findings(), Findings()
    yield from _mark(context, outcome, seen, wanted, dry_run=dry_run)
    yield from _want_marked(context, wanted)
    yield from ReferenceCheck(context, seen, AffectedSearch(context), wanted.add).run()
    left.take(seen, finding_kinds.LIST_DAMAGED, finding_kinds.NO_KEY, finding_kinds.UNREADABLE)
    outcome.more = len(wanted) > WANTED_MAX
    while len(wanted) > WANTED_MAX:
        wanted.pop()
    outcome.wanted = len(wanted)
    salvage = Salvage(context, left, wanted, dry_run=dry_run)
    outcome.salvaged = salvage.outcome
    yield from salvage.run()
    outcome.lost = len(wanted)
    if outcome.lost or outcome.more:
        left.take(seen, finding_kinds.PACK_MISSING)
    naming = AffectedSearch(context)
    if wanted:
        lost = Findings()
        yield from ReferenceCheck(context, lost, naming, bad=wanted).run()
        left.take(lost, finding_kinds.CHUNK_MISSING)
    for _ in RecordCheck(context).write_anew(dry_run=dry_run):
        outcome.records += 1
        yield Progress("records", outcome.records)
    outcome.left = left.all()
    outcome.damage = naming.result()


def _mark(
    context: Context, outcome: RepairResult, seen: Findings, wanted: set[tuple[int, bytes]], *, dry_run: bool
) -> Iterator[Progress]:
    """Mark the rows that point to no envelope of theirs; a dry run wants their chunks all the same."""
    marks = DamageMarks(context)

    def on_bad(place: LocatedChunk) -> None:
        if dry_run:
            outcome.marked += 1
            wanted.add((place.vault_id, place.digest))
        else:
            marks.add(place)

    pack_check = PackCheck(context, seen, on_bad)
    for step in pack_check.run():
        marks.flush_if_due()
        yield step
    marks.flush()
    outcome.marked += marks.marked
    wanted.update(marks.left)
    pack_check.say_missing_keys()


def _want_marked(context: Context, wanted: set[tuple[int, bytes]]) -> Iterator[Progress]:
    after = START
    while len(wanted) <= WANTED_MAX and (
        rows := context.database.read(partial(damage.page, after=after, limit=ROWS_PER_PAGE))
    ):
        wanted.update(rows)
        after = rows[-1]
        yield Progress("damaged", len(wanted))
