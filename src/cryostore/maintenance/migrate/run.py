"""Copying a store into another place, with its whole history: the order of the work, and what makes it safe to repeat.

1. The target is marked: nobody can open it until all is there. The mark names the move, so that only this store may go
   on. A shared source is marked, too, and shuts its nodes out; a directory nobody can open meanwhile (`migrate_gate`).
2. Blobs are copied, each one judged on its way (`migrate_blobs`), then rows (`migrate_rows`).
3. Both are verified (`migrate_rows`, `migrate_verify`).
4. The source is marked as moved. Then the target is opened to everybody, in one transaction.

Whoever dies at any point leaves a source as it was, or a target that the next run completes. There is no moment at
which both can be opened. Nothing of the source is ever removed; `take_back` lets it be used again.

Does not live here: how the two places are opened, and kept from others meanwhile (`migrate_place`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from cryostore.catalog.queries import store_copy
from cryostore.catalog.rows import chunks, keys, packs, records
from cryostore.catalog.rows.keys import WRAPPED
from cryostore.catalog.tables import TABLES
from cryostore.chunks.keyring import Keyring, unwrap
from cryostore.chunks.packs.format import pack_key
from cryostore.core.errors import ConfigurationError, KeyUnavailableError
from cryostore.core.ids import NewId
from cryostore.core.time import Clock
from cryostore.maintenance.key_rotation import CONTEXTS
from cryostore.maintenance.migrate.blobs import BlobCopy, BlobCopyResult
from cryostore.maintenance.migrate.cutover import begin_move, complete_move
from cryostore.maintenance.migrate.rows import OF_THE_PLACE, TableDigest, copy_rows, count_rows, verify_rows
from cryostore.maintenance.migrate.side import Side, Step
from cryostore.maintenance.migrate.verify import BlobCheck, BlobCheckResult

ROWS_PER_PAGE = 200
DUE_COUNTED_MAX = 1000
FIRST_CHUNK = (0, b"")
LAST_CHUNK = (2**63 - 1, b"")


@dataclass
class MigrationPlan:
    """What a move would copy, as the rows of the source tell."""

    blobs: int
    chunk_bytes: int
    rows: dict[str, int]


@dataclass
class MigrationResult:
    """What came of a move: what was copied, verified, and was wrong in the source before.

    `keys_missing` names what the keyring does not open: it is copied, and cannot be read in either place. `records_due`
    are those that could not be written yet, for want of a key.
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
        """Whether nothing was wrong with what was moved."""
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
) -> Iterator[Step]:
    """Move a store, step by step, or go on with a move that was broken off. With `everything` all blobs are read again.

    The source must be settled, and nobody else may have either of them open. Raises ConfigurationError if either is not
    what it must be, DamagedDataError if the verification fails, StorageUnavailableError; then the command is to be
    repeated.
    """
    outcome.source, outcome.target = source.name, target.name
    _require_no_open_packs(source)
    _require_alone(source, target)  # before nodes that were forgotten are shut out, and after it
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
    yield from BlobCheck(source, target, keyring, outcome.verified, everything=everything).run()
    _require_alone(source, target)
    complete_move(source, target, keyring, move)


def plan(source: Side) -> MigrationPlan:
    """What a move would copy. Changes nothing."""
    rows = {table.name: count_rows(source, [table]) for table in TABLES}
    return MigrationPlan(source.read(store_copy.count_blobs), _chunk_bytes(source), rows)


def _chunk_bytes(source: Side) -> int:
    total, after = 0, FIRST_CHUNK
    while until := source.read(partial(chunks.count_step, after=after)):
        total, after = total + source.read(partial(store_copy.chunk_bytes, after=after, until=until)), until
    return total + source.read(partial(store_copy.chunk_bytes, after=after, until=LAST_CHUNK))


def has_no_open_packs(source: Side) -> bool:
    """Whether no pack is open: nobody writes, and whoever died while writing has been cleared up after."""
    open_packs = source.read(packs.open_packs)
    return all(source.stat(pack_key(name)) is None for name in open_packs)  # one that is missing nobody can close


def _require_no_open_packs(source: Side) -> None:
    if not has_no_open_packs(source):
        raise ConfigurationError(f"somebody writes to {source.name}", hint="stop every `cryo serve` and try again")


def _require_alone(source: Side, target: Side) -> None:
    for side in (source, target):
        side.require_alone()


def _missing_keys(source: Side, keyring: Keyring) -> list[str]:
    """What of the source's wrapped keys the keyring does not open, in words."""
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
