"""Checks of a shared store: keyring, catalog, blobs, and that the three belong together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from cryostore.catalog import NoCatalogError
from cryostore.catalog.database import Database
from cryostore.catalog.queries import store_copy
from cryostore.chunks.blobs import BlobStore
from cryostore.chunks.keyring import KeyringSource
from cryostore.chunks.marker import newest_marker
from cryostore.core.diagnosis import Diagnoses, Diagnosis, error, failed, ok
from cryostore.core.errors import ConfigurationError, CryostoreError
from cryostore.maintenance.diagnosis.blobs import check_blobs
from cryostore.maintenance.diagnosis.catalog import check_catalog, check_commits
from cryostore.maintenance.diagnosis.keyring import check_keyring
from cryostore.service.opening.address import SharedStoreAddress, is_url
from cryostore.service.opening.identity import INIT_HINT, require_identity
from cryostore.service.opening.open_shared import explain_key_errors
from cryostore.service.store_keyring import StoreKeyring

Part = TypeVar("Part")


def check_shared(place: SharedStoreAddress, *, now_ms: int, trial_name: str | None) -> Diagnoses:
    """Check a shared store without opening its service, which would upgrade it.

    With a `trial_name`, which must be unused, a few bytes are put into the blob store and deleted again.
    """
    with ExitStack() as opened:
        source, database, store = _try(place.open_keyring), _try(lambda: _catalog(place)), _try(lambda: _blobs(place))
        for part in (database, store):
            if not isinstance(part, CryostoreError):
                opened.callback(part.close)
        if _is_unprepared(database, store):
            yield from _unprepared(place, source)
            return
        if isinstance(source, CryostoreError):
            yield failed("keyring", source, "put the store's keyring there, or name its place with --keyring")
        else:
            yield check_keyring(source)
        if isinstance(database, CryostoreError):
            yield failed("catalog", database, "is the server running, and is this its address?")
        else:
            on_server = is_url(place.catalog)
            yield from check_catalog(database, place.shown_catalog, on_server=on_server, now_ms=now_ms)
        if isinstance(store, CryostoreError):
            yield failed("blobs", store, "check --blobs")
        else:
            yield from check_blobs(store, place.shown_blobs, trial_name=trial_name)
        if (
            not isinstance(source, CryostoreError)
            and not isinstance(database, CryostoreError)
            and not isinstance(store, CryostoreError)
        ):
            yield _together(place, source, database, store)
            yield check_commits(database, store, source)


def _try(open_part: Callable[[], Part]) -> Part | CryostoreError:
    """Open a part, or return the error."""
    try:
        return open_part()
    except CryostoreError as problem:
        return problem


def _catalog(place: SharedStoreAddress) -> Database:
    return place.open_catalog(create=False, migrate=False)


def _blobs(place: SharedStoreAddress) -> BlobStore:
    if not is_url(place.blobs) and not Path(place.blobs).is_dir():
        raise NoDirectoryError(
            f"there is no directory {place.blobs}", hint="give --blobs the path that `cryo init` was given"
        )
    return place.open_blobs()


class NoDirectoryError(ConfigurationError):
    """The directory of the blobs does not exist."""


def _is_unprepared(database: Database | CryostoreError, store: BlobStore | CryostoreError) -> bool:
    """Whether neither the catalog nor the blobs hold a store: no fault, only `cryo init` was not run."""
    try:
        if isinstance(database, CryostoreError):
            is_empty = isinstance(database, NoCatalogError)
        else:
            is_empty = database.read(store_copy.schema_version) > 0 and database.read(store_copy.is_empty)
        if isinstance(store, CryostoreError):
            return is_empty and isinstance(store, NoDirectoryError)
        return is_empty and newest_marker(store) is None
    except CryostoreError:
        return False  # the check of the part that cannot be read reports it


def _unprepared(place: SharedStoreAddress, source: KeyringSource | CryostoreError) -> Diagnoses:
    if isinstance(source, CryostoreError):
        yield ok("keyring", f"{place.keyring} does not exist yet", "`cryo init` makes it; then keep a copy elsewhere")
    else:
        yield check_keyring(source)
    found = f"not prepared yet: {place.shown_catalog} and {place.shown_blobs} hold nothing"
    yield error("store", found, INIT_HINT)


def _together(place: SharedStoreAddress, source: KeyringSource, database: Database, store: BlobStore) -> Diagnosis:
    try:
        with explain_key_errors(place, source):
            identity = require_identity(database, StoreKeyring(database, source), store, place.shown_blobs)
    except CryostoreError as problem:
        return failed("store", problem, "name a catalog, blobs and a keyring of the same store")
    return ok("store", f"{identity.store_id}: catalog, blobs and keyring belong together")
