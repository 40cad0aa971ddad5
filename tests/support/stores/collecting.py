"""A store in memory with every kind of garbage, and with everything that garbage collection must keep."""

from __future__ import annotations

import random

from cryostore.core.limits import KIB
from cryostore.core.time import DAY_MS
from cryostore.maintenance.background_tasks import maintain
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.model.chunks import LinkChunks, LinkedChunk
from cryostore.service import Settings
from support.requests.api import Api, hex_of, new_resource
from support.stores import audit
from support.stores.memory_store import MemoryStore, Process


def noise(number, size=200):
    """Return incompressible bytes, always the same for a number."""
    return random.Random(number).randbytes(size)


GARBAGE = noise(1)
UPLOADED = noise(2)
NEW = noise(3)


class Scene:
    """Two processes on a store: a point, a restore, a job and an upload that need chunks, between unneeded chunks.

    Collections mark in two passes. `writer` has rows of garbage in the pack it writes to, and in packs that are full.
    """

    def __init__(self):
        self.store = MemoryStore(Settings(pack_bytes_target=2000, collection_memory_bytes=64 * KIB))
        self.writer, self.collector = Process(self.store), Process(self.store)
        self.api, self.other = self.words(self.writer), self.words(self.collector)
        kept = {f"kept {number}": noise(100 + number) for number in range(6)}
        gone = {f"gone {number}": noise(200 + number) for number in range(12)}
        first, second = self.job(), self.job()
        for mine, others in zip([*kept.items(), *kept.items()], gone.items(), strict=True):
            self.api.put(first, *mine)
            self.api.put(second, *others)
        self.points = {self.api.commit(first): kept}
        gone_point = self.api.commit(second)
        self.restores = {self.api.restore(next(iter(self.points))): kept}
        self.view = {"a": noise(300)}
        self.open_job = self.job()
        self.api.put(self.open_job, "a", self.view["a"])
        self.upload = self.api.start(self.open_job, "uploaded")
        self.api.chunk(self.open_job, self.upload, 0, UPLOADED)
        doomed = self.job()
        self.api.put(doomed, "garbage", GARBAGE)
        self.api.delete_point(gone_point)
        self.api.stop(doomed)
        maintain(self.writer.service)

    def words(self, process):
        """Return the test API of a process."""
        return Api(process, None, clock=self.store.clock)

    def job(self):
        """Start a job of a new resource."""
        return self.api.start_job(resource=new_resource())

    def restart(self, kept_share=0.0):
        """Lose power, and restart both processes."""
        for process in (self.writer, self.collector):
            process.database.die()
        self.store.crash(kept_share)
        self.writer, self.collector = Process(self.store), Process(self.store)
        self.api, self.other = self.words(self.writer), self.words(self.collector)

    def close_packs(self):
        """Make the writer use another pack."""
        for name in self.store.pack_names():
            self.writer.context.store.roll(name)

    def check(self):
        """Check the invariants, and that every visible object can be read byte for byte."""
        assert audit.problems(self.writer.context, self.store.database) == []
        for job, view in [(self.open_job, self.view), *self.restores.items()]:
            assert self.api.read(job) == view
        for point, view in self.points.items():
            assert self.other.restored(point) == view

    def collect_the_rest(self):
        """Check that later runs finish, violate no invariant, and leave no garbage."""
        self.restart(1.0)
        self.store.clock.advance(DAY_MS)  # leases expire
        self.store.database.write(lambda t: t.run("UPDATE backup_job SET active_ms = :now", now=self.store.clock()))
        self.store.database.write(lambda t: t.run("UPDATE restore_job SET active_ms = :now", now=self.store.clock()))
        for _ in range(3):
            collect_all(self.collector.context, quarantine_ms=0)
            self.check()
        assert audit.held(self.store.database) == audit.references(self.store.database)


def put_garbage_again(scene):
    """Put an object of chunks that the collector is about to remove."""
    scene.api.put(scene.open_job, "again", GARBAGE)
    scene.view["again"] = GARBAGE


def put_new(scene):
    """Put an object of new chunks."""
    scene.api.put(scene.open_job, "new", NEW)
    scene.view["new"] = NEW


def replace(scene):
    """Replace an object, whose chunks become garbage."""
    scene.api.put(scene.open_job, "a", NEW)
    scene.view["a"] = NEW


def complete(scene):
    """Complete an upload, whose references move to an object."""
    scene.api.complete(scene.open_job, scene.upload, [UPLOADED])
    scene.view["uploaded"] = UPLOADED


def complete_with_metadata(scene):
    """Like `complete`, with a metadata blob that the collector is about to remove."""
    scene.api.complete(scene.open_job, scene.upload, [UPLOADED], blob=GARBAGE)
    scene.view["uploaded"] = UPLOADED


def link(scene):
    """Link a chunk if the vault has it, else put it."""
    upload = scene.api.start(scene.open_job, "linked")
    chunk = LinkedChunk(index=0, length=len(GARBAGE), checksum=hex_of(GARBAGE), checksum_algorithm="SHA256")
    operation = LinkChunks(backup_job_id=scene.open_job, upload_id=upload, chunks=[chunk])
    if scene.api.call(operation).missing:
        scene.api.chunk(scene.open_job, upload, 0, GARBAGE)
    scene.api.complete(scene.open_job, upload, [GARBAGE])
    scene.view["linked"] = GARBAGE


def put_and_commit(scene):
    """Commit a job with an object of chunks that the collector is about to remove, and start another one."""
    scene.api.put(scene.open_job, "again", GARBAGE)
    scene.points[scene.api.commit(scene.open_job, discard_open_uploads=True)] = scene.view | {"again": GARBAGE}
    scene.open_job = scene.job()
    scene.view = {"b": NEW}
    scene.api.put(scene.open_job, "b", NEW)


def delete_point(scene):
    """Delete a point, whose own chunks become garbage."""
    for job in scene.restores:
        scene.api.end_restore(job)
    scene.restores = {}
    for point in scene.points:
        scene.api.delete_point(point)
    scene.points = {}


REQUESTS = [
    put_garbage_again, put_new, replace, complete, complete_with_metadata, link, put_and_commit, delete_point,
]  # fmt: skip
