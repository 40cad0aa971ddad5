"""Which store this is: the row of the catalog that a shared store's marker answers to.

The row is kept as the other secrets of the store are, wrapped by the master key: so a keyring of another store cannot
open this one, and a rotation wraps it anew. It also holds what must be the same on all nodes.

1. `cryo init` writes the row, not bound yet, together with all else that a new catalog begins with.
2. It puts the marker beside the blobs, unless that is there.
3. It binds the row: from now on the store may be opened.

Whoever dies in between leaves what the next `cryo init` goes on from. A catalog that is bound is never given other
blobs, and blobs with a marker no other catalog.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from cryostore.catalog.database import Database, Transaction
from cryostore.catalog.rows import keys
from cryostore.catalog.rows.keys import WrappedRow
from cryostore.chunks.blobs import BlobStore
from cryostore.chunks.keyring import unwrap
from cryostore.chunks.marker import Marker, newest_marker
from cryostore.core.errors import ConfigurationError, DamagedDataError
from cryostore.service.store_keyring import StoreKeyring, unwrap_current

IDENTITY = "identity"
"""The name of the row among the secrets of the store."""
INIT_HINT = "prepare the store once: cryo init --catalog URL --blobs URL --keyring FILE --credentials FILE"


class Identity(msgspec.Struct, frozen=True):
    """What the row says. `blobs` names the place that the store was made with, for people."""

    store_id: str
    number: int
    token: str
    region: str
    account_id: str
    blobs: str
    bound: bool = False

    @property
    def marker(self) -> Marker:
        """The marker that belongs to the row."""
        return Marker(self.store_id, self.number, self.token, self.region, self.account_id)

    @classmethod
    def of_marker(cls, marker: Marker, blobs: str) -> Identity:
        """The row, not bound, that belongs to a marker."""
        return cls(marker.store_id, marker.number, marker.token, marker.region, marker.account_id, blobs)


class Kept(NamedTuple):
    """The row as it is kept, and what it says."""

    wrapped: bytes
    identity: Identity


def wrapped_identity(transaction: Transaction) -> bytes | None:
    """The row as it is kept; None in a catalog without one."""
    return keys.secret(transaction, IDENTITY)


def insert_identity(transaction: Transaction, keyring: StoreKeyring, identity: Identity) -> None:
    """Write the row, in the unit of work that fills a new catalog; one that is there stays."""
    keys.insert_secret(transaction, IDENTITY, _wrap(transaction, keyring, identity))


def find_identity(database: Database, keyring: StoreKeyring) -> Kept | None:
    """The row; None in a catalog without one. Raises KeyUnavailableError, DamagedDataError."""
    return unwrap_current(lambda: database.read(wrapped_identity), lambda wrapped: _opened(keyring, wrapped))


def replace_identity(database: Database, keyring: StoreKeyring, kept: Kept, identity: Identity) -> bool:
    """Put another row in the place of one; false if that is not there any more. Raises KeyUnavailableError."""
    keyring.active()  # to be at hand within the unit of work

    def work(transaction: Transaction) -> bool:
        row = WrappedRow("secret", IDENTITY, kept.wrapped, IDENTITY.encode(), None)
        return keys.rewrap(transaction, row, _wrap(transaction, keyring, identity))

    return database.write(work)


def require_identity(database: Database, keyring: StoreKeyring, blobs: BlobStore, place: str) -> Identity:
    """The row of a store that may be opened with these blobs; `place` names those.

    Raises ConfigurationError if the store was not prepared, or catalog and blobs do not belong together; and
    KeyUnavailableError, DamagedDataError, StorageUnavailableError.
    """
    kept = find_identity(database, keyring)
    if kept is None:
        raise ConfigurationError("the catalog holds no store yet", hint=INIT_HINT)
    identity = kept.identity
    if not identity.bound:
        raise ConfigurationError("the store was not prepared to its end", hint=f"do it again; {INIT_HINT}")
    require_marker(identity, newest_marker(blobs, known=identity.number), place)
    return identity


def require_marker(identity: Identity, marker: Marker | None, place: str) -> None:
    """Raise ConfigurationError unless the newest marker beside the blobs is that of the row."""
    if marker == identity.marker:
        return
    if marker is None:
        raise ConfigurationError(
            f"the catalog's store has its blobs at {identity.blobs}, and {place} does not hold them",
            hint="name the place where they are; a copy of them is complete with what lies under store/",
        )
    if marker.store_id == identity.store_id and marker.number > identity.number:
        raise ConfigurationError(
            f"another catalog has taken over the blobs at {place}: this one is out of date",
            hint="name the catalog that was rebuilt or moved last; go on with no other, for it deletes what is needed",
        )
    raise ConfigurationError(
        f"the blobs at {place} belong to another store than the catalog", hint="name the two that belong together"
    )


def _wrap(transaction: Transaction, keyring: StoreKeyring, identity: Identity) -> bytes:
    return keyring.master_key(transaction).wrap(msgspec.json.encode(identity), IDENTITY.encode())


def _opened(keyring: StoreKeyring, wrapped: bytes | None) -> Kept | None:
    if wrapped is None:
        return None
    try:
        return Kept(wrapped, msgspec.json.decode(unwrap(keyring, wrapped, IDENTITY.encode()), type=Identity))
    except msgspec.MsgspecError as error:
        raise DamagedDataError(f"the catalog does not say which store it is: {error}") from error
