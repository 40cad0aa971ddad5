"""What `cryo doctor` looks at in a shared store: keyring, catalog, blobs, and whether the three belong together."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from cryostore.cli.diagnosis import Diagnoses, Diagnosis, error, failed, ok, warning
from cryostore.core.errors import CryostoreError
from cryostore.core.ids import random_id
from cryostore.core.time import Clock, wall_clock

if TYPE_CHECKING:
    from cryostore.catalog.database import Database
    from cryostore.chunks.blobs import BlobStore
    from cryostore.chunks.keyring import KeyringSource
    from cryostore.service.open_shared import SharedPlace


def shared(place: SharedPlace, *, write: bool, now: Clock = wall_clock) -> Diagnoses:
    """Everything about a shared store that is seen without opening it: nothing is upgraded or put right."""
    from cryostore.cli.doctor_blobs import blobs
    from cryostore.cli.doctor_catalog import catalog
    from cryostore.service.open_shared import is_url

    with ExitStack() as opened:
        source = database = store = None
        try:
            source = place.open_keyring()
            yield _keyring(place, source)
        except CryostoreError as problem:
            yield failed("keyring", problem, "put the store's keyring there, or name it with --keyring")
        try:
            database = place.open_catalog(create=False, migrate=False)
            opened.callback(database.close)
        except CryostoreError as problem:
            yield failed("catalog", problem, "is the server running, and is this its address?")
        if database is not None:
            on_server = is_url(place.catalog)
            yield from catalog(database, place.shown_catalog, on_server=on_server, now_ms=now())
        if not is_url(place.blobs) and not Path(place.blobs).is_dir():
            yield error("blobs", f"there is no directory {place.blobs}", "name the place it was prepared with")
        else:
            try:
                store = place.open_blobs()
                opened.callback(store.close)
            except CryostoreError as problem:
                yield failed("blobs", problem, "see --blobs")
        if store is not None:
            yield from blobs(store, place.shown_blobs, name=random_id() if write else None)
        if source is not None and database is not None and store is not None:
            yield _together(place, source, database, store)


def _keyring(place: SharedPlace, source: KeyringSource) -> Diagnosis:
    from cryostore.chunks.keyring import parse_place

    number = len(source.document().keys)
    path = parse_place(place.keyring).path
    if path is not None and (mode := path.stat().st_mode & 0o777) & 0o077:
        return warning("keyring", f"{path} can be read by others (mode {mode:04o})", f"chmod 600 {path}")
    return ok("keyring", f"{source.place}, {number} {'key' if number == 1 else 'keys'}")


def _together(place: SharedPlace, source: KeyringSource, database: Database, store: BlobStore) -> Diagnosis:
    from cryostore.service.identity import require_identity
    from cryostore.service.keys import StoreKeyring
    from cryostore.service.open_shared import explained

    try:
        with explained(place, source):
            identity = require_identity(database, StoreKeyring(database, source), store, place.shown_blobs)
    except CryostoreError as problem:
        return failed("store", problem, "name the catalog, the blobs and the keyring that belong together")
    return ok("store", f"{identity.store_id}: catalog, blobs and keyring belong together")
