"""Recording: parts of the catalog written beside the blobs, so that a lost catalog can be rebuilt.

There are three kinds of record: of the store (its access keys), of each vault (with its wrapped data keys), and of each
commit (the recovery point, its job, and the difference between its generation of the lineage and the one below). A
record is written after the transaction that changes its content, and before that change is acknowledged. Only
`maintenance.rebuild.run` reads records.

The records of a lineage describe the generations that a point, a job or another lineage sees (`catalog.rows.lineages`):

1. Each record is the difference between its generation and the nearest seen one below, computed from the rows of the
   catalog alone. So any record can be written again at any time.
2. When a generation is no longer seen, the record of the next one above is written again, on the one below, and made
   durable. From then on the record between the two is void, and is removed.
3. Only then are the unseen rows removed: until then, either record may be needed in full.

Here is when records are written, and what goes into them. Each is a struct in MessagePack; docs/reference/formats.md
describes the fields. Their sealed form is in `chunks.records`, and the state of recording in `catalog.rows.records`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple, TypeAlias, TypeVar

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
from cryostore.core.errors import BlobExistsError, ConfigurationError, DamagedDataError, KeyUnavailableError
from cryostore.core.limits import MIB
from cryostore.service.context import Context
from cryostore.service.unknown_commits import (
    count_unknown_commits,
    refuse_taken_number,
    require_no_unknown_commits,
)

FORMAT = 1
"""The first byte of every record. A reader refuses any other value."""
PART_BYTES_TARGET = 4 * MIB
ROWS_PER_READ = 100
NUMBERS_TRIED_MAX = 100
DUE_PER_ROUND = 100


class StoreRecord(msgspec.Struct):
    """The record of the store: rows of `access_key`, by column."""

    access_keys: list[dict[str, Any]]


class VaultRecord(msgspec.Struct):
    """The record of a vault: its row, and those of its data keys, by column."""

    vault: dict[str, Any]
    keys: list[dict[str, Any]]


class CommitRecord(msgspec.Struct, omit_defaults=True):
    """A part of the record of a commit. Only the first part has `point` and `job`; only the last one has `last` set.

    `previous` is the generation that it builds on, 0 for none. `point` is missing if the recovery point is deleted and
    a lineage continues from it. `closed` holds the names that `previous` has and this generation lacks. An item of
    `chunk_lists` is the id of a list, the number of a part, its first index and its bytes. `parents` holds the segments
    that the lineage sees through to, the nearest first.
    """

    vault_id: int
    parents: list[tuple[int, int]] = []
    previous: int | None = None
    last: bool = False
    point: dict[str, Any] | None = None
    job: dict[str, Any] | None = None
    objects: list[tuple[Any, ...]] = []
    closed: list[bytes] = []
    chunk_lists: list[tuple[int, int, int, bytes]] = []

    @property
    def entries(self) -> int:
        """Number of object versions and names in the part."""
        return len(self.objects) + len(self.closed)


Record = TypeVar("Record", StoreRecord, VaultRecord, CommitRecord)


def encode_record(part: StoreRecord | VaultRecord | CommitRecord) -> bytes:
    """The bytes of a part: a byte for the format, then the struct in MessagePack."""
    return bytes((FORMAT,)) + msgspec.msgpack.encode(part)


def decode_record(data: bytes, kind: type[Record]) -> Record:
    """The inverse of `encode_record`. Raises DamagedDataError, ConfigurationError for a later format."""
    if data[:1] != bytes((FORMAT,)):
        raise ConfigurationError(
            f"a record has format {data[:1].hex() or 'none'}, this program knows format {FORMAT}",
            hint="use a newer Cryostore",
        )
    try:
        return msgspec.msgpack.decode(data[1:], type=kind)
    except msgspec.MsgspecError as error:
        raise DamagedDataError(f"a record cannot be decoded: {error}") from error


class _Part(NamedTuple):
    """A written part. `previous` is the generation that the record of a commit builds on."""

    entries: int
    previous: int | None = None


_Entry: TypeAlias = "WrittenObject | bytes | tuple[int, int, int, bytes]"
"""An object version, a closed name, or a part of a chunk list."""


def mark_store_changed(transaction: Transaction) -> None:
    """Mark the record of the store as due, in the transaction that changes its content."""
    records.touch(transaction, RecordKey(STORE))


def mark_vault_changed(transaction: Transaction, vault_id: int) -> None:
    """Mark the record of a vault as due, in the transaction that changes the vault or its keys."""
    records.touch(transaction, RecordKey(VAULT, vault_id))


def write_due_records(context: Context, *, limit: int = DUE_PER_ROUND) -> bool:
    """Write at most `limit` due records. Returns whether none is left.

    May be repeated, and several processes may do it at once. Skips a record that needs a missing key, so that the
    others do not wait for it. Raises StorageUnavailableError; KeyUnavailableError if only skipped records are left.
    """
    if context.database.read(collections.unknown_commits):
        return True  # a rebuild needs the records unchanged
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

    The number in `row` belongs to that transaction, so no other process writes under it. The record is durable when
    this returns. Raises as `write_due_records`.
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
        # Each attempt takes a new number: another writer of this record may be anywhere, or dead. The row must not be
        # older than the number: a later change increments it, and makes the record due again.
        row = context.database.write(lambda transaction: records.touch_known(transaction, key))
        if row is None:
            return
        try:
            _write(context, row, _PARTS[key.noun](context, row, row.changes), row.changes)
        except BlobExistsError:  # the catalog was restored from an older copy: its numbers were used since
            if count_unknown_commits(context.database, context.records) or (key.noun == COMMIT and not row.recorded):
                refuse_taken_number(context.database, context.records)
            continue
        return
    raise BlobExistsError(f"{key.noun} {key.number}.{key.generation} has records that the catalog does not know")


def rewrite_record(context: Context, key: RecordKey) -> None:
    """Write the record of a noun again if there is one; remove that of an unseen commit.

    Raises as `write_due_records`.
    """
    context.database.write(lambda transaction: records.touch_known(transaction, key))
    update_record(context, key)


def remove_records_above(context: Context, segment: Segment) -> None:
    """Remove the records of all commits to a lineage above a generation, before their rows are rolled back.

    The order matters: a later commit that continues from the generation would otherwise be rebuilt on top of them.
    """
    while rows := context.database.read(lambda transaction: records.above(transaction, segment, ROWS_PER_READ)):
        for row in rows:
            context.database.write(lambda transaction: records.end(transaction, row.key))  # noqa: B023 - runs at once
            _remove(context, row)


def _remove(context: Context, row: RecordRow) -> None:
    """Remove the record of something that no longer exists, and the parts that dead writers left; then its row."""
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
    for part in reversed(range(parts)):  # without its last part, it no longer counts as a record
        context.records.delete(RecordName(*key, change, part))


def _write(context: Context, row: RecordRow, written: Iterator[_Part], change: int) -> None:
    """Write the parts of the record with this number by iterating over them, and remove the record before it.

    If there are no parts, the vault or commit no longer exists, and all of its records are removed.
    """
    key, parts, entries = row.key, 0, 0
    previous: int | None = None
    for part in written:
        parts, entries, previous = parts + 1, entries + part.entries, part.previous
    if not parts:
        # First write the records that build on it: it is void only when they build on another one.
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
    data = encode_record(StoreRecord(access_keys))
    context.records.put_wrapped(RecordName(*row.key, change, 0), data)
    yield _Part(1)


def _put_vault(context: Context, row: RecordRow, change: int) -> Iterator[_Part]:
    def work(transaction: Transaction) -> VaultRecord | None:
        vault = vaults.by_id(transaction, row.number)
        data_keys = keys.vault_keys_in_full(transaction, row.number)
        return VaultRecord(vault._asdict(), data_keys) if vault else None

    found = context.database.read(work)
    if found is not None:
        data = encode_record(found)
        context.records.put_wrapped(RecordName(*row.key, change, 0), data)
        yield _Part(1)


def _put_commit(context: Context, row: RecordRow, change: int) -> Iterator[_Part]:
    segment = Segment(row.number, row.generation)
    first = context.database.read(lambda transaction: _first(transaction, segment))
    if first is not None:
        _require_recorded(context, segment, first)
        yield from _commit_parts(context, row, change, first)


def _commit_parts(context: Context, row: RecordRow, change: int, first: CommitRecord) -> Iterator[_Part]:
    """Put the parts one by one, and yield each.

    The rows may be read in many transactions: rows that this generation or the one below sees stay, unless one of the
    two is no longer seen, and before such rows are removed this record is written again, under a higher number.
    """
    segment = Segment(row.number, row.generation)
    key = context.keys.sealing(first.vault_id).key
    below = first.previous or 0
    parts = _parts(first, chain(_written(context, segment, below), _closed(context, segment, below)))
    waiting: CommitRecord | None = None
    for number, part in enumerate(chain(parts, (None,)), start=-1):
        if waiting is not None:
            waiting.last = part is None
            context.records.put(RecordName(*row.key, change, number), encode_record(waiting), key)
            yield _Part(waiting.entries, below)
        waiting = part


def _require_recorded(context: Context, segment: Segment, first: CommitRecord) -> None:
    """Write the records that a record builds on, if they are missing: their commits may have failed before that."""
    bases = [Segment(segment.lineage_id, first.previous)] if first.previous else []
    for base in (*bases, *(Segment(*parent) for parent in first.parents[:1])):
        found = context.database.read(lambda transaction: records.find(transaction, records.of_commit(base)))  # noqa: B023 - runs at once
        if found is not None and not found.recorded:
            update_record(context, found.key)


def _first(transaction: Transaction, segment: Segment) -> CommitRecord | None:
    """The first part of a commit's record without its entries; None if the commit is not seen."""
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
    """Distribute entries to the parts of a record, of which `part` is the first; yields at least one."""
    head = CommitRecord(vault_id=part.vault_id, parents=part.parents, previous=part.previous)
    size = 0
    for entry in entries:
        if size >= PART_BYTES_TARGET:
            yield part
            part, size = msgspec.structs.replace(head, objects=[], closed=[], chunk_lists=[]), 0
        size += _append(part, entry)
    yield part


def _append(part: CommitRecord, entry: _Entry) -> int:
    """Add an entry to a part. Returns its approximate size in bytes."""
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
    """The object versions that a commit has and generation `below` lacks, each after the parts of its chunk list."""
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
