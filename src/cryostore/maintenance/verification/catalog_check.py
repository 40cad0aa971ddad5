"""Checks of the catalog: references to chunks, and the records from which the catalog can be rebuilt.

References: every chunk list is complete, and every chunk that is referred to has a row. Only reads. A problem counts if
a second read finds the object or upload still there.

Records: they are compared with the catalog, both ways. A missing or damaged record can be written again as long as the
catalog exists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from cryostore.catalog.database import Transaction
from cryostore.catalog.processes import epoch as epochs
from cryostore.catalog.queries import damage, references
from cryostore.catalog.queries.damage import ChunkState
from cryostore.catalog.queries.references import ObjectReferences, UploadedChunk, chunk_list_parts
from cryostore.catalog.rows import chunk_lists, objects, records
from cryostore.catalog.rows.chunk_lists import ChunkEntry
from cryostore.catalog.rows.objects import ObjectRow
from cryostore.catalog.rows.records import COMMIT, STORE, VAULT, RecordKey, RecordRow
from cryostore.chunks.records import RecordName
from cryostore.core.errors import BlobNotFoundError, DamagedDataError, KeyUnavailableError, StorageUnavailableError
from cryostore.maintenance.claims import Progress
from cryostore.maintenance.garbage_collection.mark import OBJECTS_PER_PAGE, ROWS_PER_PAGE
from cryostore.maintenance.verification import finding_kinds
from cryostore.maintenance.verification.affected import AffectedSearch
from cryostore.maintenance.verification.finding_kinds import Findings
from cryostore.maintenance.verification.opened_keys import OpenedKeys
from cryostore.service import Context
from cryostore.service.recording import CommitRecord, StoreRecord, VaultRecord, decode_record, update_record
from cryostore.service.unknown_commits import find_unknown_commits, unknown_commits_message

Chunk = tuple[int, bytes]
"""A chunk, by vault id and digest."""
RECORDS_PER_PAGE = 200
RECORD_KINDS: dict[str, Any] = {STORE: StoreRecord, VAULT: VaultRecord, COMMIT: CommitRecord}


class ReferenceCheck:
    """Checks all references to chunks: uploads first, because references move from uploads to objects.

    `on_missing` is called for each chunk that is referred to and has no row. `bad` chunks count as damaged, like the
    marked ones. `naming` collects what missing and damaged chunks affect.
    """

    def __init__(
        self,
        context: Context,
        findings: Findings,
        naming: AffectedSearch,
        on_missing: Callable[[Chunk], None] = lambda _: None,
        *,
        bad: Container[Chunk] = frozenset(),
    ) -> None:
        self.objects = 0
        self._context = context
        self._findings = findings
        self._naming = naming
        self._on_missing = on_missing
        self._bad = bad

    def run(self) -> Iterator[Progress]:
        """Check all references, step by step. Raises StorageUnavailableError if the catalog cannot be read."""
        yield from self._check_uploads()
        yield from self._check_objects()

    def _check_uploads(self) -> Iterator[Progress]:
        after, done = (0, -1), 0
        read = self._context.database.read
        while rows := read(partial(references.upload_chunks, after=after, limit=ROWS_PER_PAGE)):
            wanted: dict[int, list[UploadedChunk]] = {}
            for row in rows:
                if row.vault_id is not None:
                    wanted.setdefault(row.vault_id, []).append(row)
            for vault_id, some in wanted.items():
                states = read(partial(damage.states, vault_id=vault_id, digests=[row.digest for row in some]))
                for row in some:
                    self._check_upload(vault_id, row, states.get(row.digest))
            after, done = rows[-1][:2], done + len(rows)
            yield Progress("uploads", done)

    def _check_upload(self, vault_id: int, row: UploadedChunk, state: ChunkState | None) -> None:
        is_affected = state is None or state.damaged or (vault_id, row.digest) in self._bad
        if is_affected and state is None:
            after = (row.upload_number, row.chunk_index - 1)
            still = partial(_is_upload_chunk_missing, vault_id=vault_id, after=after, row=row)
            is_affected = self._context.database.read(still)
            if is_affected:
                self._findings.add(
                    finding_kinds.CHUNK_MISSING, f"upload {row.upload_number} needs chunk {row.digest.hex()}"
                )
                self._on_missing((vault_id, row.digest))
        if is_affected:
            self._naming.add_upload(row.upload_number)

    def _check_objects(self) -> Iterator[Progress]:
        after = 0
        read = self._context.database.read
        while rows := read(partial(references.objects, after=after, limit=OBJECTS_PER_PAGE)):
            for row in rows:
                yield Progress("objects", self.objects)
                self._check_object(row)
                self.objects += 1
            after = rows[-1].object_id

    def _check_object(self, row: ObjectReferences) -> None:
        if row.vault_id is None:
            self._say(row, "belongs to no vault")
            return
        is_affected = row.metadata_digest is not None and self._any_missing_or_damaged(
            row.vault_id, row, {row.metadata_digest: None}
        )
        tally = _Tally()
        try:
            for packed in chunk_list_parts(self._context.database, row.chunks, row.chunk_list_id):
                entries = chunk_lists.unpack(packed)
                tally.add(entries)
                lengths = {entry.digest: entry.length for entry in entries}
                is_affected = self._any_missing_or_damaged(row.vault_id, row, lengths) or is_affected
        except DamagedDataError as error:
            self._say(row, error.message)
            self._naming.add_object(row.object_id)
            return
        self._compare(row, tally)
        if is_affected:
            self._naming.add_object(row.object_id)

    def _any_missing_or_damaged(
        self, vault_id: int, row: ObjectReferences, lengths: Mapping[bytes, int | None]
    ) -> bool:
        """Whether any of these chunks is missing or damaged. Reports a chunk whose length differs from the list."""
        states = self._context.database.read(partial(damage.states, vault_id=vault_id, digests=list(lengths)))
        missing = [digest for digest in lengths if digest not in states]
        if missing:
            missing = self._context.database.read(
                partial(_still_missing, vault_id=vault_id, object_id=row.object_id, digests=missing)
            )
        for digest in missing:
            self._findings.add(finding_kinds.CHUNK_MISSING, f"object {row.object_id} needs chunk {digest.hex()}")
            self._on_missing((vault_id, digest))
        if any(lengths[digest] not in (None, state.length) for digest, state in states.items()):
            self._say(row, "the length of a chunk differs from the list")
        return bool(missing) or any(
            state.damaged or (vault_id, digest) in self._bad for digest, state in states.items()
        )

    def _compare(self, row: ObjectReferences, tally: _Tally) -> None:
        """Compare the whole list with the row of the object."""
        found = self._context.database.read(partial(objects.by_id, object_id=row.object_id))
        if found is None or found.removed:
            return
        if problem := tally.problem(found):
            self._say(row, problem)
        elif tally.summary != found.summary:
            self._findings.add(finding_kinds.SUMMARY_DIFFERS, f"object {row.object_id}")

    def _say(self, row: ObjectReferences, problem: str) -> None:
        """Report a problem of a list, if its object is still there."""
        if self._context.database.read(partial(damage.object_version, object_id=row.object_id)) is not None:
            self._findings.add(finding_kinds.LIST_DAMAGED, f"object {row.object_id}: {problem}")


class _Tally:
    """Sums over the parts of a chunk list."""

    def __init__(self) -> None:
        self._count = 0
        self._length = 0
        self._last = -1
        self._ascending = True
        self._digests = hashlib.sha256()

    def add(self, entries: Sequence[ChunkEntry]) -> None:
        """Add the next part."""
        for entry in entries:
            self._ascending = self._ascending and entry.chunk_index > self._last
            self._last = entry.chunk_index
            self._length += entry.length
            self._digests.update(entry.digest)
        self._count += len(entries)

    @property
    def summary(self) -> bytes:
        """The SUMMARY checksum of the list."""
        return self._digests.digest()

    def problem(self, row: ObjectRow) -> str:
        """Return how the list contradicts the object; empty if it does not."""
        if self._count != row.chunk_count:
            return f"{self._count} chunks are listed, not {row.chunk_count}"
        if self._length != row.length:
            return f"{self._length} bytes are listed, not {row.length}"
        return "" if self._ascending else "the chunks are not in order of their indexes"


def _still_missing(transaction: Transaction, vault_id: int, object_id: int, digests: list[bytes]) -> list[bytes]:
    """Return the chunks that are missing, if the object that needs them is still there."""
    if damage.object_version(transaction, object_id) is None:
        return []
    states = damage.states(transaction, vault_id, digests)
    return [digest for digest in digests if digest not in states]


def _is_upload_chunk_missing(
    transaction: Transaction, vault_id: int, after: tuple[int, int], row: UploadedChunk
) -> bool:
    """Whether the upload still has this chunk and the vault still lacks it."""
    return references.upload_chunks(transaction, after=after, limit=1) == [row] and not damage.states(
        transaction, vault_id, [row.digest]
    )


class RecordCheck:
    """Checks all records of a store. Only `write_anew` changes anything."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._keys = OpenedKeys(context)

    def check(self, findings: Findings) -> Iterator[Progress]:
        """Report missing and damaged records, and records that the catalog does not know."""
        for done, row in enumerate(self._rows()):
            yield Progress("records", done)
            problem = self._problem(row)
            if problem is not None and self._find(row.key) == row:  # else it was written again or removed meanwhile
                findings.add(finding_kinds.RECORD_DAMAGED, f"{_record_name(row.key)}: {problem}")
        unknown = set(find_unknown_commits(self._context.database, self._context.records))
        if unknown:
            findings.add(finding_kinds.COMMIT_UNKNOWN, unknown_commits_message(len(unknown)), count=0)
        for key in sorted(unknown):
            findings.add(finding_kinds.COMMIT_UNKNOWN, _record_name(key))
        for name in self._context.records.names():
            # A record is removed before its row, so a record without a row belongs to nothing.
            if (
                not name.part
                and name[:3] not in unknown
                and self._find(RecordKey(*name[:3])) is None
                and self._context.records.has(name)
            ):
                findings.add(finding_kinds.RECORD_UNKNOWN, _record_name(RecordKey(*name[:3])))

    def write_anew(self, *, dry_run: bool) -> Iterator[RecordKey]:
        """Write each missing or damaged record again from the catalog, and yield its key."""
        if self._context.database.read(epochs.unknown_commits):
            return  # a rebuild needs the records as they are
        for row in self._rows():
            if self._problem(row) is None:
                continue
            if not dry_run:
                self._context.database.write(partial(records.touch_known, key=row.key))
                update_record(self._context, row.key)
            yield row.key

    def _rows(self) -> Iterator[RecordRow]:
        after = RecordKey("")
        while rows := self._context.database.read(partial(records.page, after=after, limit=RECORDS_PER_PAGE)):
            yield from (row for row in rows if row.recorded and not row.gone)
            after = rows[-1].key

    def _find(self, key: RecordKey) -> RecordRow | None:
        return self._context.database.read(partial(records.find, key=key))

    def _problem(self, row: RecordRow) -> str | None:
        """Return the problem of a finished record; None if it is sound or cannot be checked now."""
        for part in range(row.parts):
            name = RecordName(*row.key, row.recorded, part)
            try:
                decode_record(self._data(name), RECORD_KINDS[row.noun])
            except BlobNotFoundError:
                return "it is missing"
            except DamagedDataError as error:
                return error.message
            except (KeyUnavailableError, StorageUnavailableError):
                return None
        return None

    def _data(self, name: RecordName) -> bytes:
        if name.noun != COMMIT:
            return self._context.records.get_wrapped(name)
        return self._context.records.get(name, self._keys.key_of)


def _record_name(key: RecordKey) -> str:
    return {
        STORE: "the record of the store",
        VAULT: f"the record of vault {key.number}",
        COMMIT: f"the record of commit {key.number}.{key.generation}",
    }.get(key.noun, f"a record of {key.noun!a} {key.number}")
