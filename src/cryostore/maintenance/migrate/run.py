"""Migration of a store to another place with its whole history: the order of the work, and why it can be repeated.

1. The target is marked, so that nothing can open it before it is complete. The mark names the move, so that only this
   store can continue it. A shared source is marked too, which shuts its nodes out; a directory is locked meanwhile
   (`cutover`).
2. Blobs are copied, each checked on its way (`blobs`), then rows (`rows`).
3. Both are verified: the rows (`rows`), and each copied blob (`_BlobCheck`). A blob must exist with its size. Some, or
   all, are read again: they must have the digest that was read from the source, and one envelope of each pack is opened
   with the rows of the target, as a restore does.
4. The source is marked as moved. Then, in one transaction, the target may be opened.

A run that dies at any point leaves the source as it was, or a target that the next run completes. At no moment can both
be opened. Nothing is ever removed from the source; `cryo migrate --take-back` lets it be used again.

`stores` opens the two places and protects them meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from cryostore.catalog.queries import store_copy
from cryostore.catalog.queries.store_copy import BEGUN, NamedPack, Note
from cryostore.catalog.rows import chunks, keys, packs, records
from cryostore.catalog.rows.keys import WRAPPED
from cryostore.catalog.tables import TABLES
from cryostore.chunks.envelope import open_envelope
from cryostore.chunks.keyring import Keyring, unwrap
from cryostore.chunks.packs.format import pack_key
from cryostore.core.digest import sha256
from cryostore.core.errors import BlobNotFoundError, ConfigurationError, DamagedDataError, KeyUnavailableError
from cryostore.core.ids import NewId
from cryostore.core.time import Clock
from cryostore.maintenance.key_rotation import CONTEXTS
from cryostore.maintenance.migrate.blobs import (
    WORKERS,
    BlobCopy,
    BlobCopyResult,
    WantedBlob,
    batches,
    portions,
    wanted_blobs,
)
from cryostore.maintenance.migrate.cutover import begin_move, complete_move
from cryostore.maintenance.migrate.rows import OF_THE_PLACE, TableDigest, copy_rows, count_rows, verify_rows
from cryostore.maintenance.migrate.side import Side, StageProgress
from cryostore.service.vault_keys import VaultKeys

ROWS_PER_PAGE = 200
DUE_COUNTED_MAX = 1000
FIRST_CHUNK = (0, b"")
LAST_CHUNK = (2**63 - 1, b"")
SAMPLED = 50
"""One blob in so many is read again, unless all are."""


@dataclass
class MigrationPlan:
    """What a move would copy, according to the rows of the source."""

    blobs: int
    chunk_bytes: int
    rows: dict[str, int]


@dataclass
class BlobCheckResult:
    """Counts of the blobs that exist, and of those that were read again."""

    blobs: int = 0
    read: int = 0
    read_bytes: int = 0


@dataclass
class MigrationResult:
    """The result of a move: counts of copied and verified data, and of damage in the source.

    `keys_missing` names the wrapped keys that the keyring does not open; they are copied, but cannot be read in either
    place. `records_due` could not be written yet because a key is missing.
    """

    source: str = ""
    target: str = ""
    done_before: bool = False
    carried: BlobCopyResult = field(default_factory=BlobCopyResult)
    verified: BlobCheckResult = field(default_factory=BlobCheckResult)
    tables: dict[str, TableDigest] = field(default_factory=dict)
    keys_missing: list[str] = field(default_factory=list)
    records_due: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether the moved data had no problem."""
        carried = self.carried
        found = carried.packs_missing + carried.damaged + carried.unjudged + carried.records_bad + self.records_due
        return not found and not self.keys_missing


def migrate(
    source: Side,
    target: Side,
    keyring: Keyring,
    outcome: MigrationResult,
    *,
    clock: Clock,
    new_id: NewId,
    everything: bool = False,
) -> Iterator[StageProgress]:
    """Move a store, step by step, or continue an interrupted move. With `everything`, all blobs are read again.

    The source must have no open packs, and nothing else may have the source or the target open. Raises
    ConfigurationError if either is not in the required state, DamagedDataError if the verification fails, and
    StorageUnavailableError; after the last two the command can be repeated.
    """
    outcome.source, outcome.target = source.name, target.name
    _require_no_open_packs(source)
    _require_alone(source, target)  # before and after nodes that are still running are shut out
    move = begin_move(source, target, keyring, new_id)
    if move is None:
        outcome.done_before = True
        return
    _require_alone(source, target)
    outcome.keys_missing = _missing_keys(source, keyring)
    outcome.records_due = len(source.read(partial(records.due, limit=DUE_COUNTED_MAX)))
    yield from BlobCopy(source, target, keyring, outcome.carried, clock).copy()
    counted: dict[str, int] = {}
    yield from copy_rows(source, target, counted)
    yield from verify_rows(source, target, counted, outcome.tables)
    yield from _BlobCheck(source, target, keyring, outcome.verified, everything=everything).run()
    _require_alone(source, target)
    complete_move(source, target, keyring, move)


def plan(source: Side) -> MigrationPlan:
    """Return what a move would copy. Changes nothing."""
    rows = {table.name: count_rows(source, [table]) for table in TABLES}
    return MigrationPlan(source.read(store_copy.count_blobs), _chunk_bytes(source), rows)


def _chunk_bytes(source: Side) -> int:
    total, after = 0, FIRST_CHUNK
    while until := source.read(partial(chunks.count_step, after=after)):
        total, after = total + source.read(partial(store_copy.chunk_bytes, after=after, until=until)), until
    return total + source.read(partial(store_copy.chunk_bytes, after=after, until=LAST_CHUNK))


def has_no_open_packs(source: Side) -> bool:
    """Whether no pack is open: no process writes, and the packs of writers that died are closed."""
    open_packs = source.read(packs.open_packs)
    return all(source.stat(pack_key(name)) is None for name in open_packs)  # a missing pack cannot be closed


def _require_no_open_packs(source: Side) -> None:
    if not has_no_open_packs(source):
        raise ConfigurationError(
            f"another process writes to {source.name}", hint="stop every `cryo serve` and try again"
        )


def _require_alone(source: Side, target: Side) -> None:
    for side in (source, target):
        side.require_alone()


def _missing_keys(source: Side, keyring: Keyring) -> list[str]:
    """Describe the wrapped keys of the source that the keyring does not open."""
    missing = []
    for table in WRAPPED:
        after = None
        while rows := source.read(partial(keys.wrapped_page, table=table, after=after, limit=ROWS_PER_PAGE)):
            for row in rows:
                if table == "secret" and row.name in OF_THE_PLACE:
                    continue
                try:
                    unwrap(keyring, row.wrapped, CONTEXTS[table](row.label))
                except KeyUnavailableError as error:
                    missing.append(f"{table} {row.name}: {error.message}")
            after = rows[-1].name
    return missing


class _Asked(NamedTuple):
    """A blob to check, its note, and whether it is to be read."""

    wanted: WantedBlob
    note: Note | None
    is_read: bool


class _BlobCheck:
    """Checks all blobs of the target; counts into `verified`. With `everything`, each is read."""

    def __init__(
        self, source: Side, target: Side, keyring: Keyring, verified: BlobCheckResult, *, everything: bool
    ) -> None:
        self.verified = verified
        self._source = source
        self._target = target
        self._keys = VaultKeys(target, keyring)
        self._everything = everything

    def run(self) -> Iterator[StageProgress]:
        """Check each blob, step by step.

        Raises DamagedDataError if any blob is missing or has changed; a later run copies these again.
        """
        total = self._source.read(store_copy.count_blobs)
        bad: list[str] = []
        with ThreadPoolExecutor(WORKERS, "migrate") as pool:
            for some in batches(wanted_blobs(self._source)):
                for portion in portions(self._asked(some), lambda one: one.note.size if one.note else 0):
                    problems = list(pool.map(self._problem, portion))
                    bad += self._note(portion, problems)
                    yield StageProgress("verify blobs", self.verified.blobs, total, self.verified.read_bytes)
        if bad:
            raise DamagedDataError(
                f"{self._target.name}: {len(bad)} blobs are missing or have changed: {bad[0]}",
                hint="repeat the command, which copies them again; if that fails too, the place loses data",
            )

    def _asked(self, some: Sequence[WantedBlob]) -> list[_Asked]:
        notes = self._target.read(partial(store_copy.notes, keys=[one.key for one in some]))
        first = self.verified.blobs
        self.verified.blobs += len(some)
        return [
            _Asked(one, notes.get(one.key), self._everything or not number % SAMPLED)
            for number, one in enumerate(some, start=first)
        ]

    def _problem(self, asked: _Asked) -> str | None:
        """Return the problem of a blob in the target, None if it has none. Runs in any thread."""
        wanted, note, _ = asked
        if note is None or note.digest == BEGUN:
            return None if self._source.stat(wanted.key) is None else f"{wanted.key} was not copied"
        size = self._target.stat(wanted.key)
        if size != note.size:
            return f"{wanted.key} is missing" if size is None else f"{wanted.key} has {size} bytes, not {note.size}"
        if not asked.is_read:
            return None
        try:
            data = self._target.get(wanted.key)
        except (BlobNotFoundError, DamagedDataError) as error:
            return error.message
        if sha256(data).hex() != note.digest:
            return f"{wanted.key} has other bytes"
        return self._open_one(wanted.what, data) if isinstance(wanted.what, NamedPack) else None

    def _open_one(self, pack: NamedPack, data: bytes) -> str | None:
        """Open one envelope of a pack with the rows of the target, as a restore does."""
        row = self._target.read(partial(store_copy.first_chunk, pack_number=pack.pack_number))
        if row is None:
            return None
        _, digest, key_number, offset, sealed_length, length = row
        try:
            key = self._keys.opening(key_number)
            open_envelope(memoryview(data)[offset : offset + sealed_length], key, digest, length)
        except KeyUnavailableError:
            return None  # the source cannot read it either, which was reported
        except DamagedDataError as error:
            return f"pack {pack.name} at {offset}: {error.message}"
        return None

    def _note(self, portion: Sequence[_Asked], problems: Sequence[str | None]) -> list[str]:
        """Reset the notes of bad blobs, so that a later run copies them again. Returns their problems."""
        for one in portion:
            if one.is_read and one.note is not None:
                self.verified.read += 1
                self.verified.read_bytes += one.note.size
        bad = [one.note._replace(digest=BEGUN) for one, problem in zip(portion, problems, strict=True)
               if problem and one.note is not None]  # fmt: skip
        if bad:
            self._target.write(partial(store_copy.note, some=bad))
        return [problem for problem in problems if problem]
