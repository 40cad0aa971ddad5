"""Opening a shared store: one catalog, one blob store and one keyring for any number of nodes.

A shared store has three URLs (`shared_store`) and nothing on the node. `init` creates it once; opening only checks that
catalog and blobs belong together. Stores in a directory are in `open`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from cryostore.catalog.database import Database
from cryostore.chunks.blobs import BlobStore
from cryostore.chunks.keyring import KeyringSource
from cryostore.chunks.marker import is_superseded
from cryostore.core.errors import BlobNotFoundError, ConfigurationError, KeyUnavailableError
from cryostore.core.ids import NewId, random_id
from cryostore.core.limits import Limits
from cryostore.core.time import Clock, wall_clock
from cryostore.core.traffic import Traffic
from cryostore.service.access import AccessKeys
from cryostore.service.opening.assembly import build_context, keyring_refused_error, recover_packs
from cryostore.service.opening.fence import fence_blobs
from cryostore.service.opening.shared_store import Identity, SharedStoreAddress, require_identity
from cryostore.service.service import Service
from cryostore.service.settings import Settings
from cryostore.service.store_keyring import StoreKeyring
from cryostore.service.vault_keys import VaultKeys


def open_shared_service(
    address: SharedStoreAddress,
    *,
    clock: Clock | None = None,
    new_id: NewId = random_id,
    limits: Limits | None = None,
    settings: Settings | None = None,
) -> Service:
    """Open a shared store that `init` prepared. Any number of processes on any number of machines may do so.

    `clock` is that of the catalog by default. Settings that must be the same on all nodes come from the store. Raises
    ConfigurationError if there is no such store, or its parts do not belong together; StorageUnavailableError if one
    of them cannot be reached.
    """
    with ExitStack() as opened:
        source = address.open_keyring()
        opened.enter_context(explain_key_errors(address, source))
        database = address.open_catalog(create=False)
        opened.callback(database.close)
        blobs = address.open_blobs()
        opened.callback(blobs.close)
        ring = StoreKeyring(database, source)
        identity = require_identity(database, ring, blobs, address.shown_blobs)
        service = build_service(
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


def build_service(
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
    recover_packs(database, blobs)
    guarded = fence_blobs(blobs, identity.number)
    context = build_context(
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
        if isinstance(traffic, Traffic):  # a part on a path has none
            context.tally.traffic[name] = traffic

    def is_current() -> bool:
        return not is_superseded(blobs, identity.number)

    return Service(context, AccessKeys(database, vault_keys.keyring, clock), guarded, is_current=is_current)


def clock_of(database: Database) -> Clock:
    """The clock of the database, which all nodes share; the machine's clock if the database has none."""
    now_ms: Callable[[], int] | None = getattr(database, "now_ms", None)
    return now_ms or wall_clock


@contextmanager
def explain_key_errors(address: SharedStoreAddress, source: KeyringSource) -> Iterator[None]:
    """Turn a missing or wrong key, or a missing bucket, into an error for the operator."""
    try:
        yield
    except KeyUnavailableError as error:
        raise keyring_refused_error(address.shown_catalog, source.place, error) from None
    except BlobNotFoundError as error:
        raise ConfigurationError(f"{address.shown_blobs} cannot be used: {error.message}") from None
