"""A disk that fills up at every point of a backup, a delete and a collection: no acknowledged data is lost.

The store continues as soon as there is space. The file system is real, so the kernel decides where a write ends.
"""

from __future__ import annotations

import contextlib
import random

import pytest

from cryostore.catalog.sqlite import engine as sqlite
from cryostore.core.limits import KIB, MIB
from cryostore.maintenance.background_tasks import maintain
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.model.errors import ServiceUnavailableException
from cryostore.service import Settings
from support.faults.small_disk import small_disk
from support.requests.api import new_resource
from support.stores.in_process import Store
from support.stores.integrity import problems

DISK_MIB = 16
STEP_BYTES = 4 * KIB
STEPS = 60
PACK_BYTES = 256 * KIB


class FillingStore:
    """A store on a small disk, and the data that it has acknowledged."""

    def __init__(self, disk, *, reserve_bytes):
        self.disk = disk
        self.random = random.Random(1)
        settings = Settings(reserve_bytes=reserve_bytes, pack_bytes_target=PACK_BYTES)
        self.store = Store(disk.path / "data", settings=settings)
        self.api = self.store.api()
        self.points = {}
        self.refused = 0

    def back_up(self):
        """Make a recovery point with small and large objects."""
        self.api.resource = new_resource()
        job = self.api.running_job()
        contents = {f"o{number}": self.random.randbytes(size) for number, size in enumerate((10, 3000, 120_000))}
        for name, data in contents.items():
            self.api.put(job, name, data)
        chunks = [self.random.randbytes(5000) for _ in range(3)]
        self.api.upload(job, "chunks", chunks)
        self.points[self.api.commit(job)] = contents | {"chunks": b"".join(chunks)}

    def delete_one(self):
        """Delete the oldest point, which may be incomplete from then on."""
        arn = next(iter(self.points))
        del self.points[arn]
        self.api.delete_point(arn)

    def collect(self):
        """Run the background tasks once, then a collection without a quarantine."""
        maintain(self.store.service)
        collect_all(self.store.service.context, quarantine_ms=0)

    @contextlib.contextmanager
    def maybe(self):
        """Allow a refusal, but only for lack of space."""
        try:
            yield
        except* ServiceUnavailableException as group:
            assert all("full" in str(one) for one in group.exceptions)
            self.refused += 1

    def close(self):
        self.store.service.close()

    def check(self):
        """Read all acknowledged data, also after a restart, and look for dangling references."""
        for arn, contents in self.points.items():
            assert self.api.restored(arn) == contents
        self.store.service.close()
        assert problems(self.store.data_dir) == []
        self.store.service = self.store.open()


@pytest.fixture
def filling(tmp_path, monkeypatch):
    """A function that makes a filling store. The write-ahead log is short, so that checkpoints are frequent."""
    monkeypatch.setattr(sqlite, "SETTINGS", (*sqlite.SETTINGS[:-1], "wal_autocheckpoint = 50"))
    with contextlib.ExitStack() as stack:

        def make(**options):
            store = FillingStore(stack.enter_context(small_disk(tmp_path / "disk", DISK_MIB)), **options)
            stack.callback(store.close)
            return store

        yield make


@pytest.mark.parametrize("reserve_bytes", [0, MIB], ids=["without a reserve", "with a reserve"])
def test_the_disk_fills_up_at_every_point_of_a_backup(filling, reserve_bytes):
    filling = filling(reserve_bytes=reserve_bytes)
    filling.back_up()
    for step in range(STEPS):
        filling.disk.fill(but_bytes=step * STEP_BYTES)
        with filling.maybe():
            filling.back_up()
        filling.disk.clear()
        filling.back_up()
        if step % 6 == 5:
            filling.check()
        while len(filling.points) > 3:
            filling.delete_one()
        if step % 20 == 19:
            filling.collect()
    filling.check()
    assert 20 < filling.refused < STEPS


def test_the_disk_fills_up_at_every_point_of_deletes_and_collections(filling):
    """With a reserve, none of these is refused, at any point where the space ends."""
    filling = filling(reserve_bytes=MIB)
    for step in range(STEPS // 2):
        for _ in range(3):
            filling.back_up()
        filling.disk.fill(but_bytes=step * STEP_BYTES)
        for _ in range(2):
            filling.delete_one()
        filling.disk.fill(but_bytes=step * STEP_BYTES)
        filling.collect()
        filling.collect()
        filling.disk.clear()
        filling.collect()
        if step % 6 == 5:
            filling.check()
    filling.check()
    live_bytes = sum(len(data) for contents in filling.points.values() for data in contents.values())
    assert filling.disk.bytes_under("data/packs") < live_bytes + PACK_BYTES * 2


def test_a_store_opens_on_a_full_disk(filling):
    filling = filling(reserve_bytes=MIB)
    filling.back_up()
    filling.store.service.close()
    filling.disk.fill()
    assert filling.disk.free_bytes == 0
    filling.store.service = filling.store.open()
    for arn, contents in list(filling.points.items()):
        assert filling.api.restored(arn) == contents
    filling.delete_one()
    with pytest.raises(ServiceUnavailableException, match="disk full"):
        filling.back_up()
    filling.disk.clear()
    filling.back_up()
    filling.check()
