"""Removal of packs: closes packs whose writer is gone, retires empty packs, and deletes them after their quarantine.

This is rule 6 of `collect`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import chunks, packs
from cryostore.catalog.rows.packs import PackRow
from cryostore.core.errors import BlobNotFoundError
from cryostore.maintenance.garbage_collection.run import CollectionRun
from cryostore.maintenance.progress import Progress

PACKS_PER_BATCH = 100


def close(run: CollectionRun) -> Iterator[Progress]:
    """Close every open pack whose writer is gone."""
    for done, name in enumerate([] if run.dry_run else run.read(packs.open_packs)):
        close_one(run, name)
        yield Progress("close", done + 1)


def close_one(run: CollectionRun, name: str) -> bool:
    """Close a pack if no process writes to it any more. Returns whether it is closed now."""
    try:
        keep_bytes = run.read(partial(chunks.last_end_in, pack_name=name))
        closed = run.context.store.close_pack(name, keep_bytes=keep_bytes)
    except BlobNotFoundError:
        return False  # perhaps a disk is away: conclude nothing
    if closed:
        run.write(partial(packs.close, name=name))
    return closed


def sizes(run: CollectionRun, rows: Sequence[PackRow]) -> list[int | None]:
    """Return the size of each of these packs in bytes, None if a pack does not exist.

    If packs do not grow, their rows hold the size; only the first run asks the blob store for a size that no row holds
    yet, and records it. If packs grow, the disk is asked, which is cheap and accounts for removed tails.
    """
    store = run.context.store
    if store.packs_grow:
        return store.pack_sizes([row.name for row in rows])
    known = {row.pack_number: row.size_bytes for row in rows if row.size_bytes is not None}
    unknown = [row for row in rows if row.pack_number not in known]
    answers = zip(unknown, store.pack_sizes([row.name for row in unknown]), strict=True) if unknown else ()
    asked = {row.pack_number: size for row, size in answers if size is not None}
    if asked and not run.dry_run:
        run.write(partial(packs.set_sizes, sizes=asked))
    return [(known | asked).get(row.pack_number) for row in rows]


def retire(run: CollectionRun) -> Iterator[Progress]:
    """Retire the closed packs that no row points into. Checks each pack once."""
    after = 0
    while not run.dry_run:
        numbers = run.read(partial(packs.empty, after=after, limit=PACKS_PER_BATCH))
        if not numbers:
            return
        run.outcome.packs_retired += run.write(partial(_retire_all, run=run, numbers=numbers))
        after = numbers[-1]
        yield Progress("retire", run.outcome.packs_retired)


def _retire_all(transaction: Transaction, *, run: CollectionRun, numbers: Sequence[int]) -> int:
    now_ms = run.context.clock()
    return sum(packs.retire(transaction, number, now_ms=now_ms) for number in numbers)


def give_back(run: CollectionRun, name: str) -> Iterator[Progress]:
    """Retire a pack if it is empty, and delete its file if its quarantine is over."""
    row = run.read(partial(packs.find, name=name))
    if row is None or not run.write(partial(_retire_all, run=run, numbers=[row.pack_number])):
        return
    run.outcome.packs_retired += 1
    if (row := run.read(partial(packs.find, name=name))) is not None:
        yield from _drop(run, row)


def drop(run: CollectionRun) -> Iterator[Progress]:
    """Delete retired packs whose quarantine is over.

    Drops the row, deletes the file, and forgets the row in a later epoch.
    """
    after = 0
    while rows := run.read(partial(packs.retired, after=after, limit=PACKS_PER_BATCH)):
        for row in rows:
            if not run.dry_run:
                yield from _drop(run, row)
        after = rows[-1].pack_number


def _drop(run: CollectionRun, row: PackRow) -> Iterator[Progress]:
    if row.dropped_epoch == run.epoch:
        return  # this run has already deleted the file
    store = run.context.store
    known = None
    if row.dropped_epoch is None:
        before_ms = run.before_ms
        dropped = partial(packs.drop, pack_number=row.pack_number, epoch=run.epoch, before_ms=before_ms)
        if row.retired_ms is None or row.retired_ms > before_ms or not run.write(dropped):
            return
        yield Progress("drop", run.outcome.packs_deleted)
        known = None if store.packs_grow else row.size_bytes
    size = store.pack_bytes(row.name) if known is None else known
    if size is not None:
        store.delete_pack(row.name)
        run.outcome.packs_deleted += 1
        run.outcome.deleted_bytes += size
    elif row.dropped_epoch is not None:
        run.write(partial(packs.forget, pack_number=row.pack_number, epoch=run.epoch))
    yield Progress("drop", run.outcome.packs_deleted)
