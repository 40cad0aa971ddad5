"""Sweep phase: condemns chunks that nothing refers to, and removes them after their quarantine.

These are rules 4 and 5 of `collect`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import partial

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import chunks
from cryostore.catalog.rows.chunks import SweptChunk
from cryostore.core.digest import DIGEST_BYTES
from cryostore.maintenance.garbage_collection.bloom_filter import DigestSet
from cryostore.maintenance.garbage_collection.run import CollectionResult, CollectionRun
from cryostore.maintenance.progress import Progress

CHUNKS_PER_PAGE = 500
LAST_DIGEST = b"\xff" * DIGEST_BYTES


def sweep(run: CollectionRun, marked: DigestSet, live_bytes: dict[int, int]) -> Generator[Progress, None, None]:
    """Check every chunk of the set's share once.

    Adds to `live_bytes`, by pack number, the bytes that rows still point to. Condemned chunks count as live.
    """
    for page in _pages(run, marked.share):
        unmarked = [chunk for chunk in page if not marked.holds(chunk.vault_id, chunk.digest)]
        yield Progress("sweep", run.outcome.chunks)  # an interruption here falls between the check and the change
        gone = _condemn_or_remove(run, unmarked) if unmarked else set()
        for chunk in page:
            if chunk not in gone:
                live_bytes[chunk.pack_number] += chunk.sealed_length
        run.outcome.chunks += len(page)


def _pages(run: CollectionRun, share: range) -> Iterator[list[SweptChunk]]:
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
