"""As `memory_store`, but what the processes share is a database of PostgreSQL and a place in S3."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import settings

from cryostore.catalog import open_catalog
from cryostore.chunks.blobs import open_blobs
from support.services.postgres import new_database
from support.stores.memory_store import MemoryStore
from support.stores.shared_store import missing_services, s3_in_environment

EXAMPLES_SHARE = 10
STEPS_MAX = 12


class ServiceStore(MemoryStore):
    """What all processes share. Each has a database of its own on it, with connections of its own."""

    def __init__(self, settings=None):
        self._opened = ExitStack()
        self._of_processes = ExitStack()
        self._url = self._opened.enter_context(new_database())
        place = self._opened.enter_context(s3_in_environment())
        super().__init__(settings, open_catalog(self._url), open_blobs(place))

    def open_database(self):
        database = open_catalog(self._url)
        self._of_processes.callback(database.close)
        return database

    def crash(self, kept_share=0.0):
        """Every process is gone. What was acknowledged is elsewhere."""
        self._of_processes.close()

    def close(self):
        self.crash()
        self.database.close()
        self.blobs.close()
        self._opened.close()


def on_services(machine):
    """A test of a machine with real services behind it: fewer stories than in memory, and shorter ones."""
    test = machine.TestCase
    test.settings = settings(
        settings.default,
        max_examples=max(3, settings.default.max_examples // EXAMPLES_SHARE),
        stateful_step_count=STEPS_MAX,
    )
    missing = missing_services()
    return pytest.mark.skipif(bool(missing), reason=missing or "")(test)
