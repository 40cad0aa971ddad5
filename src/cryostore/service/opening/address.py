"""Address of a shared store: the URLs of its catalog, blobs and keyring, and their form without secrets."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

from cryostore.catalog import POSTGRES, NoCatalogError, open_catalog
from cryostore.catalog.database import Database
from cryostore.chunks.blobs import BlobStore, open_blobs
from cryostore.chunks.keyring import KeyringSource, open_keyring, parse_keyring_uri
from cryostore.core.errors import ConfigurationError
from cryostore.service.opening.identity import INIT_HINT

TELLING = ("endpoint", "account", "host", "hostaddr", "port", "dbname", "service")
"""Query options of a URL that tell one database or bucket from another. None of them is secret."""


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
