"""Rebuild of the catalog of a store, and how it takes the place of the lost one.

The catalog of a store in a directory is built in a file of its own, then put in place in one step.

The catalog of a shared store is built in an empty database. Nothing proves that no node serves with the old catalog,
which may only be unreachable. So the blob store gets a new marker first (`chunks.marker`), which only the new catalog
matches: nodes with the old catalog stop at their next check, and never open the store again. The rows are built in
place. Until the last step they carry a claim, and only its holder may change them. A run that finds the claim of
another run removes the rows and starts over; the other run can then no longer continue.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from cryostore.catalog import open_catalog, tables
from cryostore.catalog.database import Database, Transaction
from cryostore.catalog.rows import keys
from cryostore.catalog.rows.records import STORE
from cryostore.catalog.tables import TABLES, Table
from cryostore.chunks.blobs import BlobStore, open_blobs
from cryostore.chunks.durable_files import storage_errors, sync_directory
from cryostore.chunks.keyring import Keyring, KeyringSource
from cryostore.chunks.marker import newest_marker, put_marker
from cryostore.chunks.records import Records
from cryostore.core.errors import BlobNotFoundError, ConfigurationError, DamagedDataError, KeyUnavailableError
from cryostore.core.ids import NewId, random_id
from cryostore.core.time import Clock
from cryostore.maintenance.claims import Progress
from cryostore.maintenance.rebuild.run import Rebuild, RebuildResult
from cryostore.service.opening.data_directory import sole_use
from cryostore.service.opening.open import CATALOG
from cryostore.service.opening.open_shared import clock_of
from cryostore.service.opening.shared_store import Identity, SharedStoreAddress, insert_identity, wrapped_identity
from cryostore.service.store_keyring import TOKEN_SECRET, StoreKeyring

MAKING = "catalog.rebuilding"
ASIDE = "replaced"
NUMBERED = re.compile(rf"{re.escape(CATALOG)}(?:-wal|-shm)?\.{ASIDE}\.([0-9]{{1,9}})(?![0-9])")
"""A name that begins with this pattern takes its number, whatever follows."""
PARTS = ("", "-wal", "-shm")
"""The suffixes of the files of an SQLite database. A log left behind would be taken for the new catalog's log."""
Answer = TypeVar("Answer")
CLAIM = "rebuilding"
"""The name of the claim among the secrets of the store."""
KEPT_TABLES = {"secret", "collection"}
"""One holds the claim itself; the other has one row in every catalog, which has no meaning yet."""
FIRST_ROWS = {"collection", "record"}
"""The tables in which an empty catalog has rows."""


def rebuild_directory(
    data_dir: Path, keyring: Keyring, outcome: RebuildResult, *, clock: Clock, replace: bool = False
) -> Iterator[Progress]:
    """Rebuild the catalog of `data_dir` from its packs and records, step by step.

    Nothing that exists changes before the last step. An interrupted rebuild leaves a file that the next one removes.
    With `replace`, an existing catalog is kept beside the new one.

    Raises ConfigurationError if there is a catalog (without `replace`) or the directory is in use, KeyUnavailableError
    if the keyring opens no record, StorageUnavailableError.
    """
    with sole_use(data_dir):
        if (data_dir / CATALOG).exists() and not replace:
            raise ConfigurationError(
                f"{data_dir / CATALOG} exists",
                hint="--replace keeps it beside the new one; `cryo check` shows its problems",
            )
        with storage_errors(f"{data_dir}"):
            _remove(data_dir)
        blobs = open_blobs(data_dir)
        database = open_catalog(data_dir / MAKING)
        try:
            yield from Rebuild(database, blobs, keyring, outcome, now_ms=clock()).run()
        finally:
            database.close()
            blobs.close()
        with storage_errors(f"{data_dir}"):
            _put_in_place(data_dir)


def _remove(data_dir: Path) -> None:
    """Remove the files that an interrupted rebuild has left."""
    for part in PARTS:
        with contextlib.suppress(FileNotFoundError):
            (data_dir / f"{MAKING}{part}").unlink()


def _numbers_aside(data_dir: Path) -> Iterator[int]:
    """Yield the numbers under which earlier catalogs are kept, whatever an operator has added to their names."""
    for path in data_dir.glob(f"{CATALOG}*.{ASIDE}.*"):
        if found := re.match(NUMBERED, path.name):
            yield int(found[1])


def _put_in_place(data_dir: Path) -> None:
    if (data_dir / f"{MAKING}-wal").exists():
        raise ConfigurationError(
            f"{data_dir / MAKING} is used by another program", hint="stop that program and try again"
        )
    number = 1 + max(_numbers_aside(data_dir), default=0)
    for part in PARTS:
        with contextlib.suppress(FileNotFoundError):
            (data_dir / f"{CATALOG}{part}").rename(data_dir / f"{CATALOG}{part}.{ASIDE}.{number}")
        # One by one: the old catalog must never be there without its log, nor its log beside the new catalog.
        sync_directory(data_dir)
    descriptor = os.open(data_dir / MAKING, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    (data_dir / MAKING).rename(data_dir / CATALOG)
    sync_directory(data_dir)


class _RebuildDatabase:
    """A database that can be written only while the claim of a rebuild stands. The caller closes the inner database."""

    def __init__(self, inner: Database, claim: bytes) -> None:
        self._inner = inner
        self._claim = claim
        self.read = inner.read

    def write(self, work: Callable[[Transaction], Answer]) -> Answer:
        """See Database. Raises ConfigurationError once another run holds the claim."""

        def claimed(transaction: Transaction) -> Answer:
            if keys.secret(transaction, CLAIM) != self._claim:
                raise _superseded()
            return work(transaction)

        return self._inner.write(claimed)

    def migrate(self) -> None:
        """See Database."""
        self._inner.migrate()

    def close(self) -> None:
        """See Database."""


def rebuild_shared(
    place: SharedStoreAddress, outcome: RebuildResult, *, clock: Clock | None = None, new_id: NewId = random_id
) -> Iterator[Progress]:
    """Rebuild the catalog of a shared store into an empty database, step by step.

    After an interruption it is repeated with the same database. Raises ConfigurationError if the database holds
    anything else or the blob store is not that of a shared store, KeyUnavailableError if the keyring opens no record,
    StorageUnavailableError.
    """
    with ExitStack() as opened:
        keyring = place.open_keyring()
        blobs = place.open_blobs()
        opened.callback(blobs.close)
        database = place.open_catalog()
        opened.callback(database.close)
        before = database.read(partial(_unfinished, place=place))
        _require_keyring(Records(blobs, keyring))
        identity = _next_identity(place, blobs, new_id)
        claimed = _RebuildDatabase(database, _claim(database, keyring, identity, before))
        yield Progress("tables", 0)
        for table in reversed(TABLES):
            if table.name not in KEPT_TABLES:
                claimed.write(partial(tables.clear, table=table))
        claimed.write(partial(keys.delete_secret, name=TOKEN_SECRET))
        now_ms = (clock or clock_of(database))()
        yield from Rebuild(claimed, blobs, keyring, outcome, now_ms=now_ms).run()
        if newest_marker(blobs, known=identity.number) != identity.marker:
            raise _superseded()
        ring = StoreKeyring(database, keyring)
        ring.active()  # cached for the transaction
        claimed.write(partial(_complete, ring=ring, identity=identity))


def _unfinished(transaction: Transaction, place: SharedStoreAddress) -> bytes | None:
    """Return the claim of an unfinished run, if any. Raises ConfigurationError if the database holds a catalog."""
    claim = keys.secret(transaction, CLAIM)
    if wrapped_identity(transaction) is not None or (claim is None and _holds_rows(transaction)):
        raise ConfigurationError(
            f"there is a catalog in {place.shown_catalog} already",
            hint="name an empty database; `cryo check` shows the problems of the existing one",
        )
    return claim


def _holds_rows(transaction: Transaction) -> bool:
    return any(_has_rows(transaction, table) for table in TABLES if table.name not in FIRST_ROWS)


def _has_rows(transaction: Transaction, table: Table) -> bool:
    return bool(tables.page(transaction, table, None, 1))


def _require_keyring(records: Records) -> None:
    """Raise KeyUnavailableError if the keyring belongs to another store, before anything changes."""
    with contextlib.suppress(DamagedDataError, BlobNotFoundError):
        for name in records.names(STORE):
            records.get_wrapped(name)


def _next_identity(place: SharedStoreAddress, blobs: BlobStore, new_id: NewId) -> Identity:
    """Put the next marker into the blob store: from now on it matches no other catalog."""
    marker = newest_marker(blobs)
    if marker is None:
        raise ConfigurationError(
            f"{place.shown_blobs} does not hold the blobs of a shared store",
            hint="name the place that `cryo init` was given; a copy of one is complete with what lies under store/",
        )
    following = msgspec.structs.replace(marker, number=marker.number + 1, token=new_id())
    if not put_marker(blobs, following):
        raise _superseded()
    return Identity.of_marker(following, place.shown_blobs)


def _claim(database: Database, keyring: KeyringSource, identity: Identity, before: bytes | None) -> bytes:
    """Take the claim of the database, which `before` held. Raises ConfigurationError if another run was faster."""
    try:
        claim = keyring.active().wrap(msgspec.json.encode(identity), CLAIM.encode())
    except KeyUnavailableError as error:
        raise ConfigurationError(f"the keyring ({keyring.place}) cannot be used: {error.message}") from None

    def work(transaction: Transaction) -> None:
        if keys.secret(transaction, CLAIM) != before:
            raise _superseded()
        keys.delete_secret(transaction, CLAIM)
        keys.insert_secret(transaction, CLAIM, claim)

    database.write(work)
    return claim


def _complete(transaction: Transaction, ring: StoreKeyring, identity: Identity) -> None:
    """Turn the rows into a catalog that can be opened."""
    keys.delete_secret(transaction, CLAIM)
    insert_identity(transaction, ring, msgspec.structs.replace(identity, bound=True))


def _superseded() -> ConfigurationError:
    return ConfigurationError("another `cryo rebuild-catalog` has started on this store", hint="let that one finish")
