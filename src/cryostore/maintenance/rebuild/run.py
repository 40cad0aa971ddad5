"""Rebuild of the catalog from the blobs and the keyring alone, into an empty database.

This module has the order of the work. The format of records is in `service.recording`; `record_reader` finds the
valid ones, `pack_index` reads packs, `directory` and `shared` prepare the database and put it in place.

1. Vaults with their keys, and access keys, come from their records. Wrapped keys stay wrapped as they are.
2. The commits of each lineage are applied in the order of their generations. Generations between a commit and the one
   it was based on were rolled back at the time, and are skipped.
3. Rows that no recovery point sees are removed, with the same statements as when a recovery point is deleted: a record
   may contain rows that were removed after it was written.
4. Every envelope of every pack is opened, and each sound chunk gets a row. So garbage comes back too; the next garbage
   collection finds it.

Unreadable data is counted as lost and skipped: `cryo repair` finds chunks that become readable later, a second rebuild
finds records. Uncommitted jobs, uploads, restore jobs and tokens are not rebuilt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, islice, pairwise
from typing import Any, TypeVar

from cryostore.catalog.database import GENERATION_MAX, Database, Transaction
from cryostore.catalog.rows import (
    chunk_lists,
    chunks,
    jobs,
    keys,
    lineages,
    objects,
    packs,
    records,
    recovery_points,
    vaults,
)
from cryostore.catalog.rows.jobs import JobRow
from cryostore.catalog.rows.lineages import Segment
from cryostore.catalog.rows.objects import ObjectContent, WrittenObject
from cryostore.catalog.rows.records import RecordRow
from cryostore.catalog.rows.recovery_points import PointRow
from cryostore.catalog.rows.vaults import VaultRow
from cryostore.chunks.blobs import Appendable, BlobStore
from cryostore.chunks.cipher import DataKey
from cryostore.chunks.keyring import Keyring
from cryostore.chunks.packs.format import list_packs
from cryostore.chunks.packs.reader import PackReader
from cryostore.chunks.packs.recovery import make_durable
from cryostore.chunks.records import Records
from cryostore.core.errors import KeyUnavailableError
from cryostore.maintenance.claims import Progress
from cryostore.maintenance.rebuild.record_reader import READ_ERRORS, Losses, RecordReader, StoredRecord
from cryostore.maintenance.verification.pack_index import Found, sound_envelopes
from cryostore.service.opening.open import TOKEN_SECRET, new_token_secret
from cryostore.service.recording import CommitRecord
from cryostore.service.vault_keys import VaultKeys

ENVELOPES_PER_BATCH = 1000
ROWS_PER_BATCH = 500
POINTS_PER_PAGE = 100
NamedRow = TypeVar("NamedRow", VaultRow, PointRow, JobRow)


@dataclass
class RebuildResult:
    """Counts of what was rebuilt. `losses` describes what could not be rebuilt."""

    vaults: int = 0
    recovery_points: int = 0
    objects: int = 0
    packs: int = 0
    chunks: int = 0
    losses: Losses = field(default_factory=list)


class Rebuild:
    """One rebuild into an empty, migrated database, counted into `outcome`. It writes nothing anywhere else."""

    def __init__(
        self, database: Database, blobs: BlobStore, keyring: Keyring, outcome: RebuildResult, *, now_ms: int
    ) -> None:
        self.outcome = outcome
        self._database = database
        self._blobs = blobs
        self._keyring = keyring
        self._now_ms = now_ms
        self._recorded = RecordReader(Records(blobs, keyring), self.outcome.losses)
        self._keys: dict[bytes, tuple[int, int, DataKey]] = {}
        """Data keys by key id: the number of the key, the number of its vault, and the key."""

    def run(self) -> Iterator[Progress]:
        """Rebuild, step by step. The database must not be used before the last step.

        Raises KeyUnavailableError if the keyring opens no record, StorageUnavailableError.
        """
        yield Progress("vaults", 0)
        self._put_back_keys()
        yield from self._put_back_commits()
        yield from self._mark_incomplete_points()
        yield from self._put_back_chunks()

    def _key_of(self, key_id: bytes) -> DataKey | None:
        found = self._keys.get(key_id)
        return found[2] if found else None

    # vaults and keys

    def _put_back_keys(self) -> None:
        token_secret = new_token_secret(self._keyring.active())
        self._database.write(lambda transaction: _forget_first_rows(transaction, token_secret))
        vault_keys = VaultKeys(self._database, self._keyring)
        for held, vault in self._recorded.vaults():
            row = _row(VaultRow, vault.vault)
            self._database.write(partial(_put_back_vault, held=held, vault=row, data_keys=vault.keys))
            self.outcome.vaults += 1
            for key in vault.keys:
                try:
                    data_key = vault_keys.opening(key["key_number"])
                except KeyUnavailableError as error:
                    self.outcome.losses.append(f"a data key of vault {row.name} cannot be used: {error.message}")
                else:
                    self._keys[data_key.key_id] = (key["key_number"], row.vault_id, data_key)
        for held, store in self._recorded.store():
            self._database.write(partial(_put_back_store, held=held, access_keys=store.access_keys))

    # commits

    def _put_back_commits(self) -> Iterator[Progress]:
        commits = self._recorded.commits(self._key_of)
        for lineage_id, some in groupby(commits, key=lambda held: held.key.number):
            losses = len(self.outcome.losses)
            all_of_it = list(some)
            valid, void = self._split_commits(all_of_it)
            for held in valid:
                yield Progress("commits", self.outcome.recovery_points)
                self._put_back_commit(held)
            if len(self.outcome.losses) == losses:  # else these commits may only be unread
                for held in void:
                    self._database.write(partial(_put_back_record, held=held, gone=True))
            last = all_of_it[-1].key.generation
            self._database.write(partial(lineages.skip_generations, lineage_id=lineage_id, generation=last))
        yield Progress("lineages", 0)
        self._remove_unseen()
        if not self.outcome.losses:
            self._database.write(records.touch_unseen)

    def _split_commits(self, commits: list[StoredRecord]) -> tuple[list[StoredRecord], list[StoredRecord]]:
        """Split the commits of a lineage into the valid ones, in order, and those that were rolled back."""
        valid: list[StoredRecord] = []
        void: list[StoredRecord] = []
        from_generation: int | None = None
        for held in reversed(commits):
            if from_generation is not None and held.key.generation > from_generation:
                void.append(held)
                continue
            if not held.parts:
                self._recorded.lose(held.key, "the record")
                self._database.write(partial(_put_back_unread, held=held))
                continue
            if from_generation and held.key.generation < from_generation:
                self._recorded.lose(held.key._replace(generation=from_generation), "the record")
            valid.insert(0, held)
            first = next(self._recorded.parts(held, self._key_of), None)
            from_generation = first.previous if first else None
        if from_generation:
            self._recorded.lose(commits[0].key._replace(generation=from_generation), "the record")
        return valid, void

    def _put_back_commit(self, held: StoredRecord) -> None:
        segment = Segment(held.key.number, held.key.generation)
        entries = 0
        previous: int | None = None
        for part in self._recorded.parts(held, self._key_of):
            if not self._database.read(partial(vaults.exists, vault_id=part.vault_id)):
                self.outcome.losses.append(f"commit {segment.lineage_id}.{segment.generation} belongs to a lost vault")
                self._database.write(partial(_put_back_unread, held=held))
                return
            self._database.write(partial(_put_back_part, segment=segment, part=part))
            entries, previous = entries + part.entries, part.previous
            self.outcome.objects += sum(not row[1] for row in part.objects)
            self.outcome.recovery_points += part.point is not None
        self._database.write(partial(_put_back_record, held=held, entries=entries, previous=previous))

    def _remove_unseen(self) -> None:
        """Remove rows that no recovery point sees, and empty lineages, children first."""
        for lineage_id in self._database.read(lineages.ids_descending):
            seen = self._database.read(partial(lineages.seen, lineage_id=lineage_id))
            tip = seen[-1] if seen else 0
            self._repeat(partial(objects.truncate, lineage_id=lineage_id, below=tip, limit=ROWS_PER_BATCH))
            for below, above in pairwise([0, *seen]):
                forget = partial(objects.forget, lineage_id=lineage_id, below=below, above=above, limit=ROWS_PER_BATCH)
                self._repeat(forget)
            self._database.write(partial(lineages.set_tip, segment=Segment(lineage_id, tip)))
            if not seen and not self.outcome.losses:
                self._database.write(partial(_drop_lineage, lineage_id=lineage_id))

    def _mark_incomplete_points(self) -> Iterator[Progress]:
        """Mark the recovery points that are incomplete, or may be."""
        after, done = "", 0
        while rows := self._database.read(partial(recovery_points.segments, after=after, limit=POINTS_PER_PAGE)):
            for row in rows:
                yield Progress("points", done)
                if (reason := self._database.read(partial(self._reason_incomplete, row=row))) is not None:
                    self.outcome.losses.append(f"recovery point {row.point_id} of {row.resource_arn}: {reason}")
                    self._database.write(
                        partial(recovery_points.mark_partial, point_id=row.point_id, message=f"Rebuilt: {reason}.")
                    )
                done += 1
            after = rows[-1].point_id

    def _reason_incomplete(self, transaction: Transaction, row: PointRow) -> str | None:
        """Return why a recovery point may be incomplete; None if it is complete."""
        assert row.segment is not None
        view = lineages.view(transaction, row.segment)
        if any(
            lost.number == segment.lineage_id and lost.generation <= segment.generation
            for segment in view
            for lost in self._recorded.lost
        ):
            return "what a commit changed is lost, objects may be missing or be those of an earlier point"
        totals = objects.totals(transaction, view)
        if totals != (row.object_count, row.size_bytes):
            return (
                f"it had {row.object_count} objects of {row.size_bytes} bytes,"
                f" and has {totals.object_count} of {totals.size_bytes}"
            )
        return None

    def _repeat(self, step: Any) -> None:
        while not self._database.write(step):
            pass

    # packs

    def _put_back_chunks(self) -> Iterator[Progress]:
        for pack_id in list_packs(self._blobs):
            yield Progress("packs", self.outcome.packs)
            for size_bytes, batch in self._batches(pack_id):
                self._put_back_pack(pack_id, size_bytes, batch)
                yield Progress("packs", self.outcome.packs)
            self.outcome.packs += 1

    def _batches(self, pack_id: str) -> Iterator[tuple[int | None, list[Found]]]:
        """Yield the size of a pack that does not grow (else None) with batches of its sound envelopes.

        The last batch may be empty.
        """
        found: Iterator[Found] | None = None
        size_bytes: int | None = None
        while True:
            batch: list[Found] = []
            try:
                if found is None:
                    make_durable(self._blobs, pack_id)
                    reader = PackReader(self._blobs, pack_id)
                    size_bytes = None if isinstance(self._blobs, Appendable) else reader.size
                    found = sound_envelopes(reader, self._key_of)
                for one in islice(found, ENVELOPES_PER_BATCH):
                    batch.append(one)  # noqa: PERF402 - keeps what came before an error
            except READ_ERRORS as error:  # keep what a dying disk still delivers
                self.outcome.losses.append(f"pack {pack_id}: {error.message}")
            yield size_bytes, batch
            if len(batch) < ENVELOPES_PER_BATCH:
                return

    def _put_back_pack(self, pack_id: str, size_bytes: int | None, batch: Iterable[Found]) -> None:
        def work(transaction: Transaction) -> int:
            number = packs.put_back(transaction, pack_id, now_ms=self._now_ms, size_bytes=size_bytes)
            added = 0
            for found in batch:
                key_number, vault_id, _ = self._keys[found.key_id]
                added += chunks.heal(
                    transaction,
                    vault_id,
                    found.digest,
                    chunks.ChunkRow(key_number, pack_id, found.offset, found.envelope_bytes, found.payload_bytes),
                    pack_number=number,
                )
            return added

        self.outcome.chunks += self._database.write(work)


def _row(kind: type[NamedRow], columns: dict[str, Any]) -> NamedRow:
    """Make a row from a record; an older version may have written it without the newest columns."""
    values: dict[str, Any] = {name: columns.get(name) for name in kind._fields}
    return kind(**values)


def _forget_first_rows(transaction: Transaction, token_secret: bytes) -> None:
    """Remove the rows of a new catalog, and set a new token secret, which makes all old tokens invalid."""
    transaction.run("DELETE FROM record")
    keys.insert_secret(transaction, TOKEN_SECRET, token_secret)


def _put_back_vault(
    transaction: Transaction, held: StoredRecord, vault: VaultRow, data_keys: list[dict[str, Any]]
) -> None:
    vaults.put_back(transaction, vault)
    for key in data_keys:
        keys.put_back_vault_key(transaction, key)
    _put_back_record(transaction, held)


def _put_back_store(transaction: Transaction, held: StoredRecord, access_keys: list[dict[str, Any]]) -> None:
    for key in access_keys:
        keys.put_back_access_key(transaction, key)
    _put_back_record(transaction, held)


def _put_back_record(
    transaction: Transaction, held: StoredRecord, *, entries: int = 1, gone: bool = False, previous: int | None = None
) -> None:
    changes = held.number_max + gone  # a record that is to be removed is due
    row = RecordRow(*held.key, changes, held.change, held.parts, entries, int(gone), previous)
    records.insert(transaction, row)


def _put_back_unread(transaction: Transaction, held: StoredRecord) -> None:
    """Note that a record exists but cannot be used now: it is kept, and its commit is not unknown."""
    records.insert(transaction, RecordRow(*held.key, 0, 0, 0, 0, 0, None))


def _put_back_part(transaction: Transaction, segment: Segment, part: CommitRecord) -> None:
    ids = [segment.lineage_id, *(parent[0] for parent in part.parents)]
    parents = [Segment(*parent) for parent in part.parents]
    for lineage_id, parent in reversed([*zip(ids, [*parents, None], strict=True)]):
        lineages.put_back(transaction, lineage_id, part.vault_id, parent)
    for name in part.closed:
        objects.close(transaction, segment, name)
    for chunk_list_id, number, first_index, packed in part.chunk_lists:
        chunk_lists.insert_parts(transaction, chunk_list_id, [(number, first_index, packed)])
        chunk_lists.skip_id(transaction, chunk_list_id)
    for name, removed, *content in part.objects:
        objects.put_back(transaction, segment, WrittenObject((0, 0), name, removed, ObjectContent(*content)))
    if part.point is not None:
        recovery_points.insert(transaction, _row(PointRow, part.point))
    if part.job is not None:
        jobs.insert(transaction, _row(JobRow, part.job))


def _drop_lineage(transaction: Transaction, lineage_id: int) -> None:
    """Remove a lineage that no recovery point sees; its records are removed later."""
    for row in records.above(transaction, Segment(lineage_id, 0), GENERATION_MAX):
        records.end(transaction, row.key)
    lineages.delete(transaction, lineage_id)
