"""Stores of a migration, in a directory or shared, and how each is opened exclusively.

A directory is locked; a shared store is protected by marks (`cutover`). `run` moves what is opened here.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cryostore.catalog import open_catalog
from cryostore.catalog.database import Database
from cryostore.catalog.queries import store_copy
from cryostore.catalog.rows import records
from cryostore.chunks.blobs import open_blobs
from cryostore.chunks.disk_reserve import DiskReserve
from cryostore.chunks.durable_files import make_directory, storage_errors
from cryostore.chunks.keyring import Keyring
from cryostore.core.errors import ConfigurationError, KeyUnavailableError
from cryostore.core.ids import NewId, random_id
from cryostore.core.time import Clock
from cryostore.maintenance.migrate import cutover
from cryostore.maintenance.migrate.cutover import take_back_move
from cryostore.maintenance.migrate.run import MigrationResult, has_no_open_packs, migrate
from cryostore.maintenance.migrate.side import Side, StageProgress
from cryostore.service.opening.data_directory import KEYRING, InUse, sole_use
from cryostore.service.opening.open import CATALOG, open_service
from cryostore.service.opening.open_shared import open_shared_service
from cryostore.service.opening.shared_store import SharedStoreAddress, is_url
from cryostore.service.recording import write_all_due_records
from cryostore.service.reserve import ReservedDatabase
from cryostore.service.service import Service

SESSIONS = "cryo-migrate"
LOOKS_MAX = 30
LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class DirectoryStore:
    """A store in a directory. `keyring` is used if the directory contains none."""

    data_dir: Path
    keyring: str | None = None

    @property
    def name(self) -> str:
        """The place, as shown to people."""
        return str(self.data_dir.absolute())

    @property
    def exists(self) -> bool:
        """Whether the directory contains a catalog."""
        return (self.data_dir / CATALOG).exists()

    @contextmanager
    def held(self, *, create: bool = False) -> Iterator[Side]:
        """Open the store exclusively. On a full disk, its marks may use the reserve."""
        with storage_errors(self.name):
            if create and not self.data_dir.is_dir():
                make_directory(self.data_dir)
        with sole_use(self.data_dir), self._opened(create=create) as side:
            yield side

    @contextmanager
    def looked_at(self) -> Iterator[Side]:
        """Open an existing store beside its servers, only to read."""
        with closing(InUse(self.data_dir)), self._opened(create=False) as side:
            yield side

    @contextmanager
    def _opened(self, *, create: bool) -> Iterator[Side]:
        reserve = DiskReserve(self.data_dir, 0)
        with reserve.spending(), ExitStack() as opened:
            database = ReservedDatabase(
                reserve.spend(partial(open_catalog, self.data_dir / CATALOG, create=create)), reserve
            )
            opened.callback(database.close)
            blobs = open_blobs(self.data_dir)
            opened.callback(blobs.close)
            yield Side(self.name, database, blobs)

    def open_service(self) -> Service:
        """Open the store as a server does."""
        inside = (self.data_dir / KEYRING).exists()
        return open_service(self.data_dir, keyring=None if inside else self.keyring)


@dataclass(frozen=True)
class SharedStore:
    """A shared store, with its catalog, blob store and keyring in places of their own."""

    place: SharedStoreAddress

    @property
    def name(self) -> str:
        """The place, as shown to people."""
        return f"{self.place.shown_catalog} and {self.place.shown_blobs}"

    @property
    def exists(self) -> bool:
        """Whether a catalog may exist; for a URL that is not known before it is opened."""
        return is_url(self.place.catalog) or Path(self.place.catalog).exists()

    @contextmanager
    def held(self, *, create: bool = False) -> Iterator[Side]:
        """Open its catalog and its blob store, whether they belong together or not."""
        with ExitStack() as opened:
            ours = f"{SESSIONS}-{random_id()}"
            database = self.place._replace(catalog=_with_sessions(self.place.catalog, ours)).open_catalog(create=create)
            opened.callback(database.close)
            blobs = self.place.open_blobs()
            opened.callback(blobs.close)
            yield Side(self.name, database, blobs, self.place.shown_blobs, partial(self._require_alone, database, ours))

    def looked_at(self) -> AbstractContextManager[Side]:
        """Open its catalog and its blob store beside its nodes, only to read."""
        return self.held()

    def _require_alone(self, database: Database, ours: str) -> None:
        """Raise ConfigurationError while other programs use the catalog, as far as the database shows it.

        PostgreSQL does, SQLite does not. Waits for sessions that were closed a moment ago.
        """
        if not is_url(self.place.catalog):
            return
        others = 0
        for _ in range(LOOKS_MAX):
            others = database.read(partial(store_copy.other_sessions, ours=ours))
            if not others:
                return
            time.sleep(LOOK_SECONDS)
        raise ConfigurationError(
            f"{self.place.shown_catalog} has {others} sessions of other programs",
            hint="stop every node and every other program that is connected as this user, and repeat the command",
        )

    def open_service(self) -> Service:
        """Open the store as a node does."""
        return open_shared_service(self.place)


def _with_sessions(catalog: str, name: str) -> str:
    """Return the URL of a catalog with a name for our sessions; a path is returned unchanged."""
    if not is_url(catalog):
        return catalog
    return f"{catalog}{'&' if '?' in catalog else '?'}application_name={name}"


MigrationStore = DirectoryStore | SharedStore


def migrate_store(
    source: MigrationStore,
    target: MigrationStore,
    keyring: Keyring,
    outcome: MigrationResult,
    *,
    clock: Clock,
    new_id: NewId,
    everything: bool = False,
) -> Iterator[StageProgress]:
    """Finish the pending writes of the source and move it, step by step; see `run.migrate`.

    Also raises ConfigurationError if a server or another program uses the source or the target.
    """
    require_store(source)
    with target.held(create=True) as there:
        with source.held() as here:
            settled = has_no_pending_writes(here)
        if not settled:
            yield StageProgress("settle", 0)
            finish_pending_writes(source)
        with source.held() as here:
            yield from migrate(here, there, keyring, outcome, clock=clock, new_id=new_id, everything=everything)


def take_back_store(place: MigrationStore, keyring: Keyring | None) -> str:
    """Let a store that was moved away be opened again. Returns where it was moved to. A directory needs no keyring.

    Raises ConfigurationError if the store was not moved away or is in use.
    """
    require_store(place)
    with place.held() as side:
        return take_back_move(side, keyring)


def require_store(place: MigrationStore) -> None:
    """Raise ConfigurationError if there is no store: opening it would create one."""
    if not place.exists:
        raise ConfigurationError(f"{place.name} holds no store", hint="name the place that the server was given")


def has_no_pending_writes(side: Side) -> bool:
    """Whether a store has no pending writes, or was marked before and cannot be opened."""
    if side.read(cutover.mark_of) is not None:
        return True
    return has_no_open_packs(side) and not side.read(partial(records.due, limit=1))


def finish_pending_writes(place: MigrationStore) -> None:
    """Close the packs of writers that died, and write the records that are due, except those whose key is missing."""
    service = place.open_service()
    try:
        with contextlib.suppress(KeyUnavailableError):
            write_all_due_records(service.context)
    finally:
        service.close()
