"""Services in this process with a stopped clock, and the `Api` over them."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

from cryostore.core.limits import Limits
from cryostore.core.time import FrozenClock
from cryostore.maintenance.background_tasks import maintain
from cryostore.maintenance.rebuild.run import RebuildResult
from cryostore.maintenance.rebuild.stores import rebuild_directory
from cryostore.service import Caller
from cryostore.service.opening.data_directory import existing_keyring
from cryostore.service.opening.open import open_service
from support.requests.api import Api

ROOT = Caller(access_key_id="AKIATESTROOT", root=True)
SMALL = Limits(
    object_name_bytes_max=20,
    chunk_bytes_max=50,
    chunks_per_object_max=5,
    metadata_blob_bytes_max=60,
    metadata_string_bytes_max=8,
    metadata_string_inline_bytes_max=16,
    page_items_max=7,
    link_chunks_max=3,
    restore_metadata_items_max=4,
    restore_metadata_bytes_max=100,
)


class Store:
    """A data directory, the service on it, and a stopped clock. The service may be reopened."""

    def __init__(self, data_dir, *, clock=None, **options):
        self.data_dir = data_dir
        self.clock = clock or FrozenClock()
        self.options = options
        self.service = self.open()

    def open(self):
        """Open another service on the same directory. The caller closes it."""
        return open_service(self.data_dir, clock=self.clock, **self.options)

    def reopen(self):
        """Close the service and open it again."""
        self.service.close()
        self.service = self.open()

    def crash(self):
        """Open it again after a kill: only writes that reached the operating system are on the disk."""
        left = self.data_dir.with_name("left")
        shutil.copytree(self.data_dir, left, ignore=shutil.ignore_patterns("*-shm"))
        self.service.close()
        shutil.rmtree(self.data_dir)
        left.rename(self.data_dir)
        self.service = self.open()

    def rebuild(self):
        """Lose the catalog, rebuild it, and open the store with it; return the result of the rebuild."""
        self.service.close()
        for path in self.data_dir.glob("catalog*"):
            path.unlink()
        outcome = RebuildResult()
        for _ in rebuild_directory(self.data_dir, existing_keyring(self.data_dir), outcome, clock=self.clock):
            pass
        self.service = self.open()
        return outcome

    def packs(self):
        """Return the paths of the packs."""
        return list((self.data_dir / "packs").rglob("*.pack"))

    def call(self, operation):
        """Call the open service: the store is a Call."""
        return self.service.call(operation, ROOT)

    def maintain(self):
        """Run the background tasks once."""
        maintain(self.service)

    def api(self, **more):
        """Return the test API on this store, for a new resource."""
        arguments = {"clock": self.clock, "reopen": self.reopen, "maintain": self.maintain} | more
        return Api(self, self.data_dir, limits=self.options.get("limits"), **arguments)


@contextmanager
def opened(data_dir, **options):
    """Open a store, and close it at the end."""
    store = Store(data_dir, **options)
    try:
        yield store
    finally:
        store.service.close()
