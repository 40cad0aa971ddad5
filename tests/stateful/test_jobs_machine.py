"""The whole service compared with a dict: jobs, uploads, commits, restores, deletions, time and restarts."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cryostore.client.pages import objects
from cryostore.core.digest import Payload
from cryostore.core.time import DAY_MS, HOUR_MS, MINUTE_MS
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.maintenance.key_rotation import RotationResult, rotate_master_key, rotate_vault_key
from cryostore.maintenance.verification.scrub import ScrubResult, scrub
from cryostore.model.errors import (
    DataAlreadyExistsException,
    IllegalArgumentException,
    InvalidRequestException,
    InvalidResourceStateException,
    JobStateConflictException,
    ModelError,
    ResourceNotFoundException,
    ThrottlingException,
)
from cryostore.model.jobs import CommitBackupJob, StopBackupJob
from cryostore.model.objects import DeleteObject, ListObjects, PutObject, StartObject
from cryostore.model.recovery_points import DeleteRecoveryPoint
from cryostore.model.restore_jobs import CompleteRestoreJob, StartRestoreJob
from cryostore.service import Settings
from support.requests.api import BASE_SUFFIX, new_resource
from support.stores.in_process import Store
from support.stores.integrity import problems
from support.stores.service_store import on_services
from support.stores.shared_store import ON_SERVICES, opened_shared

MEMORY = Path("/dev/shm")
NAMES = st.sampled_from(["a", "a/b", "b", "é"])
DATA = st.sampled_from([b"", b"1", b"22", b"333" * 100])
INDEXES = st.sampled_from([0, 1, 2, 7, 2**63 - 1])
CHANGES = st.dictionaries(NAMES, DATA, min_size=1)
PLACES = st.integers(1, 200)
MOSTLY = st.sampled_from([True, True, True, True, True, False])
TEXTS = st.sampled_from([None, "text", "größe"])
SETTINGS = Settings(pack_bytes_target=4096)
ROUNDS_TO_COLLECT_ALL = 4
"""One each to condemn, to remove, and to delete the pack; one more, for chunks that were condemned by mistake."""
START_WINDOW_MS = 480 * MINUTE_MS
COMPLETE_WINDOW_MS = 10_080 * MINUTE_MS
DURATIONS_MS = st.sampled_from(
    [1, 1, MINUTE_MS, MINUTE_MS, 20 * MINUTE_MS, 40 * MINUTE_MS, 61 * MINUTE_MS, 9 * HOUR_MS, 25 * HOUR_MS, 8 * DAY_MS]
)
OPEN = ("CREATED", "PENDING", "RUNNING")


class Job:
    """The expected state of a backup job. `view` is None until the job runs and its base is fixed."""

    def __init__(self, resource, base, now_ms):
        self.resource = resource
        self.wanted_base = base
        self.base = base if base not in ("latest", "none") else None
        self.state = "CREATED"
        self.started_ms = self.active_ms = now_ms
        self.view = None
        self.base_view = None


class Upload:
    """An upload of a job. `completed` is False, or a tuple of the text that it was completed with."""

    def __init__(self, job, name, throw):
        self.job = job
        self.name = name
        self.throw = throw
        self.chunks = {}
        self.completed = False


class JobsMachine(RuleBasedStateMachine):
    """The model: the expected jobs, points and restore jobs. A view maps names to (bytes by index, text)."""

    @initialize(history=st.lists(st.tuples(st.sampled_from([0, 1]), CHANGES), min_size=1, max_size=4))
    def begin(self, history):
        self.directory = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        self.store = self.new_store(Path(self.directory.name) / "data")
        self.api = self.store.api()
        self.resources = [new_resource(), new_resource()]
        self.model_jobs = {}
        self.model_uploads = {}
        self.model_points = {}  # existing points: resource and view, in commit order
        self.model_restores = {}  # open restore jobs: point and last heartbeat
        self.set_back_ms = 0
        self.uploads, self.points, self.restores = (
            [],
            [],
            [],
        )  # every one so far, also ended ones: with their job, ARNs, ids
        for resource, changes in history:
            self.whole_backup(resource, changes)

    def new_store(self, folder):
        return Store(folder, settings=SETTINGS)

    # --- the choice of a rule: mostly one that is open ---

    def pick(self, place, open_ones, every):
        """Return an open one; in one of eight cases, or if none is open, any."""
        candidates = list(open_ones) if place % 8 and open_ones else list(every)
        return candidates[place // 8 % len(candidates)]

    def pick_job(self, place):
        open_ones = [job_id for job_id, job in self.model_jobs.items() if job.state in OPEN]
        return self.pick(place, open_ones, self.model_jobs)

    def pick_upload(self, place):
        open_ones = [one for one in self.uploads if one[0] in self.model_uploads]
        return self.pick(
            place, [one for one in open_ones if not self.model_uploads[one[0]].completed] or open_ones, self.uploads
        )

    # --- what the model expects -----------------------------------------------------------------------------------

    @property
    def now_ms(self):
        return self.store.clock.now_ms

    def touch(self, job):
        """Start a waiting job, as its first request does. Return the error that the request must get, or None."""
        if job.state in ("CREATED", "PENDING"):
            if self.now_ms > job.started_ms + START_WINDOW_MS:
                job.state = "EXPIRED"
            elif any(other.state == "RUNNING" and other.resource == job.resource for other in self.model_jobs.values()):
                job.state = "PENDING"
                return ThrottlingException
            else:
                self.fix_base(job)
        return None if job.state == "RUNNING" else IllegalArgumentException

    def fix_base(self, job):
        job.state = "RUNNING"
        job.active_ms = self.now_ms
        if job.wanted_base == "latest":
            of_resource = [arn for arn, (resource, _) in self.model_points.items() if resource == job.resource]
            job.base = of_resource[-1] if of_resource else None
        job.base_view = dict(self.model_points[job.base][1]) if job.base else None
        job.view = dict(job.base_view or {})

    def end(self, job_id, state):
        self.model_jobs[job_id].state = state
        for upload_id in [one for one, upload in self.model_uploads.items() if upload.job == job_id]:
            del self.model_uploads[upload_id]

    def expect(self, operation, error):
        """Carry out an operation, which must raise exactly this error, or none. Return its output, or None."""
        if error is None:
            return self.api.call(operation)
        with pytest.raises(ModelError) as raised:
            self.api.call(operation)
        assert type(raised.value) is error, raised.value
        return None

    def write(self, job_id, operation, error=None):
        """Write to a job. `error` is expected if no other error comes first. Return the output, or None."""
        job = self.model_jobs[job_id]
        expected = self.touch(job) or (error() if callable(error) and not isinstance(error, type) else error)
        answer = self.expect(operation, expected)
        if expected is None:
            job.active_ms = self.now_ms
        return answer

    def pinned(self, arn):
        based = any(job.base == arn and job.state in OPEN for job in self.model_jobs.values())
        return based or any(point == arn for point, _ in self.model_restores.values())

    def assert_view(self, storage_job, view):
        """Check that a storage job has exactly this view, byte for byte."""
        found = {}
        for one in objects(self.api, storage_job):
            found[one.name] = (self.api.read_chunks(storage_job, one.object_token), one.metadata_string)
        assert found == view

    # --- backup jobs ----------------------------------------------------------------------------------------------

    @rule(resource=st.sampled_from([0, 0, 1]), none=MOSTLY.map(lambda one: not one))
    def start(self, resource, none):
        options = {"backup_options": {"IncrementalBase": "none"}} if none else {}
        job_id = self.api.start_job(resource=self.resources[resource], **options)
        self.model_jobs[job_id] = Job(resource, "none" if none else "latest", self.now_ms)

    @precondition(lambda self: self.points)
    @rule(resource=st.sampled_from([0, 1]), place=PLACES)
    def start_branch(self, resource, place):
        base = self.pick(place, self.model_points, self.points)
        operation = self.api.start_operation(
            resource=self.resources[resource], backup_options={"IncrementalBase": base.rpartition(":")[2]}
        )
        started = self.expect(operation, None if base in self.model_points else ResourceNotFoundException)
        if started is not None:
            self.model_jobs[started.backup_job_id] = Job(resource, base, self.now_ms)

    @precondition(lambda self: self.model_jobs)
    @rule(place=PLACES, name=NAMES, data=DATA, text=TEXTS, throw=st.booleans())
    def put(self, place, name, data, text, throw):
        self.put_in(self.pick_job(place), name, data, text, throw=throw)

    def put_in(self, job_id, name, data, text, *, throw):
        job = self.model_jobs[job_id]
        operation = PutObject(
            backup_job_id=job_id,
            object_name=name,
            inline_chunk=Payload(data),
            inline_chunk_length=len(data),
            metadata_string=text,
            throw_on_duplicate=throw,
        )
        if self.write(job_id, operation, lambda: DataAlreadyExistsException if throw and name in job.view else None):
            job.view[name] = ({0: data}, text)

    @precondition(lambda self: self.model_jobs)
    @rule(place=PLACES, name=NAMES)
    def delete(self, place, name):
        job_id = self.pick_job(place)
        job = self.model_jobs[job_id]
        operation = DeleteObject(backup_job_id=job_id, object_name=name)
        if self.write(job_id, operation, lambda: None if name in job.view else ResourceNotFoundException) is not None:
            del job.view[name]

    @precondition(lambda self: self.model_jobs)
    @rule(place=PLACES, name=NAMES, throw=st.booleans())
    def start_upload(self, place, name, throw):
        self.start_upload_in(self.pick_job(place), name, throw=throw)

    def start_upload_in(self, job_id, name, *, throw):
        job = self.model_jobs[job_id]
        operation = StartObject(backup_job_id=job_id, object_name=name, throw_on_duplicate=throw)
        answer = self.write(
            job_id, operation, lambda: DataAlreadyExistsException if throw and name in job.view else None
        )
        if answer is not None:
            self.model_uploads[answer.upload_id] = Upload(job_id, name, throw)
            self.uploads.append((answer.upload_id, job_id))

    @precondition(lambda self: self.model_jobs)
    @rule(place=PLACES, name=NAMES, chunks=st.dictionaries(INDEXES, DATA), text=TEXTS)
    def whole_upload(self, place, name, chunks, text):
        """Start and complete an upload in one step, with its chunks in any order."""
        before = len(self.uploads)
        self.start_upload_in(self.pick_job(place), name, throw=False)
        if len(self.uploads) > before:
            for index, data in chunks.items():
                self.chunk_in(self.uploads[-1], index, data)
            self.complete_one(self.uploads[-1], text, right=True)

    @precondition(lambda self: self.uploads)
    @rule(place=PLACES, index=INDEXES, data=DATA)
    def chunk(self, place, index, data):
        self.chunk_in(self.pick_upload(place), index, data)

    def chunk_in(self, upload, index, data):
        upload_id, job_id = upload
        model = self.model_uploads.get(upload_id)

        def error():
            if model.completed is not False:
                return IllegalArgumentException
            return DataAlreadyExistsException if model.chunks.get(index, data) != data else None

        job = self.model_jobs[job_id]
        repeated = model is not None and model.completed is False and model.chunks.get(index) == data
        active_ms = job.active_ms
        if self.write(job_id, self.api.chunk_operation(job_id, upload_id, index, data), error):
            model.chunks[index] = data
            if repeated:
                job.active_ms = active_ms  # nothing was written

    @precondition(lambda self: self.uploads)
    @rule(place=PLACES, text=TEXTS, right=MOSTLY)
    def complete(self, place, text, right):
        self.complete_one(self.pick_upload(place), text, right=right)

    def complete_one(self, upload, text, *, right):
        upload_id, job_id = upload
        job, model = self.model_jobs[job_id], self.model_uploads.get(upload_id)
        contents = [data for _, data in sorted(model.chunks.items())] if model else []
        if not right:
            contents = [*contents, b"one too many"]

        def error():
            if model.completed is not False:
                return None if (model.completed, True) == ((text,), right) else IllegalArgumentException
            if not right:
                return IllegalArgumentException
            return DataAlreadyExistsException if model.throw and model.name in job.view else None

        operation = self.api.complete_operation(job_id, upload_id, contents, metadata_string=text)
        done_before = model is not None and model.completed is not False
        active_ms = job.active_ms
        if not self.write(job_id, operation, error):
            return
        if done_before:
            job.active_ms = active_ms
            return
        job.view[model.name] = (dict(sorted(model.chunks.items())), text)
        model.completed = (text,)

    @rule(resource=st.sampled_from([0, 1]), changes=CHANGES)
    def whole_backup(self, resource, changes):
        """Start and commit a job in one step, so that there are many points to restore and delete."""
        if any(job.state == "RUNNING" and job.resource == resource for job in self.model_jobs.values()):
            return
        self.start(resource, none=False)
        job_id = list(self.model_jobs)[-1]
        for name, data in changes.items():
            self.put_in(job_id, name, data, None, throw=False)
        self.commit_job(job_id, discard=True, count=True)

    @precondition(lambda self: self.model_jobs)
    @rule(place=PLACES, discard=MOSTLY, count=MOSTLY)
    def commit(self, place, discard, count):
        """Commit. Refused while uploads are open, for a wrong count, and for a view that is empty without a base."""
        self.commit_job(self.pick_job(place), discard=discard, count=count)

    def commit_job(self, job_id, *, discard, count):
        job = self.model_jobs[job_id]
        ended = job.state not in OPEN
        error = JobStateConflictException if ended else self.touch(job)
        if error is IllegalArgumentException:  # it has just expired
            error = JobStateConflictException
        if error is None:
            is_open = any(one.job == job_id and one.completed is False for one in self.model_uploads.values())
            empty = not job.view and job.base is None
            error = IllegalArgumentException if (is_open and not discard) or empty or not count else None
        operation = CommitBackupJob(
            backup_job_id=job_id,
            discard_open_uploads=discard,
            object_count=len(job.view or {}) + (0 if count else 1),
            commit_token=new_resource(),
            issue_count=0 if not ended else 99,
        )
        done = self.expect(operation, error)
        if done is not None:
            self.model_points[done.recovery_point_arn] = (job.resource, dict(job.view))
            self.points.append(done.recovery_point_arn)
            self.end(job_id, "COMPLETED")

    @precondition(lambda self: self.model_jobs)
    @rule(place=PLACES, stop=st.booleans())
    def abort(self, place, stop):
        """End a job without a point, by StopBackupJob or by Outcome FAILED. All its writes are gone."""
        job_id = self.pick_job(place)
        job = self.model_jobs[job_id]
        if stop:
            error = None if job.state in (*OPEN, "ABORTED") else InvalidRequestException
            operation = StopBackupJob(backup_job_id=job_id)
        else:
            error = None if job.state in OPEN else JobStateConflictException
            operation = CommitBackupJob(backup_job_id=job_id, outcome="FAILED", status_message=new_resource())
        if self.expect(operation, error) is not None and job.state in OPEN:
            self.end(job_id, "ABORTED" if stop else "FAILED")

    @precondition(lambda self: self.model_jobs)
    @rule(place=PLACES, base=st.booleans())
    def read_job(self, place, base):
        """Read a running job: its view, and its unchanged base."""
        job_id = self.pick_job(place)
        job = self.model_jobs[job_id]
        if base and not (job.state == "RUNNING" and job.base):
            list_ = ListObjects(storage_job_id=job_id + BASE_SUFFIX)
            self.expect(list_, ResourceNotFoundException)
            return
        error = self.touch(job) if job.state in OPEN else ResourceNotFoundException
        if error is not None:
            error = ThrottlingException if error is ThrottlingException else ResourceNotFoundException
            self.expect(ListObjects(storage_job_id=job_id), error)
            return
        if self.now_ms - job.active_ms > MINUTE_MS:
            job.active_ms = self.now_ms
        self.assert_view(job_id + BASE_SUFFIX * base, job.base_view if base else job.view)

    # --- recovery points and restores -----------------------------------------------------------------------------

    @precondition(lambda self: self.points)
    @rule(place=PLACES)
    def start_restore(self, place):
        point = self.pick(place, self.model_points, self.points)
        error = None if point in self.model_points else ResourceNotFoundException
        started = self.expect(StartRestoreJob(recovery_point_arn=point, metadata={}), error)
        if started is not None:
            self.model_restores[started.restore_job_id] = (point, self.now_ms)
            self.restores.append(started.restore_job_id)

    @precondition(lambda self: self.restores)
    @rule(place=PLACES)
    def read_restore(self, place):
        """Read an open restore job: the unchanged content of its point."""
        restore = self.pick(place, self.model_restores, self.restores)
        if restore not in self.model_restores:
            self.expect(ListObjects(storage_job_id=restore), ResourceNotFoundException)
            return
        point, active_ms = self.model_restores[restore]
        self.assert_view(restore, self.model_points[point][1])
        pending = self.now_ms - active_ms > MINUTE_MS
        self.model_restores[restore] = (point, self.now_ms if pending else active_ms)

    @precondition(lambda self: self.restores)
    @rule(place=PLACES)
    def end_restore(self, place):
        restore = self.pick(place, self.model_restores, self.restores)
        error = None if restore in self.model_restores else JobStateConflictException
        message = new_resource()
        operation = CompleteRestoreJob(restore_job_id=restore, status="COMPLETED", status_message=message)
        self.expect(operation, error)
        self.model_restores.pop(restore, None)

    @precondition(lambda self: self.points)
    @rule(place=PLACES)
    def delete_point(self, place):
        """Delete a point. Refused while a job or a restore needs it."""
        point = self.pick(place, self.model_points, self.points)
        error = None
        if point not in self.model_points:
            error = ResourceNotFoundException
        elif self.pinned(point):
            error = InvalidResourceStateException
        operation = DeleteRecoveryPoint(backup_vault_name="Default", recovery_point_arn=point)
        if self.expect(operation, error) is not None:
            del self.model_points[point]

    # --- time and restarts ----------------------------------------------------------------------------------------

    @rule(duration_ms=DURATIONS_MS)
    def time_passes(self, duration_ms):
        """Windows close, idle jobs fail, idle restores end: at the next round of background tasks, not earlier."""
        self.store.clock.advance(duration_ms)
        self.store.maintain()
        for job_id, job in self.model_jobs.items():
            window_ms = COMPLETE_WINDOW_MS if job.state == "RUNNING" else START_WINDOW_MS
            if job.state in OPEN and self.now_ms > job.started_ms + window_ms:
                self.end(job_id, "EXPIRED")
            elif job.state == "RUNNING" and self.now_ms - job.active_ms > HOUR_MS:
                self.end(job_id, "FAILED")
        for restore, (_, active_ms) in list(self.model_restores.items()):
            if self.now_ms - active_ms > DAY_MS:
                del self.model_restores[restore]

    @rule(duration_ms=st.sampled_from([1, MINUTE_MS, 2 * HOUR_MS, DAY_MS]))
    def the_clock_is_set_back(self, duration_ms):
        """Windows and leases last longer; nothing else changes, because no order depends on times."""
        self.store.clock.advance(-duration_ms)
        self.set_back_ms += duration_ms

    @rule()
    def restart(self):
        self.store.reopen()

    @rule()
    def crash(self):
        """Kill the processes. Only writes that reached the operating system are on the disk."""
        self.store.crash()

    @precondition(lambda self: self.model_points)
    @rule()
    def lose_the_catalog(self):
        """Rebuild the catalog from the blobs: every point is unchanged, and open jobs are gone."""
        outcome = self.store.rebuild()
        assert (outcome.losses, outcome.recovery_points) == ([], len(self.model_points))
        kept = {self.point_of(job_id) for job_id in self.model_jobs}
        self.model_jobs = {
            job_id: job for job_id, job in self.model_jobs.items() if self.point_of(job_id) in self.model_points
        }
        assert kept >= set(self.model_points)
        self.model_uploads.clear()
        self.model_restores.clear()
        self.uploads.clear()
        self.restores.clear()

    def point_of(self, job_id):
        """Return the point of a job, or None if the store does not know the job."""
        try:
            job = self.api.job(job_id)
        except ResourceNotFoundException:
            return None
        return job.recovery_point_arn

    @rule()
    def scrub(self):
        """Scrub: at any moment, all stored data is sound."""
        outcome = ScrubResult()
        for _ in scrub(self.store.service.context, outcome):
            pass
        assert outcome.is_clean

    @rule(place=PLACES)
    def rotate_keys(self, place):
        """Rotate the master key or the data key of the vault. Nothing visible changes."""
        context = self.store.service.context
        if place % 2:
            rotate_vault_key(context, "Default")
        else:
            rotated = RotationResult()
            for _ in rotate_master_key(context, rotated):
                pass
            assert not rotated.unreadable

    @rule(quarantine_ms=st.sampled_from([0, 20 * MINUTE_MS, HOUR_MS]))
    def collect_garbage(self, quarantine_ms):
        """Collect garbage with any quarantine, at any moment. Everything that is referenced stays."""
        collect_all(self.store.service.context, quarantine_ms=quarantine_ms)

    @rule()
    def background_tasks(self):
        """Run the background tasks. They change nothing visible, at any moment."""
        self.store.maintain()

    @invariant()
    def states_match_the_model(self):
        """Every open job has the state of the model, in which at most one job of a resource runs."""
        for job_id, job in getattr(self, "model_jobs", {}).items():
            if job.state in OPEN:
                assert self.api.job(job_id).state == job.state

    def teardown(self):
        """Check every point byte for byte and every reference; then delete all points, after which nothing is left."""
        if not hasattr(self, "store"):
            return
        try:
            self.check_everything()
        finally:
            self.store.service.close()
            self.directory.cleanup()

    def check_everything(self):
        for job_id, job in self.model_jobs.items():
            assert self.api.job(job_id).state == job.state
        self.store.reopen()
        self.store.maintain()
        assert problems(self.store.data_dir) == []
        for arn, (_, view) in self.model_points.items():
            restore = self.api.restore(arn)
            self.assert_view(restore, view)
            self.api.end_restore(restore)
        for job_id, job in self.model_jobs.items():
            if job.state in OPEN:
                self.api.stop(job_id)
        for restore in self.model_restores:
            self.api.end_restore(restore)
        for arn in list(self.model_points)[::2] + list(self.model_points)[1::2]:
            self.api.delete_point(arn)
        self.store.maintain()
        self.store.clock.advance(self.set_back_ms)  # time for chunks that were condemned before the clock was set back
        for _ in range(ROUNDS_TO_COLLECT_ALL):
            collect_all(self.store.service.context, quarantine_ms=0)
        assert self.rows_left() == {}
        assert len(self.store.packs()) <= 1, "the open one"

    def rows_left(self):
        tables = ("object", "chunk_list", "lineage", "upload", "upload_chunk", "recovery_point", "chunk")
        counts = self.store.service.context.database.read(
            lambda transaction: {table: transaction.row(f"SELECT count(*) FROM {table}")[0] for table in tables}
        )
        return {table: count for table, count in counts.items() if count}


TestJobsMachine = JobsMachine.TestCase
TestJobsMachine.settings = settings(max_examples=2 * settings.default.max_examples, stateful_step_count=50)


class JobsMachineOnServices(JobsMachine):
    """The machine on PostgreSQL and S3."""

    def new_store(self, folder):
        self.opened = ExitStack()
        return self.opened.enter_context(opened_shared(folder, ON_SERVICES, settings=SETTINGS))

    def teardown(self):
        if hasattr(self, "store"):
            with self.opened:
                super().teardown()


TestJobsMachineOnServices = on_services(JobsMachineOnServices)
