"""Address of a shared store: the places of its catalog, its blobs and its keyring, and how people are shown them."""

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
"""The options of a URL without which one place may be taken for another. None of them is secret."""


class SharedStoreAddress(NamedTuple):
    """Where a shared store is: the URLs of its catalog and of its blobs, and its keyring as `--keyring` names it.

    A path will do for a URL, for stores that only one machine uses.
    """

    catalog: str
    blobs: str
    keyring: str

    @property
    def shown_catalog(self) -> str:
        """The catalog's URL without anything secret."""
        return without_secrets(self.catalog)

    @property
    def shown_blobs(self) -> str:
        """The blobs' URL without anything secret."""
        return without_secrets(self.blobs)

    def open_catalog(self, *, create: bool = True, migrate: bool = True) -> Database:
        """Open the catalog, and make one that is not there, or refuse it. Without `migrate` its schema stays as it is.

        Raises ConfigurationError, StorageUnavailableError.
        """
        path = None if is_url(self.catalog) else Path(self.catalog)
        if not create and path is not None and not path.exists():
            raise NoCatalogError(f"there is no catalog at {path}", hint=INIT_HINT)
        return open_catalog(path or self.catalog, create=create, migrate=migrate)

    def open_blobs(self) -> BlobStore:
        """Open the place of the blobs. Raises ConfigurationError, StorageUnavailableError."""
        return open_blobs(self.blobs)

    def open_keyring(self) -> KeyringSource:
        """Open the keyring, which must be there. Raises ConfigurationError."""
        place = parse_keyring_uri(self.keyring)
        if place.path is not None and not place.path.exists():
            raise ConfigurationError(
                f"keyring {place.path} is missing, and without it nothing in the store can be read",
                hint="put the store's keyring there, or name it with --keyring; a new one would open nothing",
            )
        return open_keyring(place)


def is_url(place: str) -> bool:
    """Whether a place is a URL, and no path."""
    scheme, found, _ = place.partition("://")
    return bool(found) and scheme.replace("+", "").isalnum()


def without_secrets(place: str) -> str:
    """A place for people: a URL without its password, and of its options those alone that tell places apart."""
    if not is_url(place):
        return str(Path(place).absolute())
    scheme, _, rest = place.partition("://")  # by hand: `urlsplit` knows nothing of several hosts
    named, at, after = rest.partition("@")
    if place.startswith(POSTGRES) and at and "/" not in named:
        rest = after  # libpq takes for names all up to here, also what has a "?" in it
    else:
        named = ""
    where, _, options = rest.partition("?")
    misread, _, where = where.rpartition("@")
    user = (named or misread).partition(":")[0]
    query = urlencode([pair for pair in parse_qsl(options) if pair[0] in TELLING], safe=":/,")
    return f"{scheme}://{f'{user}@' if user else ''}{where}{f'?{query}' if query else ''}"
