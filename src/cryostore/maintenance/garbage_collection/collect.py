"""Garbage collection: frees the space of chunks that nothing refers to, while the store stays in use.

These rules keep every byte that is needed safe:

1. A run begins by raising the epoch in a transaction. There is one run at a time: it holds a claim, and each of its
   writes checks in its transaction that the claim still stands (`claims`). A run that has lost its claim changes
   nothing more in the catalog. What it may still do outside the catalog is covered by rule 8.
2. Every write that refers to a chunk calls `chunks.insert` or `chunks.mark_used` in the same transaction. Both note the
   current epoch in the chunk's row. Such a write treats a condemned chunk as unknown: the bytes are stored again, and
   the row becomes sound again, at the new place.
3. After raising the epoch, the run marks every chunk that is referred to (`mark`): first the chunks of all uploads,
   then those of all objects, because references only move in this direction. A set that cannot be completed is not
   used. If one set cannot hold all chunks, the run marks and sweeps one range of digests after the other, and reads all
   references for each range.
4. The run condemns the chunks that are not marked and that no write has referred to since the run began (`sweep`). A
   chunk that was referred to when the run began is marked, unless its reference is gone by now. A chunk that was
   referred to since then carries the epoch.
5. The run removes a chunk's row if the chunk was condemned at least one quarantine ago and again is neither marked nor
   used.
6. The run retires a pack that no process writes to and no row points into (`compaction`). A retired pack accepts no
   rows: a writer that arrives late with bytes it had flushed there is told to store them again. After another
   quarantine the run drops the pack's row, if the pack is still empty, and then deletes its file. In a later epoch,
   once the file is gone, it forgets the row. Only a writer whose bytes were written in the current epoch may add a row
   for a pack that has none.
7. Before that, compaction copies the remaining chunks of packs that are mostly garbage into new packs and moves their
   rows (`compaction`). A reader that looked up the old place looks again.
8. A file is deleted only after the transaction that drops its row, and nothing undoes that: a retired pack accepts no
   rows, a dropped pack stays dropped until its file is seen to be gone, and names are never reused. So it does not
   matter when the file is deleted, by which process, or how often. This holds even for a run that lost its claim and
   deletes a file after a later run has deleted it and forgotten its row. The only other effect outside the catalog is
   the removal of torn tails, behind the last whole envelope of packs that no process writes to: done late, it removes
   the same bytes or none.

No decision depends on a listing or on the time of a file. A wrong clock changes how long garbage waits, and nothing
else. No transaction changes more than a few hundred rows, and none spans a read or write of a file.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Generator, Iterator
from functools import partial

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import chunks, records
from cryostore.catalog.rows.chunks import SweptChunk
from cryostore.core.digest import DIGEST_BYTES
from cryostore.maintenance.claims import GARBAGE_COLLECTION, Progress, claimed
from cryostore.maintenance.garbage_collection import compaction
from cryostore.maintenance.garbage_collection.mark import DigestSet, count_chunks, mark, shares
from cryostore.maintenance.garbage_collection.run import CollectionResult, CollectionRun
from cryostore.service import Context
from cryostore.service.recording import write_all_due_records
from cryostore.service.unknown_commits import (
    OutdatedCatalogError,
    count_unknown_commits,
    require_no_unknown_commits,
)

FALSE_SHARE_MAX = 0.05
"""A run logs a warning if it keeps a larger share of the garbage by mistake."""
CHUNKS_PER_PAGE = 500
LAST_DIGEST = b"\xff" * DIGEST_BYTES
_log = logging.getLogger(__name__)


def collect(
    context: Context, outcome: CollectionResult, *, quarantine_ms: int | None = None, dry_run: bool = False
) -> Iterator[Progress]:
    """Run one garbage collection, step by step: each step is a transaction or a few reads and writes of files.

    Counts into `outcome`. May be stopped for good between any two steps: a later run does the rest. A dry run only
    counts; it may count the chunks of a concurrent write as garbage.

    Raises ClaimHeldError if another run is in progress, ClaimLostError if another run took over, OutdatedCatalogError
    if there are records of commits that the catalog does not have.
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
        claim.place = outcome.summary.place


def _steps(run: CollectionRun) -> Generator[Progress, None, None]:
    live_bytes: dict[int, int] = defaultdict(int)
    count = yield from count_chunks(run)
    passes = shares(count, run.context.settings.collection_memory_bytes)
    for share in passes:
        marked = yield from mark(run, count, share)
        run.outcome.false_share = max(run.outcome.false_share, marked.false_share())
        yield from sweep(run, marked, live_bytes)
        del marked  # before the next set is made, to bound memory
        run.outcome.passes += 1
    _warn(run.outcome)
    yield from compaction.close(run)
    yield from compaction.retire(run)
    yield from compaction.drop(run)  # before copying: on a full disk this frees the space for it
    yield from compaction.compact(run, live_bytes)
    yield from compaction.retire(run)
    yield from compaction.drop(run)
    yield from _delete_unseen_records(run)


def sweep(run: CollectionRun, marked: DigestSet, live_bytes: dict[int, int]) -> Generator[Progress, None, None]:
    """Check every chunk of the set's share once: condemn it, or remove it after its quarantine (rules 4 and 5).

    Adds to `live_bytes`, by pack number, the bytes that rows still point to. Condemned chunks count as live.
    """
    for page in _swept_pages(run, marked.share):
        unmarked = [chunk for chunk in page if not marked.holds(chunk.vault_id, chunk.digest)]
        yield Progress("sweep", run.outcome.chunks)  # an interruption here falls between the check and the change
        gone = _condemn_or_remove(run, unmarked) if unmarked else set()
        for chunk in page:
            if chunk not in gone:
                live_bytes[chunk.pack_number] += chunk.sealed_length
        run.outcome.chunks += len(page)


def _swept_pages(run: CollectionRun, share: range) -> Iterator[list[SweptChunk]]:
    """Yield pages of the chunks whose digest has a first byte in the share, vault by vault."""
    below = (share.start - 1).to_bytes() + LAST_DIGEST[1:] if share.start else b""
    after = (0, below)
    while page := run.read(partial(chunks.page, after=after, limit=CHUNKS_PER_PAGE)):
        last = page[-1]
        if last.digest[0] < share.start:  # the next vault begins; the share may begin further on
            after = (last.vault_id, below)
        elif last.digest[0] in share:
            after = (last.vault_id, last.digest)
        else:
            after = (last.vault_id, LAST_DIGEST)
        if own := [chunk for chunk in page if chunk.digest[0] in share]:
            yield own


def _condemn_or_remove(run: CollectionRun, unmarked: list[SweptChunk]) -> set[SweptChunk]:
    """Condemn or remove unmarked chunks, as far as the rules allow. Returns the removed chunks."""
    now_ms, before_ms = run.context.clock(), run.before_ms

    def is_new(chunk: SweptChunk) -> bool:
        return chunk.condemned_ms is None or chunk.condemned_ms > now_ms  # condemned in the future, by a wrong clock

    def work(transaction: Transaction) -> tuple[list[SweptChunk], list[SweptChunk]]:
        condemned = [
            chunk
            for chunk in unmarked
            if is_new(chunk)
            and chunks.condemn(transaction, chunk.vault_id, chunk.digest, epoch=run.epoch, now_ms=now_ms)
        ]
        removed = [
            chunk
            for chunk in unmarked
            if chunks.remove(transaction, chunk.vault_id, chunk.digest, epoch=run.epoch, before_ms=before_ms)
        ]
        return condemned, removed

    if run.dry_run:
        condemned = [chunk for chunk in unmarked if is_new(chunk)]
        removed = [chunk for chunk in unmarked if chunk.condemned_ms is not None and chunk.condemned_ms <= before_ms]
    elif any(chunk.used_epoch < run.epoch for chunk in unmarked):
        condemned, removed = run.write(work)
    else:
        return set()
    gone = set(removed)
    waiting = {chunk for chunk in unmarked if chunk.condemned_ms is not None}.union(condemned) - gone
    _tally(run.outcome, condemned, removed, waiting)
    return gone


def _tally(
    outcome: CollectionResult, condemned: list[SweptChunk], removed: list[SweptChunk], waiting: set[SweptChunk]
) -> None:
    outcome.condemned += len(condemned)
    outcome.condemned_bytes += sum(chunk.sealed_length for chunk in condemned)
    outcome.removed += len(removed)
    outcome.removed_bytes += sum(chunk.sealed_length for chunk in removed)
    outcome.waiting += len(waiting)
    outcome.waiting_bytes += sum(chunk.sealed_length for chunk in waiting)


def _delete_unseen_records(run: CollectionRun) -> Iterator[Progress]:
    """Delete the records of commits that no recovery point needs, where no deletion of a point did it."""
    if not run.dry_run and run.write(records.touch_unseen):
        yield Progress("records", 0)
        write_all_due_records(run.context)


def _warn(outcome: CollectionResult) -> None:
    """Log when more collection memory would help."""
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
    """Run one garbage collection to its end. Raises as `collect` does."""
    outcome = CollectionResult()
    for _ in collect(context, outcome, quarantine_ms=quarantine_ms, dry_run=dry_run):
        pass
    return outcome
