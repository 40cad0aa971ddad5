"""What `cryo doctor` looks at in a shared store: keyring, catalog, blobs, and whether the three belong together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cryostore.cli.doctor.diagnosis import Diagnoses, Diagnosis, error, failed, known_commits, ok, warning
from cryostore.core.errors import ConfigurationError, CryostoreError
from cryostore.core.ids import random_id
from cryostore.core.time import Clock, wall_clock

if TYPE_CHECKING:
    from cryostore.catalog.database import Database
    from cryostore.chunks.blobs import BlobStore
    from cryostore.chunks.keyring import KeyringSource
    from cryostore.service.opening.address import SharedStoreAddress

Part = TypeVar("Part")


def shared(place: SharedStoreAddress, *, write: bool, now: Clock = wall_clock) -> Diagnoses:
    """Everything about a shared store that is seen without opening it: nothing is upgraded or put right."""
    from cryostore.cli.doctor.blobs import blobs
    from cryostore.cli.doctor.catalog import catalog
    from cryostore.service.opening.address import is_url

    with ExitStack() as opened:
        source, database, store = _try(place.open_keyring), _try(lambda: _catalog(place)), _try(lambda: _blobs(place))
        for part in (database, store):
            if not isinstance(part, CryostoreError):
                opened.callback(part.close)
        if _is_unprepared(database, store):
            yield from _unprepared(place, source)
            return
        if isinstance(source, CryostoreError):
            yield failed("keyring", source, "put the store's keyring there, or name it with --keyring")
        else:
            yield _keyring(place, source)
        if isinstance(database, CryostoreError):
            yield failed("catalog", database, "is the server running, and is this its address?")
        else:
            on_server = is_url(place.catalog)
            yield from catalog(database, place.shown_catalog, on_server=on_server, now_ms=now())
        if isinstance(store, CryostoreError):
            yield failed("blobs", store, "see --blobs")
        else:
            yield from blobs(store, place.shown_blobs, name=random_id() if write else None)
        if (
            not isinstance(source, CryostoreError)
            and not isinstance(database, CryostoreError)
            and not isinstance(store, CryostoreError)
        ):
            yield _together(place, source, database, store)
            yield known_commits(database, store, source)


def _try(open_part: Callable[[], Part]) -> Part | CryostoreError:
    """What is opened, or why it cannot be."""
    try:
        return open_part()
    except CryostoreError as problem:
        return problem


def _catalog(place: SharedStoreAddress) -> Database:
    return place.open_catalog(create=False, migrate=False)


def _blobs(place: SharedStoreAddress) -> BlobStore:
    from cryostore.service.opening.address import is_url

    if not is_url(place.blobs) and not Path(place.blobs).is_dir():
        raise NoDirectoryError(f"there is no directory {place.blobs}", hint="name the place it was prepared with")
    return place.open_blobs()


class NoDirectoryError(ConfigurationError):
    """The directory of the blobs does not exist."""


def _is_unprepared(database: Database | CryostoreError, store: BlobStore | CryostoreError) -> bool:
    """Whether neither the catalog nor the blobs hold a store: then nothing is wrong, but `cryo init` did not run."""
    from cryostore.catalog import NoCatalogError
    from cryostore.catalog.queries import store_copy
    from cryostore.chunks.marker import newest_marker

    try:
        if isinstance(database, CryostoreError):
            is_empty = isinstance(database, NoCatalogError)
        else:
            is_empty = database.read(store_copy.schema_version) > 0 and database.read(store_copy.is_empty)
        if isinstance(store, CryostoreError):
            return is_empty and isinstance(store, NoDirectoryError)
        return is_empty and newest_marker(store) is None
    except CryostoreError:
        return False  # what cannot be read is told by the part that fails


def _unprepared(place: SharedStoreAddress, source: KeyringSource | CryostoreError) -> Diagnoses:
    from cryostore.service.opening.identity import INIT_HINT

    if isinstance(source, CryostoreError):
        yield ok("keyring", f"{place.keyring} is not there yet", "`cryo init` makes it: then copy it away")
    else:
        yield _keyring(place, source)
    found = f"not prepared yet: {place.shown_catalog} and {place.shown_blobs} hold nothing"
    yield error("store", found, INIT_HINT)


def _keyring(place: SharedStoreAddress, source: KeyringSource) -> Diagnosis:
    from cryostore.chunks.keyring import parse_keyring_uri

    number = len(source.document().keys)
    path = parse_keyring_uri(place.keyring).path
    if path is not None and (mode := path.stat().st_mode & 0o777) & 0o077:
        return warning("keyring", f"{path} can be read by others (mode {mode:04o})", f"chmod 600 {path}")
    return ok("keyring", f"{source.place}, {number} {'key' if number == 1 else 'keys'}")


def _together(place: SharedStoreAddress, source: KeyringSource, database: Database, store: BlobStore) -> Diagnosis:
    from cryostore.service.opening.identity import require_identity
    from cryostore.service.opening.open_shared import explain_key_errors
    from cryostore.service.store_keyring import StoreKeyring

    try:
        with explain_key_errors(place, source):
            identity = require_identity(database, StoreKeyring(database, source), store, place.shown_blobs)
    except CryostoreError as problem:
        return failed("store", problem, "name the catalog, the blobs and the keyring that belong together")
    return ok("store", f"{identity.store_id}: catalog, blobs and keyring belong together")
