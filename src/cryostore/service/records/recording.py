"""What is written down of the catalog beside it, so that it can be rebuilt from the blobs and the keyring alone.

There are three kinds of record: of the store (its access keys), of each vault (with its wrapped data keys), and of each
commit: the recovery point, its job, and what its generation of the lineage has otherwise than the one it builds on. A
record is written after the transaction that changes what it tells, and before that change is acknowledged. Nothing
here is read again until `maintenance.rebuild.run` does.

The records of a lineage describe the generations that somebody sees, and no others (`catalog.rows.lineages`):

1. Each is the difference between its generation and the nearest one below that is seen, worked out from the rows of
   the catalog alone. So any of them can be written again at any time.
2. When a generation is not seen any more, the record of the next one above is written again, on what is below, and
   is durable. From then on the record between the two is void, and goes.
3. Only then the rows go that nobody sees any more: until then either record may be needed with all it says.

Lives here: when records are written and what they say. Does not live here: their sealed form (`chunks.records`), and
how far the recording is (`catalog.rows.records`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple, TypeAlias

import msgspec

from cryostore.catalog.database import Transaction
from cryostore.catalog.processes import epoch as collections
from cryostore.catalog.rows import chunk_lists, jobs, keys, lineages, objects, records, recovery_points, vaults
from cryostore.catalog.rows.jobs import JobRow
from cryostore.catalog.rows.lineages import Segment, View
from cryostore.catalog.rows.objects import WrittenObject
from cryostore.catalog.rows.records import COMMIT, STORE, VAULT, RecordKey, RecordRow
from cryostore.catalog.rows.recovery_points import PointRow
from cryostore.chunks.records import RecordName
from cryostore.core.errors import BlobExistsError, KeyUnavailableError
from cryostore.core.limits import MIB
from cryostore.service.context import Context
from cryostore.service.records.format import CommitRecord, StoreRecord, VaultRecord, encode
from cryostore.service.records.unknown_commits import (
    count_unknown_commits,
    refuse_taken_number,
    require_no_unknown_commits,
)

PART_BYTES_TARGET = 4 * MIB
ROWS_PER_READ = 100
NUMBERS_TRIED_MAX = 100
DUE_PER_ROUND = 100


class _Part(NamedTuple):
    """A part on its way into a record. `previous` is what a commit's builds on."""

    entries: int
    previous: int | None = None


_Entry: TypeAlias = "WrittenObject | bytes | tuple[int, int, int, bytes]"
"""A version, a closed name, or a part of a chunk list."""


def mark_store_changed(transaction: Transaction) -> None:
    """Note, in the transaction that changes it, that something of the whole store has changed."""
    records.touch(transaction, RecordKey(STORE))


def mark_vault_changed(transaction: Transaction, vault_id: int) -> None:
    """Note, in the transaction that changes it, that a vault or its keys have changed."""
    records.touch(transaction, RecordKey(VAULT, vault_id))


def write_due_records(context: Context, *, limit: int = DUE_PER_ROUND) -> bool:
    """Write what is due, at most `limit` records; answers whether that was all. May be repeated, by several at once.

    What needs a key that is missing is passed over: the others need not wait for it. Raises StorageUnavailableError;
    KeyUnavailableError once there is nothing else that is due.
    """
    if context.database.read(collections.unknown_commits):
        return True  # a rebuild needs the records as they are
    after, done = records.FIRST, 0
    missing: KeyUnavailableError | None = None
    while done < limit and (
        rows := context.database.read(lambda transaction: records.due(transaction, limit - done, after=after))  # noqa: B023 - runs at once
    ):
        for row in rows:
            try:
                update_record(context, row.key)
                done += 1
            except KeyUnavailableError as error:
                missing = missing or error
        after = rows[-1].key
    if missing is not None and done < limit:
        raise missing
    return done < limit


def write_all_due_records(context: Context, *, limit: int = DUE_PER_ROUND) -> None:
    """Write every record that is due, `limit` records at a time. Raises as `write_due_records` does."""
    while not write_due_records(context, limit=limit):
        pass


def write_commit_record(context: Context, row: RecordRow, point: PointRow, job: JobRow, view: View) -> None:
    """Write the record of a commit whose transaction got `row` and wrote `point` and `job`.

    The number in `row` belongs to that transaction, so no other process writes under it. What the record says is
    durable when this returns. Raises as `write_due_records`.
    """
    first = CommitRecord(
        vault_id=job.vault_id,
        parents=[(parent.lineage_id, parent.generation) for parent in view[1:]],
        previous=row.previous,
        point=point._asdict(),
        job=job._asdict(),
    )
    try:
        _write(context, row, _commit_parts(context, row, row.changes, first), row.changes)
    except BlobExistsError:
        refuse_taken_number(context.database, context.records)


def update_record(context: Context, key: RecordKey) -> None:
    """Bring the record of one noun up to date: it is durable when this returns. Raises as `write_due_records`."""
    row = context.database.read(lambda transaction: records.find(transaction, key))
    if row is None or row.recorded >= row.changes:
        return
    if row.gone:
        _remove(context, row)
        return
    if key.noun == COMMIT and (row.recorded or context.records.holds(*key)):
        context.database.read(require_no_unknown_commits)
    for _ in range(NUMBERS_TRIED_MAX):
        # Under a number of its own: nobody knows how far another writer of this record came, or whether it lives. Its
        # row must not be older than the number: whoever changes it later counts it up, and sees to it that it is due.
        row = context.database.write(lambda transaction: records.touch_known(transaction, key))
        if row is None:
            return
        try:
            _write(context, row, _PARTS[key.noun](context, row, row.changes), row.changes)
        except BlobExistsError:  # the catalog was put back from an older copy: its numbers have been used since
            if count_unknown_commits(context.database, context.records) or (key.noun == COMMIT and not row.recorded):
                refuse_taken_number(context.database, context.records)
            continue
        return
    raise BlobExistsError(f"{key.noun} {key.number}.{key.generation} has records that the catalog does not know of")


def rewrite_record(context: Context, key: RecordKey) -> None:
    """Write the record of a noun again if there is one; remove that of an unseen commit.

    Raises as `write_due_records`.
    """
    context.database.write(lambda transaction: records.touch_known(transaction, key))
    update_record(context, key)


def remove_records_above(context: Context, segment: Segment) -> None:
    """Remove the records of all commits to a lineage above a generation, before their rows are taken back.

    In this order, since a commit that goes on from the generation would otherwise be rebuilt on top of them.
    """
    while rows := context.database.read(lambda transaction: records.above(transaction, segment, ROWS_PER_READ)):
        for row in rows:
            context.database.write(lambda transaction: records.end(transaction, row.key))  # noqa: B023 - runs at once
            _remove(context, row)


def _remove(context: Context, row: RecordRow) -> None:
    """Remove the record of a noun that is no more, and what writers left that died; then its row."""
    for change in range(1, row.changes + 1):
        parts = row.parts if change == row.recorded else _parts_there(context, row.key, change)
        _delete(context, row.key, change, parts)
    context.database.write(lambda transaction: records.delete(transaction, row))


def _parts_there(context: Context, key: RecordKey, change: int) -> int:
    parts = 0
    while context.records.has(RecordName(*key, change, parts)):
        parts += 1
    return parts


def _delete(context: Context, key: RecordKey, change: int, parts: int) -> None:
    for part in reversed(range(parts)):  # without its last part it is no record any more
        context.records.delete(RecordName(*key, change, part))


def _write(context: Context, row: RecordRow, written: Iterator[_Part], change: int) -> None:
    """Take the parts of the record with this number as they are written, and remove the record before it.

    Without any the noun is no more, and all of its records are removed.
    """
    key, parts, entries = row.key, 0, 0
    previous: int | None = None
    for part in written:
        parts, entries, previous = parts + 1, entries + part.entries, part.previous
    if not parts:
        # Those that build on it come first, since it is void only once they build on another one.
        for following in context.database.write(lambda transaction: records.touch_following(transaction, key)):
            update_record(context, following)
        context.database.write(lambda transaction: records.end(transaction, key))
        _remove(context, row)
        return
    before = context.database.write(
        lambda transaction: records.finish(transaction, key, change, parts=parts, entries=entries, previous=previous)
    )
    if before is None:
        _delete(context, key, change, parts)
    else:
        _delete(context, key, before.recorded, before.parts)


def _put_store(context: Context, row: RecordRow, change: int) -> Iterator[_Part]:
    access_keys = context.database.read(keys.access_keys_in_full)
    data = encode(StoreRecord(access_keys))
    context.records.put_wrapped(RecordName(*row.key, change, 0), data)
    yield _Part(1)


def _put_vault(context: Context, row: RecordRow, change: int) -> Iterator[_Part]:
    def work(transaction: Transaction) -> VaultRecord | None:
        vault = vaults.by_id(transaction, row.number)
        data_keys = keys.vault_keys_in_full(transaction, row.number)
        return VaultRecord(vault._asdict(), data_keys) if vault else None

    found = context.database.read(work)
    if found is not None:
        data = encode(found)
        context.records.put_wrapped(RecordName(*row.key, change, 0), data)
        yield _Part(1)


def _put_commit(context: Context, row: RecordRow, change: int) -> Iterator[_Part]:
    segment = Segment(row.number, row.generation)
    first = context.database.read(lambda transaction: _first(transaction, segment))
    if first is not None:
        _require_recorded(context, segment, first)
        yield from _commit_parts(context, row, change, first)


def _commit_parts(context: Context, row: RecordRow, change: int, first: CommitRecord) -> Iterator[_Part]:
    """The parts as they are put.

    Rows that the generation or the one it builds on sees stay, unless one of them is seen no more: then this record is
    written again first, under a higher number. So the rows may be read in many transactions.
    """
    segment = Segment(row.number, row.generation)
    key = context.keys.sealing(first.vault_id).key
    below = first.previous or 0
    parts = _parts(first, chain(_written(context, segment, below), _closed(context, segment, below)))
    waiting: CommitRecord | None = None
    for number, part in enumerate(chain(parts, (None,)), start=-1):
        if waiting is not None:
            waiting.last = part is None
            context.records.put(RecordName(*row.key, change, number), encode(waiting), key)
            yield _Part(waiting.entries, below)
        waiting = part


def _require_recorded(context: Context, segment: Segment, first: CommitRecord) -> None:
    """See to it that what a record builds on is on record before it: a commit that was not acknowledged may not be."""
    bases = [Segment(segment.lineage_id, first.previous)] if first.previous else []
    for base in (*bases, *(Segment(*parent) for parent in first.parents[:1])):
        found = context.database.read(lambda transaction: records.find(transaction, records.of_commit(base)))  # noqa: B023 - runs at once
        if found is not None and not found.recorded:
            update_record(context, found.key)


def _first(transaction: Transaction, segment: Segment) -> CommitRecord | None:
    """The first part of a commit's record without its entries; None if nobody sees the commit."""
    lineage = lineages.find(transaction, segment.lineage_id)
    if lineage is None or not lineages.is_seen(transaction, segment):
        return None
    previous, _ = lineages.neighbours(transaction, segment._replace(generation=segment.generation - 1))
    point = recovery_points.at(transaction, segment)
    if point is not None and point.status == "DELETING":
        point = None
    job = jobs.find(transaction, point.job_id) if point else None
    return CommitRecord(
        vault_id=lineage.vault_id,
        parents=[(parent.lineage_id, parent.generation) for parent in lineages.view(transaction, segment)[1:]],
        previous=previous,
        point=point._asdict() if point else None,
        job=job._asdict() if job else None,
    )


def _parts(part: CommitRecord, entries: Iterator[_Entry]) -> Iterator[CommitRecord]:
    """The parts of a record, of which `part` is the first; at least one."""
    head = CommitRecord(vault_id=part.vault_id, parents=part.parents, previous=part.previous)
    size = 0
    for entry in entries:
        if size >= PART_BYTES_TARGET:
            yield part
            part, size = msgspec.structs.replace(head, objects=[], closed=[], chunk_lists=[]), 0
        size += _append(part, entry)
    yield part


def _append(part: CommitRecord, entry: _Entry) -> int:
    """Add an entry to a part; answers about how many bytes that is."""
    if isinstance(entry, WrittenObject):
        content = entry.content
        part.objects.append((entry.name, entry.removed, *content))
        return 100 + len(entry.name) + len(content.chunks or b"") + len(content.metadata_string or "")
    if isinstance(entry, bytes):
        part.closed.append(entry)
        return len(entry)
    part.chunk_lists.append(entry)
    return len(entry[3])


def _written(context: Context, segment: Segment, below: int) -> Iterator[_Entry]:
    """The versions that a commit has and the generation `below` has not, each behind the parts of its chunk list."""
    after: tuple[int, int] | None = None
    while rows := context.database.read(
        lambda transaction: objects.written(transaction, segment, below=below, after=after, limit=ROWS_PER_READ)  # noqa: B023 - at once
    ):
        for row in rows:
            if row.content.chunk_list_id is not None:
                yield from _chunk_list(context, row.content.chunk_list_id)
            yield row
        if len(rows) < ROWS_PER_READ:
            return
        after = rows[-1].place


def _chunk_list(context: Context, chunk_list_id: int) -> Iterator[_Entry]:
    part = 0
    while found := context.database.read(
        lambda transaction: chunk_lists.part(transaction, chunk_list_id, part)  # noqa: B023 - at once
    ):
        yield (chunk_list_id, part, *found)
        part += 1


def _closed(context: Context, segment: Segment, below: int) -> Iterator[_Entry]:
    after: tuple[int, int, int] | None = None
    while rows := context.database.read(
        lambda transaction: objects.closed(transaction, segment, below=below, after=after, limit=ROWS_PER_READ)  # noqa: B023 - at once
    ):
        yield from (name for _, name in rows)
        if len(rows) < ROWS_PER_READ:
            return
        after = rows[-1][0]


_PARTS = {STORE: _put_store, VAULT: _put_vault, COMMIT: _put_commit}
