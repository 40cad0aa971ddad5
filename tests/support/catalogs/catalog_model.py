"""A model of the catalog's jobs, points and lineages: the expected state in dicts, beside a real catalog.

`CatalogModel` runs an operation with the real handlers, applies it to its dicts, and compares. Rows are
removed a few per transaction, and no further than a step allows, so that a test, or a state machine,
can produce every interleaving.
"""

from __future__ import annotations

import dataclasses
import hashlib
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from unittest import mock

import pytest

from cryostore.catalog.rows import chunk_lists, lineages, objects, vaults
from cryostore.catalog.rows import jobs as job_rows
from cryostore.catalog.rows import recovery_points as point_rows
from cryostore.catalog.rows.chunk_lists import ChunkEntry
from cryostore.catalog.rows.objects import ObjectContent
from cryostore.chunks.blobs.memory import MemoryBlobs
from cryostore.chunks.records import Records
from cryostore.chunks.store import ChunkStore
from cryostore.core.digest import sha256
from cryostore.core.ids import counting_ids
from cryostore.core.limits import Limits
from cryostore.core.time import HOUR_MS, MINUTE_MS, FrozenClock
from cryostore.maintenance.background_tasks import STORE_TASKS
from cryostore.maintenance.rebuild.run import Rebuild, RebuildResult
from cryostore.model.errors import (
    IllegalArgumentException,
    InvalidRequestException,
    InvalidResourceStateException,
    JobStateConflictException,
    ThrottlingException,
)
from cryostore.model.jobs import CommitBackupJob, StartBackupJob, StopBackupJob
from cryostore.model.recovery_points import DeleteRecoveryPoint
from cryostore.model.restore_jobs import CompleteRestoreJob, StartRestoreJob
from cryostore.service import Caller, Context, Settings
from cryostore.service import lineages as service_lineages
from cryostore.service.arns import Arns
from cryostore.service.operations import recovery_points, restore_jobs
from cryostore.service.operations.jobs import commit, start
from cryostore.service.operations.jobs.lookup import require_still_running
from cryostore.service.recording import mark_vault_changed, write_due_records
from cryostore.service.tokens import Tokens
from cryostore.service.vault_keys import VaultKeys
from support.catalogs.memory_database import MemoryDatabase
from support.stores.memory_keyring import MemoryKeyring

ROOT = Caller("AKIAROOT", root=True)
ROLE = "arn:aws:iam::000000000000:role/backup-agent"
VAULT = "Default"
RESOURCES = ["arn:aws:ec2:x:0:volume/a", "arn:aws:ec2:x:0:volume/b"]
NAMES = [b"a", b"a\x7f", b"a/", b"aa", b"b", "é".encode(), "\U0010ffff".encode(), b"\xff", b"\xff\xff"]
OPEN = ("CREATED", "PENDING", "RUNNING", "ABORTING")


def catalog_context(database=None, clock=None, blobs=None):
    """Return a context for handlers that only use the catalog: an empty chunk store and one vault."""
    database = database or MemoryDatabase()
    keyring = MemoryKeyring()
    context = Context(
        database=database,
        store=ChunkStore(MemoryBlobs(), counting_ids()),
        records=Records(blobs or MemoryBlobs(), keyring),
        keys=VaultKeys(database, keyring),
        tokens=Tokens(b"secret"),
        arns=Arns(Settings()),
        clock=clock or FrozenClock(),
        new_id=counting_ids(),
        limits=Limits(),
        settings=Settings(),
    )

    def work(transaction):
        vault = vaults.insert(
            transaction, name=VAULT, creator_request_id=None, encryption_key_arn=None, tags="{}", created_ms=0
        )
        context.keys.create(transaction, vault.vault_id, bytes(16), now_ms=0)
        mark_vault_changed(transaction, vault.vault_id)

    context.database.write(work)
    write_due_records(context)
    return context


@dataclass(frozen=True)
class Thing:
    """An object."""

    summary: bytes
    length: int
    created_ms: int
    parts: int


@dataclass(eq=False)
class Job:
    """A backup job. `base` is a Point once the base is fixed, or from the start if it was named."""

    job_id: str
    resource: str
    selection: str
    start_by_ms: int
    base: Point | None = None
    state: str = "CREATED"
    view: dict = field(default_factory=dict)

    @property
    def ended(self):
        return self.state not in OPEN


@dataclass(eq=False)
class Point:
    """A recovery point, or one that is being deleted."""

    point_id: str
    resource: str
    view: dict
    deleting: bool = False
    restores: list = field(default_factory=list)


def checksum(view):
    """Return the ObjectsChecksum of CommitBackupJob over a view of the model."""
    return hashlib.sha256(b"".join(name + b"\0" + view[name].summary for name in sorted(view))).hexdigest()


def content(transaction, thing, list_id):
    """Return an object as the catalog stores it. The chunk list of one with several parts has rows of its own."""
    if thing.parts:
        entries = [ChunkEntry(part * 10, 1, bytes(32), 0) for part in range(thing.parts)]
        rows = [(part, entry.chunk_index, chunk_lists.pack([entry])) for part, entry in enumerate(entries)]
        chunk_lists.insert_parts(transaction, list_id, rows)
    return ObjectContent(
        created_ms=thing.created_ms,
        length=thing.length,
        chunk_count=thing.parts,
        summary=thing.summary,
        summary_form=0,
        chunk_list_id=list_id if thing.parts else None,
    )


def scanned(transaction, segment, *, start=b"", limit=3, **arguments):
    """Read a view of the catalog page by page; return (name, summary, length) of each object."""
    view = lineages.view(transaction, segment)
    arguments = {"prefix": b""} | arguments
    found = []
    while True:
        page = objects.page(transaction, view, start=start, limit=limit, **arguments)
        assert len(page) <= limit
        found += [(row.name, row.summary, row.length) for row in page]
        if len(page) < limit:
            return found
        start = page[-1].name + b"\0"


def expected(view, *, start=b"", prefix=b"", created_from_ms=None, created_to_ms=None):
    """Like `scanned`, for a view of the model."""
    first = created_from_ms if created_from_ms is not None else 0
    end = created_to_ms if created_to_ms is not None else 2**63
    return [
        (name, thing.summary, thing.length)
        for name, thing in sorted(view.items())
        if name >= start and name.startswith(prefix) and first <= thing.created_ms < end
    ]


class CatalogModel:
    """The model, and the catalog in `database` that it is compared with. Closing it deletes everything.

    Requests take nothing away by themselves: that is for `clean`, `forget`, `settle` and `maintain`.
    """

    def __init__(self, *, batch_rows=1, database=None, blobs=None):
        self.context = catalog_context(database, blobs=blobs)
        self.database, self.clock = self.context.database, self.context.clock
        self.jobs, self.points, self.number = {}, {}, 0
        self._patches = ExitStack()
        for module, name, value in [
            (service_lineages, "BATCH_ROWS", batch_rows),
            (service_lineages, "BATCHES_BEFORE_START", 2),
            (commit, "ROLL_BACK_BATCHES_MAX", 0),
            (recovery_points, "DELETE_BATCHES_MAX", 0),
        ]:
            self._patches.enter_context(mock.patch.object(module, name, value))

    def close(self):
        """See `everything_can_be_deleted_without_a_leak`."""
        with self._patches:
            self.everything_can_be_deleted_without_a_leak()
        self.database.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.close()
        else:
            self._patches.close()
            self.database.close()

    # --- the model

    def open_jobs(self, *states):
        return [job for job in self.jobs.values() if job.state in (states or OPEN)]

    def live(self):
        return [point for point in self.points.values() if not point.deleting]

    def latest(self, resource):
        return next((point for point in reversed(self.live()) if point.resource == resource), None)

    def blocked(self, job):
        return any(other.resource == job.resource for other in self.open_jobs("RUNNING", "ABORTING") if other != job)

    # --- the catalog

    def row(self, job):
        return self.database.read(lambda t: job_rows.find(t, job.job_id))

    def point_row(self, point):
        return self.database.read(lambda t: point_rows.find(t, point.point_id))

    def dirty(self):
        return self.database.read(lambda t: lineages.dirty(t, 100))

    def deleting(self):
        return self.database.read(lambda t: point_rows.deleting(t, 100))

    def retired(self):
        return self.database.read(lineages.first_retired)

    # --- jobs

    def start(self, resource=RESOURCES[0], base="latest"):
        """Open a job on `base`: latest, none, or a point."""
        named = base if isinstance(base, Point) else None
        self.clock.advance(1)
        options = {"IncrementalBase": named.point_id if named else base}
        request = StartBackupJob(
            backup_vault_name=VAULT, resource_arn=resource, iam_role_arn=ROLE, backup_options=options
        )
        job_id = start.start_backup_job(self.context, request, ROOT).backup_job_id
        start_by_ms = self.clock() + 480 * MINUTE_MS
        self.jobs[job_id] = job = Job(job_id, resource, "named" if named else base, start_by_ms, base=named)
        return job

    def touch(self, job):
        """Make the first request: the job runs on its base, or waits until another one of its resource has ended."""
        bound = None
        for _ in range(100):
            try:
                bound = service_lineages.start_job(self.context, self.row(job))
                break
            except ThrottlingException:
                if self.blocked(job):
                    break
        if job.start_by_ms < self.clock():
            assert bound.state == self.row(job).state == "EXPIRED"
            job.state = "EXPIRED"
        elif self.blocked(job):
            assert bound is None
            assert self.row(job).state == "PENDING"
            job.state = "PENDING"
        else:
            job.state = "RUNNING"
            job.base = self.latest(job.resource) if job.selection == "latest" else job.base
            job.view = dict(job.base.view) if job.base else {}
            assert bound.state == "RUNNING"
            assert bound.base_point_id == (job.base.point_id if job.base else None)
        return job

    def run(self, resource=RESOURCES[0], base="latest"):
        """Start a job and let it run."""
        return self.touch(self.start(resource, base))

    def change(self, job, changes):
        """Put and remove names. A change has the length of the object, or None to remove it, and the parts of its list.

        Removing returns whether the name was in the view.
        """
        row = self.row(job)
        for name, length, parts in changes:
            self.number += 1
            self.clock.advance(1)
            if length is None:
                removed = self.database.write(lambda t, name=name: self._remove(t, row, name))
                assert removed == (job.view.pop(name, None) is not None)
            else:
                thing = Thing(sha256(b"%d" % self.number), length, self.clock(), parts)
                self.database.write(lambda t, name=name, thing=thing: self._put(t, row, name, thing))
                job.view[name] = thing
        return job

    def _put(self, transaction, row, name, thing):
        require_still_running(self.context, transaction, row, changes=1)
        objects.put(transaction, row.segment, name, content(transaction, thing, self.number))

    def _remove(self, transaction, row, name):
        require_still_running(self.context, transaction, row, changes=1)
        return objects.remove(transaction, lineages.view(transaction, row.segment), name, now_ms=self.clock())

    def put(self, job, *names, length=1, parts=0):
        return self.change(job, [(name, length, parts) for name in names])

    def remove(self, job, *names):
        return self.change(job, [(name, None, 0) for name in names])

    def commit(self, job, *, checked=True):
        """Check that totals computed from the job's changes are those of the complete view."""
        request = CommitBackupJob(
            backup_job_id=job.job_id,
            object_count=len(job.view),
            objects_checksum=checksum(job.view) if checked else None,
        )
        if not job.view and job.base is None:
            with pytest.raises(IllegalArgumentException):
                commit.commit_backup_job(self.context, request, ROOT)
            return None
        done = commit.commit_backup_job(self.context, request, ROOT)
        assert done == commit.commit_backup_job(self.context, request, ROOT)
        size = sum(thing.length for thing in job.view.values())
        assert (done.state, done.backup_size_in_bytes) == ("COMPLETED", size)
        job.state = "COMPLETED"
        point = Point(self.context.arns.point_id(done.recovery_point_arn), job.resource, dict(job.view))
        row = self.point_row(point)
        assert (row.status, row.object_count, row.size_bytes) == ("COMPLETED", len(job.view), size)
        self.points[point.point_id] = point
        return point

    def end(self, job, how="give up"):
        """End a job without a point. `how` is `stop` or `give up`."""
        if how == "stop":
            commit.stop_backup_job(self.context, StopBackupJob(backup_job_id=job.job_id), ROOT)
            job.state = "ABORTING" if job.state in {"RUNNING", "ABORTING"} else "ABORTED"
            self.see_aborted()
            return
        request = CommitBackupJob(backup_job_id=job.job_id, outcome="FAILED")
        if job.state == "ABORTING":
            with pytest.raises(JobStateConflictException):
                commit.commit_backup_job(self.context, request, ROOT)
        else:
            assert commit.commit_backup_job(self.context, request, ROOT).state == "FAILED"
            job.state = "FAILED"

    def see_aborted(self):
        """Remove rows of a job that is being stopped. The job ends when no row is left."""
        for job in self.open_jobs("ABORTING"):
            job.state = self.row(job).state
            assert job.state in {"ABORTING", "ABORTED"}

    def stays_ended(self, job):
        """Check that an ended job takes no writes, and can be neither stopped nor committed differently."""
        assert self.row(job).state == job.state
        touched = self.database.write(lambda t: job_rows.touch(t, job.job_id, bytes_transferred=0, now_ms=self.clock()))
        assert not touched
        with pytest.raises(JobStateConflictException):
            commit.commit_backup_job(self.context, CommitBackupJob(backup_job_id=job.job_id, issue_count=7), ROOT)
        if job.state != "ABORTED":
            with pytest.raises(InvalidRequestException):
                commit.stop_backup_job(self.context, StopBackupJob(backup_job_id=job.job_id), ROOT)

    # --- points

    def delete(self, point):
        """Delete a point. Refused if it is the base of a job, or is read by one."""
        arn = self.context.arns.point(point.point_id)
        request = DeleteRecoveryPoint(backup_vault_name=VAULT, recovery_point_arn=arn)
        if point.restores or any(job.base is point for job in self.open_jobs()):
            with pytest.raises(InvalidResourceStateException):
                recovery_points.delete_recovery_point(self.context, request, ROOT)
        else:
            recovery_points.delete_recovery_point(self.context, request, ROOT)
            point.deleting = True

    def restore(self, point):
        """Start to read a point, or end a read."""
        if point.restores:
            done = CompleteRestoreJob(restore_job_id=point.restores.pop(), status="COMPLETED")
            restore_jobs.complete_restore_job(self.context, done, ROOT)
        else:
            request = StartRestoreJob(recovery_point_arn=self.context.arns.point(point.point_id), metadata={})
            point.restores.append(restore_jobs.start_restore_job(self.context, request, ROOT).restore_job_id)

    # --- background tasks

    def clean(self, segment, batches):
        done = service_lineages.roll_back_job(self.context, segment, batches_max=batches)
        self.see_aborted()
        return done

    def forget(self, point_row, batches):
        done = service_lineages.delete_point(self.context, point_row, batches_max=batches)
        self.see_forgotten()
        return done

    def settle(self, batches):
        return service_lineages.remove_unneeded_lineages(self.context, batches_max=batches)

    def see_forgotten(self):
        gone = [point.point_id for point in self.points.values() if point.deleting and self.point_row(point) is None]
        for point_id in gone:
            del self.points[point_id]

    def maintain(self, hours=0):
        """Run the background tasks after some hours: only jobs without a heartbeat end."""
        self.clock.advance(hours * HOUR_MS)
        for duty in STORE_TASKS:
            duty(self.context)
        for job in self.open_jobs():
            if job.state == "RUNNING" and hours:
                job.state = "FAILED"
            elif job.state in {"CREATED", "PENDING"} and job.start_by_ms < self.clock():
                job.state = "EXPIRED"
            elif job.state == "ABORTING":
                job.state = "ABORTED"
            assert self.row(job).state == job.state
        for point in self.live():
            point.restores = [restore for restore in point.restores if self._restoring(restore)]
        self.see_forgotten()
        assert not any(point.deleting for point in self.points.values())
        self.nothing_is_kept_for_nobody()
        self.no_record_is_kept_for_nobody()

    def _restoring(self, job_id):
        row = self.database.read(lambda t: restore_jobs.find_restore_job(t, job_id))
        return row.completed_ms is None

    def lose_the_catalog(self):
        """Rebuild the catalog from the blobs: points are unchanged, open jobs are gone."""
        database = MemoryDatabase()
        outcome = self._rebuild_into(database)
        self.database.close()
        self.database = database
        self.context = dataclasses.replace(
            self.context, database=database, keys=VaultKeys(database, self.context.records._keyring)
        )
        self.jobs = {job_id: job for job_id, job in self.jobs.items() if self.row(job) is not None}
        assert all(job.state == "COMPLETED" for job in self.jobs.values())
        self.points = {point.point_id: point for point in self.live()}
        for point in self.points.values():
            point.restores.clear()
        assert (outcome.losses, outcome.recovery_points) == ([], len(self.points))
        assert sorted(self.database.read(lambda t: t.rows("SELECT point_id FROM recovery_point"))) == sorted(
            (point_id,) for point_id in self.points
        )
        assert {self.point_row(point).job_id for point in self.points.values()} == set(self.jobs)
        self.check()
        self.nothing_is_kept_for_nobody()

    def _rebuild_into(self, database):
        records, outcome = self.context.records, RebuildResult()
        for _ in Rebuild(database, records._blobs, records._keyring, outcome, now_ms=self.clock()).run():
            pass
        return outcome

    # --- invariants

    def the_records_describe_the_points(self, database=None):
        """Check that a catalog from the records has each live point, object by object, and nothing else."""
        with closing(database or MemoryDatabase()) as made:
            outcome = self._rebuild_into(made)
            live = {point.point_id: point for point in self.live()}
            found = made.read(lambda t: t.rows("SELECT point_id, status, lineage_id, generation FROM recovery_point"))
            assert outcome.losses == []
            assert {row[0]: row[1] for row in found} == dict.fromkeys(live, "COMPLETED")
            for point_id, _, *segment in found:
                made.read(partial(self._sees, segment=lineages.Segment(*segment), view=live[point_id].view))

    def no_record_is_kept_for_nobody(self):
        """Check that every record belongs to a visible generation and refers to the nearest visible one below it."""
        rows = self.database.read(
            lambda t: t.rows(
                "SELECT number, generation, previous, recorded = changes FROM record WHERE noun = 'commit'"
            )
        )
        for lineage_id, generation, previous, recorded in rows:
            seen = self.database.read(lambda t, lineage_id=lineage_id: lineages.seen(t, lineage_id))
            assert generation in seen
            assert previous == max((other for other in seen if other < generation), default=0)
            assert recorded
        names = {name[1:3] for name in self.context.records.names("commit")}
        assert names == {(lineage_id, generation) for lineage_id, generation, *_ in rows}

    def check(self):
        """Check all invariants."""
        self.every_live_point_is_whole()
        self.every_running_job_sees_its_base_and_its_changes()
        self.versions_of_a_name_never_overlap()

    def every_live_point_is_whole(self):
        """A recovery point has exactly the objects of its job at the commit, whatever was deleted since."""
        for point in self.live():
            self.sees(self.point_row(point).segment, point.view)

    def every_running_job_sees_its_base_and_its_changes(self):
        """A job's view is that of its base with the job's own changes, whatever other jobs and deletions do."""
        for job in self.open_jobs("RUNNING"):
            self.sees(self.row(job).segment, job.view)

    def sees(self, segment, view):
        """Check that a view, read by page and by name, is that of the model, and that each object is complete."""
        self.database.read(lambda t: self._sees(t, segment, view))

    @staticmethod
    def _sees(transaction, segment, view):
        assert scanned(transaction, segment) == expected(view)
        segments = lineages.view(transaction, segment)
        for name in {*NAMES, *view}:
            row, thing = objects.find(transaction, segments, name), view.get(name)
            assert (row and (row.summary, row.length)) == (thing and (thing.summary, thing.length))
            if thing is not None and thing.parts:
                parts = list(chunk_lists.parts_from(transaction, row.chunk_list_id, 0))
                assert len(parts) == thing.parts

    def versions_of_a_name_never_overlap(self):
        """No generation sees two versions of one name in its own lineage."""
        overlaps = self.database.read(
            lambda t: t.rows(
                "SELECT one.object_id, other.object_id FROM object AS one JOIN object AS other"
                " ON one.lineage_id = other.lineage_id AND one.name = other.name AND one.object_id <> other.object_id"
                " WHERE one.from_generation < other.to_generation AND other.from_generation < one.to_generation"
            )
        )
        assert overlaps == []

    def nothing_is_kept_for_nobody(self):
        """After maintenance, every object version is in the view of a point, a running job or another lineage."""
        unseen = self.database.read(
            lambda t: t.rows(
                "SELECT * FROM object WHERE NOT EXISTS (SELECT 1 FROM ("
                " SELECT lineage_id, generation FROM recovery_point WHERE lineage_id IS NOT NULL"
                " UNION ALL SELECT lineage_id, generation FROM backup_job"
                " WHERE completed_ms IS NULL AND lineage_id IS NOT NULL"
                " UNION ALL SELECT parent_lineage_id, parent_generation FROM lineage) AS seen"
                " WHERE seen.lineage_id = object.lineage_id AND from_generation <= generation"
                " AND to_generation > generation)"
            )
        )
        assert unseen == []

    def everything_can_be_deleted_without_a_leak(self):
        """After every job has ended, every point is deleted and maintenance has run, nothing is left."""
        for job in self.open_jobs():
            self.end(job, "stop")
        self.maintain()
        for point in self.live():
            while point.restores:
                self.restore(point)
            self.delete(point)
        self.maintain()
        for table in ("object", "chunk_list", "lineage", "recovery_point", "upload", "upload_chunk"):
            assert self.database.read(lambda t, table=table: t.rows(f"SELECT * FROM {table}")) == [], table
