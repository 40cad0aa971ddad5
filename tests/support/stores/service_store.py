"""Like `memory_store`, on a PostgreSQL database and a prefix in S3."""

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
    """The shared state of all processes. Each has its own connections to the database."""

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
        """Kill every process. Acknowledged writes are in the services."""
        self._of_processes.close()

    def close(self):
        self.crash()
        self.database.close()
        self.blobs.close()
        self._opened.close()


def on_services(machine):
    """Return the test of a state machine on real services, with fewer and shorter examples than in memory."""
    test = machine.TestCase
    test.settings = settings(
        settings.default,
        max_examples=max(3, settings.default.max_examples // EXAMPLES_SHARE),
        stateful_step_count=STEPS_MAX,
    )
    missing = missing_services()
    return pytest.mark.skipif(bool(missing), reason=missing or "")(test)
