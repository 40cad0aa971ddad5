"""A store in memory with one recovery point, for tests that damage its packs."""

from __future__ import annotations

from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.service import Settings
from support.faults.damaging import noise
from support.requests.api import Api
from support.stores.memory_store import MemoryStore, Process

DATA = [noise(number) for number in range(6)]


class Shop:
    """A process on a store in memory, with a point of six objects in packs of three."""

    def __init__(self, pack_bytes=900, **settings):
        self.store = MemoryStore(Settings(pack_bytes_target=pack_bytes, **settings))
        self.process = Process(self.store)
        self.api = Api(self.process, None, clock=self.store.clock)
        self.contents = {f"object {number}": data for number, data in enumerate(DATA)}
        self.point = self.api.backup(self.contents)

    @property
    def context(self):
        return self.process.context

    def close_packs(self):
        """Close all packs, so that no process writes to them any more."""
        for name in self.store.pack_names():
            self.context.store.roll(name)
        collect_all(self.context)

    def restart(self):
        """Kill every process. Flushed writes are kept."""
        self.store.crash(1.0)
        self.process = Process(self.store)
        self.api._call = self.process
