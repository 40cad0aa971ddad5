"""`cryo scrub`: opens every envelope that the catalog points to, and marks damaged chunks.

The rules:

1. Packs are read least recently verified first, each from front to back in large steps. An envelope is proved by
   opening it. If that fails, it is read a second time, alone: memory and cables have errors, too.
2. A chunk is marked as damaged only if its row still points to the place that was read. So a chunk that compaction
   moved or a writer stored again meanwhile is not damaged, and a pack that was deleted had no rows. A marked chunk that
   proves sound loses its mark: perhaps its disk was away.
3. All chunks of a missing pack are damaged. A missing key or a failed read is no damage; both are counted.
4. A pack counts as verified once all of it was read and no process writes to it any more.
5. One process scrubs at a time: it holds a claim (`claims`), and a process that lost its claim marks nothing more. The
   servers of a store share one pass, in portions: each continues behind the pack that was read last. So no pack is read
   twice in a pass, unless the process that read it died.

Nothing is held between steps: a scrub may be stopped anywhere, and may run beside everything else.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import NamedTuple

from cryostore.catalog.database import Transaction
from cryostore.catalog.queries import damage
from cryostore.catalog.queries.damage import LocatedChunk
from cryostore.catalog.rows import chunks, packs
from cryostore.catalog.rows.chunks import PlacedChunk
from cryostore.catalog.rows.packs import VerifiedPack
from cryostore.chunks.cipher import DataKey
from cryostore.chunks.envelope import open_envelope
from cryostore.chunks.packs.reader import PackReader
from cryostore.chunks.store import Location
from cryostore.core.errors import BlobNotFoundError, DamagedDataError, StorageUnavailableError, UnknownFormatError
from cryostore.core.limits import MIB
from cryostore.maintenance.claims import SCRUB, Claim, Progress, claimed
from cryostore.maintenance.clock_correction import correct_future_timestamps
from cryostore.maintenance.verification.opened_keys import OpenedKeys
from cryostore.service import Context

PACKS_PER_PAGE = 100
CHUNKS_PER_PAGE = 1000
BYTES_PER_STEP = 16 * MIB
START = (-1, 0)


@dataclass
class ScrubResult:
    """Counts of what a scrub read and found.

    `damaged` chunks were found now, `damaged_before` were already marked, `sound_again` were marked and proved sound.
    `no_key` and `unreadable` chunks could not be checked: the keyring lacks their key; their bytes could not be read,
    or a later version of Cryostore wrote them.
    """

    packs: int = 0
    packs_missing: int = 0
    chunks: int = 0
    read_bytes: int = 0
    damaged: int = 0
    damaged_before: int = 0
    sound_again: int = 0
    no_key: int = 0
    unreadable: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether every chunk could be checked and none is damaged."""
        return not (self.damaged or self.damaged_before or self.no_key or self.unreadable)


class Verdict(Enum):
    """The result of checking an envelope."""

    SOUND = auto()
    DAMAGED = auto()
    NO_KEY = auto()
    UNREADABLE = auto()


def scrub(
    context: Context,
    outcome: ScrubResult,
    *,
    share: float = 1.0,
    seconds_max: float | None = None,
    verified_before_ms: int | None = None,
) -> Iterator[Progress]:
    """Verify packs, step by step; a step reads about 16 MiB at most. Counts into `outcome`.

    Verifies the given `share` of all packs, the least recently verified ones, and none that was verified at
    `verified_before_ms` or later. No pack is started after `seconds_max`, but at least one is verified to its end. The
    pass of the servers is not affected.

    Raises ClaimHeldError if another process scrubs, ClaimLostError if another process took over,
    StorageUnavailableError if the catalog cannot be used.
    """
    before_ms = context.clock() + 1 if verified_before_ms is None else verified_before_ms
    with claimed(context, SCRUB) as claim:
        claim.finishes = False
        _correct_stamps(claim)
        yield from claim.saying(_scrub(claim.context, outcome, before_ms, share=share, seconds_max=seconds_max))


def _scrub(
    context: Context, outcome: ScrubResult, before_ms: int, *, share: float, seconds_max: float | None
) -> Generator[Progress, None, None]:
    end = None if seconds_max is None else time.monotonic() + seconds_max
    total = context.database.read(partial(packs.count, verified_before_ms=before_ms))
    total = -int(-total * share // 1)  # rounded up
    keys = OpenedKeys(context)
    for done, pack in enumerate(_least_verified(context, before_ms, START)):
        if done >= total or (end is not None and done and time.monotonic() >= end):
            return
        for _ in _verify(context, outcome, keys, pack):
            yield Progress("scrub", done, total)
        yield Progress("scrub", done + 1, total)


class ScrubPass(NamedTuple):
    """A pass of the servers over the packs last verified before `before_ms`, and the pack after which it continues.

    `after` is the time of the last verification and the number of that pack.
    """

    before_ms: int
    after: tuple[int, int] = START

    @classmethod
    def of_place(cls, place: str) -> ScrubPass | None:
        """Parse the `place` of a claim; None if it holds no pass."""
        numbers = [int(word) for word in place.split()]
        return cls(numbers[0], (numbers[1], numbers[2])) if len(numbers) == 3 else None

    @property
    def place(self) -> str:
        """The pass as text, for a claim."""
        return f"{self.before_ms} {self.after[0]} {self.after[1]}"


def continue_pass(context: Context, outcome: ScrubResult, *, before_ms: int, seconds: float) -> bool:
    """Continue the pass of the servers for about `seconds`. Returns whether it is finished. Raises as `scrub` does.

    Starts a pass over the packs last verified before `before_ms` if none is in progress. Reads at least one pack, and
    the last one to its end. A pack that raised an error is skipped until the next pass.
    """
    end = time.monotonic() + seconds
    with claimed(context, SCRUB) as claim:
        _correct_stamps(claim)
        here = ScrubPass.of_place(claim.place)
        if here is None or here.before_ms > context.clock():  # begun while a clock was ahead: it would not end
            here = ScrubPass(before_ms)
        claim.place, claim.finishes = here.place, False
        for _ in claim.saying(_portion(claim, outcome, here)):
            if time.monotonic() >= end:
                return False
        claim.place, claim.finishes = "", True
    return True


def _correct_stamps(claim: Claim) -> None:
    """Let a pack that was verified in the future count as not verified."""
    with claim.context.reserve.spending():
        correct_future_timestamps(claim.context)


def _portion(claim: Claim, outcome: ScrubResult, here: ScrubPass) -> Generator[Progress, None, None]:
    """Verify the rest of a pass; a step is a pack."""
    keys = OpenedKeys(claim.context)
    for done, pack in enumerate(_least_verified(claim.context, here.before_ms, here.after)):
        claim.place = here._replace(after=(pack.verified_ms, pack.pack_number)).place
        for _ in _verify(claim.context, outcome, keys, pack):
            pass
        yield Progress("scrub", done + 1)


def _least_verified(context: Context, before_ms: int, after: tuple[int, int]) -> Iterator[VerifiedPack]:
    page = partial(packs.least_verified, verified_before_ms=before_ms, limit=PACKS_PER_PAGE)
    while rows := context.database.read(partial(page, after=after)):
        for row in rows:
            # Skip packs that were collected meanwhile, or that another process has verified.
            if context.database.read(partial(packs.verified_ms, pack_number=row.pack_number)) == row.verified_ms:
                yield row
        after = (rows[-1].verified_ms, rows[-1].pack_number)


def _verify(context: Context, outcome: ScrubResult, keys: OpenedKeys, pack: VerifiedPack) -> Iterator[None]:
    """Verify all chunks of a pack that rows point to."""
    reader = _reader(context, pack.name)
    complete = isinstance(reader, PackReader)
    missing, offset = reader is None, 0
    page = partial(chunks.all_in_pack, pack_number=pack.pack_number, limit=CHUNKS_PER_PAGE)
    while found_rows := context.database.read(partial(page, from_offset=offset)):
        rows = _first(found_rows)
        verdicts = [(row, _judge(context, keys, pack.name, reader, row)) for row in rows]
        found = _record_verdicts(context, outcome, pack.pack_number, verdicts)
        outcome.packs_missing += missing and found
        missing = missing and not found
        complete = complete and not any(verdict in (Verdict.NO_KEY, Verdict.UNREADABLE) for _, verdict in verdicts)
        offset = rows[-1].pack_offset + 1
        yield
    if complete:
        now_ms = context.clock()
        with context.reserve.spending():
            context.database.write(partial(packs.set_verified, pack_number=pack.pack_number, now_ms=now_ms))
        outcome.packs += 1


def _reader(context: Context, name: str) -> PackReader | Verdict | None:
    """Return a reader of the pack; None if the pack is missing, UNREADABLE if that is unknown."""
    try:
        return context.store.reader(name)
    except BlobNotFoundError:
        return None
    except StorageUnavailableError:
        return Verdict.UNREADABLE


def _first(rows: Sequence[PlacedChunk]) -> Sequence[PlacedChunk]:
    """Return as many leading chunks as one step may read, at least one."""
    total = 0
    for place, row in enumerate(rows):
        total += row.sealed_length
        if total > BYTES_PER_STEP and place:
            return rows[:place]
    return rows


def _judge(
    context: Context, keys: OpenedKeys, name: str, reader: PackReader | Verdict | None, row: PlacedChunk
) -> Verdict:
    key = keys.of_number(row.key_number)
    if key is None:
        return Verdict.NO_KEY
    if not isinstance(reader, PackReader):
        return reader or Verdict.DAMAGED
    try:
        open_envelope(reader.range(row.pack_offset, row.sealed_length), key, row.digest, row.length)
    except UnknownFormatError:
        return Verdict.UNREADABLE
    except (DamagedDataError, BlobNotFoundError, StorageUnavailableError):
        return _judge_again(context, Location(name, row.pack_offset, row.sealed_length), key, row)
    return Verdict.SOUND


def _judge_again(context: Context, location: Location, key: DataKey, row: PlacedChunk) -> Verdict:
    """Return the verdict of reading this envelope alone."""
    try:
        context.store.get(location, key, row.digest, row.length)
    except DamagedDataError:
        return Verdict.DAMAGED
    except StorageUnavailableError:
        return Verdict.UNREADABLE
    return Verdict.SOUND


class _RecordedVerdicts(NamedTuple):
    """Counts of the verdicts that still hold in the transaction that records them."""

    marked: int
    known: int
    cleared: int
    no_key: int
    unreadable: int


def _record_verdicts(
    context: Context, outcome: ScrubResult, pack_number: int, verdicts: Sequence[tuple[PlacedChunk, Verdict]]
) -> bool:
    """Record verdicts that still hold, and count them. Returns whether any chunk is damaged."""
    now_ms = context.clock()
    outcome.chunks += len(verdicts)
    outcome.read_bytes += sum(row.sealed_length for row, verdict in verdicts if verdict is Verdict.SOUND)
    places = [
        (LocatedChunk(row.vault_id, row.digest, pack_number, row.pack_offset), verdict)
        for row, verdict in verdicts
        if verdict is not Verdict.SOUND or row.damaged_ms is not None
    ]
    if not places:
        return False

    def work(transaction: Transaction) -> _RecordedVerdicts:
        standing = [(place, verdict) for place, verdict in places if damage.stands(transaction, place)]
        bad = [place for place, verdict in standing if verdict is Verdict.DAMAGED]
        marked = sum(damage.mark(transaction, place, now_ms=now_ms) for place in bad)
        cleared = sum(damage.clear(transaction, place) for place, verdict in standing if verdict is Verdict.SOUND)
        no_key, unreadable = (
            sum(verdict is kind for _, verdict in standing) for kind in (Verdict.NO_KEY, Verdict.UNREADABLE)
        )
        return _RecordedVerdicts(marked, len(bad) - marked, cleared, no_key, unreadable)

    with context.reserve.spending():
        settled = context.database.write(work)
    outcome.damaged += settled.marked
    outcome.damaged_before += settled.known
    outcome.sound_again += settled.cleared
    outcome.no_key += settled.no_key
    outcome.unreadable += settled.unreadable
    return bool(settled.marked or settled.known)


def scrub_all(context: Context) -> ScrubResult:
    """Verify every pack, to the end."""
    outcome = ScrubResult()
    for _ in scrub(context, outcome):
        pass
    return outcome
