"""Garbage collection: what nothing refers to any more gives its space back, while everything else goes on.

The rules, on which the safety of every byte rests:

1. A run begins by raising the epoch, in a transaction. There is one run at a time: it has claimed the work, and each
   of its writes makes sure that it still has it (`claims`). A run that has lost it changes nothing any more in the
   catalog; what it may still do beside the catalog, late, is in rule 8.
2. Every write that refers to a chunk does so in one transaction with `chunks.insert` or `chunks.mark_used`, which note
   the current epoch on the chunk's row. To such a write a condemned chunk is an unknown one: its bytes are stored anew,
   and the row is a sound one again, at the new place.
3. After that, the run marks what is referred to (`mark`): first the chunks of all uploads, then all objects, since
   references move only that way. A set that cannot be completed is not used. If the chunks are too many for one set,
   the run marks and sweeps one range of digests after the other, and reads all references for each.
4. It condemns chunks that are not marked and that no write referred to since the run began (`sweep`). What was referred
   to when the run began is marked, or nobody sees it any more; what was referred to since carries the epoch.
5. A chunk's row is removed if it was condemned at least the quarantine ago and, again, is neither marked nor used.
6. A pack that nobody writes to and that no row points into is retired (`packs`). A retired pack takes no rows: a writer
   that comes late with bytes it had flushed there is told to store them anew. After another quarantine its row is
   dropped, if it is still empty, and then its file is deleted; the row is forgotten in a later epoch, once the file
   is gone. A pack without a row is new only to a writer whose bytes were written in the current epoch.
7. Before that, compaction copies what is left in packs of mostly garbage into new packs and moves the rows
   (`compaction`). Readers that looked up the old place look again.
8. A file is deleted only behind the transaction that drops its row, and nothing takes that back: a retired pack takes
   no rows, a dropped one stays dropped until its file is seen to be gone, and names are never used again. So it does
   not matter when the file goes, who deletes it, or how often: also not if that is a run that was outlived, after a
   later one has deleted the file and forgotten the row. The other thing done beside the catalog is cutting torn tails,
   of packs nobody writes to, behind the last whole envelope: to do so late cuts the same bytes or none.

Nothing is decided by a listing or a file's time; a clock that goes wrong changes how long garbage waits, nothing else.
No transaction changes more than a few hundred rows, and none spans a read or write of a file.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Generator, Iterator

from cryostore.catalog.rows import records
from cryostore.maintenance.claims import GARBAGE_COLLECTION, claimed
from cryostore.maintenance.garbage_collection import compaction, pack_removal
from cryostore.maintenance.garbage_collection.bloom_filter import shares
from cryostore.maintenance.garbage_collection.mark import count_chunks, mark
from cryostore.maintenance.garbage_collection.run import CollectionResult, CollectionRun
from cryostore.maintenance.garbage_collection.sweep import sweep
from cryostore.maintenance.progress import Progress
from cryostore.service import Context
from cryostore.service.records.recording import write_all_due_records
from cryostore.service.records.unknown_commits import (
    OutdatedCatalogError,
    count_unknown_commits,
    require_no_unknown_commits,
)

FALSE_SHARE_MAX = 0.05
"""A run that keeps more of the garbage by mistake says so."""
_log = logging.getLogger(__name__)


def collect(
    context: Context, outcome: CollectionResult, *, quarantine_ms: int | None = None, dry_run: bool = False
) -> Iterator[Progress]:
    """Make one run, step by step: each step is a transaction or a few reads and writes of files.

    Counts into `outcome`. May be broken off between any two steps, for good too: a later run does the rest. A dry run
    only counts; a write that comes meanwhile may be counted as garbage.

    Raises ClaimHeldError if another run is under way, ClaimLostError if another one took over, OutdatedCatalogError if
    commits are on record that the catalog does not have.
    """
    quarantine_ms = context.settings.quarantine_ms if quarantine_ms is None else quarantine_ms
    if dry_run:
        context.database.read(require_no_unknown_commits)
        yield from _steps(CollectionRun.begin(context, outcome, quarantine_ms=quarantine_ms, dry_run=True))
        return
    with claimed(context, GARBAGE_COLLECTION) as claim:
        if count := count_unknown_commits(claim.context.database, context.records):
            raise OutdatedCatalogError(count)
        run = CollectionRun.begin(claim.context, outcome, quarantine_ms=quarantine_ms, dry_run=False)
        yield from claim.saying(_steps(run))
        claim.place = outcome.marking.place


def _steps(run: CollectionRun) -> Generator[Progress, None, None]:
    live_bytes: dict[int, int] = defaultdict(int)
    count = yield from count_chunks(run)
    passes = shares(count, run.context.settings.collection_memory_bytes)
    for share in passes:
        marked = yield from mark(run, count, share)
        run.outcome.false_share = max(run.outcome.false_share, marked.false_share())
        yield from sweep(run, marked, live_bytes)
        del marked  # before the next one is made: memory is bounded
        run.outcome.passes += 1
    _warn(run.outcome)
    yield from pack_removal.close(run)
    yield from pack_removal.retire(run)
    yield from pack_removal.drop(run)  # before anything is copied: on a full disk this is where the room comes from
    yield from compaction.compact(run, live_bytes)
    yield from pack_removal.retire(run)
    yield from pack_removal.drop(run)
    yield from _delete_unseen_records(run)


def _delete_unseen_records(run: CollectionRun) -> Iterator[Progress]:
    """Delete the records of commits that no recovery point needs, where no deletion of a point did it."""
    if not run.dry_run and run.write(records.touch_unseen):
        yield Progress("records", 0)
        write_all_due_records(run.context)


def _warn(outcome: CollectionResult) -> None:
    """Log what an operator can change about the memory of collections."""
    if outcome.false_share > FALSE_SHARE_MAX:
        _log.warning(
            "garbage collection kept %.0f %% of the garbage among %d chunks by mistake, in %d passes:"
            " raise collection_memory",
            100 * outcome.false_share,
            outcome.chunks,
            outcome.passes,
        )
    elif outcome.passes > 1:
        _log.info(
            "garbage collection read all references %d times for %d chunks: a larger collection_memory saves time",
            outcome.passes,
            outcome.chunks,
        )


def collect_all(context: Context, *, quarantine_ms: int | None = None, dry_run: bool = False) -> CollectionResult:
    """Make one run to its end. Raises as `collect` does."""
    outcome = CollectionResult()
    for _ in collect(context, outcome, quarantine_ms=quarantine_ms, dry_run=dry_run):
        pass
    return outcome
