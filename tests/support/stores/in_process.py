"""Services in this process on a stopped clock, and the `Api` over them."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

from cryostore.core.limits import Limits
from cryostore.core.time import FrozenClock
from cryostore.maintenance import maintain
from cryostore.maintenance.rebuild.run import RebuildResult
from cryostore.maintenance.rebuild.stores import rebuild_directory
from cryostore.service import Caller
from cryostore.service.opening.keyring import existing_keyring
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
    """A data directory, the service on it, and a clock that stands still. The service may be reopened."""

    def __init__(self, data_dir, *, clock=None, **options):
        self.data_dir = data_dir
        self.clock = clock or FrozenClock()
        self.options = options
        self.service = self.open()

    def open(self):
        """Another service on the same directory; close it."""
        return open_service(self.data_dir, clock=self.clock, **self.options)

    def reopen(self):
        """Close the service and open it anew."""
        self.service.close()
        self.service = self.open()

    def crash(self):
        """Open it anew after the processes were killed: what they had given to the system is on the disk, no more."""
        left = self.data_dir.with_name("left")
        shutil.copytree(self.data_dir, left, ignore=shutil.ignore_patterns("*-shm"))
        self.service.close()
        shutil.rmtree(self.data_dir)
        left.rename(self.data_dir)
        self.service = self.open()

    def rebuild(self):
        """Lose the catalog, make it anew, and open the store with it; answers what came of it."""
        self.service.close()
        for path in self.data_dir.glob("catalog*"):
            path.unlink()
        outcome = RebuildResult()
        for _ in rebuild_directory(self.data_dir, existing_keyring(self.data_dir), outcome, clock=self.clock):
            pass
        self.service = self.open()
        return outcome

    def packs(self):
        """The packs there are."""
        return list((self.data_dir / "packs").rglob("*.pack"))

    def call(self, operation):
        """The store is a Call, whatever service is open."""
        return self.service.call(operation, ROOT)

    def maintain(self):
        """One round of duties."""
        maintain(self.service)

    def api(self, **more):
        """The words over this store, for a resource of its own."""
        arguments = {"clock": self.clock, "reopen": self.reopen, "maintain": self.maintain} | more
        return Api(self, self.data_dir, limits=self.options.get("limits"), **arguments)


@contextmanager
def opened(data_dir, **options):
    """A store that is closed at the end."""
    store = Store(data_dir, **options)
    try:
        yield store
    finally:
        store.service.close()
