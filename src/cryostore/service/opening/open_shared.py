"""How a shared store is opened: one catalog, one place of blobs and one keyring, and any number of nodes.

A shared store is named by three places and has nothing on the node. It is made once, by `init`; opening one only looks
whether its halves belong together. Does not live here: stores in a directory (`open`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

from cryostore.catalog import POSTGRES, NoCatalogError, open_catalog
from cryostore.catalog.database import Database
from cryostore.chunks.blobs import BlobStore, open_blobs
from cryostore.chunks.keyring import KeyringSource, open_keyring, parse_keyring_uri
from cryostore.chunks.marker import is_superseded
from cryostore.core.errors import BlobNotFoundError, ConfigurationError, KeyUnavailableError
from cryostore.core.ids import NewId, random_id
from cryostore.core.limits import Limits
from cryostore.core.time import Clock, wall_clock
from cryostore.core.traffic import Traffic
from cryostore.service.access import AccessKeys
from cryostore.service.keys import StoreKeyring, VaultKeys
from cryostore.service.opening.assembly import context_over, keyring_refused, recover
from cryostore.service.opening.fence import fenced
from cryostore.service.opening.identity import INIT_HINT, Identity, require_identity
from cryostore.service.service import Service
from cryostore.service.settings import Settings

TELLING = ("endpoint", "account", "host", "hostaddr", "port", "dbname", "service")
"""The options of a URL without which one place may be taken for another. None of them is secret."""


class SharedPlace(NamedTuple):
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


def open_shared_service(
    place: SharedPlace,
    *,
    clock: Clock | None = None,
    new_id: NewId = random_id,
    limits: Limits | None = None,
    settings: Settings | None = None,
) -> Service:
    """Open a shared store that was prepared by `init`; any number of processes on any number of machines may.

    `clock` is the catalog's, if left out. Of the settings, what must be the same on all nodes comes from the store.
    Raises ConfigurationError if there is no such store, or its parts do not belong together; StorageUnavailableError
    if one of them cannot be reached.
    """
    with ExitStack() as opened:
        source = place.open_keyring()
        opened.enter_context(explained(place, source))
        database = place.open_catalog(create=False)
        opened.callback(database.close)
        blobs = place.open_blobs()
        opened.callback(blobs.close)
        ring = StoreKeyring(database, source)
        identity = require_identity(database, ring, blobs, place.shown_blobs)
        service = service_over(
            database,
            blobs,
            VaultKeys(database, ring),
            identity,
            clock=clock or clock_of(database),
            new_id=new_id,
            limits=limits,
            settings=settings or Settings(),
        )
        opened.pop_all()
    return service


def service_over(
    database: Database,
    blobs: BlobStore,
    vault_keys: VaultKeys,
    identity: Identity,
    *,
    clock: Clock,
    new_id: NewId,
    limits: Limits | None,
    settings: Settings,
) -> Service:
    """The service on the opened parts of a shared store. Raises KeyUnavailableError, StorageUnavailableError."""
    recover(database, blobs)
    guarded = fenced(blobs, identity.number)
    context = context_over(
        database,
        guarded,
        vault_keys,
        clock=clock,
        new_id=new_id,
        limits=limits,
        settings=replace(settings, region=identity.region, account_id=identity.account_id, reserve_bytes=0),
    )

    for part, name in ((database, "catalog"), (blobs, "blobs")):
        traffic = getattr(part, "traffic", None)
        if isinstance(traffic, Traffic):  # one on a path has none
            context.tally.traffic[name] = traffic

    def is_current() -> bool:
        return not is_superseded(blobs, identity.number)

    return Service(context, AccessKeys(database, vault_keys.keyring, clock), guarded, is_current=is_current)


def clock_of(database: Database) -> Clock:
    """The database's own time, by which all nodes go; this machine's where the database has none."""
    now_ms: Callable[[], int] | None = getattr(database, "now_ms", None)
    return now_ms or wall_clock


@contextmanager
def explained(place: SharedPlace, source: KeyringSource) -> Iterator[None]:
    """At the opening of a store, a key that is missing or does not fit is for the operator to put right."""
    try:
        yield
    except KeyUnavailableError as error:
        raise keyring_refused(place.shown_catalog, source.place, error) from None
    except BlobNotFoundError as error:
        raise ConfigurationError(f"{place.shown_blobs} cannot be used: {error.message}") from None


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
