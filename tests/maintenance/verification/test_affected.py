"""Search for affected recovery points, jobs and objects, compared with a simple model of their contents."""

from __future__ import annotations

import random

import pytest

from cryostore.maintenance.verification.affected import NAMES_PER_ONE_MAX, find_affected
from cryostore.service import Settings
from support.faults.damaging import hurt, noise, to_end
from support.requests.api import Api, new_resource, sha
from support.stores.memory_store import MemoryStore, Process

NAMES = ["a", "b", "c", "d"]
STEPS = 120


class Model:
    """Random backups of two resources, some based on older points so that lineages branch, and their contents."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.store = MemoryStore(Settings())
        self.process = Process(self.store)
        self.api = Api(self.process, None, clock=self.store.clock)
        self.resources = [new_resource(), new_resource()]
        self.points = {}
        self.of = {}
        self.jobs = {}
        self.contents = [noise(number) for number in range(8)]

    def step(self):
        """Make one change to the objects that recovery points and jobs see."""
        if self.points and self.random.random() < 0.15:
            self.forget(self.random.choice(list(self.points)))
        elif self.jobs and self.random.random() < 0.5:
            self.end(self.random.choice(list(self.jobs)))
        else:
            self.begin()

    def forget(self, point):
        if any(job[1] == point for job in self.jobs.values()):
            return  # it is pinned as a base
        del self.points[point]
        self.api.delete_point(point)

    def begin(self):
        """Begin a job with some changes, based on the newest recovery point, on an older one, or on none."""
        free = [one for one in self.resources if one not in {job[0] for job in self.jobs.values()}]
        if not free:
            return
        resource = self.random.choice(free)
        mine = [point for point in self.points if self.of[point] == resource]
        base = self.random.choice([None, *mine, *mine])
        options = {"IncrementalBase": "none"} if base is None else {"IncrementalBase": base.rpartition(":")[2]}
        job = self.api.running_job(resource=resource, backup_options=options)
        view = dict(self.points[base]) if base else {}
        for name in self.random.sample(NAMES, self.random.randint(0, 3)):
            if name in view and self.random.random() < 0.5:
                self.api.delete(job, name)
                del view[name]
            else:
                view[name] = self.random.choice(self.contents)
                self.api.put(job, name, view[name])
        self.jobs[job] = (resource, base, view)

    def end(self, job):
        resource, _, view = self.jobs.pop(job)
        if not view or self.random.random() < 0.2:
            self.api.stop(job)
        else:
            point = self.api.commit(job)
            self.points[point] = view
            self.of[point] = resource

    def affected_by(self, data):
        """Return the recovery points and jobs that hold these bytes, and the names of their objects."""
        holders = self.points | {job: view for job, (_, _, view) in self.jobs.items()}
        found = {one: sorted(name for name, value in view.items() if value == data) for one, view in holders.items()}
        return {one: names for one, names in found.items() if names}


@pytest.mark.parametrize("seed", range(5))
def test_affected_points_and_jobs_match_the_model(seed):
    model = Model(seed)
    branched = 0
    for count in range(STEPS):
        model.step()
        if count % 10 == 9:
            for data in model.contents:
                mark(model.store, data)
                assert hurt(model.process.context) == model.affected_by(data)
        branched = max(branched, branches(model.store))
    assert branched > 0


def branches(store):
    """Return the number of lineages that have a parent."""
    query = "SELECT count(*) FROM lineage WHERE parent_lineage_id IS NOT NULL"
    return store.database.read(lambda transaction: transaction.row(query))[0]


def mark(store, data):
    """Mark exactly one chunk as damaged."""
    store.database.write(lambda t: t.run("UPDATE chunk SET damaged_ms = NULL"))
    store.database.write(lambda t: t.run("UPDATE chunk SET damaged_ms = 1 WHERE digest = :digest", digest=sha(data)))


@pytest.fixture
def api():
    store = MemoryStore(Settings())
    return Api(Process(store), None, clock=store.clock)


def test_a_long_list_is_searched_to_its_end(api):
    """The damaged chunk is in the second part of a chunk list."""
    job = api.start_job()
    contents = [number.to_bytes(4, "big") for number in range(1200)]
    api.upload(job, "long", contents)
    point = api.commit(job)
    mark(api._call.store, contents[-1])
    assert hurt(api._call.context) == {point: ["long"]}


def test_an_open_upload_is_affected(api):
    job = api.start_job()
    upload = api.start(job, "uploading")
    api.chunk(job, upload, 0, b"one")
    api.chunk(job, upload, 1, b"two")
    mark(api._call.store, b"two")
    assert hurt(api._call.context) == {job: ["uploading"]}
    api.stop(job)
    assert hurt(api._call.context) == {}


def test_the_same_bytes_in_another_vault_are_not_affected(api):
    point = api.backup({"mine": b"shared"})
    api.new_vault()
    api.backup({"theirs": b"shared"}, resource=new_resource())
    api._call.store.database.write(lambda t: t.run("UPDATE chunk SET damaged_ms = 1 WHERE vault_id = 1"))
    assert hurt(api._call.context) == {point: ["mine"]}


def test_names_are_bounded_and_counted(api):
    point = api.backup({f"object {number:03}": b"the same" for number in range(NAMES_PER_ONE_MAX + 5)})
    mark(api._call.store, b"the same")
    damage = to_end(find_affected(api._call.context))
    (one,) = damage.points
    assert (one.recovery_point_arn, one.objects, len(one.names)) == (point, damage.objects, NAMES_PER_ONE_MAX)
    assert damage.objects == NAMES_PER_ONE_MAX + 5


def test_a_point_that_is_being_deleted_is_not_affected(api):
    api.backup({"a": b"bytes"})
    mark(api._call.store, b"bytes")
    assert len(hurt(api._call.context)) == 1
    api._call.store.database.write(lambda t: t.run("UPDATE recovery_point SET status = 'DELETING'"))
    assert hurt(api._call.context) == {}
