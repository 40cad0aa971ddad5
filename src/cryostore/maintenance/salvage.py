"""Salvage: the search of all packs for sound copies of chunks that are damaged or missing, and of packs nobody knows.

The rules, beside those of `gc`:

1. A pack that somebody writes to is left alone: what its writer has not flushed is not safe.
2. A pack is made durable before it is read, and each envelope is proved by opening it before a row points to it. A
   writer that died, or whose flush failed, leaves bytes that can be read and that nobody ever promised.
3. A row is added, or pointed elsewhere, only if none is there or the one there is marked as damaged, in the
   transaction that does it.
4. A pack without a row gets one only while the epoch is the one that was current before the pack was read. That is what
   a writer does with a pack of its own, and for the same reason (`packs.number_for`): when the pack was read in this
   epoch, it was there. Only a pack with a row is ever deleted, after the row was dropped; a row that is dropped in this
   epoch is still there, and takes no rows; and it is forgotten in a later epoch alone, in which we add nothing.
5. A pack that is retired or dropped takes no rows. What is wanted of it is copied to a new pack. So is what is wanted of
   an unknown pack that holds envelopes whose key is not at hand: known to the catalog, it would be collected once the
   rest of it is not needed, and those with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from cryostore.catalog import chunks, collections, damage, packs
from cryostore.catalog.chunks import ChunkRow
from cryostore.catalog.database import Transaction
from cryostore.catalog.packs import PackRow
from cryostore.chunks.envelope import Kind
from cryostore.chunks.pack_reader import HEADERS_WINDOW_BYTES, PackReader
from cryostore.core.errors import BlobNotFoundError, DamagedDataError, StorageUnavailableError
from cryostore.core.limits import MIB
from cryostore.maintenance import finding
from cryostore.maintenance.collection import Progress
from cryostore.maintenance.finding import Findings
from cryostore.maintenance.opened_keys import OpenedKeys, OwnedKey
from cryostore.maintenance.pack_index import Found, open_placed
from cryostore.service import Context

CHUNKS_PER_BATCH = 500
BYTES_PER_BATCH = 16 * MIB
ATTEMPTS_MAX = 3
"""So often an unknown pack is read anew because a collection began meanwhile."""


@dataclass
class Salvaged:
    """What was done, or in a dry run would be: chunks that have a sound row again, packs and chunks taken up."""

    chunks_saved: int = 0
    packs_adopted: int = 0
    chunks_adopted: int = 0
    tails_cut: int = 0
    tail_bytes: int = 0


class _Proved(tuple[Found, OwnedKey]):
    """A sound envelope, and whose it is."""

    __slots__ = ()


class Salvage:
    """One search. What is found of `wanted`, chunks by vault and digest, is taken out of it."""

    def __init__(
        self, context: Context, findings: Findings, wanted: set[tuple[int, bytes]], *, dry_run: bool
    ) -> None:
        self.outcome = Salvaged()
        self._context = context
        self._findings = findings
        self._wanted = wanted
        self._dry_run = dry_run
        self._keys = OpenedKeys(context)

    def run(self) -> Iterator[Progress]:
        """Go through all packs, step by step. Raises StorageUnavailableError if they cannot be listed."""
        for done, name in enumerate(self._context.store.pack_ids()):
            yield Progress("packs", done)
            try:
                for _ in self._search(name):
                    yield Progress("packs", done)
            except BlobNotFoundError:
                pass  # collected meanwhile
            except StorageUnavailableError as error:
                self._findings.add(finding.UNREADABLE, f"pack {name}: {error.message}")

    def _search(self, name: str) -> Iterator[None]:
        store = self._context.store
        if store.is_owned(name) or not store.pack_bytes(name):
            return
        epoch, row = self._look_up(name)
        self._cut_tail(name, row)
        if row is None:
            yield from self._adopt(name)
        elif self._wanted:
            yield from self._save_from(name, epoch, takes_rows=row.retired_ms is None)

    def _look_up(self, name: str) -> tuple[int, PackRow | None]:
        """The epoch before the pack is read, and what the catalog knows of the pack."""
        return self._context.database.read(
            lambda transaction: (collections.epoch(transaction), packs.find(transaction, name))
        )

    def _cut_tail(self, name: str, row: PackRow | None) -> None:
        keep_bytes = 0
        if row is not None:
            keep_bytes = self._context.database.read(partial(chunks.last_end, pack_number=row.pack_number))
        act = self._context.store.torn_tail_bytes if self._dry_run else self._context.store.cut_torn_tail
        size = act(name, keep_bytes=keep_bytes)
        self.outcome.tails_cut += bool(size)
        self.outcome.tail_bytes += size

    # known packs

    def _save_from(self, name: str, epoch: int, *, takes_rows: bool) -> Iterator[None]:
        """Use what is wanted of a pack."""
        for batch in self._batches(name, wanted_only=True):
            yield
            self._save(name, epoch, batch, takes_rows=takes_rows)

    def _save(self, name: str, epoch: int, batch: Sequence[_Proved], *, takes_rows: bool) -> None:
        if self._dry_run:
            saved = len(batch)
        elif takes_rows:
            saved = self._context.database.write(partial(self._point, batch=batch, name=name, epoch=None))
        else:
            saved = self._copy(name, epoch, batch)
        self.outcome.chunks_saved += saved
        self._wanted.difference_update((owner.vault_id, found.digest) for found, owner in batch[: saved or 0])
