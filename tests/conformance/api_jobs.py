"""Conformance tests of the operations on backup jobs (control plane 2.3 to 2.6, 3.4). Commits are in `api_commits`."""

from __future__ import annotations

import re

import pytest

from cryostore.core.time import DAY_MS, HOUR_MS, MINUTE_MS
from cryostore.model.chunks import LinkChunks, LinkedChunk
from cryostore.model.errors import (
    IllegalArgumentException,
    InvalidParameterValueException,
    InvalidRequestException,
    InvalidResourceStateException,
    JobStateConflictException,
    MissingParameterValueException,
    ResourceNotFoundException,
    ThrottlingException,
)
from cryostore.model.jobs import (
    CommitBackupJob,
    DescribeBackupJob,
    GetIncrementalBaseBackup,
    Lifecycle,
    ListBackupJobs,
    StopBackupJob,
)
from cryostore.model.objects import DeleteObject, StartObject
from cryostore.model.recovery_points import DeleteRecoveryPoint, ListRecoveryPointsByBackupVault
from support.requests.api import BASE_SUFFIX, ROLE, hex_of, new_resource

ABSENT = "00000000-0000-4000-8000-FFFFFFFFFFFF"
UUID = re.compile(r"[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}")
STARTED_WRONGLY = [
    {"backup_vault_name": "x"},
    {"backup_vault_name": "x" * 51},
    {"backup_vault_name": "name with spaces"},
    {"backup_vault_name": "größe"},
    {"backup_vault_name": "Default\n"},
    {"resource": "no-arn"},
    {"resource": "arn:" + "x" * 2045},
    {"resource": "arn:a\nb"},
    {"iam_role_arn": "role"},
    {"iam_role_arn": "arn:aws:iam::00000000000:role/x"},
    {"iam_role_arn": "arn:aws:iam::000000000000:role/"},
    {"start_window_minutes": 0},
    {"start_window_minutes": 59},
    {"start_window_minutes": 52_560_001},
    {"complete_window_minutes": 0},
    {"complete_window_minutes": 52_560_001},
    {"lifecycle": Lifecycle(delete_after_days=0)},
    {"lifecycle": Lifecycle(delete_after_days=36_501)},
    {"lifecycle": Lifecycle(delete_after_days=99, move_to_cold_storage_after_days=10)},
    {"lifecycle": Lifecycle(delete_after_event="DELETE_AFTER_COPY")},
    {"backup_options": {"Unknown": "x"}},
    {"backup_options": {"IncrementalBase": ""}},
    {"backup_options": {"CommitOnObject": "x" * 51}},
    {"backup_options": {"CommitOnObject": "größe"}},
    {"backup_options": {"CommitOnObject": "a b"}},
    {"backup_options": {"HeartbeatSeconds": "9"}},
    {"backup_options": {"HeartbeatSeconds": "3601"}},
    {"backup_options": {"HeartbeatSeconds": "1.5"}},
    {"backup_options": {"HeartbeatSeconds": "-60"}},
    {"backup_options": {"CommitOnObject": "²"}},
    {"backup_options": {"CommitOnObject": "a\n"}},
    {"index": "ENABLED"},
    {"index": "PERHAPS"},
    {"logically_air_gapped_backup_vault_arn": "arn:aws:backup:local-1:000000000000:backup-vault:x"},
    {"idempotency_token": "x" * 1025},
    {"idempotency_token": "a\0b"},
    {"recovery_point_tags": {"k" * 129: "v"}},
    {"recovery_point_tags": {"": "v"}},
    {"recovery_point_tags": {"k": "v" * 257}},
    {"recovery_point_tags": {str(number): "" for number in range(51)}},
]


class StartBackupJobTests:
    """Subclass, name it Test..., and give `api`: a support.requests.api.Api."""

    def test_a_new_job(self, api):
        started = api.call(api.start_operation())
        assert UUID.fullmatch(started.backup_job_id)
        assert re.fullmatch(
            rf"arn:aws:backup:local-1:000000000000:recovery-point:{UUID.pattern}", started.recovery_point_arn
        )
        assert started.is_parent is False
        job = api.job(started.backup_job_id)
        assert (job.state, job.percent_done, job.bytes_transferred) == ("CREATED", "0.0", 0)
        assert (job.account_id, job.backup_vault_name) == ("000000000000", api.vault)
        assert job.backup_vault_arn == f"arn:aws:backup:local-1:000000000000:backup-vault:{api.vault}"
        assert (job.resource_arn, job.resource_type, job.iam_role_arn) == (api.resource, "FileSet", ROLE)
        assert (job.recovery_point_arn, job.creation_date) == (started.recovery_point_arn, started.creation_date)
        assert job.start_by == pytest.approx(started.creation_date + 480 * 60)
        assert (job.completion_date, job.is_parent, job.is_encrypted) == (None, False, True)

    def test_its_recovery_point_is_visible_as_creating(self, api):
        started = api.call(api.start_operation())
        point = api.point(started.recovery_point_arn)
        assert (point.status, point.resource_arn, point.resource_type) == ("CREATING", api.resource, "FileSet")
        listed = api.listed(ListRecoveryPointsByBackupVault(backup_vault_name=api.vault, by_resource_arn=api.resource))
        assert [one.recovery_point_arn for one in listed] == [started.recovery_point_arn]

    @pytest.mark.parametrize(
        ("arn", "resource_type"),
        [
            ("arn:aws:cryo:local-1:000000000000:stream:host:x", "Stream"),
            ("arn:aws:cryo:local-1:000000000000:FileSet:host:x", "FileSet"),
            ("arn:aws:cryo:local-1:000000000000:disk:host:x", "Disk"),
            ("arn:aws:cryo:local-1:000000000000:virtualmachine:host:x", "VirtualMachine"),
            ("arn:aws:cryo:local-1:000000000000:database:host:x", "Database"),
            ("arn:aws:cryo:local-1:000000000000:other:host:x", "Generic"),
            ("arn:aws:ec2:eu-1:1:volume/vol-1", "EBS"),
            ("arn:aws:ec2:eu-1:1:instance/i-1", "EC2"),
            ("arn:aws:elasticfilesystem:eu-1:1:file-system/fs-1", "EFS"),
            ("arn:aws:backup-gateway:eu-1:1:vm/vm-1", "VirtualMachine"),
            ("arn:aws:s3:::bucket", "S3"),
            ("arn:x", "Generic"),
            ("arn:" + "x" * 2044, "Generic"),
        ],
    )
    def test_the_type_of_the_resource(self, api, arn, resource_type):
        """Control plane 2.4."""
        job = api.start_job(resource=arn)
        assert (api.job(job).resource_arn, api.job(job).resource_type) == (arn, resource_type)
        api.stop(job)

    @pytest.mark.parametrize("wrong", STARTED_WRONGLY, ids=lambda wrong: str(wrong)[:50])
    def test_invalid_arguments_are_refused(self, api, wrong):
        api.refuses_and_keeps(InvalidParameterValueException, api.start_operation(**wrong))

    def test_an_unknown_vault(self, api):
        api.refuses_and_keeps(ResourceNotFoundException, api.start_operation(backup_vault_name="no-such-vault"))

    def test_an_absent_argument(self, api):
        api.refuses_and_keeps(MissingParameterValueException, api.start_operation(iam_role_arn=None))

    def test_arguments_at_the_limits_are_accepted(self, api):
        lifecycle = Lifecycle(delete_after_days=100, move_to_cold_storage_after_days=10)
        options = {"WindowsVSS": "enabled", "CommitOnObject": "a-._Z" + "9" * 45}
        job = api.start_job(
            start_window_minutes=60,
            complete_window_minutes=52_560_000,
            lifecycle=lifecycle,
            backup_options=options,
            index="DISABLED",
            recovery_point_tags={"k" * 128: "v" * 256} | {str(number): "" for number in range(49)},
            idempotency_token="ö" * 512,
        )
        found = api.job(job)
        assert found.start_by == pytest.approx(found.creation_date + 3600)
        assert (found.recovery_point_lifecycle, found.backup_options) == (lifecycle, options)
        point = api.point(found.recovery_point_arn)
        assert point.lifecycle == lifecycle
        assert point.calculated_lifecycle.delete_at == pytest.approx(found.creation_date + 100 * 86_400)
        assert point.calculated_lifecycle.move_to_cold_storage_at == pytest.approx(found.creation_date + 10 * 86_400)

    def test_the_same_token_and_body_start_one_job(self, api):
        operation = api.start_operation(idempotency_token=new_resource(), lifecycle=Lifecycle(delete_after_days=5))
        first = api.call(operation)
        assert api.call(operation) == first
        api.stop(first.backup_job_id)
        assert api.call(operation) == first, "in any state of the job"
        assert len(api.listed(ListBackupJobs(by_resource_arn=api.resource))) == 1

    @pytest.mark.parametrize(
        "other",
        [
            {"start_window_minutes": 60},
            {"backup_options": {"IncrementalBase": "none"}},
            {"recovery_point_tags": {"a": "b"}},
            {"lifecycle": Lifecycle(delete_after_days=5)},
        ],
    )
    def test_the_same_token_and_another_body_are_refused(self, api, other):
        token = new_resource()
        api.start_job(idempotency_token=token)
        wrong = api.start_operation(idempotency_token=token, **other)
        api.refuses_and_keeps(InvalidParameterValueException, wrong)

    def test_without_a_token_every_call_starts_a_job(self, api):
        """Each call has a new token, as SDKs send it, or none."""
        assert api.start_job() != api.start_job()


class BaseTests:
    """Control plane 3.4: the recovery point that a job starts from. It cannot be deleted while the job runs."""

    def base_of(self, api, job):
        return api.call(GetIncrementalBaseBackup(backup_job_id=job))

    def test_the_first_job_has_none(self, api):
        job = api.start_job()
        base = self.base_of(api, job)
        assert (base.backup_job_id, base.base_selection) == (job, "NONE")
        assert (base.base_recovery_point_arn, base.storage_job_id, base.object_count) == (None, None, None)
        assert api.job(job).state == "RUNNING"
        assert api.job(job).backup_type == "Full"

    def test_the_latest_point_of_the_resource(self, api):
        api.backup({"old": b"1"})
        first = api.start_job()
        api.put(first, "name", b"data")
        arn = api.commit(first, restore_metadata={"kind": "fileset"})
        job = api.start_job()
        base = self.base_of(api, job)
        assert (base.base_selection, base.base_recovery_point_arn, base.base_backup_job_id) == ("LATEST", arn, first)
        assert (base.object_count, base.base_restore_metadata) == (2, {"kind": "fileset"})
        assert base.base_creation_date == api.point(arn).creation_date
        assert base.storage_job_id == job + BASE_SUFFIX
        assert api.read(base.storage_job_id) == {"old": b"1", "name": b"data"}
        assert api.job(job).backup_type == "Incremental"
        assert self.base_of(api, job) == base, "asking again changes nothing"

    def test_the_base_is_of_the_same_resource_and_vault(self, api):
        api.backup({"name": b"1"})
        other = api.start_job(resource=new_resource())
        assert api.names(other) == []
        api.new_vault()
        assert api.names(api.start_job()) == []

    def test_the_base_is_chosen_at_the_first_request(self, api):
        """A point that is made between StartBackupJob and the first request is the base."""
        waiting = api.start_job()
        arn = api.backup({"name": b"1"})
        assert self.base_of(api, waiting).base_recovery_point_arn == arn

    def test_a_base_of_none_starts_empty(self, api):
        old = api.backup({"name": b"1"})
        new = api.backup({"other": b"2"}, backup_options={"IncrementalBase": "none"})
        assert api.restored(new) == {"other": b"2"}
        assert api.restored(old) == {"name": b"1"}
        assert api.restored(api.backup({"third": b"3"})) == {"other": b"2", "third": b"3"}

    def test_an_explicit_base_makes_a_branch(self, api):
        first = api.backup({"a": b"1", "b": b"1"})
        second = api.backup({"a": b"2", "c": b"2"})
        job = api.start_job(backup_options={"IncrementalBase": first.rpartition(":")[2]})
        base = self.base_of(api, job)
        assert (base.base_selection, base.base_recovery_point_arn) == ("EXPLICIT", first)
        api.put(job, "b", b"3")
        api.put(job, "d", b"3")
        branch = api.commit(job, object_count=3)
        assert api.restored(branch) == {"a": b"1", "b": b"3", "d": b"3"}
        assert api.restored(second) == {"a": b"2", "b": b"1", "c": b"2"}
        assert api.restored(api.backup({"a": None})) == {"b": b"3", "d": b"3"}, "the branch is the latest"

    def test_an_explicit_base_is_pinned_from_the_start(self, api):
        first = api.backup({"a": b"1"})
        api.backup({"a": b"2"})
        job = api.start_job(backup_options={"IncrementalBase": first.rpartition(":")[2].lower()})
        delete = DeleteRecoveryPoint(backup_vault_name=api.vault, recovery_point_arn=first)
        api.refuses_and_keeps(InvalidResourceStateException, delete)
        api.stop(job)
        api.call(delete)

    def test_an_explicit_base_of_another_resource(self, api):
        """A point of the same kind is a base, and one of another kind is refused."""
        point = api.backup({"a": b"1"}).rpartition(":")[2]
        job = api.start_job(resource=new_resource(), backup_options={"IncrementalBase": point})
        assert api.read(job) == {"a": b"1"}
        wrong = api.start_operation(resource=new_resource("disk"), backup_options={"IncrementalBase": point})
        api.refuses_and_keeps(InvalidParameterValueException, wrong)

    def test_an_explicit_base_that_does_not_exist(self, api):
        creating = api.call(api.start_operation()).recovery_point_arn.rpartition(":")[2]
        for point in (ABSENT, "x", creating):
            wrong = api.start_operation(backup_options={"IncrementalBase": point})
            api.refuses_and_keeps(ResourceNotFoundException, wrong)
        point = api.backup({"a": b"1"}).rpartition(":")[2]
        api.new_vault()
        wrong = api.start_operation(backup_options={"IncrementalBase": point})
        api.refuses_and_keeps(ResourceNotFoundException, wrong)

    def test_a_job_that_ended_has_no_base(self, api):
        job = api.start_job()
        api.stop(job)
        refusal = api.refuses(JobStateConflictException, GetIncrementalBaseBackup(backup_job_id=job))
        assert refusal.state == "ABORTED"
        api.refuses(ResourceNotFoundException, GetIncrementalBaseBackup(backup_job_id=ABSENT))


class JobStateTests:
    """Control plane 2.6."""

    def test_the_first_write_starts_a_job(self, api):
        job = api.start_job()
        api.put(job, "name", b"data")
        assert (api.job(job).state, api.job(job).bytes_transferred) == ("RUNNING", 4)
        assert api.job(job).initiation_date is not None

    def test_bytes_transferred_counts_the_bytes_on_the_wire(self, api):
        api.backup({"inherited": b"x" * 100})
        job = api.start_job()
        upload = api.start(job, "name")
        for index, data in enumerate((b"12345", b"678")):
            api.chunk(job, upload, index, data)
        api.complete(job, upload, [b"12345", b"678"])
        assert api.job(job).bytes_transferred == 8
        api.commit(job)
        found = api.job(job)
        assert (found.bytes_transferred, found.backup_size_in_bytes, found.percent_done) == (8, 108, "100.0")

    def test_a_repeated_start_resumes_its_own_job(self, api):
        """A client that crashed continues its job, which it identifies by the token of its run."""
        first = api.start_job(idempotency_token="nightly of 1 May")
        api.put(first, "name", b"1")
        assert api.start_job(idempotency_token="nightly of 1 May") == first
        assert api.read(first) == {"name": b"1"}

    def test_one_job_of_a_resource_runs_at_a_time(self, api):
        """Other jobs wait as PENDING, and their writes and reads get ThrottlingException."""
        running, waiting = api.running_job(), api.start_job()
        for operation in (
            StartObject(backup_job_id=waiting, object_name="name"),
            GetIncrementalBaseBackup(backup_job_id=waiting),
            CommitBackupJob(backup_job_id=waiting),
        ):
            api.refuses(ThrottlingException, operation)
        assert api.job(waiting).state == "PENDING"
        api.put(running, "name", b"1")
        arn = api.commit(running)
        assert api.read(waiting) == {"name": b"1"}
        assert api.job(waiting).state == "RUNNING"
        assert api.call(GetIncrementalBaseBackup(backup_job_id=waiting)).base_recovery_point_arn == arn

    def test_jobs_of_other_resources_and_vaults_run_at_the_same_time(self, api):
        jobs = [api.running_job(), api.running_job(resource=new_resource())]
        api.new_vault()
        jobs.append(api.running_job())
        assert {api.job(job).state for job in jobs} == {"RUNNING"}

    @pytest.mark.parametrize("end", ["stop", "fail"])
    def test_the_next_job_starts_after_a_failed_one(self, api, end):
        api.backup({"name": b"1"})
        running, waiting = api.running_job(), api.start_job()
        api.put(running, "name", b"2")
        api.delete(running, "name")
        (api.stop if end == "stop" else lambda job: api.commit(job, outcome="FAILED"))(running)
        assert api.read(waiting) == {"name": b"1"}

    @pytest.mark.parametrize("written", [True, False], ids=["running", "created"])
    def test_stopping(self, api, written):
        """Its data and its point are removed, and it accepts no more writes. Stopping it again has no effect."""
        job = api.start_job()
        upload = api.start(job, "open") if written else "x"
        if written:
            api.put(job, "name", b"1")
        arn = api.job(job).recovery_point_arn
        for _ in range(2):
            api.stop(job)
            found = api.job(job)
            assert (found.state, found.message_category) == ("ABORTED", "Aborted")
            assert found.completion_date is not None
            assert found.status_message
        for operation in (
            StartObject(backup_job_id=job, object_name="name"),
            DeleteObject(backup_job_id=job, object_name="name"),
            api.chunk_operation(job, upload, 0, b"data"),
            api.complete_operation(job, upload, []),
        ):
            api.refuses_and_keeps(IllegalArgumentException, operation, match="ABORTED")
        refusal = api.refuses(JobStateConflictException, CommitBackupJob(backup_job_id=job))
        assert refusal.state == "ABORTED"
        with pytest.raises(ResourceNotFoundException):
            api.point(arn)

    def test_the_changes_of_a_stopped_job_are_rolled_back(self, api):
        base = api.backup({"a": b"1", "b": b"1", "c": b"1"})
        job = api.start_job()
        api.put(job, "a", b"2")
        api.delete(job, "b")
        api.upload(job, "d", [b"2"])
        api.stop(job)
        assert api.restored(base) == {"a": b"1", "b": b"1", "c": b"1"}
        assert api.restored(api.backup({"c": b"3"})) == {"a": b"1", "b": b"1", "c": b"3"}

    @pytest.mark.parametrize("outcome", ["COMPLETED", "FAILED"])
    def test_a_finished_job_cannot_be_stopped(self, api, outcome):
        job = api.start_job()
        api.put(job, "name", b"1")
        api.commit(job, outcome=outcome)
        api.refuses_and_keeps(InvalidRequestException, StopBackupJob(backup_job_id=job))
        assert api.job(job).state == outcome

    def test_an_unknown_job(self, api):
        for job in (ABSENT, "x", "é"):
            api.refuses_and_keeps(ResourceNotFoundException, StopBackupJob(backup_job_id=job))
            api.refuses(ResourceNotFoundException, DescribeBackupJob(backup_job_id=job))

    def test_the_id_may_be_written_in_lower_case(self, api):
        job = api.start_job()
        assert api.job(job.lower()).backup_job_id == job


class JobListTests:
    """ListBackupJobs: newest first, filters, pages (control plane 2.3)."""

    @pytest.fixture
    def jobs(self, api):
        """Seven jobs of one vault, newest first: four of the test's resource, three of others."""
        api.new_vault()
        resources = [api.resource, new_resource("disk"), api.resource, new_resource(), api.resource, api.resource]
        jobs = [api.start_job(resource=resource) for resource in (*resources, new_resource("stream"))]
        api.put(jobs[0], "name", b"1")
        api.commit(jobs[0], issue_count=1)
        api.stop(jobs[1])
        api.put(jobs[2], "name", b"2")
        return [job.backup_job_id for job in api.listed(ListBackupJobs(by_backup_vault_name=api.vault))], jobs

    def test_all_jobs_of_a_vault(self, api, jobs):
        listed, started = jobs
        assert sorted(listed) == sorted(started)
        created = [api.job(job).creation_date for job in listed]
        assert created == sorted(created, reverse=True)

    @pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 1000])
    def test_pages(self, api, jobs, size):
        listed = api.listed(ListBackupJobs(by_backup_vault_name=api.vault, max_results=size))
        assert [job.backup_job_id for job in listed] == jobs[0]

    def test_filters(self, api, jobs):
        _, started = jobs

        def found(**filters):
            listed = api.listed(ListBackupJobs(by_backup_vault_name=api.vault, max_results=2, **filters))
            return {started.index(job.backup_job_id) for job in listed}

        assert found(by_resource_arn=api.resource) == {0, 2, 4, 5}
        assert found(by_state="COMPLETED") == {0}
        assert found(by_message_category="CompletedWithIssues") == {0}
        assert found(by_message_category="*") == found(by_message_category="AGGREGATE_ALL") == found()
        assert found(by_state="ABORTED") == {1}
        assert found(by_state="RUNNING") == {2}
        assert found(by_state="CREATED", by_resource_arn=api.resource) == {4, 5}
        assert found(by_resource_type="Disk") == {1}
        assert found(by_resource_type="FileSet") == {0, 2, 3, 4, 5}
        assert found(by_message_category="CompletedWithIssues") == {0}
        assert found(by_account_id="*") == found(by_account_id="000000000000") == set(range(7))
        assert found(by_account_id="111111111111") == found(by_parent_job_id="x") == set()
        assert found(by_complete_after=1.0) == {0, 1}
        assert found(by_complete_before=4e9) == {0, 1}
        assert found(by_created_after=4e9) == found(by_created_before=1.0) == set()
        completed = api.job(started[0]).completion_date
        assert 0 in found(by_complete_after=completed)
        assert 0 not in found(by_complete_before=completed)
        created = api.job(started[6]).creation_date
        assert 6 in found(by_created_after=created)
        assert 6 not in found(by_created_before=created)

    def test_an_unknown_vault_has_no_jobs(self, api):
        assert api.listed(ListBackupJobs(by_backup_vault_name="no-such-vault")) == []

    def test_listed_fields_equal_those_of_describe(self, api, jobs):
        listed = api.call(ListBackupJobs(by_backup_vault_name=api.vault, max_results=1)).backup_jobs[0]
        described = api.job(listed.backup_job_id)
        for field in listed.__struct_fields__:
            assert getattr(listed, field) == getattr(described, field), field

    def test_a_token_is_valid_for_its_list_only(self, api, jobs):
        list_ = ListBackupJobs(by_backup_vault_name=api.vault, max_results=2)
        token = api.call(list_).next_token
        for filters in ({}, {"by_backup_vault_name": api.vault, "by_state": "CREATED"}):
            api.refuses(InvalidParameterValueException, ListBackupJobs(next_token=token, **filters))
        points = ListRecoveryPointsByBackupVault(backup_vault_name=api.vault, next_token=token)
        api.refuses(InvalidParameterValueException, points)
        for wrong in (token[:-1], token + "A", "x", "é"):
            list_ = ListBackupJobs(by_backup_vault_name=api.vault, next_token=wrong)
            api.refuses(InvalidParameterValueException, list_)
        again = ListBackupJobs(by_backup_vault_name=api.vault, next_token=token, max_results=1000)
        assert [job.backup_job_id for job in api.call(again).backup_jobs] == jobs[0][2:]

    @pytest.mark.parametrize(
        "wrong",
        [
            {"max_results": 0},
            {"max_results": 1001},
            {"by_state": "NOPE"},
            {"by_backup_vault_name": "bad name/é"},
            {"by_account_id": "1"},
            {"by_resource_type": "a b"},
            {"next_token": "x" * 8193},
        ],
        ids=str,
    )
    def test_wrong_filters_are_refused(self, api, wrong):
        api.refuses(InvalidParameterValueException, ListBackupJobs(**wrong))

    def test_the_default_page_has_100_jobs(self, api):
        api.new_vault()
        for _ in range(101):
            api.start_job()
        page = api.call(ListBackupJobs(by_backup_vault_name=api.vault))
        assert len(page.backup_jobs) == 100
        rest = api.call(ListBackupJobs(by_backup_vault_name=api.vault, next_token=page.next_token))
        assert (len(rest.backup_jobs), rest.next_token) == (1, None)


class JobTimeTests:
    """Time-outs of jobs. They need a clock set by the test, and `api.maintain`."""

    def expire(self, api, job, *, state="EXPIRED", category="Timeout"):
        found = api.job(job)
        assert (found.state, found.message_category) == (state, category)
        assert found.completion_date is not None

    @pytest.mark.parametrize("waiting", ["CREATED", "PENDING"])
    def test_a_job_that_does_not_start_in_time_expires(self, api, waiting):
        if waiting == "PENDING":
            api.running_job()
        job = api.start_job(start_window_minutes=60)
        if waiting == "PENDING":
            api.refuses(ThrottlingException, StartObject(backup_job_id=job, object_name="x"))
        api.clock.advance(60 * MINUTE_MS)
        api.maintain()
        assert api.job(job).state == waiting, "the last moment belongs to the window"
        api.clock.advance(1)
        api.maintain()
        self.expire(api, job)

    def test_a_request_after_the_start_window_expires_the_job(self, api):
        job = api.start_job(start_window_minutes=60)
        api.clock.advance(60 * MINUTE_MS + 1)
        api.refuses(IllegalArgumentException, StartObject(backup_job_id=job, object_name="x"), match="EXPIRED")
        self.expire(api, job)

    def test_a_running_job_past_its_completion_window_expires(self, api):
        """Its writes are rolled back."""
        base = api.backup({"name": b"1"})
        job = api.running_job(complete_window_minutes=90)
        for minutes in (50, 40):
            api.put(job, "name", b"2")
            api.maintain()
            assert api.job(job).state == "RUNNING"
            api.clock.advance(minutes * MINUTE_MS)
        api.clock.advance(1)
        api.maintain()
        self.expire(api, job)
        assert api.restored(base) == {"name": b"1"}
        assert api.restored(api.backup({"other": b"1"})) == {"name": b"1", "other": b"1"}

    def test_an_idle_job_fails(self, api):
        job = api.running_job()
        upload = api.start(job, "name")
        api.clock.advance(60 * MINUTE_MS)
        api.maintain()
        assert api.job(job).state == "RUNNING"
        api.clock.advance(1)
        api.maintain()
        self.expire(api, job, state="FAILED")
        api.refuses_and_keeps(IllegalArgumentException, api.chunk_operation(job, upload, 0, b"data"))

    @pytest.mark.parametrize("sign", ["chunk", "read", "read base", "delete", "link"])
    def test_every_request_resets_the_idle_time(self, api, sign):
        api.backup({str(number): b"1" for number in range(4)})
        job = api.running_job()
        upload = api.start(job, "name")
        linked = LinkedChunk(index=9, length=1, checksum=hex_of(b"1"), checksum_algorithm="SHA256")
        for number in range(4):
            api.clock.advance(50 * MINUTE_MS)
            {
                "chunk": lambda: api.chunk(job, upload, number, b"data"),  # noqa: B023
                "read": lambda: api.names(job),
                "read base": lambda: api.names(job + BASE_SUFFIX),
                "delete": lambda: api.delete(job, str(number)),  # noqa: B023
                "link": lambda: api.call(LinkChunks(backup_job_id=job, upload_id=upload, chunks=[linked])),
            }[sign]()
            api.maintain()
        assert api.job(job).state == "RUNNING"

    def test_the_error_of_a_waiting_job_names_the_running_one(self, api):
        """The error has the id of the running job, its age, and the operation that ends it."""
        running, waiting = api.running_job(), api.start_job()
        api.clock.advance(50 * MINUTE_MS)
        error = api.refuses(ThrottlingException, GetIncrementalBaseBackup(backup_job_id=waiting), match=running)
        assert "started 50 min ago" in error.message
        assert "last request 50 min ago" in error.message
        assert "StopBackupJob" in error.message
        api.call(StopBackupJob(backup_job_id=running))
        assert api.call(GetIncrementalBaseBackup(backup_job_id=waiting)).base_selection == "NONE"

    def test_a_job_that_missed_its_heartbeats_makes_way(self, api):
        """A crashed client that promised heartbeats does not hold its resource for an hour."""
        base = api.backup({"name": b"1"})
        crashed = api.running_job(backup_options={"HeartbeatSeconds": "60"})
        api.put(crashed, "half done", b"2")
        waiting = api.start_job()
        asks = GetIncrementalBaseBackup(backup_job_id=waiting)
        api.clock.advance(3 * MINUTE_MS)
        api.refuses(ThrottlingException, asks, match=crashed)
        api.clock.advance(1)
        assert api.call(asks).base_recovery_point_arn == base
        found = api.job(crashed)
        assert (found.state, found.message_category) == ("FAILED", "Timeout")
        assert waiting in found.status_message
        assert api.read(waiting) == {"name": b"1"}
        api.refuses(JobStateConflictException, CommitBackupJob(backup_job_id=crashed))

    def test_heartbeats_keep_a_job(self, api):
        """Any other request counts, too. A job without promised heartbeats keeps its hour."""
        running, waiting = api.running_job(backup_options={"HeartbeatSeconds": "60"}), api.start_job()
        for _ in range(4):
            api.clock.advance(3 * MINUTE_MS)
            api.names(running)
            api.refuses(ThrottlingException, GetIncrementalBaseBackup(backup_job_id=waiting), match=running)

    def test_the_default_windows(self, api):
        job = api.start_job()
        api.clock.advance(480 * MINUTE_MS)
        api.put(job, "name", b"1")
        for _ in range(170):
            api.clock.advance(55 * MINUTE_MS)
            api.names(job)
        api.maintain()
        assert api.job(job).state == "RUNNING"
        api.clock.advance(10_080 * MINUTE_MS - 480 * MINUTE_MS - 170 * 55 * MINUTE_MS + 1)
        api.names(job)
        api.maintain()
        self.expire(api, job)

    def test_a_token_is_honoured_for_24_hours(self, api):
        token = new_resource()
        first = api.start_job(idempotency_token=token)
        api.clock.advance(24 * HOUR_MS)
        api.maintain()
        assert api.start_job(idempotency_token=token) == first
        api.clock.advance(1)
        second = api.start_job(idempotency_token=token, start_window_minutes=70)
        assert second != first
        api.clock.advance(1)
        api.maintain()
        assert api.start_job(idempotency_token=token, start_window_minutes=70) == second

    def test_jobs_are_listed_for_30_days(self, api):
        job = api.start_job()
        api.clock.advance(30 * DAY_MS)
        assert [one.backup_job_id for one in api.listed(ListBackupJobs(by_resource_arn=api.resource))] == [job]
        api.clock.advance(1)
        assert api.listed(ListBackupJobs(by_resource_arn=api.resource)) == []
        assert api.job(job).backup_job_id == job

    def test_newest_first(self, api):
        jobs = []
        for _ in range(4):
            jobs.insert(0, api.start_job())
            api.clock.advance(1)
        listed = api.listed(ListBackupJobs(by_resource_arn=api.resource, max_results=2))
        assert [job.backup_job_id for job in listed] == jobs

    def test_the_latest_point_is_the_base_even_if_the_clock_is_set_back(self, api):
        for number in range(4):
            arn = api.backup({"name": b"%d" % number})
            api.clock.advance(-HOUR_MS)
            job = api.start_job()
            assert api.call(GetIncrementalBaseBackup(backup_job_id=job)).base_recovery_point_arn == arn
            api.stop(job)
        api.clock.advance(5 * HOUR_MS)
