"""A store in memory with a history, and an empty target of its migration, which both fail on demand."""

from __future__ import annotations

from functools import partial

import pytest

from cryostore.catalog import tables
from cryostore.catalog.rows import keys
from cryostore.catalog.tables import TABLES
from cryostore.chunks.keyring import wrapped_key_id
from cryostore.core.errors import KeyUnavailableError
from cryostore.core.ids import counting_ids
from cryostore.core.time import DAY_MS
from cryostore.maintenance.background_tasks import maintain
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.maintenance.migrate.cutover import TOKEN_BEFORE, mark_of, take_back
from cryostore.maintenance.migrate.run import MigrationResult, migrate
from cryostore.maintenance.migrate.side import Side
from cryostore.service import Settings
from cryostore.service.store_keyring import TOKEN_SECRET
from support.catalogs.memory_database import MemoryDatabase
from support.faults.faulty_blobs import CrashingBlobs, FaultyBlobs
from support.faults.faulty_database import FaultyDatabase
from support.requests.api import Api, new_resource
from support.stores import audit
from support.stores.collecting import noise
from support.stores.memory_store import MemoryStore, Process


class Pair:
    """A store in memory with a history, and an empty target. Both fail on demand."""

    def __init__(self, **more):
        self.store = MemoryStore(Settings(pack_bytes_target=900))
        self.there = MemoryStore.__new__(MemoryStore)
        vars(self.there).update(vars(self.store))
        self.there.database, self.there.blobs = MemoryDatabase(), CrashingBlobs()
        self.source = Side("the old place", FaultyDatabase(self.store.database), FaultyBlobs(self.store.blobs), **more)
        self.target = Side("the new place", FaultyDatabase(self.there.database), FaultyBlobs(self.there.blobs))
        self.points = {}

    def live(self, *, settled=True):
        """Make points, one of them deleted, an open job with an upload, and garbage in several packs."""
        api = Api(Process(self.store), None, clock=self.store.clock)
        api.resource = new_resource()
        for turn in range(3):
            contents = {f"name {number}": noise(10 * turn + number, 150) for number in range(turn, turn + 4)}
            self.points[api.backup(contents)] = api
        api.delete_point(next(iter(self.points)))
        del self.points[next(iter(self.points))]
        job = api.running_job()
        api.put(job, "in work", noise(77))
        api.chunk(job, api.start(job, "begun"), 0, noise(78))
        if not settled:
            self.contents = {arn: api.restored(arn) for arn in self.points}
            return self
        self.settle()
        self.contents = {arn: api.restored(arn) for arn in self.points}
        self.settle()
        return self

    def settle(self):
        """Kill every process, and let another one clean up."""
        self.store.crash(1.0)
        process = Process(self.store)
        maintain(process.service)
        collect_all(process.context, quarantine_ms=DAY_MS)
        self.store.crash(1.0)
        self.process = Process(self.store)

    def steps(self, outcome=None, **more):
        """Migrate step by step."""
        arguments = {"clock": self.store.clock, "new_id": counting_ids(5000)} | more
        return migrate(self.source, self.target, self.store.keyring, outcome or MigrationResult(), **arguments)

    def move(self, **more):
        """Migrate; return the result."""
        outcome = MigrationResult()
        for _ in self.steps(outcome, **more):
            pass
        return outcome

    def go_on(self):
        """Work on the source between two runs: make and delete points, collect garbage."""
        self.store.database.write(take_back)
        process = Process(self.store)
        api = Api(process, None, clock=self.store.clock)
        first, *_ = self.points
        api.delete_point(first)
        del self.points[first], self.contents[first]
        arn = api.backup({"late": noise(99)})
        self.points[arn], self.contents[arn] = api, {"late": noise(99)}
        self.store.crash(1.0)
        process = Process(self.store)
        maintain(process.service)
        for _ in range(3):
            self.store.clock.advance(1000)
            collect_all(process.context, quarantine_ms=0)
        self.store.crash(1.0)
        self.process = Process(self.store)
        self.store.crash(1.0)

    def heal(self):
        for side in (self.source, self.target):
            side.database.heal()
            side.blobs.faults.clear()

    def is_moved(self):
        """Check that the target is complete, and that the source cannot be opened."""
        assert self.target.read(mark_of) is None
        assert self.source.read(mark_of).kind == "away"
        process = Process(self.there)
        api = Api(process, None, clock=self.store.clock)
        assert {arn: api.restored(arn) for arn in self.points} == self.contents
        assert audit.problems(process.context, self.there.database) == []
        self.is_shut(self.store)

    def is_untouched(self):
        """Check that the source is unchanged, and that the target cannot be opened."""
        process = Process(self.store)
        api = Api(process, None, clock=self.store.clock)
        assert {arn: api.restored(arn) for arn in self.points} == self.contents
        assert audit.problems(process.context, self.store.database) == []
        self.is_shut(self.there)
        self.store.crash(1.0)

    @staticmethod
    def is_shut(store):
        """Check that no process can open the store, unless it does not exist yet."""
        token = store.database.read(partial(keys.secret, name=TOKEN_SECRET))
        if token is not None:
            with pytest.raises(KeyUnavailableError):
                Process(store)
            assert wrapped_key_id(token).startswith("NONE: ")


def rows(side):
    """Return all rows, except those with the place of the catalog."""
    found = {table.name: side.read(partial(tables.page, table=table, after=None, limit=10_000)) for table in TABLES}
    found["secret"] = [row for row in found["secret"] if row[0] not in (TOKEN_SECRET, TOKEN_BEFORE)]
    return found
