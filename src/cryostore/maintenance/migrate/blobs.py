"""Copy of the blobs of a store: the packs that its rows name, and its records.

The rules:

1. The rows of the source decide what is copied, never a listing.
2. A blob is put only if it is absent. Before that, a note in the target says that the migration is about to put it;
   afterwards the note holds its digest. A blob with a digest in its note need not be read again. An existing blob
   without a note is read and compared.
3. A blob that has a note and differs from the source is replaced. A blob without a note that differs stays and ends the
   run, because something else put it there.
4. A copied blob that the source no longer has is removed. It is found by its note.

`envelopes` reads and checks the blobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import NamedTuple, TypeVar

from cryostore.catalog.database import Transaction
from cryostore.catalog.queries import damage, store_copy
from cryostore.catalog.queries.damage import LocatedChunk
from cryostore.catalog.queries.store_copy import BEGUN, NamedPack, Note
from cryostore.catalog.rows import records
from cryostore.catalog.rows.records import RecordKey, RecordRow
from cryostore.chunks.keyring import Keyring
from cryostore.chunks.packs.format import PREFIX, SUFFIX, pack_key
from cryostore.chunks.records import NAME_PATTERN, RecordName
from cryostore.core.digest import Buffer, sha256
from cryostore.core.errors import BlobExistsError, BlobNotFoundError, ConfigurationError
from cryostore.core.limits import MIB
from cryostore.core.time import Clock
from cryostore.maintenance.migrate.envelopes import BlobVerdict, Envelopes
from cryostore.maintenance.migrate.side import Side, StageProgress

WORKERS = 8
BLOBS_PER_BATCH = 256
BYTES_IN_HAND_MAX = 128 * MIB
"""The bytes of blobs that may be in memory at once; a single blob may be larger."""
NOTED_BYTES = 8 * MIB
"""Notes are written after so many copied bytes, so that little is copied again if the run is killed."""
ROWS_PER_PAGE = 200
EXAMPLES_MAX = 20
Thing = TypeVar("Thing")


@dataclass
class BlobCopyResult:
    """Counts of what was copied, and of the damage in the source.

    `damaged` counts the chunks that are marked as damaged, before or now. `unjudged` envelopes could not be checked:
    their key is missing, or a later version of Cryostore wrote them. `records_bad` are missing or damaged; they can be
    written again.
    """

    packs: int = 0
    records: int = 0
    copied: int = 0
    copied_bytes: int = 0
    known: int = 0
    removed: int = 0
    packs_missing: int = 0
    damaged: int = 0
    unjudged: int = 0
    records_bad: int = 0
    examples: list[str] = field(default_factory=list)

    def say(self, example: str) -> None:
        """Keep an example for people, up to a limit."""
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(example)


class WantedBlob(NamedTuple):
    """A blob that belongs to the store: a pack or a part of a record."""

    key: str
    what: NamedPack | RecordName


class _Seen(NamedTuple):
    """The state of a wanted blob: its size in the source, None if it is missing, and its note.

    A `foreign` blob is in the target and has no note.
    """

    wanted: WantedBlob
    size: int | None
    note: Note | None
    is_done: bool = False
    foreign: bool = False


class _Put(NamedTuple):
    """A blob that is now in the target."""

    note: Note
    looked: BlobVerdict


def wanted_blobs(source: Side) -> Iterator[WantedBlob]:
    """Yield every blob that the rows of a store name: its records, and its packs except those being deleted."""
    after = 0
    while found := source.read(partial(store_copy.packs, after=after, limit=ROWS_PER_PAGE)):
        yield from (WantedBlob(pack_key(pack.name), pack) for pack in found)
        after = found[-1].pack_number
    behind = RecordKey("")
    while rows := source.read(partial(records.page, after=behind, limit=ROWS_PER_PAGE)):
        yield from (WantedBlob(name.key, name) for row in rows for name in _parts(row))
        behind = rows[-1].key


def _parts(row: RecordRow) -> list[RecordName]:
    """Return the parts of the finished record of a noun; none if it is being removed."""
    return [RecordName(*row.key, row.recorded, part) for part in range(row.parts) if row.recorded and not row.gone]


def batches(wanted: Iterable[WantedBlob]) -> Iterator[list[WantedBlob]]:
    """Yield wanted blobs in batches."""
    left = iter(wanted)
    while some := list(islice(left, BLOBS_PER_BATCH)):
        yield some


def portions(some: Sequence[Thing], size_of: Callable[[Thing], int]) -> Iterator[list[Thing]]:
    """Split a batch into portions that fit into memory together."""
    portion: list[Thing] = []
    in_hand = 0
    for one in some:
        size = size_of(one)
        if portion and in_hand + size > BYTES_IN_HAND_MAX:
            yield portion
            portion, in_hand = [], 0
        portion.append(one)
        in_hand += size
    yield portion


class BlobCopy:
    """Copies the blobs of one migration; counts into `carried`."""

    def __init__(self, source: Side, target: Side, keyring: Keyring, carried: BlobCopyResult, clock: Clock) -> None:
        self.carried = carried
        self._source = source
        self._target = target
        self._envelopes = Envelopes(source, keyring)
        self._clock = clock

    def copy(self) -> Iterator[StageProgress]:
        """Copy all blobs that the target lacks, step by step. May be interrupted and repeated."""
        total = self._source.read(store_copy.count_blobs)
        done = done_bytes = 0
        with ThreadPoolExecutor(WORKERS, "migrate") as pool:
            for some in batches(wanted_blobs(self._source)):
                notes = self._target.read(partial(store_copy.notes, keys=[one.key for one in some]))
                seen = list(pool.map(lambda one: self._look(one, notes.get(one.key)), some))  # noqa: B023 - runs at once
                for portion in portions(seen, lambda one: 0 if one.is_done else one.size or 0):
                    self._copy(pool, portion)
                    done += len(portion)
                    done_bytes += sum(one.size or 0 for one in portion)
                    yield StageProgress("blobs", done, total, done_bytes)
        yield from self._remove_strays()
        self.carried.damaged = self._source.read(damage.count)

    def _look(self, wanted: WantedBlob, note: Note | None) -> _Seen:
        size, there = self._source.stat(wanted.key), self._target.stat(wanted.key)
        if note is None:
            return _Seen(wanted, size, None, foreign=there is not None)
        is_done = note.digest != BEGUN and there == note.size and size in (None, there)
        return _Seen(
            wanted, there if is_done else size, note, is_done
        )  # the copy of a blob that the source has lost since is kept

    def _copy(self, pool: ThreadPoolExecutor, portion: Sequence[_Seen]) -> None:
        for one in portion:
            self._count(one)
        new = [one for one in portion if one.size is not None and not one.is_done]
        begun = [Note(one.wanted.key, one.size or 0) for one in new if one.note is None and not one.foreign]
        if begun:
            self._target.write(partial(store_copy.note, some=begun))
        put: list[_Put] = []
        for done in pool.map(self._carry, new):
            if done is not None:
                put.append(done)
            if sum(each.note.size for each in put) >= NOTED_BYTES:
                self._note(put)
                put = []
        self._note(put)

    def _note(self, put: Sequence[_Put]) -> None:
        """Write the notes of copied blobs, so that the next run does not copy them again if this one is killed."""
        damaged = [place for done in put for place in done.looked.damaged]
        if damaged:
            self._mark(damaged)
        if put:
            self._target.write(partial(store_copy.note, some=[done.note for done in put]))
        for done in put:
            self.carried.copied += 1
            self.carried.copied_bytes += done.note.size
            self.carried.unjudged += done.looked.unjudged
            self._count_bad_record(done.note)

    def _count(self, one: _Seen) -> None:
        what = one.wanted.what
        if isinstance(what, NamedPack):
            self.carried.packs += 1
        else:
            self.carried.records += 1
        if one.is_done and one.note is not None:
            self.carried.known += 1
            self._count_bad_record(one.note)
        if one.size is None:
            self._count_missing(what)

    def _count_bad_record(self, note: Note) -> None:
        if note.flaw:
            self.carried.records_bad += 1
            self.carried.say(f"{note.key}: {note.flaw}")

    def _count_missing(self, what: NamedPack | RecordName) -> None:
        """Count a missing blob, and mark the chunks that it should hold."""
        if isinstance(what, RecordName):
            self.carried.records_bad += 1
            self.carried.say(f"{what.key}: it is missing")
            return
        lost = self._envelopes.missing_pack(what).damaged
        if lost:
            self.carried.packs_missing += 1
            self.carried.say(f"pack {what.name} with {len(lost)} chunks is missing")
            self._mark(lost)

    def _mark(self, places: Sequence[LocatedChunk]) -> None:
        """Mark damaged chunks in the source, whose rows are copied later."""
        now_ms = self._clock()

        def work(transaction: Transaction) -> list[LocatedChunk]:
            return [place for place in places if damage.mark(transaction, place, now_ms=now_ms)]

        for place in self._source.write(work):
            self.carried.say(f"chunk {place.digest.hex()} of vault {place.vault_id} is damaged")

    def _carry(self, seen: _Seen) -> _Put | None:
        """Copy one blob, in any thread. Returns None if it is gone from the source."""
        wanted, size = seen.wanted, seen.size or 0
        try:
            data = self._envelopes.read(wanted.key, size)
        except BlobNotFoundError:
            return None
        if isinstance(wanted.what, NamedPack):
            looked = self._envelopes.check_pack(wanted.what, data)
        else:
            looked = self._envelopes.check_record(wanted.what, data)
        self._put(wanted.key, data, is_ours=not seen.foreign)
        return _Put(Note(wanted.key, len(data), sha256(data).hex(), looked.flaw), looked)

    def _put(self, key: str, data: Buffer, *, is_ours: bool) -> None:
        try:
            self._target.put(key, data)
        except BlobExistsError:
            if self._target.get(key) == data:
                return
            if not is_ours:
                raise ConfigurationError(
                    f"{self._target.name} has another blob at {key}, which this migration did not put there",
                    hint="choose an empty place as the target",
                ) from None
            self._target.delete(key)
            self._target.put(key, data)

    def _remove_strays(self) -> Iterator[StageProgress]:
        """Remove blobs that an earlier run has copied and that the source no longer has."""
        after, done = "", 0
        while notes := self._target.read(partial(store_copy.notes_page, after=after, limit=ROWS_PER_PAGE)):
            wanted = self._source.read(partial(_still_wanted, keys=[note.key for note in notes]))
            for note in notes:
                done += 1
                if note.key not in wanted:
                    self._target.delete(note.key)
                    self._target.write(partial(store_copy.forget_note, key=note.key))
                    self.carried.removed += 1
            yield StageProgress("sweep", done)
            after = notes[-1].key


def _still_wanted(transaction: Transaction, keys: Sequence[str]) -> set[str]:
    """Return those of the keys that rows of the source name."""
    names = {key.rpartition("/")[2].removesuffix(SUFFIX): key for key in keys if key.startswith(PREFIX)}
    found = {names[name] for name in store_copy.pack_names(transaction, list(names))}
    for key in keys:
        if match := NAME_PATTERN.fullmatch(key):
            name = RecordName(match[1], *map(int, match.groups()[1:]))
            row = records.find(transaction, RecordKey(*name[:3]))
            if row is not None and name in _parts(row):
                found.add(key)
    return found
