"""Deduplication and garbage collection: writers and collectors interleaved at every boundary between transactions.

Processes share a store of tiny packs. At each transaction of a writer's request, and at
each write of its bytes, the collector continues by some steps, or another complete request runs; likewise the other way
round. Most quarantines are zero, because safety must not depend on them.
"""

from __future__ import annotations

import contextlib
import random
from functools import partial

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cryostore.catalog.processes.claims import ClaimHeldError, ClaimLostError
from cryostore.core.errors import CryostoreError
from cryostore.core.time import DAY_MS, HOUR_MS
from cryostore.maintenance.background_tasks import maintain
from cryostore.maintenance.garbage_collection.collect import collect, collect_all
from cryostore.maintenance.garbage_collection.run import CollectionResult
from cryostore.model.chunks import LinkChunks, LinkedChunk
from cryostore.service import Settings
from support.requests.api import Api, hex_of, new_resource
from support.stores import audit
from support.stores.memory_store import MemoryStore, Process
from support.stores.service_store import ServiceStore, on_services

CONTENTS = [random.Random(number).randbytes(60 + 40 * number) for number in range(5)]
CONTENT = st.sampled_from(CONTENTS)
NAME = st.sampled_from(["a", "b", "c"])
WHO = st.integers(0, 1)
QUARANTINE = st.sampled_from([0, 0, HOUR_MS])

# Events in the middle of another operation: steps of the collector, a put of the same content, a complete collection.
INTRUSION = st.one_of(
    st.tuples(st.just("steps"), st.integers(1, 6)),
    st.tuples(st.just("put"), st.sampled_from(range(len(CONTENTS)))),
    st.tuples(st.just("run"), st.just(0)),
    st.tuples(st.just("delete"), st.just(0)),
    st.tuples(st.just("nothing"), st.just(0)),
)
INTRUSIONS = st.lists(INTRUSION, max_size=4)


class DedupAgainstCollection(RuleBasedStateMachine):
    """The model: the objects of each open job, point and restore job, and the chunks of each open upload."""

    new_store = MemoryStore

    @initialize()
    def open(self):
        self.store = self.new_store(Settings(pack_bytes_target=700))
        self.jobs = {}
        self.uploads = {}
        self.points = {}
        self.restores = {}
        self.steps = None
        self.collector = None
        self.start()

    def start(self):
        """Start all processes: two that the rules drive, and one for intrusions only."""
        self.processes = [Process(self.store) for _ in range(3)]
        self.intrusions = []
        for number, process in enumerate(self.processes[:2]):
            process.database.on_write(self.intrude)
            grows = hasattr(process.blobs, "open_append")
            for method in ("append", "sync", "delete") if grows else ("put", "delete"):
                process.blobs.on(method, partial(self.intrude, writing=number))
        self.apis = [Api(process, None, clock=self.store.clock) for process in self.processes]

    def intrude(self, writing=None):
        """Run the next intrusion. `writing` is the process that holds the lock of its pack, if any."""
        if not self.intrusions:
            return
        what, number = self.intrusions.pop(0)
        rest, self.intrusions = self.intrusions, []
        if what == "steps" and writing != self.collector:
            self.go_on(number)
        elif what == "put" and self.jobs:
            job = min(self.jobs)
            self.apis[2].put(job, "other", CONTENTS[number])
            self.jobs[job]["other"] = CONTENTS[number]
        elif what == "run":
            with contextlib.suppress(ClaimHeldError):
                collect_all(self.processes[2].context, quarantine_ms=0)
        elif what == "delete" and self.points:
            self.delete_one(min(self.points))
        self.intrusions = rest

    def delete_one(self, point):
        """Delete a point unless a job or a restore keeps it."""
        with contextlib.suppress(CryostoreError):
            self.apis[0].delete_point(point)
            del self.points[point]

    # --- writers ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.jobs) < 3)
    @rule(who=WHO)
    def start_job(self, who):
        self.jobs[self.apis[who].start_job(resource=new_resource())] = {}

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), who=WHO, name=NAME, content=CONTENT, intrusions=INTRUSIONS)
    def put(self, data, who, name, content, intrusions):
        job = data.draw(st.sampled_from(sorted(self.jobs)))
        self.intrusions = intrusions
        self.apis[who].put(job, name, content)
        self.jobs[job][name] = content
        self.intrusions = []

    @precondition(lambda self: self.jobs)
    @rule(
        data=st.data(),
        who=WHO,
        name=NAME,
        content=CONTENT,
        at=st.integers(1, 4),
        lost=st.booleans(),
        dies=st.booleans(),
    )
    def put_that_fails(self, data, who, name, content, at, lost, dies):
        """A request fails at one of its transactions, perhaps after the commit; the client retries it."""
        job = data.draw(st.sampled_from(sorted(self.jobs)))
        self.processes[who].database.fail(at, answer_lost=lost)
        with contextlib.suppress(Exception):
            self.apis[who].put(job, name, content)
        self.processes[who].database.heal()
        if dies:
            self.crash(0.5)
        self.apis[who].put(job, name, content)
        self.jobs[job][name] = content

    @precondition(lambda self: self.jobs and len(self.uploads) < 3)
    @rule(data=st.data(), who=WHO, name=NAME)
    def start_upload(self, data, who, name):
        job = data.draw(st.sampled_from(sorted(self.jobs)))
        self.uploads[self.apis[who].start(job, name)] = (job, name, {})

    @precondition(lambda self: self.uploads)
    @rule(data=st.data(), who=WHO, content=CONTENT, intrusions=INTRUSIONS, link=st.booleans())
    def chunk(self, data, who, content, intrusions, link):
        """A chunk is linked if the vault offers it, else put."""
        upload = data.draw(st.sampled_from(sorted(self.uploads)))
        job, _, contents = self.uploads[upload]
        index = len(contents)
        self.intrusions = intrusions
        missing = [index]
        if link:
            chunk = LinkedChunk(index=index, length=len(content), checksum=hex_of(content), checksum_algorithm="SHA256")
            answer = self.apis[who].call(LinkChunks(backup_job_id=job, upload_id=upload, chunks=[chunk]))
            missing = answer.missing
        if missing:
            self.apis[who].chunk(job, upload, index, content)
        contents[index] = content
        self.intrusions = []

    @precondition(lambda self: self.uploads)
    @rule(data=st.data(), who=WHO, intrusions=INTRUSIONS, blob=st.one_of(st.none(), CONTENT))
    def complete(self, data, who, intrusions, blob):
        upload = data.draw(st.sampled_from(sorted(self.uploads)))
        job, name, contents = self.uploads.pop(upload)
        self.intrusions = intrusions
        self.apis[who].complete(job, upload, [contents[index] for index in sorted(contents)], blob=blob)
        self.jobs[job][name] = b"".join(contents[index] for index in sorted(contents))
        self.intrusions = []

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), who=WHO, intrusions=INTRUSIONS, stops=st.booleans())
    def end_job(self, data, who, intrusions, stops):
        job = data.draw(st.sampled_from(sorted(self.jobs)))
        view = self.jobs.pop(job)
        self.uploads = {upload: entry for upload, entry in self.uploads.items() if entry[0] != job}
        self.intrusions = intrusions
        if stops or not view:
            self.apis[who].stop(job)
        else:
            self.points[self.apis[who].commit(job, discard_open_uploads=True)] = dict(view)
        self.intrusions = []

    @precondition(lambda self: self.points)
    @rule(data=st.data(), intrusions=INTRUSIONS)
    def delete_point(self, data, intrusions):
        point = data.draw(st.sampled_from(sorted(self.points)))
        self.intrusions = [entry for entry in intrusions if entry[0] != "delete"]
        self.delete_one(point)
        self.intrusions = []

    @precondition(lambda self: self.points and len(self.restores) < 2)
    @rule(data=st.data(), who=WHO)
    def start_restore(self, data, who):
        point = data.draw(st.sampled_from(sorted(self.points)))
        self.restores[self.apis[who].restore(point)] = dict(self.points[point])

    @precondition(lambda self: self.restores)
    @rule(data=st.data(), who=WHO)
    def end_restore(self, data, who):
        job = data.draw(st.sampled_from(sorted(self.restores)))
        del self.restores[job]
        self.apis[who].end_restore(job)

    # --- the collector ----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.steps is None)
    @rule(who=WHO, quarantine_ms=QUARANTINE)
    def begin_collection(self, who, quarantine_ms):
        self.collector = who
        self.steps = collect(self.processes[who].context, CollectionResult(), quarantine_ms=quarantine_ms)

    @precondition(lambda self: self.steps is not None)
    @rule(count=st.integers(1, 8), intrusions=INTRUSIONS)
    def step(self, count, intrusions):
        self.intrusions = [entry for entry in intrusions if entry[0] != "steps"]
        self.go_on(count)
        self.intrusions = []

    @precondition(lambda self: self.steps is not None)
    @rule()
    def finish_collection(self):
        self.go_on(10_000)

    def go_on(self, count):
        """Run the next steps of the collector. A collector that lost its claim changes nothing and ends."""
        if self.steps is None:
            return
        steps, self.steps = self.steps, None
        try:
            for _ in range(count):
                next(steps)
        except (StopIteration, ClaimLostError, ClaimHeldError):
            return
        self.steps = steps

    @rule()
    def maintain(self):
        maintain(self.processes[0].service)

    @rule(milliseconds=st.sampled_from([1, HOUR_MS // 2, HOUR_MS, DAY_MS, -HOUR_MS]))
    def time_passes(self, milliseconds):
        """Move the clock. Jobs get a heartbeat, so that none expires."""
        self.store.clock.advance(milliseconds)
        touch = "UPDATE backup_job SET active_ms = :now, complete_by_ms = :now + 1000000, start_by_ms = :now + 1000000"
        self.store.database.write(lambda transaction: transaction.run(touch, now=self.store.clock()))
        touch = "UPDATE restore_job SET active_ms = :now"
        self.store.database.write(lambda transaction: transaction.run(touch, now=self.store.clock()))

    @rule(kept_share=st.sampled_from([0.0, 0.5, 1.0]))
    def crash(self, kept_share):
        """Lose power during all operations. The claim of the collector stays in the catalog."""
        for process in self.processes:
            process.database.die()
        self.steps = None
        self.store.crash(kept_share)
        self.start()

    # --- what must always hold --------------------------------------------------------------------------------------

    @invariant()
    def no_reference_is_lost(self):
        """Every row has its bytes, nothing referenced is missing or condemned, and no retired pack is used."""
        if hasattr(self, "store"):
            assert audit.problems(self.processes[0].context, self.store.database) == []

    @invariant()
    def everything_seen_is_readable(self):
        """Every object of an open job or a restore is readable, byte for byte."""
        for job, view in [*getattr(self, "jobs", {}).items(), *getattr(self, "restores", {}).items()]:
            assert self.apis[0].read(job) == view

    def teardown(self):
        """Every point can be restored. After everything is deleted and collected, no chunk and no known pack is left.

        The collector does not know a pack without rows, whose writer was killed or refused.
        """
        if not hasattr(self, "store"):
            return
        self.intrusions = []
        for point, view in self.points.items():
            assert self.apis[0].restored(point) == view
        for job in [*self.jobs]:
            self.apis[0].stop(job)
        for restore in [*self.restores]:
            self.apis[0].end_restore(restore)
        for point in self.points:
            self.apis[0].delete_point(point)
        self.crash(1.0)
        known = {
            name for (name,) in self.store.database.read(lambda transaction: transaction.rows("SELECT name FROM pack"))
        }
        self.store.clock.advance(DAY_MS)
        for _ in range(3):
            maintain(self.processes[0].service)
            collect_all(self.processes[0].context, quarantine_ms=0)
        assert audit.held(self.store.database) == set()
        rows = self.store.database.read(lambda transaction: transaction.rows("SELECT name FROM pack"))
        assert rows == []
        assert known.isdisjoint(self.store.pack_names())
        self.store.close()


TestDedupAgainstCollection = DedupAgainstCollection.TestCase


class DedupAgainstCollectionOnServices(DedupAgainstCollection):
    """The machine on PostgreSQL and S3."""

    new_store = ServiceStore


TestDedupAgainstCollectionOnServices = on_services(DedupAgainstCollectionOnServices)
