"""Conformance tests of the operations on restore jobs (control plane 2.3 to 2.6, 3.2).

Reading with a restore job is in `api_storage_jobs`.
"""

from __future__ import annotations

import pytest

from cryostore.core.time import HOUR_MS, MINUTE_MS
from cryostore.model.errors import (
    IllegalArgumentException,
    InvalidParameterValueException,
    InvalidResourceStateException,
    JobStateConflictException,
    MissingParameterValueException,
    ResourceNotFoundException,
)
from cryostore.model.objects import ListObjects
from cryostore.model.recovery_points import DeleteRecoveryPoint
from cryostore.model.restore_jobs import CompleteRestoreJob, DescribeRestoreJob, ListRestoreJobs, StartRestoreJob
from support.requests.api import ROLE, new_resource

ABSENT = "00000000-0000-4000-8000-FFFFFFFFFFFF"
KIB = 1024


class RestoreJobTests:
    """Subclass, name it Test..., and give `api`: a support.requests.api.Api."""

    @pytest.fixture
    def point(self, api):
        return api.backup({"name": b"data"})

    def describe(self, api, job):
        return api.call(DescribeRestoreJob(restore_job_id=job))

    def test_a_new_job(self, api, point):
        job = api.restore(point, metadata={"target": "/somewhere"}, iam_role_arn=ROLE, resource_type="FileSet")
        found = self.describe(api, job)
        assert (found.restore_job_id, found.account_id, found.status) == (job, "000000000000", "PENDING")
        assert (found.recovery_point_arn, found.source_resource_arn) == (point, api.resource)
        assert (found.resource_type, found.iam_role_arn, found.percent_done) == ("FileSet", ROLE, "0.0")
        assert found.backup_size_in_bytes == 4
        assert found.backup_vault_arn.endswith(f":{api.vault}")
        assert found.recovery_point_creation_date == api.point(point).creation_date
        assert (found.completion_date, found.created_resource_arn, found.is_parent) == (None, None, False)

    def test_the_first_read_starts_it(self, api, point):
        job = api.restore(point)
        assert api.read(job) == {"name": b"data"}
        assert self.describe(api, job).status == "RUNNING"

    @pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "ABORTED"])
    def test_a_job_is_ended(self, api, point, status):
        job = api.restore(point)
        api.names(job)
        end = CompleteRestoreJob(
            restore_job_id=job,
            status=status,
            status_message="as asked",
            created_resource_arn="arn:x",
            bytes_restored=4,
        )
        ended = api.call(end)
        found = self.describe(api, job)
        assert (ended.restore_job_id, ended.status) == (job, status)
        assert ended.completion_date == found.completion_date
        assert (found.status, found.status_message, found.created_resource_arn) == (status, "as asked", "arn:x")
        assert found.percent_done == ("100.0" if status == "COMPLETED" else "0.0")
        restored = api.point(point).last_restore_time
        assert restored == (ended.completion_date if status == "COMPLETED" else None)
        assert api.call(end) == ended, "a repetition has the same answer"
        other = CompleteRestoreJob(restore_job_id=job, status=status)
        assert api.refuses_and_keeps(JobStateConflictException, other).state == status
        api.refuses(ResourceNotFoundException, ListObjects(storage_job_id=job))

    def test_a_waiting_job_may_be_ended(self, api, point):
        assert api.end_restore(api.restore(point), "ABORTED").status == "ABORTED"

    def test_the_same_token_and_body_start_one_job(self, api, point):
        token = new_resource()
        first = api.restore(point, metadata={"a": "1", "b": "2"}, idempotency_token=token)
        assert api.restore(point, metadata={"b": "2", "a": "1"}, idempotency_token=token) == first
        wrong = StartRestoreJob(recovery_point_arn=point, metadata={"a": "1"}, idempotency_token=token)
        api.refuses_and_keeps(InvalidParameterValueException, wrong)
        api.end_restore(first)
        api.delete_point(point)
        again = api.restore(point, metadata={"a": "1", "b": "2"}, idempotency_token=token)
        assert again == first, "in any state of the job and its point"

    def test_without_a_token_every_call_starts_a_job(self, api, point):
        assert api.restore(point) != api.restore(point)

    def test_a_restore_token_differs_from_a_backup_token(self, api, point):
        """Each operation has its own tokens."""
        token = new_resource()
        assert api.restore(point, idempotency_token=token) != api.start_job(idempotency_token=token)

    def test_wrong_points(self, api, point):
        for wrong in (point[:-1], "x", point.replace("local-1", "other-1")):
            operation = StartRestoreJob(recovery_point_arn=wrong, metadata={})
            api.refuses_and_keeps(ResourceNotFoundException, operation)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"resource_type": "Disk"},
            {"resource_type": "a b"},
            {"iam_role_arn": "role"},
            {"metadata": {str(number): "" for number in range(65)}},
            {"metadata": {"k": "v" * (32 * KIB)}},
            {"idempotency_token": "x" * 1025},
            {"recovery_point_arn": ""},
        ],
        ids=lambda wrong: str(wrong)[:40],
    )
    def test_wrong_arguments(self, api, point, wrong):
        operation = StartRestoreJob(**({"recovery_point_arn": point, "metadata": {}} | wrong))
        api.refuses_and_keeps(InvalidParameterValueException, operation)

    def test_an_absent_argument(self, api, point):
        for absent in ({"metadata": None}, {"recovery_point_arn": None}):
            operation = StartRestoreJob(**({"recovery_point_arn": point, "metadata": {}} | absent))
            api.refuses_and_keeps(MissingParameterValueException, operation)

    def test_an_error_never_shows_metadata(self, api, point):
        """Maps of metadata are sensitive."""
        metadata = {"password": "hunter2" + "x" * (32 * KIB)}
        operation = StartRestoreJob(recovery_point_arn=point, metadata=metadata)
        assert "hunter2" not in str(api.refuses(InvalidParameterValueException, operation))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"status": "RUNNING"},
            {"status": "NOPE"},
            {"status": None},
            {"status_message": "x" * 2049},
            {"created_resource_arn": "a\nb"},
            {"bytes_restored": -1},
        ],
        ids=lambda wrong: str(wrong)[:40],
    )
    def test_a_wrong_end_is_refused(self, api, point, wrong):
        job = api.restore(point)
        operation = CompleteRestoreJob(**({"restore_job_id": job, "status": "COMPLETED"} | wrong))
        api.refuses_and_keeps(IllegalArgumentException, operation)

    def test_unknown_jobs(self, api, point):
        for job in (ABSENT, "x", "é", api.start_job()):
            api.refuses(ResourceNotFoundException, DescribeRestoreJob(restore_job_id=job))
            operation = CompleteRestoreJob(restore_job_id=job, status="COMPLETED")
            api.refuses_and_keeps(ResourceNotFoundException, operation)

    def test_points_of_any_vault_are_found(self, api):
        """StartRestoreJob names no vault."""
        api.new_vault()
        assert api.restored(api.backup({"a": b"1"})) == {"a": b"1"}


class RestoreJobListTests:
    """ListRestoreJobs: newest first, filters, pages. It lists the jobs of all vaults."""

    @pytest.fixture
    def jobs(self, api):
        """Four restore jobs of a stream, which no other test restores. The first two have ended, the third was read."""
        point = api.backup({"a": b"1"}, resource=new_resource("virtualmachine"))
        for old in api.listed(ListRestoreJobs(by_resource_type="VirtualMachine")):
            if old.status in ("PENDING", "RUNNING"):
                api.end_restore(old.restore_job_id)
        jobs = [api.restore(point) for _ in range(4)]
        api.end_restore(jobs[0])
        api.end_restore(jobs[1], "FAILED")
        api.names(jobs[2])
        return jobs

    def listed(self, api, jobs, **more):
        listed = api.listed(ListRestoreJobs(**({"by_resource_type": "VirtualMachine"} | more)))
        return [jobs.index(job.restore_job_id) for job in listed if job.restore_job_id in jobs]

    @pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 1000])
    def test_pages(self, api, jobs, size):
        assert sorted(self.listed(api, jobs, max_results=size)) == [0, 1, 2, 3]

    def test_filters(self, api, jobs):
        assert self.listed(api, jobs, by_status="COMPLETED") == [0]
        assert self.listed(api, jobs, by_status="FAILED") == [1]
        assert self.listed(api, jobs, by_status="RUNNING") == [2]
        assert self.listed(api, jobs, by_status="PENDING") == [3]
        assert sorted(self.listed(api, jobs, by_complete_after=1.0, by_complete_before=4e9)) == [0, 1]
        assert self.listed(api, jobs, by_resource_type="Stream") == []
        assert sorted(self.listed(api, jobs, by_account_id="*", by_created_after=1.0)) == [0, 1, 2, 3]
        for nobody in (
            {"by_account_id": "111111111111"},
            {"by_parent_job_id": "x"},
            {"by_restore_testing_plan_arn": "x"},
            {"by_created_after": 4e9},
            {"by_created_before": 1.0},
        ):
            assert self.listed(api, jobs, **nobody) == []

    def test_listed_fields_equal_those_of_describe(self, api, jobs):
        (listed,) = api.call(ListRestoreJobs(max_results=1)).restore_jobs
        described = api.call(DescribeRestoreJob(restore_job_id=listed.restore_job_id))
        for field in listed.__struct_fields__:
            assert getattr(listed, field) == getattr(described, field), field

    def test_a_token_is_valid_for_its_list_only(self, api, jobs):
        list_ = ListRestoreJobs(by_resource_type="VirtualMachine", max_results=1)
        token = api.call(list_).next_token
        for filters in ({}, {"by_resource_type": "VirtualMachine", "by_status": "PENDING"}):
            api.refuses(InvalidParameterValueException, ListRestoreJobs(next_token=token, **filters))

    @pytest.mark.parametrize(
        "wrong", [{"max_results": 0}, {"max_results": 1001}, {"by_status": "NOPE"}, {"by_account_id": "1"}], ids=str
    )
    def test_wrong_filters_are_refused(self, api, wrong):
        api.refuses(InvalidParameterValueException, ListRestoreJobs(**wrong))


class RestoreJobTimeTests:
    """Time-outs of restore jobs. They need a clock set by the test, and `api.maintain`."""

    def test_an_idle_job_is_aborted_and_releases_its_point(self, api):
        point = api.backup({"a": b"1"})
        jobs = [api.restore(point), api.restore(point)]
        api.clock.advance(HOUR_MS)
        api.names(jobs[1])
        api.clock.advance(23 * HOUR_MS)
        api.maintain()
        assert [self.status(api, job) for job in jobs] == ["PENDING", "RUNNING"]
        api.clock.advance(1)
        api.maintain()
        assert [self.status(api, job) for job in jobs] == ["ABORTED", "RUNNING"]
        delete = DeleteRecoveryPoint(backup_vault_name=api.vault, recovery_point_arn=point)
        api.refuses_and_keeps(InvalidResourceStateException, delete)
        api.clock.advance(HOUR_MS)
        api.maintain()
        assert self.status(api, jobs[1]) == "ABORTED"
        api.refuses(ResourceNotFoundException, ListObjects(storage_job_id=jobs[1]))
        api.call(delete)

    def test_occasional_reads_keep_a_job_alive(self, api):
        job = api.restore(api.backup({"a": b"1"}))
        for _ in range(5):
            api.clock.advance(24 * HOUR_MS - MINUTE_MS)
            api.names(job)
            api.maintain()
        assert self.status(api, job) == "RUNNING"

    def status(self, api, job):
        return api.call(DescribeRestoreJob(restore_job_id=job)).status
