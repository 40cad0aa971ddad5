"""`cryo repair`: searches all packs for damaged and missing chunks, and adopts packs that the catalog does not know.

It deletes nothing but torn tails. Each step is complete in itself, so that a repair may be killed at any point and
repeated. The order of the work (`repair`):

1. Rows that do not point to their envelope are marked as damaged, if they still point there (`pack_check`).
2. The wanted chunks are all marked chunks, and all chunks that something refers to and that have no row
   (`catalog_check`).
3. All packs are searched for the wanted chunks; unknown packs are adopted, and torn tails are cut (`Salvage`).
4. The chunks that are still wanted are lost until they are uploaded again. What they affect is reported.
5. Missing and damaged records are written again (`catalog_check`).

The rules of the search (`Salvage`) come in addition to those of `garbage_collection.collect`:

1. A pack that a process writes to is left alone: bytes that its writer has not flushed are not durable.
2. A pack is made durable before it is read, and each envelope is proved by opening it before a row points to it. A
   writer that died, or whose flush failed, leaves bytes that can be read although they were never acknowledged.
3. A row is added or changed only if there is no row, or the row is marked as damaged, in the same transaction.
4. A pack without a row gets one only while the epoch is still the one that was current before the pack was read. A
   writer does the same with its own pack, for the same reason (`packs.number_for`): the pack existed when it was read
   in this epoch. Only a pack with a row is ever deleted, after its row was dropped. A row that is dropped in this epoch
   still exists and accepts no chunk rows. It is forgotten only in a later epoch, in which we add nothing.
5. The transaction that gives a pack its row also adds the rows of all wanted chunks in it, because from then on the
   pack is collected like any other.
6. A retired or dropped pack accepts no rows, so its wanted chunks are copied to a new pack. The same is done for an
   unknown pack with envelopes whose key is missing: if the catalog knew the pack, it would be collected once the rest
   of it is not needed, and those envelopes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from cryostore.catalog.database import Answer, Transaction
from cryostore.catalog.processes import epoch as epochs
from cryostore.catalog.queries import damage
from cryostore.catalog.queries.damage import LocatedChunk
from cryostore.catalog.rows import chunks, packs
from cryostore.catalog.rows.chunks import ChunkRow
from cryostore.chunks.envelope import PayloadKind
from cryostore.chunks.packs.format import PACK_HEADER_BYTES, decode_header
from cryostore.chunks.packs.reader import HEADERS_WINDOW_BYTES, WINDOW_BYTES, PackReader, PlacedEnvelope
from cryostore.chunks.store import Location
from cryostore.core.errors import BlobNotFoundError, DamagedDataError, StorageUnavailableError, UnknownFormatError
from cryostore.core.limits import MIB
from cryostore.maintenance.claims import Progress
from cryostore.maintenance.garbage_collection.mark import ROWS_PER_PAGE, START
from cryostore.maintenance.verification import finding_kinds
from cryostore.maintenance.verification.affected import Affected, AffectedSearch
from cryostore.maintenance.verification.catalog_check import RecordCheck, ReferenceCheck
from cryostore.maintenance.verification.damage_marks import DamageMarks
from cryostore.maintenance.verification.finding_kinds import Finding, Findings
from cryostore.maintenance.verification.opened_keys import OpenedKeys, OwnedKey
from cryostore.maintenance.verification.pack_check import PackCheck
from cryostore.maintenance.verification.pack_index import Found, open_placed
from cryostore.service import Context

WANTED_MAX = 500_000
"""The number of chunks that one repair searches for, in about 100 MB of memory at most."""
KINDS = frozenset((PayloadKind.CHUNK, PayloadKind.METADATA))
CHUNKS_PER_BATCH = 500
BYTES_PER_BATCH = 16 * MIB
ATTEMPTS_MAX = 3
"""How often an unknown pack is read again because a garbage collection began meanwhile."""


@dataclass
class SalvageResult:
    """Counts of repaired chunks, adopted packs and chunks, and cut tails; for a dry run, of what would be done."""

    chunks_saved: int = 0
    packs_adopted: int = 0
    chunks_adopted: int = 0
    tails_cut: int = 0
    tail_bytes: int = 0


@dataclass
class RepairResult:
    """What a repair found and did; for a dry run, what it would do.

    `marked` rows did not point to their envelope. Of the `wanted` chunks, `lost` could not be found; `more` says that
    there were too many to search for at once. `records` were written again. `left` has the findings that a repair
    cannot fix.
    """

    marked: int = 0
    wanted: int = 0
    lost: int = 0
    more: bool = False
    records: int = 0
    salvaged: SalvageResult = field(default_factory=SalvageResult)
    left: list[Finding] = field(default_factory=list)
    damage: Affected = field(default_factory=Affected)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left that needs action."""
        return not (self.lost or self.more or any(not found.kind.harmless for found in self.left))


def repair(context: Context, outcome: RepairResult, *, dry_run: bool = False) -> Iterator[Progress]:
    """Repair the store, step by step, and fill `outcome`. Raises StorageUnavailableError."""
    wanted: set[tuple[int, bytes]] = set()
    left, seen = Findings(), Findings()
    yield from _mark(context, outcome, seen, wanted, dry_run=dry_run)
    yield from _want_marked(context, wanted)
    yield from ReferenceCheck(context, seen, AffectedSearch(context), wanted.add).run()
    left.take(seen, finding_kinds.LIST_DAMAGED, finding_kinds.NO_KEY, finding_kinds.UNREADABLE)
    outcome.more = len(wanted) > WANTED_MAX
    while len(wanted) > WANTED_MAX:
        wanted.pop()
    outcome.wanted = len(wanted)
    salvage = Salvage(context, left, wanted, dry_run=dry_run)
    outcome.salvaged = salvage.outcome
    yield from salvage.run()
    outcome.lost = len(wanted)
    if outcome.lost or outcome.more:
        left.take(seen, finding_kinds.PACK_MISSING)
    naming = AffectedSearch(context)
    if wanted:
        lost = Findings()
        yield from ReferenceCheck(context, lost, naming, bad=wanted).run()
        left.take(lost, finding_kinds.CHUNK_MISSING)
    for _ in RecordCheck(context).write_anew(dry_run=dry_run):
        outcome.records += 1
        yield Progress("records", outcome.records)
    outcome.left = left.all()
    outcome.damage = naming.result()


def _mark(
    context: Context, outcome: RepairResult, seen: Findings, wanted: set[tuple[int, bytes]], *, dry_run: bool
) -> Iterator[Progress]:
    """Mark the rows that do not point to their envelope. A dry run only adds their chunks to `wanted`."""
    marks = DamageMarks(context)

    def on_bad(place: LocatedChunk) -> None:
        if dry_run:
            outcome.marked += 1
            wanted.add((place.vault_id, place.digest))
        else:
            marks.add(place)

    pack_check = PackCheck(context, seen, on_bad)
    for step in pack_check.run():
        marks.flush_if_due()
        yield step
    marks.flush()
    outcome.marked += marks.marked
    wanted.update(marks.left)
    pack_check.report_missing_keys()


def _want_marked(context: Context, wanted: set[tuple[int, bytes]]) -> Iterator[Progress]:
    after = START
    while len(wanted) <= WANTED_MAX and (
        rows := context.database.read(partial(damage.page, after=after, limit=ROWS_PER_PAGE))
    ):
        wanted.update(rows)
        after = rows[-1]
        yield Progress("damaged", len(wanted))


class _Proved(NamedTuple):
    """A sound envelope, its key and vault, and its bytes if it is to be copied."""

    found: Found
    owner: OwnedKey
    envelope: bytes

    @property
    def chunk(self) -> tuple[int, bytes]:
        """The chunk in the envelope, by vault id and digest."""
        return self.owner.vault_id, self.found.digest


class Salvage:
    """One search. Chunks that are found are removed from `wanted`, a set of (vault id, digest)."""

    def __init__(
        self, context: Context, findings: Findings, wanted: set[tuple[int, bytes]], *, dry_run: bool = False
    ) -> None:
        self.outcome = SalvageResult()
        self._context = context
        self._findings = findings
        self._wanted = wanted
        self._dry_run = dry_run
        self._keys = OpenedKeys(context)

    def run(self) -> Iterator[Progress]:
        """Search all packs, step by step. Raises StorageUnavailableError if they cannot be listed."""
        for done, name in enumerate(self._context.store.pack_ids()):
            yield Progress("packs", done)
            try:
                for _ in self._search(name):
                    yield Progress("packs", done)
            except (BlobNotFoundError, DamagedDataError):
                pass  # collected or cut meanwhile
            except StorageUnavailableError as error:
                self._findings.add(finding_kinds.UNREADABLE, f"pack {name}: {error.message}")

    def _search(self, name: str) -> Iterator[None]:
        store = self._context.store
        if store.is_owned(name) or not (size_bytes := store.pack_bytes(name)):
            return
        row = self._context.database.read(partial(packs.find, name=name))
        if row is None:
            yield from self._adopt(name)
        else:
            keep_bytes = self._context.database.read(partial(chunks.last_end, pack_number=row.pack_number))
            self._cut_tail(name, keep_bytes)
            if not store.packs_grow and not self._dry_run and row.size_bytes != size_bytes:
                self._write(partial(packs.set_sizes, sizes={row.pack_number: size_bytes}))
            if self._wanted:
                yield from self._use(name, takes_rows=row.retired_ms is None)

    def _cut_tail(self, name: str, keep_bytes: int) -> None:
        act = self._context.store.torn_tail_bytes if self._dry_run else self._context.store.cut_torn_tail
        size = act(name, keep_bytes=keep_bytes)
        self.outcome.tails_cut += bool(size)
        self.outcome.tail_bytes += size

    def _batches(self, name: str, *, wanted_only: bool, keep: bool = False) -> Iterator[list[_Proved]]:
        """Yield batches of the sound envelopes of a pack, or of the wanted ones, with their bytes if `keep` is set."""
        if not self._dry_run and not self._context.store.make_durable(name):
            raise StorageUnavailableError("another process is working on the pack now")
        window_bytes = HEADERS_WINDOW_BYTES if wanted_only else WINDOW_BYTES
        reader = self._context.store.reader(name, window_bytes=window_bytes)
        batch: list[_Proved] = []
        size = 0
        for placed in reader.walk():
            proved = self._prove(reader, placed, wanted_only=wanted_only, keep=keep)
            if proved is not None:
                batch.append(proved)
                size += len(proved.envelope)
            if len(batch) >= CHUNKS_PER_BATCH or size >= BYTES_PER_BATCH:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _prove(self, reader: PackReader, placed: PlacedEnvelope, *, wanted_only: bool, keep: bool) -> _Proved | None:
        owner = self._keys.of_id(placed.header.key_id)
        if owner is None or placed.header.kind not in KINDS:
            return None
        if wanted_only and (owner.vault_id, placed.header.digest(owner.key)) not in self._wanted:
            return None
        found = open_placed(reader, placed, owner.key)
        if not isinstance(found, Found):
            return None
        envelope = bytes(reader.range(found.offset, found.envelope_bytes)) if keep else b""
        return _Proved(found, owner, envelope)

    # packs with a row

    def _use(self, name: str, *, takes_rows: bool) -> Iterator[None]:
        """Point rows to the wanted chunks of a pack."""
        if not takes_rows:
            yield from self._copy(name)
            return
        for batch in self._batches(name, wanted_only=True):
            yield
            if self._dry_run or self._write(partial(_point, batch=batch, name=name)) is not None:
                self._save(batch)

    def _save(self, batch: Sequence[_Proved]) -> None:
        """Remove found chunks from `wanted` and count them."""
        before = len(self._wanted)
        self._wanted.difference_update(proved.chunk for proved in batch)
        self.outcome.chunks_saved += before - len(self._wanted)

    def _copy(self, name: str) -> Iterator[None]:
        """Copy the wanted chunks of a pack that accepts no rows to a new pack."""
        for batch in self._batches(name, wanted_only=True, keep=True):
            yield
            if not self._dry_run:
                epoch = self._context.database.read(epochs.epoch)
                locations = self._context.store.append([proved.envelope for proved in batch])
                now_ms = self._context.clock()
                point = partial(_point_to_copies, batch=batch, locations=locations, epoch=epoch, now_ms=now_ms)
                if self._write(point) is None:
                    continue  # a collection began and retired the new pack: the next repair copies them again
            self._save(batch)

    def _write(self, work: Callable[[Transaction], Answer]) -> Answer:
        with self._context.reserve.spending():
            return self._context.database.write(work)

    # packs without a row

    def _adopt(self, name: str) -> Iterator[None]:
        """Give an unknown pack a row, and its chunks theirs."""
        if (why := self._reason_to_leave(name)) is not None:
            self._findings.add(finding_kinds.PACK_UNKNOWN, f"pack {name} is left alone: {why}")
            yield from self._copy(name)
            return
        self._cut_tail(name, 0)
        for _ in range(ATTEMPTS_MAX):
            epoch = self._context.database.read(epochs.epoch)  # before the first byte is read: rule 4
            # First, in one transaction: once the pack has a row, it is deleted when nothing in it is needed (rule 5).
            wanted = [proved for batch in self._batches(name, wanted_only=True) for proved in batch]
            yield
            if self._adopt_batch(name, epoch, wanted):
                done = {proved.chunk for proved in wanted}
                for batch in self._batches(name, wanted_only=False):
                    yield
                    if not self._adopt_batch(name, epoch, [proved for proved in batch if proved.chunk not in done]):
                        break  # it was emptied and collected: nothing needs what it still holds
                self.outcome.packs_adopted += 1
                return
        self._findings.add(
            finding_kinds.PACK_UNKNOWN, f"pack {name} is left alone: garbage collections began meanwhile"
        )

    def _reason_to_leave(self, name: str) -> str | None:
        """Return why a pack must not be added to the catalog; None if it may be."""
        reader = self._context.store.reader(name, window_bytes=HEADERS_WINDOW_BYTES)
        try:
            decode_header(bytes(reader.range(0, min(PACK_HEADER_BYTES, reader.size))))
        except UnknownFormatError as error:
            return error.message
        except DamagedDataError:
            pass  # envelopes do not depend on the header of their pack
        unknown = sum(
            placed.header.kind not in KINDS or self._keys.of_id(placed.header.key_id) is None
            for placed in reader.walk()
        )
        if reader.later_formats:
            return "a later version of Cryostore wrote to it"
        return f"the keys of {unknown} of its envelopes are missing" if unknown else None

    def _adopt_batch(self, name: str, epoch: int, batch: Sequence[_Proved]) -> bool:
        """Give a pack a row, and rows to its chunks without a sound row. Returns False if the pack accepts none."""
        if self._dry_run:
            taken: list[_Proved] | None = self._context.database.read(partial(_rowless, batch=batch))
        else:
            now_ms = self._context.clock()
            store = self._context.store
            size_bytes = None if store.packs_grow else store.pack_bytes(name)
            point = partial(_point, batch=batch, name=name, epoch=epoch, now_ms=now_ms, size_bytes=size_bytes)
            taken = self._write(point)
        if taken is None:
            return False
        self.outcome.chunks_adopted += sum(proved.chunk not in self._wanted for proved in taken)
        self._save(batch)
        return True


def _point(
    transaction: Transaction,
    batch: Sequence[_Proved],
    name: str,
    *,
    epoch: int | None = None,
    now_ms: int = 0,
    size_bytes: int | None = None,
) -> list[_Proved] | None:
    """Point rows to the envelopes of a pack. Returns those that had no sound row; None if the pack accepts no rows.

    With `epoch`, a pack without a row gets one, as a closed pack.
    """
    if epoch is None:
        row = packs.find(transaction, name)
        number = None if row is None or row.retired_ms is not None else row.pack_number
    else:
        number = packs.number_for(transaction, name, epoch=epoch, now_ms=now_ms, size_bytes=size_bytes)
        packs.close(transaction, name)
    if number is None:
        return None
    return [proved for proved in batch if _point_one(transaction, proved, name, number, proved.found.offset)]


def _point_to_copies(
    transaction: Transaction,
    batch: Sequence[_Proved],
    locations: Sequence[Location],
    epoch: int,
    now_ms: int,
) -> list[_Proved] | None:
    """As `_point`, for copies that this process has just written."""
    name, size_bytes = locations[0].pack_id, locations[0].pack_bytes
    number = packs.number_for(transaction, name, epoch=epoch, now_ms=now_ms, size_bytes=size_bytes)
    if number is None:
        return None
    return [
        proved
        for proved, location in zip(batch, locations, strict=True)
        if _point_one(transaction, proved, name, number, location.offset)
    ]


def _point_one(transaction: Transaction, proved: _Proved, name: str, number: int, offset: int) -> bool:
    found, owner = proved.found, proved.owner
    row = ChunkRow(owner.key_number, name, offset, found.envelope_bytes, found.payload_bytes)
    return chunks.heal(transaction, owner.vault_id, found.digest, row, pack_number=number)


def _rowless(transaction: Transaction, batch: Sequence[_Proved]) -> list[_Proved]:
    """Return what `_point` would return, without changing anything."""
    rowless = []
    for proved in batch:
        vault_id, digest = proved.chunk
        state = damage.states(transaction, vault_id, [digest]).get(digest)
        if state is None or state.damaged:
            rowless.append(proved)
    return rowless
