"""Compaction and removal of packs.

Compaction is rule 7 of `collect`: it moves the live chunks of packs that are mostly garbage to new packs, and merges
small packs. An envelope is copied as it is, after it was opened once. An envelope that cannot be opened stays in place,
and its pack with it.

Growing packs are emptied one by one, because all appended envelopes end up in one pack anyway. If packs are put whole,
one batch of envelopes becomes one pack; a batch then spans several packs, or small packs would be copied to small packs
for ever.

Removal is rule 6: it closes packs whose writer is gone, retires empty packs, and deletes them after their quarantine.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from cryostore.catalog.database import Transaction
from cryostore.catalog.rows import chunks, packs
from cryostore.catalog.rows.chunks import PackedChunk
from cryostore.catalog.rows.packs import PackRow
from cryostore.chunks.packs.immutable import WHOLE_BYTES_MIN
from cryostore.chunks.store import Location
from cryostore.core.errors import BlobNotFoundError, DamagedDataError, KeyUnavailableError, StorageFullError
from cryostore.core.limits import KIB, MIB
from cryostore.maintenance.claims import Progress
from cryostore.maintenance.garbage_collection.run import CollectionRun

CHUNKS_PER_BATCH = 500
BYTES_PER_BATCH = 16 * MIB
CATALOG_BYTES = 128 * KIB
"""About how much the catalog grows when the moved chunks of one batch are recorded."""
GARBAGE_PER_LIVE = 16
"""Garbage of up to one byte per so many live bytes stays in place."""
WORTH_PER_PACK = 16
"""Garbage of less than this fraction of a pack, in the whole store, stays in place."""
WHOLE_BYTES_TARGET = 2 * WHOLE_BYTES_MIN
"""Packs that do not grow are merged if they are smaller than half of this; a larger pack is worth its own object."""
PACKS_PER_BATCH = 100


class PackUse(NamedTuple):
    """A pack and its live bytes."""

    pack_number: int
    name: str
    size_bytes: int
    live_bytes: int

    @property
    def garbage_bytes(self) -> int:
        """The bytes that compacting the pack would free."""
        return self.size_bytes - self.live_bytes


def compact(run: CollectionRun, live_bytes: dict[int, int]) -> Generator[Progress, None, None]:
    """Empty the packs that are worth it. `live_bytes` has the bytes that rows point to, by pack number."""
    uses = list(_uses(run, live_bytes))
    yield Progress("measure", len(uses))
    reserve = run.context.reserve
    free_bytes = reserve.free_bytes if reserve.has_disk else None
    target = run.context.settings.pack_bytes_target
    grow = run.context.store.packs_grow
    merged_bytes_min = target if grow else min(target, WHOLE_BYTES_TARGET)
    choose = partial(worthwhile, pack_bytes_target=target, merged_bytes_min=merged_bytes_min, free_bytes=free_bytes)
    chosen = choose(uses) if grow else (yield from _choose_existing(run, uses, choose))
    if run.dry_run:
        run.outcome.packs_compacted = len(chosen)
        run.outcome.moved_bytes = sum(pack.live_bytes for pack in chosen)
        return
    yield from _empty_each(run, chosen) if grow else _merge(run, chosen)


def _choose_existing(
    run: CollectionRun, uses: Sequence[PackUse], choose: Callable[[Sequence[PackUse]], list[PackUse]]
) -> Generator[Progress, None, list[PackUse]]:
    """Choose among the packs that exist, since a row holds the size of its pack even if the pack is missing.

    Otherwise each run would choose the missing packs, and others with them. Asks the blob store once per pack.
    """
    asked: set[int] = set()
    chosen = choose(uses)
    while unasked := [use for use in chosen if use.pack_number not in asked]:
        missing: set[int] = set()
        for first in range(0, len(unasked), PACKS_PER_BATCH):
            batch = unasked[first : first + PACKS_PER_BATCH]
            sizes_now = run.context.store.pack_sizes([use.name for use in batch])
            missing.update(use.pack_number for use, size in zip(batch, sizes_now, strict=True) if size is None)
            yield Progress("choose", len(asked) + first + len(batch))
        asked.update(use.pack_number for use in unasked)
        if not missing:
            break
        uses = [use for use in uses if use.pack_number not in missing]
        chosen = choose(uses)
    return chosen


def _empty_each(run: CollectionRun, chosen: Sequence[PackUse]) -> Iterator[Progress]:
    """Empty packs one by one into the packs that this process appends to."""
    for pack in chosen:
        run.context.store.roll(pack.name)  # all of them first, so that none receives the chunks of another
    # The pack that needs the least space goes first. Without a quarantine, each frees more space than it needed.
    for done, pack in enumerate(sorted(chosen, key=lambda pack: pack.live_bytes)):
        yield Progress("compact", done, len(chosen))
        if not _is_closed(run, pack):
            continue
        if not _has_room(run, pack):
            run.outcome.packs_skipped += 1
            continue
        try:
            for _ in _empty(run, pack):
                yield Progress("compact", done, len(chosen))
        except StorageFullError:
            run.outcome.packs_skipped += 1
            continue  # what was moved stays moved; a later run does the rest
        run.outcome.packs_compacted += 1
        if not run.quarantine_ms:
            yield from give_back(run, pack.name)


def _merge(run: CollectionRun, chosen: Sequence[PackUse]) -> Iterator[Progress]:
    """Empty packs together into new packs that are put whole."""
    batch: list[tuple[PackUse, PackedChunk]] = []
    size = 0
    try:
        for done, pack in enumerate(chosen):
            for chunk in _chunks(run, pack):
                if batch and (size + chunk.sealed_length > BYTES_PER_BATCH or len(batch) == CHUNKS_PER_BATCH):
                    _move(run, batch)
                    batch, size = [], 0
                    yield Progress("compact", done, len(chosen))
                batch.append((pack, chunk))
                size += chunk.sealed_length
        _move(run, batch)
    except StorageFullError:
        run.outcome.packs_skipped += 1
        return  # what was moved stays moved; a later run does the rest
    run.outcome.packs_compacted += len(chosen)


def _chunks(run: CollectionRun, pack: PackUse) -> Iterator[PackedChunk]:
    """Yield the chunks that rows point to in a closed pack."""
    offset = 0
    while _is_closed(run, pack) and (
        found := run.read(
            partial(chunks.sound_in_pack, pack_number=pack.pack_number, from_offset=offset, limit=CHUNKS_PER_BATCH)
        )
    ):
        yield from found
        offset = found[-1].pack_offset + 1


def _has_room(run: CollectionRun, pack: PackUse) -> bool:
    """Whether there is space to copy the live chunks of a pack. Without a quarantine the reserve may be used for it.

    With a quarantine the old pack is deleted much later, so that copying would fill a full disk further.
    """
    reserve = run.context.reserve
    if not reserve.has_disk:
        return True
    wanted = pack.live_bytes + CATALOG_BYTES
    if reserve.free_bytes >= wanted + (0 if reserve.held else reserve.size_bytes):
        return True
    if run.quarantine_ms:
        return False
    return reserve.free_bytes >= wanted or (reserve.give_up() and reserve.free_bytes >= wanted)


def _is_closed(run: CollectionRun, pack: PackUse) -> bool:
    return run.read(partial(packs.is_closed, pack_number=pack.pack_number)) or close_one(run, pack.name)


def _uses(run: CollectionRun, live_bytes: dict[int, int]) -> Iterator[PackUse]:
    """Yield every pack that holds live chunks and is not known to be missing."""
    after = 0
    while rows := run.read(partial(packs.not_retired, after=after, limit=PACKS_PER_BATCH)):
        used = [row for row in rows if row.pack_number in live_bytes]
        for row, size in zip(used, sizes(run, used), strict=True):
            if size is not None:
                yield PackUse(row.pack_number, row.name, size, live_bytes[row.pack_number])
        after = rows[-1].pack_number


def worthwhile(
    uses: Sequence[PackUse],
    pack_bytes_target: int,
    *,
    merged_bytes_min: int | None = None,
    free_bytes: int | None = None,
) -> list[PackUse]:
    """Choose the packs to compact: those with too much garbage, and small ones that together fill a pack.

    A pack that is mostly garbage is always chosen. A pack is small if it has less than half of `merged_bytes_min`,
    which defaults to `pack_bytes_target`. On a disk with only `free_bytes` left, less garbage is too much.
    """
    merged_bytes_min = merged_bytes_min or pack_bytes_target
    live = sum(use.live_bytes for use in uses)
    left = sum(use.garbage_bytes for use in uses)
    chosen: list[PackUse] = []
    for use in sorted(uses, key=lambda use: use.live_bytes / max(use.size_bytes, 1)):
        if left * GARBAGE_PER_LIVE <= live and use.live_bytes * 2 >= use.size_bytes:
            break
        chosen.append(use)
        left -= use.garbage_bytes
    worth = pack_bytes_target // WORTH_PER_PACK
    if sum(use.garbage_bytes for use in chosen) < (worth if free_bytes is None else min(worth, free_bytes)):
        chosen = []
    numbers = {use.pack_number for use in chosen}
    small = [use for use in uses if use.size_bytes * 2 < merged_bytes_min and use.pack_number not in numbers]
    return chosen + (small if sum(use.live_bytes for use in small) >= merged_bytes_min else [])


def _empty(run: CollectionRun, pack: PackUse) -> Iterator[None]:
    """Move all readable chunks of a closed pack to other packs."""
    offset = 0
    while found := run.read(
        partial(chunks.sound_in_pack, pack_number=pack.pack_number, from_offset=offset, limit=CHUNKS_PER_BATCH)
    ):
        batch = _first(found)
        _move(run, [(pack, chunk) for chunk in batch])
        offset = batch[-1].pack_offset + 1
        yield


def _first(found: Sequence[PackedChunk]) -> Sequence[PackedChunk]:
    """Return as many leading chunks as the bytes of one batch allow, at least one."""
    total = 0
    for place, chunk in enumerate(found):
        total += chunk.sealed_length
        if total > BYTES_PER_BATCH and place:
            return found[:place]
    return found


def _move(run: CollectionRun, batch: Sequence[tuple[PackUse, PackedChunk]]) -> None:
    """Copy the readable ones of these chunks into one pack, and point their rows to it."""
    envelopes = [
        (pack, chunk, envelope) for pack, chunk in batch if (envelope := _envelope(run, pack, chunk)) is not None
    ]
    if not envelopes:
        return
    locations = run.context.store.append([envelope for *_, envelope in envelopes])
    name, size_bytes = locations[0].pack_id, locations[0].pack_bytes

    def work(transaction: Transaction) -> int:
        number = packs.number_for(transaction, name, epoch=run.epoch, now_ms=run.context.clock(), size_bytes=size_bytes)
        if number is None:
            return 0
        return sum(
            chunks.move(transaction, chunk, from_pack=pack.pack_number, to_pack=number, to_offset=location.offset)
            for (pack, chunk, _), location in zip(envelopes, locations, strict=True)
        )

    run.outcome.moved += run.write(work)
    run.outcome.moved_bytes += sum(location.length for location in locations)


def _envelope(run: CollectionRun, pack: PackUse, chunk: PackedChunk) -> bytes | None:
    """Return the envelope of a chunk; None if it cannot be opened."""
    try:
        key = run.context.keys.opening(chunk.key_number)
        location = Location(pack.name, chunk.pack_offset, chunk.sealed_length)
        return run.context.store.envelope(location, key, chunk.digest, chunk.length)
    except (DamagedDataError, KeyUnavailableError):
        run.outcome.unreadable += 1
        return None


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
