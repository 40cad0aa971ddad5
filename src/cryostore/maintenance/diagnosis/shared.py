"""Checks of a shared store: keyring, catalog, blobs, and that the three belong together.

The checks of the blob store are here; those of the keyring and the catalog are in `keyring` and `catalog`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from cryostore.catalog import NoCatalogError
from cryostore.catalog.database import Database
from cryostore.catalog.queries import store_copy
from cryostore.chunks.blobs import BlobStore, Versioning
from cryostore.chunks.blobs.self_test import check_blob_store
from cryostore.chunks.keyring import KeyringSource
from cryostore.chunks.marker import marker_key, newest_marker
from cryostore.core.errors import ConfigurationError, CryostoreError
from cryostore.maintenance.diagnosis import Diagnoses, Diagnosis, error, failed, ok, warning
from cryostore.maintenance.diagnosis.catalog import check_catalog, check_commits
from cryostore.maintenance.diagnosis.keyring import check_keyring
from cryostore.service.opening.address import SharedStoreAddress, is_url
from cryostore.service.opening.identity import INIT_HINT, require_identity
from cryostore.service.opening.open_shared import explain_key_errors
from cryostore.service.store_keyring import StoreKeyring

Part = TypeVar("Part")
LIFECYCLE = "no lifecycle rule of the bucket may expire objects, or move them to a class that takes hours to read"


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


def check_blobs(store: BlobStore, shown: str, *, trial_name: str | None) -> Diagnoses:
    """Check the blob store that people know as `shown`.

    With a `trial_name`, which must be unused, a few bytes are put there and deleted again.
    """
    try:
        marker = newest_marker(store)
    except CryostoreError as problem:
        yield failed("blobs", problem, "check the endpoint, the bucket, its region and the access key")
        return
    if marker is None:
        yield warning("blobs", f"{shown} answers, but holds no store", "give --blobs as `cryo init` was given it")
    else:
        yield ok("blobs", f"{shown} answers, and holds store {marker.store_id}")
    if trial_name is not None:
        yield _try_blob_store(store, trial_name)
    if isinstance(store, Versioning):
        yield _bucket(store, marker.number if marker else None)


def _try_blob_store(store: BlobStore, name: str) -> Diagnosis:
    about = "blob service"
    try:
        check_blob_store(store, name)
    except CryostoreError as problem:
        return failed(about, problem, "allow this access key to get, put, list and delete objects under the prefix")
    return ok(about, "conditional put, list and delete work")


def _bucket(store: BlobStore, number: int | None) -> Diagnosis:
    about = "bucket"
    try:
        versions = number is not None and isinstance(store, Versioning) and store.has_versions(marker_key(number))
    except CryostoreError as problem:
        return failed(about, problem, "allow this access key to read objects")
    if versions:
        advice = f"add a lifecycle rule that removes old versions after some days; but {LIFECYCLE}"
        return warning(about, "keeps old versions, so that deleted data still costs", advice)
    return ok(about, "its lifecycle rules are not visible from here", LIFECYCLE)
