"""Around `rebuild` for a shared store: the blobs and the keyring are there, the catalog is an empty database.

Nothing tells for sure that no node serves with the old catalog, which may only be out of reach. So the blobs themselves
get another marker first (`chunks.marker`), to which only the new catalog will answer: nodes with the old one stop as
soon as they look around, and never open again.

The rows are made in place. Until the last step they carry a claim, under which alone they may be changed: whoever finds
the claim of another run removes the rows and begins anew, and that run can go on no more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

import msgspec

from cryostore.catalog import tables
from cryostore.catalog.database import Database, Transaction
from cryostore.catalog.rows import keys
from cryostore.catalog.rows.records import STORE
from cryostore.catalog.tables import TABLES, Table
from cryostore.chunks.blobs import BlobStore
from cryostore.chunks.keyring import KeyringSource
from cryostore.chunks.marker import newest_marker, put_marker
from cryostore.chunks.records import Records
from cryostore.core.errors import BlobNotFoundError, ConfigurationError, DamagedDataError, KeyUnavailableError
from cryostore.core.ids import NewId, random_id
from cryostore.core.time import Clock
from cryostore.maintenance.progress import Progress
from cryostore.maintenance.rebuild.run import Rebuild, RebuildResult
from cryostore.service.opening.address import SharedStoreAddress
from cryostore.service.opening.identity import Identity, insert_identity, wrapped_identity
from cryostore.service.opening.open_shared import clock_of
from cryostore.service.store_keyring import TOKEN_SECRET, StoreKeyring

Answer = TypeVar("Answer")
CLAIM = "rebuilding"
"""The name of the claim among the secrets of the store."""
KEPT_TABLES = {"secret", "collection"}
"""One holds the claim itself, the other has one row in every catalog, which says nothing yet."""
FIRST_ROWS = {"collection", "record"}
"""The tables in which an empty catalog has rows."""


class RebuildDatabase:
    """A Database that writes only as long as a claim holds. The one it stands before stays the caller's to close."""

    def __init__(self, inner: Database, claim: bytes) -> None:
        self._inner = inner
        self._claim = claim
        self.read = inner.read

    def write(self, work: Callable[[Transaction], Answer]) -> Answer:
        """See Database. Raises ConfigurationError once the claim is another's."""

        def claimed(transaction: Transaction) -> Answer:
            if keys.secret(transaction, CLAIM) != self._claim:
                raise _lost()
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
    """Make the catalog of a shared store anew from its blobs and its keyring, into an empty database, step by step.

    Broken off, it is done again with the same database. Raises ConfigurationError if the database holds something else,
    or the blobs are not those of a shared store; KeyUnavailableError if the keyring opens nothing,
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
        claimed = RebuildDatabase(database, _claim(database, keyring, identity, before))
        yield Progress("tables", 0)
        for table in reversed(TABLES):
            if table.name not in KEPT_TABLES:
                claimed.write(partial(tables.clear, table=table))
        claimed.write(partial(keys.delete_secret, name=TOKEN_SECRET))
        now_ms = (clock or clock_of(database))()
        yield from Rebuild(claimed, blobs, keyring, outcome, now_ms=now_ms).run()
        if newest_marker(blobs, known=identity.number) != identity.marker:
            raise _lost()
        ring = StoreKeyring(database, keyring)
        ring.active()  # to be at hand within the unit of work
        claimed.write(partial(_complete, ring=ring, identity=identity))


def _unfinished(transaction: Transaction, place: SharedStoreAddress) -> bytes | None:
    """The claim of a run that did not come to its end, if there is one. Raises ConfigurationError if there is more."""
    claim = keys.secret(transaction, CLAIM)
    if wrapped_identity(transaction) is not None or (claim is None and _holds_rows(transaction)):
        raise ConfigurationError(
            f"there is a catalog in {place.shown_catalog} already",
            hint="name an empty database; `cryo check` says what is wrong with the one that is there",
        )
    return claim


def _holds_rows(transaction: Transaction) -> bool:
    return any(_has_rows(transaction, table) for table in TABLES if table.name not in FIRST_ROWS)


def _has_rows(transaction: Transaction, table: Table) -> bool:
    return bool(tables.page(transaction, table, None, 1))


def _require_keyring(records: Records) -> None:
    """Raise KeyUnavailableError if the keyring is another store's: that is to be found out before anything changes."""
    with contextlib.suppress(DamagedDataError, BlobNotFoundError):
        for name in records.names(STORE):
            records.get_wrapped(name)


def _next_identity(place: SharedStoreAddress, blobs: BlobStore, new_id: NewId) -> Identity:
    """Put the next marker beside the blobs: from now on no other catalog goes with them."""
    marker = newest_marker(blobs)
    if marker is None:
        raise ConfigurationError(
            f"{place.shown_blobs} does not hold the blobs of a shared store",
            hint="name the place that `cryo init` was given; a copy of one is complete with what lies under store/",
        )
    following = msgspec.structs.replace(marker, number=marker.number + 1, token=new_id())
    if not put_marker(blobs, following):
        raise _lost()
    return Identity.of_marker(following, place.shown_blobs)


def _claim(database: Database, keyring: KeyringSource, identity: Identity, before: bytes | None) -> bytes:
    """Take the database over from nobody, or from the run that was found. Raises ConfigurationError if raced."""
    try:
        claim = keyring.active().wrap(msgspec.json.encode(identity), CLAIM.encode())
    except KeyUnavailableError as error:
        raise ConfigurationError(f"the keyring ({keyring.place}) cannot be used: {error.message}") from None

    def work(transaction: Transaction) -> None:
        if keys.secret(transaction, CLAIM) != before:
            raise _lost()
        keys.delete_secret(transaction, CLAIM)
        keys.insert_secret(transaction, CLAIM, claim)

    database.write(work)
    return claim


def _complete(transaction: Transaction, ring: StoreKeyring, identity: Identity) -> None:
    """Make the rows a catalog."""
    keys.delete_secret(transaction, CLAIM)
    insert_identity(transaction, ring, msgspec.structs.replace(identity, bound=True))


def _lost() -> ConfigurationError:
    return ConfigurationError(
        "another `cryo rebuild-catalog` has begun on this store", hint="let that one come to its end"
    )
