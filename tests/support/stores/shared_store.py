"""Shared stores for tests: the catalog in one place, the blobs in another, the keyring in a third."""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack, contextmanager

from cryostore.catalog.tables import TABLES
from cryostore.maintenance.rebuild.run import RebuildResult
from cryostore.maintenance.rebuild.stores import rebuild_shared
from cryostore.service.opening.init import init
from cryostore.service.opening.open_shared import open_shared_service
from cryostore.service.opening.shared_store import SharedStoreAddress, is_url
from support.services import postgres, s3
from support.stores import audit
from support.stores.in_process import Store
from support.stores.integrity import REFERENCES

ON_PATHS = "paths"
"""SQLite and a directory: quick, and the same code apart from opening."""
ON_SERVICES = "services"
"""PostgreSQL and S3."""


def missing_services():
    """Return why there are no services for a store ON_SERVICES, or None."""
    missing = [name for name in ("CRYO_TEST_POSTGRES", "CRYO_TEST_S3") if not os.environ.get(name)]
    return f"needs PostgreSQL and S3: {' and '.join(missing)} not set (see scripts/services)" if missing else None


def options_of(place):
    """Return the options of a command line that name a shared store."""
    return "--catalog", place.catalog, "--blobs", place.blobs, "--keyring", place.keyring


class SharedStore(Store):
    """A shared store, the service on it, and a stopped clock."""

    def __init__(self, place, **options):
        self.place = place
        self._databases = ExitStack()
        super().__init__(self, **options)  # callers that expect a directory get this store

    def open(self):
        """Open the store as another node does."""
        return open_shared_service(self.place, clock=self.clock, **self.options)

    def footprint(self):
        """Return a digest of every table's rows, and the names of the packs, which never change."""
        database, blobs = self.service.context.database, self.service._blobs

        def work(transaction):
            names = [table.name for table in TABLES]
            return {name: sorted(map(repr, transaction.rows(f"SELECT * FROM {name}"))) for name in names}

        rows = database.read(work)
        digests = {name: hashlib.sha256(repr(found).encode()).hexdigest() for name, found in rows.items()}
        return digests, list(blobs.list("packs/"))

    def crash(self):
        """Open it again while the old service still has its state, as after a kill."""
        old, self.service = self.service, self.open()
        old.close()

    def rebuild(self):
        """Lose the catalog, rebuild it elsewhere, and open the store with it; return the result of the rebuild."""
        self.service.close()
        self.place = self.place._replace(catalog=self._empty_catalog())
        outcome = RebuildResult()
        for _ in rebuild_shared(self.place, outcome, clock=self.clock):
            pass
        self.service = self.open()
        return outcome

    def _empty_catalog(self):
        if not is_url(self.place.catalog):
            return f"{self.place.catalog}.next"
        return self._databases.enter_context(postgres.new_database(migrated=False))

    def close(self):
        """Close the service, and drop the databases of its rebuilds."""
        self.service.close()
        self._databases.close()

    def packs(self):
        """Return the names of the packs."""
        return list(self.service._blobs.list("packs/"))

    def rows(self, statement, **values):
        """Query the catalog, past the API."""
        return self.service.context.database.read(lambda transaction: transaction.rows(statement, **values))

    def problems(self):
        """Return the problems of the store, while no process writes."""
        context = self.service.context
        found = [f"{what}: {row}" for what, query in REFERENCES.items() for row in self.rows(query)]
        return found + audit.problems(context, context.database)


@contextmanager
def fresh_place(folder, kind=ON_PATHS):
    """An empty place for a shared store. Skips the test where the services are missing."""
    keyring = str(folder / "keyring.json")
    if kind == ON_PATHS:
        yield SharedStoreAddress(str(folder / "catalog.sqlite"), str(folder / "blobs"), keyring)
        return
    with ExitStack() as opened:
        url = opened.enter_context(postgres.new_database(migrated=False))
        yield SharedStoreAddress(url, opened.enter_context(s3_in_environment()), keyring)


@contextmanager
def s3_in_environment():
    """The URL of an empty prefix in S3, whose credentials are in the environment while the context lasts."""
    url = s3.fresh_url()
    before = {name: os.environ.get(name) for name in s3.CREDENTIALS}
    _set(s3.CREDENTIALS)
    try:
        yield url
    finally:
        _set(before)


def _set(values):
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def prepared(folder, kind=ON_PATHS, **options):
    """Prepare a store and return its place. The root access key is in `credentials`."""
    folder.mkdir(exist_ok=True, parents=True)
    with fresh_place(folder, kind) as place:
        init(place, folder / "credentials", **options)
        yield place


@contextmanager
def opened_shared(folder, kind=ON_PATHS, **options):
    """Open a shared store, and close it at the end."""
    with prepared(folder, kind) as place:
        store = SharedStore(place, **options)
        try:
            yield store
        finally:
            store.close()
