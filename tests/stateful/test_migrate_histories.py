"""Migration of any history to a shared store and back: every response and every byte stays the same."""

from __future__ import annotations

import contextlib
import json
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from cryostore.core.ids import counting_ids
from cryostore.core.time import DAY_MS, HOUR_MS
from cryostore.maintenance.background_tasks import maintain
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.maintenance.migrate.cutover import take_back_move
from cryostore.maintenance.migrate.run import MigrationResult, migrate
from cryostore.maintenance.migrate.side import Side
from cryostore.model.errors import AlreadyExistsException, InvalidRequestException
from cryostore.model.jobs import CommitBackupJob, Lifecycle
from cryostore.model.vaults import CreateBackupVault
from cryostore.service import Settings
from support.catalogs.memory_database import MemoryDatabase
from support.faults.faulty_blobs import CrashingBlobs
from support.requests.api import Api, new_resource
from support.stores import audit, store_picture
from support.stores.collecting import noise
from support.stores.memory_store import MemoryStore, Process
from support.stores.pair import rows

CONTENTS = st.dictionaries(
    st.sampled_from(["a", "b", "ü/日", "long name " * 3]), st.none() | st.integers(0, 30), min_size=1, max_size=4
)
WHERE = st.integers(0, 2)
STEP = st.one_of(
    st.tuples(st.just("backup"), WHERE, CONTENTS),
    st.tuples(st.just("backup"), WHERE, CONTENTS),
    st.tuples(st.just("leave open"), WHERE, CONTENTS),
    st.tuples(st.just("fail"), WHERE, CONTENTS),
    st.tuples(st.just("delete"), WHERE, st.none()),
    st.tuples(st.just("restore"), WHERE, st.none()),
    st.tuples(st.just("collect"), st.sampled_from([0, HOUR_MS]), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([1, HOUR_MS, 2 * DAY_MS]), st.none()),
)


class History:
    """A store in memory, and the operations that it has gone through."""

    def __init__(self):
        self.store = MemoryStore(Settings(pack_bytes_target=700))
        self.process = Process(self.store)
        self.points = []
        self.count = 0

    def api(self, where):
        """Return the API for a resource, which has a vault of its own."""
        api = Api(self.process, None, clock=self.store.clock)
        api.resource = f"arn:aws:cryo:local-1:000000000000:fileset:host:history-{where}"
        api.vault = f"vault-{where}"
        with contextlib.suppress(AlreadyExistsException):
            self.process.call(CreateBackupVault(backup_vault_name=api.vault))
        return api

    def step(self, what, where, contents):
        self.count += 1
        if what == "wait":
            self.store.clock.advance(where)
            maintain(self.process.service)
        elif what == "collect":
            collect_all(self.process.context, quarantine_ms=where)
        elif what in ("delete", "restore"):
            if self.points:
                api, arn = self.points[where % len(self.points)]
                if what == "restore":
                    api.restore(arn, metadata={"to": "somewhere"})
                else:
                    with contextlib.suppress(InvalidRequestException):  # a restore job may need it
                        api.delete_point(arn)
                        self.points.remove((api, arn))
        else:
            self.write(what, self.api(where), contents)

    def write(self, what, api, contents):
        if what == "leave open":
            api.resource = new_resource()  # a later job would wait for this one
        job = api.start_job(
            backup_options={"IncrementalBase": "none"} if self.count % 3 == 0 else {},
            recovery_point_tags={"turn": str(self.count)},
            lifecycle=Lifecycle(delete_after_days=self.count),
        )
        for name, number in contents.items():
            if number is None:
                api.put(job, name)
            elif number % 3:
                api.put(job, name, noise(number, 10 * number), metadata_string="m")
            else:
                api.upload(job, name, [noise(number, 20), noise(number + 1, 300)], blob=b"{}" * number)
        if what == "leave open":
            api.chunk(job, api.start(job, "begun"), 3, noise(99))
        elif what == "fail":
            api.call(CommitBackupJob(backup_job_id=job, outcome="FAILED", status_message="gone"))
        else:
            self.points.append((api, api.commit(job, restore_metadata={"turn": str(self.count)})))


def place():
    """Return an empty place in memory."""
    return Side("somewhere", MemoryDatabase(), CrashingBlobs())


def service_on(history, side):
    """Start a process on the store at a place."""
    store = MemoryStore.__new__(MemoryStore)
    vars(store).update(vars(history.store))
    store.database, store.blobs = side.database, side.blobs
    return Process(store)


def picture(history, side):
    """Return the picture of the store at a place, with the rows that no operation shows."""

    def tags(_):
        return {
            what: {
                name: json.loads(text)
                for name, text in side.database.read(lambda transaction: transaction.rows(query))  # noqa: B023
            }
            for what, query in store_picture.TAGGED.items()
        }

    process = service_on(history, side)
    assert audit.problems(process.context, side.database) == []
    with patch.object(store_picture, "_tags", tags):
        return store_picture.picture(Api(process, None, clock=history.store.clock))


def move(history, source, target):
    outcome = MigrationResult()
    for _ in migrate(
        source, target, history.store.keyring, outcome, clock=history.store.clock, new_id=counting_ids(9000)
    ):
        pass
    assert outcome.is_clean


@settings(max_examples=12)
@given(st.lists(STEP, min_size=3, max_size=12))
def test_any_history_is_unchanged_after_migration_and_back(steps):
    history = History()
    for step in steps:
        history.step(*step)
    history.store.crash(1.0)
    maintain(Process(history.store).service)
    begin = Side("a directory", history.store.database, history.store.blobs)
    before = rows(begin)
    nodes, end = place(), place()
    nodes = Side("where nodes are", nodes.database, nodes.blobs, "blobs")
    move(history, begin, nodes)
    move(history, nodes, end)
    assert rows(end) == before
    take_back_move(begin, None)
    assert picture(history, end) == picture(history, begin)
