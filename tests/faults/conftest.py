"""Fixtures of stores whose disk and database fail on demand."""

from __future__ import annotations

import dataclasses

import pytest

from cryostore.chunks.blobs import Appendable
from cryostore.chunks.store import ChunkStore
from support.faults.faulty_blobs import FaultyBlobs, FaultyObjects
from support.faults.faulty_database import FaultyDatabase
from support.stores.in_process import opened
from support.stores.shared_store import ON_SERVICES, opened_shared


class FaultyStore:
    """A store and the injected faults of its parts. `api` calls it; `reopen` opens it again, without faults."""

    def __init__(self, store):
        self.store = store
        self.inject()
        self.api = store.api(reopen=self.reopen)

    def inject(self):
        """Replace the parts of the open service by parts that fail on demand."""
        service = self.store.service
        context = service.context
        context.store.close()
        grows = isinstance(service._blobs, Appendable)
        self.blobs = FaultyBlobs(service._blobs) if grows else FaultyObjects(service._blobs)
        self.blob_methods = ("open_append", "append", "sync") if grows else ("put",)
        self.database = FaultyDatabase(context.database)
        service.context = dataclasses.replace(
            context, database=self.database, store=ChunkStore(self.blobs, context.new_id)
        )

    def reopen(self):
        """Restart the store. The new service fails on demand, too."""
        self.store.reopen()
        self.inject()


@pytest.fixture
def faulty(tmp_path):
    with opened(tmp_path / "data") as store:
        yield FaultyStore(store)


@pytest.fixture
def faulty_on_services(tmp_path):
    """A faulty store on PostgreSQL and S3."""
    with opened_shared(tmp_path, ON_SERVICES) as store:
        yield FaultyStore(store)
