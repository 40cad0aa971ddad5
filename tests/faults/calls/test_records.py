"""Faults while records are written, followed by the loss of the catalog: all acknowledged data is there.

Every write to the database and every call to the blobs fails once, before or after it takes effect: in a commit, in a
deletion, and when a vault is created or deleted. Every call of the rebuild fails once, too.
"""

from __future__ import annotations

import itertools

import pytest

from cryostore.core.errors import CryostoreError, StorageFullError, StorageUnavailableError
from cryostore.maintenance.background_tasks import maintain
from cryostore.maintenance.rebuild.run import Rebuild, RebuildResult
from cryostore.model.vaults import CreateBackupVault, DeleteBackupVault, ListBackupVaults
from support.catalogs.memory_database import MemoryDatabase
from support.faults.faulty_blobs import FaultyBlobs
from support.faults.faulty_database import FaultyDatabase
from support.requests.api import Api
from support.stores.memory_store import MemoryStore, Process
from support.stores.store_picture import items


class World:
    """A vault with a chain of three points and a branch. `points` has the content of each point."""

    def __init__(self):
        self.store = MemoryStore()
        self.process = Process(self.store)
        self.api = Api(self.process, None, clock=self.store.clock)
        self.settle()  # writes the record of the first vault, as the opening of a store does
        self.points = {}
        self.first = self.backup({"a": b"1", "b": b"1"})
        self.second = self.backup({"a": b"2", "c": b"2"})
        self.third = self.backup({"b": b"3"})
        chain, self.api.resource = self.api.resource, self.api.resource + "-branch"
        self.branch = self.backup({"d": b"4"}, backup_options={"IncrementalBase": self.second.rpartition(":")[2]})
        self.api.resource = chain

    def backup(self, contents, **more):
        job = self.api.start_job(**more)
        for name, data in contents.items():
            self.api.put(job, name, data)
        whole = self.api.read(job)
        arn = self.api.commit(job)
        self.points[arn] = whole
        return arn

    def settle(self):
        maintain(self.process.service)

    def seen(self):
        """Return the vaults, and the content of every point, from a catalog that is rebuilt from the blobs."""
        database = rebuild(self.store.blobs, self.store.keyring)
        kept, self.store.database = self.store.database, database
        process = Process(self.store)
        api = Api(process, None, clock=self.store.clock)
        vaults = sorted(vault.backup_vault_name for vault in items(api, ListBackupVaults()))
        rows = database.read(lambda t: t.rows("SELECT point_id FROM recovery_point WHERE status = 'COMPLETED'"))
        arns = [process.context.arns.point(point_id) for (point_id,) in rows]
        seen = vaults, {arn: api.restored(arn) for arn in arns}
        process.service.close()
        self.store.database = kept
        return seen


def rebuild(blobs, keyring, database=None):
    database, outcome = database or MemoryDatabase(), RebuildResult()
    for _ in Rebuild(database, blobs, keyring, outcome, now_ms=1).run():
        pass
    assert outcome.losses == []
    return database


def commit(world):
    """Prepare the commit of an incremental point. Returns the request, and what can be seen after it."""
    job = world.api.running_job()
    world.api.put(job, "a", b"5")
    world.api.delete(job, "c")
    whole = world.api.read(job)
    arn = world.api.job(job).recovery_point_arn
    return lambda: world.api.commit(job), (["Default"], {**world.points, arn: whole})


def delete(which):
    def prepare(world):
        arn = getattr(world, which)
        rest = {other: whole for other, whole in world.points.items() if other != arn}
        return lambda: world.api.delete_point(arn), (["Default"], rest)

    return prepare


def create_vault(world):
    operation = CreateBackupVault(backup_vault_name="new", creator_request_id="again")
    return lambda: world.api.call(operation), (["Default", "new"], world.points)


def delete_vault(world):
    world.api.call(CreateBackupVault(backup_vault_name="old"))
    operation = DeleteBackupVault(backup_vault_name="old")
    return lambda: world.api.call(operation), (["Default"], world.points)


REQUESTS = {
    "commit": commit,
    "delete the first": delete("first"),
    "delete the middle": delete("second"),
    "delete the tip": delete("third"),
    "delete the branch": delete("branch"),
    "create a vault": create_vault,
    "delete a vault": delete_vault,
}
FAULTS = [
    *(("database", "write", lost) for lost in (False, True)),
    *(("blobs", method, lost) for method in ("put", "delete") for lost in (False, True)),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: " ".join(map(str, fault)))
@pytest.mark.parametrize("name", REQUESTS)
def test_acknowledged_data_survives_the_loss_of_the_catalog(name, fault):
    """Each call fails once. The catalog is lost right after that, or after the request was repeated."""
    for at in itertools.count(1):
        world = World()
        request, after = REQUESTS[name](world)
        before = (["Default", *(["old"] if name == "delete a vault" else [])], dict(world.points))
        where, method, lost = fault
        if where == "database":
            world.process.database.fail(at, answer_lost=lost)
        else:
            world.process.blobs.fail(method, at, answer_lost=lost)
        try:
            request()
        except CryostoreError:
            assert world.seen() in (before, after)
            world.process.database.heal()
            again(world, request)
            assert world.seen() == after
        else:
            assert world.seen() == after
            if world.process.database.faults_left or world.process.blobs.faults:
                break
        world.settle()
        assert world.seen() == after
    assert at > 1 or where == "blobs"


def again(world, request):
    """Repeat the request. If the first one took effect, this one may find nothing to do."""
    try:
        request()
    except CryostoreError as error:
        if "does not exist" not in error.message and "DELETING" not in error.message:
            raise
    world.settle()


@pytest.mark.parametrize("error", [StorageUnavailableError("no"), StorageFullError("full")], ids=["failing", "full"])
def test_each_call_of_a_rebuild_fails(error):
    """A rebuild counts unreadable data as lost, and any other failure ends it. The next rebuild is complete."""
    world = World()
    whole = RebuildResult()
    for _ in Rebuild(MemoryDatabase(), world.store.blobs, world.store.keyring, whole, now_ms=1).run():
        pass
    everything = whole.chunks, whole.recovery_points
    expected = world.seen()
    for where in ("read", "write", "get", "list"):
        for at in itertools.count(1):
            database, blobs = FaultyDatabase(MemoryDatabase()), FaultyBlobs(world.store.blobs)
            if where in ("read", "write"):
                database.fail(at, kind=where, error=error)
            else:
                blobs.fail(where, at, error)
            outcome = RebuildResult()
            try:
                for _ in Rebuild(database, blobs, world.store.keyring, outcome, now_ms=1).run():
                    pass
            except type(error):
                assert where != "get"
                continue
            finally:
                database.close()
            if database.faults_left or blobs.faults:
                assert at > 1
                break
            assert where == "get"
            assert outcome.losses or (outcome.chunks, outcome.recovery_points) == everything, "a second try may succeed"
    assert world.seen() == expected
