"""Migrations of stores from place to place, and pictures of the stores at each."""

from __future__ import annotations

import json
from contextlib import closing, contextmanager
from unittest.mock import patch

from cryostore.core.ids import counting_ids
from cryostore.maintenance.migrate.run import MigrationResult
from cryostore.maintenance.migrate.stores import DirectoryStore, SharedStore, migrate_store
from cryostore.service.opening.data_directory import existing_keyring
from cryostore.service.opening.open import open_service
from cryostore.service.opening.open_shared import open_shared_service
from cryostore.service.opening.shared_store import SharedStoreAddress
from support.requests.api import Api
from support.stores import store_picture
from support.stores.golden_store import SETTINGS
from support.stores.in_process import ROOT


def shared(folder, keyring, *, catalog=None, blobs=None):
    """Return a shared store, in a folder if no service is named."""
    folder.mkdir(exist_ok=True)
    return SharedStore(
        SharedStoreAddress(catalog or str(folder / "catalog.sqlite"), blobs or str(folder / "blobs"), str(keyring))
    )


def move(source, target, keyring, *, clock, **more):
    """Migrate a store; return the result."""
    outcome = MigrationResult()
    for _ in migrate_store(source, target, keyring, outcome, clock=clock, new_id=counting_ids(900), **more):
        pass
    return outcome


class Opened:
    """A service on a store at any place. It is a Call."""

    def __init__(self, place, clock):
        if isinstance(place, DirectoryStore):
            self.service = open_service(place.data_dir, keyring=place.keyring, clock=clock, settings=SETTINGS)
        else:
            self.service = open_shared_service(place.place, clock=clock, settings=SETTINGS)
        self.database = self.service.context.database
        self.api = Api(self, None, clock=clock)

    def call(self, operation):
        return self.service.call(operation, ROOT)

    def picture(self):
        """Return the picture of the store."""

        def tags(_):
            return {what: self._tags(query) for what, query in store_picture.TAGGED.items()}

        with patch.object(store_picture, "_tags", tags):
            return store_picture.picture(self.api)

    def _tags(self, query):
        rows = self.database.read(lambda transaction: transaction.rows(query))
        return {name: json.loads(text) for name, text in rows if text != "{}"}

    def close(self):
        self.service.close()


@contextmanager
def opened_at(place, clock):
    """Open a service on a store at a place."""
    with closing(Opened(place, clock)) as store:
        yield store


__all__ = ["DirectoryStore", "SharedStore", "existing_keyring", "move", "opened_at", "shared"]
