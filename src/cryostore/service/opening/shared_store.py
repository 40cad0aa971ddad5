"""A shared store: its address, and its identity, the row of the catalog that must match the marker beside the blobs.

The address is the URLs of catalog, blobs and keyring; they have a form without secrets.

The row is stored like the other secrets of the store, wrapped by the master key: the keyring of another store cannot
open this one, and a rotation wraps the row again. It also holds the settings that must be the same on all nodes.

1. `cryo init` writes the row, not yet bound, together with the other first rows of a new catalog.
2. It puts the marker beside the blobs, unless the marker exists.
3. It binds the row: from now on the store may be opened.

If `cryo init` is interrupted, the next one resumes. A bound catalog never gets other blobs, and blobs with a marker
never get another catalog.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

import msgspec

from cryostore.catalog import POSTGRES, NoCatalogError, open_catalog
from cryostore.catalog.database import Database, Transaction
from cryostore.catalog.rows import keys
from cryostore.catalog.rows.keys import WrappedRow
from cryostore.chunks.blobs import BlobStore, open_blobs
from cryostore.chunks.keyring import KeyringSource, open_keyring, parse_keyring_uri, unwrap
from cryostore.chunks.marker import Marker, newest_marker
from cryostore.core.errors import ConfigurationError, DamagedDataError
from cryostore.service.store_keyring import StoreKeyring, unwrap_current

IDENTITY = "identity"
"""The name of the row among the secrets of the store."""
INIT_HINT = "prepare the store once: cryo init --catalog URL --blobs URL --keyring FILE --credentials FILE"
TELLING = ("endpoint", "account", "host", "hostaddr", "port", "dbname", "service")
"""Query options of a URL that tell one database or bucket from another. None of them is secret."""


class Identity(msgspec.Struct, frozen=True):
    """Content of the row. `blobs` is the URL that the store was made with, for messages."""

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
        """The unbound row that belongs to a marker."""
        return cls(marker.store_id, marker.number, marker.token, marker.region, marker.account_id, blobs)


class StoredIdentity(NamedTuple):
    """The row as it is stored, wrapped, and its content."""

    wrapped: bytes
    identity: Identity


def wrapped_identity(transaction: Transaction) -> bytes | None:
    """The wrapped row; None in a catalog without one."""
    return keys.secret(transaction, IDENTITY)


def insert_identity(transaction: Transaction, keyring: StoreKeyring, identity: Identity) -> None:
    """Write the row, in the unit of work that writes the first rows; an existing row stays."""
    keys.insert_secret(transaction, IDENTITY, _wrap(transaction, keyring, identity))


def find_identity(database: Database, keyring: StoreKeyring) -> StoredIdentity | None:
    """The row; None in a catalog without one. Raises KeyUnavailableError, DamagedDataError."""
    return unwrap_current(lambda: database.read(wrapped_identity), lambda wrapped: _opened(keyring, wrapped))


def replace_identity(database: Database, keyring: StoreKeyring, stored: StoredIdentity, identity: Identity) -> bool:
    """Replace the row; False if it changed meanwhile. Raises KeyUnavailableError."""
    keyring.active()  # loaded before the unit of work

    def work(transaction: Transaction) -> bool:
        row = WrappedRow("secret", IDENTITY, stored.wrapped, IDENTITY.encode(), None)
        return keys.rewrap(transaction, row, _wrap(transaction, keyring, identity))

    return database.write(work)


def require_identity(database: Database, keyring: StoreKeyring, blobs: BlobStore, place: str) -> Identity:
    """The identity of a store that may be opened with these blobs; `place` names the blobs in messages.

    Raises ConfigurationError if the store is not prepared, or catalog and blobs do not belong together; and
    KeyUnavailableError, DamagedDataError, StorageUnavailableError.
    """
    stored = find_identity(database, keyring)
    if stored is None:
        raise ConfigurationError("the catalog holds no store yet", hint=INIT_HINT)
    identity = stored.identity
    if not identity.bound:
        raise ConfigurationError("the store is only partly prepared", hint=f"run `cryo init` again; {INIT_HINT}")
    require_marker(identity, newest_marker(blobs, known=identity.number), place)
    return identity


def require_marker(identity: Identity, marker: Marker | None, place: str) -> None:
    """Raise ConfigurationError unless the newest marker beside the blobs is that of the row."""
    if marker == identity.marker:
        return
    if marker is None:
        raise ConfigurationError(
            f"the blobs of this catalog's store are at {identity.blobs}, and {place} does not hold them",
            hint="name the place where they are; a copy of the blobs must include everything under store/",
        )
    if marker.store_id == identity.store_id and marker.number > identity.number:
        raise ConfigurationError(
            f"another catalog has taken over the blobs at {place}: this one is out of date",
            hint="use the catalog that was rebuilt or moved last; any other deletes data that is needed",
        )
    raise ConfigurationError(
        f"the blobs at {place} belong to another store than the catalog", hint="name the two that belong together"
    )


def _wrap(transaction: Transaction, keyring: StoreKeyring, identity: Identity) -> bytes:
    return keyring.master_key(transaction).wrap(msgspec.json.encode(identity), IDENTITY.encode())


def _opened(keyring: StoreKeyring, wrapped: bytes | None) -> StoredIdentity | None:
    if wrapped is None:
        return None
    try:
        return StoredIdentity(wrapped, msgspec.json.decode(unwrap(keyring, wrapped, IDENTITY.encode()), type=Identity))
    except msgspec.MsgspecError as error:
        raise DamagedDataError(f"the identity of the store in the catalog cannot be decoded: {error}") from error


class SharedStoreAddress(NamedTuple):
    """The URLs of a shared store's catalog and blobs, and its keyring as `--keyring` names it.

    A path may stand for a URL, for a store that only one machine uses.
    """

    catalog: str
    blobs: str
    keyring: str

    @property
    def shown_catalog(self) -> str:
        """The catalog's URL without secrets."""
        return without_secrets(self.catalog)

    @property
    def shown_blobs(self) -> str:
        """The blobs' URL without secrets."""
        return without_secrets(self.blobs)

    def open_catalog(self, *, create: bool = True, migrate: bool = True) -> Database:
        """Open the catalog. With `create`, make a missing one; with `migrate`, bring its schema up to date.

        Raises NoCatalogError for a missing one otherwise; ConfigurationError, StorageUnavailableError.
        """
        path = None if is_url(self.catalog) else Path(self.catalog)
        if not create and path is not None and not path.exists():
            raise NoCatalogError(f"there is no catalog at {path}", hint=INIT_HINT)
        return open_catalog(path or self.catalog, create=create, migrate=migrate)

    def open_blobs(self) -> BlobStore:
        """Open the blob store. Raises ConfigurationError, StorageUnavailableError."""
        return open_blobs(self.blobs)

    def open_keyring(self) -> KeyringSource:
        """Open the keyring, which must exist. Raises ConfigurationError."""
        place = parse_keyring_uri(self.keyring)
        if place.path is not None and not place.path.exists():
            raise ConfigurationError(
                f"keyring {place.path} is missing, and without it nothing in the store can be read",
                hint="put the store's keyring there, or name it with --keyring; a new one would open nothing",
            )
        return open_keyring(place)


def is_url(place: str) -> bool:
    """Whether a text is a URL rather than a path."""
    scheme, found, _ = place.partition("://")
    return bool(found) and scheme.replace("+", "").isalnum()


def without_secrets(place: str) -> str:
    """A URL without its password, and with only those options that tell places apart; a path as an absolute one."""
    if not is_url(place):
        return str(Path(place).absolute())
    scheme, _, rest = place.partition("://")  # by hand: `urlsplit` does not support several hosts
    named, at, after = rest.partition("@")
    if place.startswith(POSTGRES) and at and "/" not in named:
        rest = after  # libpq reads user and password up to here, even with a "?" in them
    else:
        named = ""
    where, _, options = rest.partition("?")
    misread, _, where = where.rpartition("@")
    user = (named or misread).partition(":")[0]
    query = urlencode([pair for pair in parse_qsl(options) if pair[0] in TELLING], safe=":/,")
    return f"{scheme}://{f'{user}@' if user else ''}{where}{f'?{query}' if query else ''}"
