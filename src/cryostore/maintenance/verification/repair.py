"""`cryo repair`: searches all packs for damaged and missing chunks, and adopts packs that the catalog does not know.

It deletes nothing but torn tails. Each step is complete in itself, so that a repair may be killed at any point and
repeated. This module has the order of the work; `salvage` has the search and says why it is safe.

1. Rows that do not point to their envelope are marked as damaged, if they still point there (`pack_check`).
2. The wanted chunks are all marked chunks, and all chunks that something refers to and that have no row
   (`reference_check`).
3. All packs are searched for the wanted chunks; unknown packs are adopted, and torn tails are cut (`salvage`).
4. The chunks that are still wanted are lost until they are uploaded again. What they affect is reported.
5. Missing and damaged records are written again (`record_check`).
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
"""The number of chunks that one repair searches for, in about 100 MB of memory at most."""


@dataclass
class RepairResult:
    """What a repair found and did; for a dry run, what it would do.

    `marked` rows did not point to their envelope. Of the `wanted` chunks, `lost` could not be found; `more` says that
    there were too many to search for at once. `records` were written again. `left` has the findings that a repair
    cannot fix.
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
        """Whether nothing is left that needs action."""
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
    """Mark the rows that do not point to their envelope. A dry run only adds their chunks to `wanted`."""
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
    pack_check.report_missing_keys()


def _want_marked(context: Context, wanted: set[tuple[int, bytes]]) -> Iterator[Progress]:
    after = START
    while len(wanted) <= WANTED_MAX and (
        rows := context.database.read(partial(damage.page, after=after, limit=ROWS_PER_PAGE))
    ):
        wanted.update(rows)
        after = rows[-1]
        yield Progress("damaged", len(wanted))
