"""Lineages, generations and their cleaning against a dict of dicts, in any order of jobs, failures and deletions.

What is driven: the service's handlers of jobs, points and restores and the catalog's object functions. What is taken away
goes by one to three rows a transaction, and only as far as a step says, so that every interleaving can happen.
"""

from __future__ import annotations

from contextlib import ExitStack
from unittest import mock

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cryostore.catalog import jobs as job_rows, lineages, objects, recovery_points as point_rows, vaults
from cryostore.core.time import HOUR_MS, MINUTE_MS
from cryostore.maintenance.duties import DUTIES
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
from cryostore.service import commits, jobs, recovery_points, restore_jobs
from cryostore.service import lineages as service_lineages
from cryostore.service.storing import fence
from support.catalog_model import ROLE, ROOT, VAULT, Job, Point, catalog_context, checksum, content, expected, scanned
from support.catalog_model import thing_of

RESOURCES = ["arn:aws:ec2:x:0:volume/a", "arn:aws:ec2:x:0:volume/b"]
NAMES = [b"a", b"a\x7f", b"a/", b"aa", b"b", "é".encode(), "\U0010ffff".encode(), b"\xff", b"\xff\xff"]
BYTES = st.sampled_from([b"", *NAMES, b"a\x00", b"zz", b"\xff\xff\xff"])
BATCHES = st.integers(0, 3)
CHANGES = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([0, 3, 5, None]), st.sampled_from([0, 0, 0, 1, 4])),
                   min_size=1, max_size=6)  # fmt: skip
"""What a job does to names: the length of an object to put, or None to remove it; and the parts of its chunk list."""
JOBS_MAX, POINTS_MAX = 5, 8


class LineagesMachine(RuleBasedStateMachine):
    """The model is what every live point and every running job sees."""

    @initialize(batch_rows=st.integers(1, 3), history=st.lists(CHANGES, max_size=4))
    def begin(self, batch_rows, history):
        """Some backups of one resource stand already."""
        self.patches = ExitStack()
        for module, name, value in [
            (service_lineages, "BATCH_ROWS", batch_rows),
            (service_lineages, "BATCHES_BEFORE_START", 2),
            (jobs, "CLEAN_BATCHES_MAX", 0),
            (commits, "CLEAN_BATCHES_MAX", 0),
            (recovery_points, "FORGET_BATCHES_MAX", 0),
        ]:
            self.patches.enter_context(mock.patch.object(module, name, value))
        self.context = catalog_context()
        self.database, self.clock = self.context.database, self.context.clock
        self.database.write(
            lambda transaction: vaults.insert(
                transaction, name=VAULT, creator_request_id=None, encryption_key_arn=None, tags="{}", created_ms=0
            )
        )
        self.jobs, self.points, self.number = {}, {}, 0
        for changes in history:
            self.back_up(RESOURCES[0], "latest", changes)

    def teardown(self):
        if hasattr(self, "patches"):
            self.everything_can_be_deleted_without_a_leak()
            self.patches.close()
            self.database.close()

    # --- the model's questions

    def open_jobs(self, *states):
        return [job for job in self.jobs.values() if (job.state in states if states else not job.ended)]

    def live(self):
        return [point for point in self.points.values() if not point.deleting]

    def latest(self, resource):
        return next((point for point in reversed(self.live()) if point.resource == resource), None)

    def blocked(self, job):
        return any(other.resource == job.resource for other in self.open_jobs("RUNNING", "ABORTING") if other != job)

    def row(self, job):
        return self.database.read(lambda transaction: job_rows.find(transaction, job.job_id))

    # --- jobs

    @precondition(lambda self: len(self.open_jobs()) < JOBS_MAX and len(self.points) < POINTS_MAX)
    @rule(data=st.data(), resource=st.sampled_from(RESOURCES), at_once=st.booleans())
    def start(self, data, resource, at_once):
        """A job waits for its first touch, which may come at once."""
        job = self.new_job(resource, data.draw(st.sampled_from(["latest", "none", *self.live()])))
        if at_once:
            self.touch_job(job)

    @precondition(lambda self: len(self.points) < POINTS_MAX)
    @rule(data=st.data(), resource=st.sampled_from(RESOURCES), changes=CHANGES, how=st.integers(0, 3))
    def whole_job(self, data, resource, changes, how):
        """A job from beginning to end, whatever the end, unless another job runs."""
        if not any(job.resource == resource for job in self.open_jobs("RUNNING", "ABORTING")):
            base = data.draw(st.sampled_from(["latest", *self.live()]))
            self.back_up(resource, base, changes, how)

    def back_up(self, resource, base, changes, how=0):
        job = self.new_job(resource, base)
        self.touch_job(job)
        self.change_job(job, changes)
        if how < 2 and (job.view or job.base):
            self.commit_job(job, checked=how == 0)
        else:
            self.end_job(job, "stop" if how == 2 else "give up")

    def new_job(self, resource, base):
        named = base if isinstance(base, Point) else None
        self.clock.advance(1)
        answer = jobs.start_backup_job(
            self.context,
            StartBackupJob(
                backup_vault_name=VAULT, resource_arn=resource, iam_role_arn=ROLE,
                backup_options={"IncrementalBase": named.point_id if named else base},
            ),
            ROOT,
        )  # fmt: skip
        job_id = answer.backup_job_id
        start_by_ms = self.clock() + 480 * MINUTE_MS
        self.jobs[job_id] = Job(job_id, resource, "named" if named else base, start_by_ms, base=named)
        return self.jobs[job_id]

    @precondition(lambda self: self.open_jobs("CREATED", "PENDING"))
    @rule(data=st.data())
    def touch(self, data):
        self.touch_job(data.draw(st.sampled_from(self.open_jobs("CREATED", "PENDING"))))

    def touch_job(self, job):
        """First touch: the job runs on its base, or waits while another of its resource has not ended."""
        bound = None
        for _ in range(100):
            try:
                bound = service_lineages.bind(self.context, self.row(job))
                break
            except ThrottlingException:
                if self.blocked(job):
                    break
        if job.start_by_ms < self.clock():
            assert bound.state == "EXPIRED"
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

    @precondition(lambda self: self.open_jobs("RUNNING"))
    @rule(data=st.data(), changes=CHANGES)
    def change(self, data, changes):
        self.change_job(data.draw(st.sampled_from(self.open_jobs("RUNNING"))), changes)

    def change_job(self, job, changes):
        """Removing answers whether the name was in the view."""
        row = self.row(job)
        for name, length, parts in changes:
            self.number += 1
            self.clock.advance(1)
            thing = None if length is None else thing_of(self.number, length, self.clock(), parts)

            def work(transaction, name=name, thing=thing):
                fence(self.context, transaction, row, changes=1)
                if thing is not None:
                    return objects.put(transaction, row.segment, name, content(transaction, thing, self.number))
                return objects.remove(transaction, lineages.view(transaction, row.segment), name, now_ms=self.clock())

            answer = self.database.write(work)
            if thing is None:
                assert answer == (job.view.pop(name, None) is not None)
            else:
                job.view[name] = thing

    @precondition(lambda self: self.open_jobs("RUNNING"))
    @rule(data=st.data(), checked=st.booleans())
    def commit(self, data, checked):
        """The totals that a commit keeps, worked out from the job's changes alone, are those of the whole view."""
        self.commit_job(data.draw(st.sampled_from(self.open_jobs("RUNNING"))), checked=checked)

    def commit_job(self, job, *, checked):
        request = CommitBackupJob(
            backup_job_id=job.job_id,
            object_count=len(job.view),
            objects_checksum=checksum(job.view) if checked else None,
        )
        if not job.view and job.base is None:
            with pytest.raises(IllegalArgumentException):
                commits.commit_backup_job(self.context, request, ROOT)
            return
        done = commits.commit_backup_job(self.context, request, ROOT)
        assert done == commits.commit_backup_job(self.context, request, ROOT)
        size = sum(thing.length for thing in job.view.values())
        assert (done.state, done.backup_size_in_bytes) == ("COMPLETED", size)
        point_id = self.context.arns.point_id(done.recovery_point_arn)
        row = self.database.read(lambda transaction: point_rows.find(transaction, point_id))
        assert (row.status, row.object_count, row.size_bytes) == ("COMPLETED", len(job.view), size)
        job.state = "COMPLETED"
        self.points[point_id] = Point(point_id, job.resource, dict(job.view))

    @precondition(lambda self: self.open_jobs())
    @rule(data=st.data(), how=st.sampled_from(["stop", "give up"]))
    def end_without_a_point(self, data, how):
        self.end_job(data.draw(st.sampled_from(self.open_jobs())), how)

    def end_job(self, job, how):
        if how == "stop":
            jobs.stop_backup_job(self.context, StopBackupJob(backup_job_id=job.job_id), ROOT)
            job.state = "ABORTING" if job.state in {"RUNNING", "ABORTING"} else "ABORTED"
        elif job.state == "ABORTING":
            with pytest.raises(JobStateConflictException):
                commits.commit_backup_job(
                    self.context, CommitBackupJob(backup_job_id=job.job_id, outcome="FAILED"), ROOT
                )
        else:
            commits.commit_backup_job(self.context, CommitBackupJob(backup_job_id=job.job_id, outcome="FAILED"), ROOT)
            job.state = "FAILED"
        self.see_aborted()

    def see_aborted(self):
        """A job that is being stopped ends when its rows are gone."""
        for job in self.open_jobs("ABORTING"):
            job.state = self.row(job).state
            assert job.state in {"ABORTING", "ABORTED"}

    @precondition(lambda self: any(job.ended for job in self.jobs.values()))
    @rule(data=st.data())
    def ended_jobs_stay_ended(self, data):
        """Nothing is written to a job that has ended, and it can neither be stopped nor committed otherwise."""
        job = data.draw(st.sampled_from([job for job in self.jobs.values() if job.ended]))
        row = self.row(job)
        assert row.state == job.state
        assert not self.database.write(
            lambda transaction: job_rows.touch(transaction, job.job_id, bytes_transferred=0, now_ms=self.clock())
        )
        with pytest.raises(JobStateConflictException):
            commits.commit_backup_job(self.context, CommitBackupJob(backup_job_id=job.job_id, issue_count=7), ROOT)
        if job.state != "ABORTED":
            with pytest.raises(InvalidRequestException):
                jobs.stop_backup_job(self.context, StopBackupJob(backup_job_id=job.job_id), ROOT)

    # --- points

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def delete(self, data):
        """A point goes unless a job has it as its base, or reads it."""
        point = data.draw(st.sampled_from(self.live()))
        request = DeleteRecoveryPoint(
            backup_vault_name=VAULT, recovery_point_arn=self.context.arns.point(point.point_id)
        )
        if point.restores or any(job.base is point for job in self.open_jobs()):
            with pytest.raises(InvalidResourceStateException):
                recovery_points.delete_recovery_point(self.context, request, ROOT)
            return
        recovery_points.delete_recovery_point(self.context, request, ROOT)
        point.deleting = True

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def restore(self, data):
        point = data.draw(st.sampled_from(self.live()))
        if point.restores:
            done = CompleteRestoreJob(restore_job_id=point.restores.pop(), status="COMPLETED")
            restore_jobs.complete_restore_job(self.context, done, ROOT)
            return
        answer = restore_jobs.start_restore_job(
            self.context,
            StartRestoreJob(recovery_point_arn=self.context.arns.point(point.point_id), metadata={}),
            ROOT,
        )
        point.restores.append(answer.restore_job_id)

    # --- what happens with time, a little at a time

    def dirty(self):
        return self.database.read(lambda transaction: lineages.dirty(transaction, 100))

    def deleting(self):
        return self.database.read(lambda transaction: point_rows.deleting(transaction, 100))

    @precondition(lambda self: self.dirty())
    @rule(data=st.data(), batches=BATCHES)
    def clean_a_little(self, data, batches):
        service_lineages.clean(self.context, data.draw(st.sampled_from(self.dirty())), batches_max=batches)
        self.see_aborted()

    @precondition(lambda self: self.deleting())
    @rule(data=st.data(), batches=BATCHES)
    def forget_a_little(self, data, batches):
        service_lineages.forget(self.context, data.draw(st.sampled_from(self.deleting())), batches_max=batches)
        self.see_forgotten()

    def see_forgotten(self):
        for point in [point for point in self.points.values() if point.deleting]:
            point_id = point.point_id
            if self.database.read(lambda transaction, point_id=point_id: point_rows.find(transaction, point_id)) is None:
                del self.points[point_id]

    @precondition(lambda self: self.database.read(lineages.first_retired))
    @rule(batches=BATCHES)
    def settle_a_little(self, batches):
        service_lineages.settle(self.context, batches_max=batches)

    @rule(hours=st.sampled_from([0, 0, 2, 9]))
    def maintain(self, hours):
        """A round of duties ends who gave no sign of life, and nobody else."""
        if hours:
            self.clock.advance(hours * HOUR_MS)
        for duty in DUTIES:
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
            point.restores = [
                restore for restore in point.restores
                if self.database.read(lambda t, restore=restore: restore_jobs.find_restore_job(t, restore)).completed_ms
                is None
            ]  # fmt: skip
        self.see_forgotten()
        assert not any(point.deleting for point in self.points.values())
        self.nothing_is_kept_for_nobody()

    def nothing_is_kept_for_nobody(self):
        """Once a round is made, every object version is seen by a point, a running job or another lineage."""
        unseen = self.database.read(
            lambda transaction: transaction.rows(
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

    # --- what must always hold

    @rule(
        data=st.data(), start=BYTES, prefix=BYTES, limit=st.integers(1, 10), first=st.integers(0, 400),
        window=st.integers(0, 400), filters=st.integers(0, 3),
    )  # fmt: skip
    def pages_with_filters(self, data, start, prefix, limit, first, window, filters):
        """Prefix, start and times select from a view what they say, with any page size, in byte order."""
        seers = [(point.view, self.segment(point)) for point in self.live()]
        seers += [(job.view, self.row(job).segment) for job in self.open_jobs("RUNNING")]
        if not seers:
            return
        view, segment = data.draw(st.sampled_from(seers))
        arguments = {"start": start, "prefix": prefix}
        first += min((thing.created_ms for thing in view.values()), default=0)
        if filters & 1:
            arguments["created_from_ms"] = first
        if filters & 2:
            arguments["created_to_ms"] = first + window
        found = self.database.read(lambda transaction: scanned(transaction, segment, limit=limit, **arguments))
        assert found == expected(view, **arguments)

    def segment(self, point):
        return self.database.read(lambda transaction: point_rows.find(transaction, point.point_id)).segment

    @invariant()
    def every_live_point_is_whole(self):
        """A recovery point sees exactly the objects its job saw when it was committed, whatever was deleted since."""
        for point in self.live() if hasattr(self, "points") else []:
            self.sees(self.segment(point), point.view)

    @invariant()
    def every_running_job_sees_its_base_and_its_changes(self):
        """A job's view is its base's, as changed by the job, whatever other jobs and deletions do meanwhile."""
        for job in self.open_jobs("RUNNING") if hasattr(self, "jobs") else []:
            self.sees(self.row(job).segment, job.view)

    def sees(self, segment, view):
        def work(transaction):
            assert scanned(transaction, segment) == expected(view)
            segments = lineages.view(transaction, segment)
            for name in NAMES:
                row = objects.find(transaction, segments, name)
                thing = view.get(name)
                assert (row and (row.summary, row.length)) == (thing and (thing.summary, thing.length))
                if thing is not None and thing.parts:
                    parts = transaction.rows("SELECT part FROM chunk_list WHERE chunk_list_id = :i", i=row.chunk_list_id)
                    assert len(parts) == thing.parts

        self.database.read(work)

    @invariant()
    def versions_of_a_name_never_overlap(self):
        """No generation sees two versions of one name in its own lineage."""
        if not hasattr(self, "database"):
            return
        overlaps = self.database.read(
            lambda transaction: transaction.rows(
                "SELECT one.object_id, other.object_id FROM object AS one JOIN object AS other"
                " ON one.lineage_id = other.lineage_id AND one.name = other.name AND one.object_id <> other.object_id"
                " WHERE one.from_generation < other.to_generation AND other.from_generation < one.to_generation"
            )
        )
        assert overlaps == []

    def everything_can_be_deleted_without_a_leak(self):
        """Once every job has ended, every point is deleted and maintenance has come round, nothing is left."""
        for job in self.open_jobs():
            jobs.stop_backup_job(self.context, StopBackupJob(backup_job_id=job.job_id), ROOT)
        for duty in DUTIES:
            duty(self.context)
        for point in self.live():
            for restore in point.restores:
                done = CompleteRestoreJob(restore_job_id=restore, status="ABORTED")
                restore_jobs.complete_restore_job(self.context, done, ROOT)
            recovery_points.delete_recovery_point(
                self.context,
                DeleteRecoveryPoint(
                    backup_vault_name=VAULT, recovery_point_arn=self.context.arns.point(point.point_id)
                ),
                ROOT,
            )
        for duty in DUTIES:
            duty(self.context)
        for table in ("object", "chunk_list", "lineage", "recovery_point", "upload", "upload_chunk"):
            left = self.database.read(lambda transaction, table=table: transaction.rows(f"SELECT * FROM {table}"))
            assert left == [], table


TestLineages = LineagesMachine.TestCase
TestLineages.settings = settings(max_examples=max(200, settings.default.max_examples), stateful_step_count=40)
