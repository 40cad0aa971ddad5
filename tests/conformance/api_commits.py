"""Conformance tests of CommitBackupJob and CommitOnObject (control plane 3.2, 3.4, 3.5; Backup Storage B.1)."""

from __future__ import annotations

import base64
import hashlib

import pytest

from cryostore.core.digest import Payload
from cryostore.model.errors import (
    IllegalArgumentException,
    JobStateConflictException,
    ResourceNotFoundException,
)
from cryostore.model.jobs import CommitBackupJob
from cryostore.model.objects import PutObject, StartObject
from cryostore.model.recovery_points import GetRecoveryPointRestoreMetadata
from support.requests.api import new_resource, sha

KIB = 1024


def objects_digest(contents):
    """Return the ObjectsChecksum: over each name, a zero byte and the raw SUMMARY, in byte order of the names."""
    names = sorted(contents, key=str.encode)
    return hashlib.sha256(b"".join(name.encode() + b"\0" + sha(sha(contents[name])) for name in names)).digest()


def restore_metadata(api, arn):
    """Return the answer of GetRecoveryPointRestoreMetadata."""
    return api.call(
        GetRecoveryPointRestoreMetadata(backup_vault_name=api.vault, recovery_point_arn=arn)
    ).restore_metadata


class CommitTests:
    """Subclass, name it Test..., and give `api`: a support.requests.api.Api."""

    def test_a_commit_freezes_the_view(self, api):
        job = api.start_job()
        api.put(job, "a", b"12345")
        api.upload(job, "b", [b"67", b"8"])
        done = api.call(
            CommitBackupJob(
                backup_job_id=job, resource_name="a name", status_message="all is well", message_category="Custom"
            )
        )
        found = api.job(job)
        assert (done.backup_job_id, done.state, done.backup_size_in_bytes) == (job, "COMPLETED", 8)
        assert done.recovery_point_arn == found.recovery_point_arn
        assert done.completion_date == found.completion_date
        assert (found.state, found.percent_done, found.resource_name) == ("COMPLETED", "100.0", "a name")
        assert (found.status_message, found.message_category) == ("all is well", "Custom")
        point = api.point(done.recovery_point_arn)
        assert (point.status, point.backup_size_in_bytes, point.resource_name) == ("COMPLETED", 8, "a name")
        assert (point.storage_class, point.is_parent, point.is_encrypted) == ("WARM", False, True)
        assert (point.completion_date, point.initiation_date) == (found.completion_date, found.initiation_date)
        assert api.restored(done.recovery_point_arn) == {"a": b"12345", "b": b"678"}

    def test_the_default_outcome_is_success(self, api):
        job = api.start_job()
        api.put(job, "a", b"1")
        api.commit(job)
        assert (api.job(job).message_category, api.job(job).status_message) == ("SUCCESS", None)

    def test_a_commit_may_have_issues(self, api):
        job = api.start_job()
        api.put(job, "a", b"1")
        arn = api.commit(job, issue_count=3)
        assert (api.job(job).state, api.job(job).message_category) == ("COMPLETED", "CompletedWithIssues")
        assert "3" in api.point(arn).status_message
        clean = api.start_job()
        api.commit(clean, issue_count=0)
        assert api.job(clean).message_category == "SUCCESS"

    @pytest.mark.parametrize(
        "arguments",
        [
            {},
            {"outcome": "COMPLETED", "object_count": 1},
            {"restore_metadata": {"b": "2", "a": "1"}, "issue_count": 2, "status_message": "x"},
            {"discard_open_uploads": True, "resource_name": "x"},
        ],
    )
    def test_the_same_commit_again_answers_the_same(self, api, arguments):
        """The CommitToken and the order of the map do not matter."""
        job = api.start_job()
        api.put(job, "a", b"1")
        done = api.call(CommitBackupJob(backup_job_id=job, commit_token="1", **arguments))
        if "restore_metadata" in arguments:
            arguments = arguments | {"restore_metadata": dict(sorted(arguments["restore_metadata"].items()))}
        again = CommitBackupJob(backup_job_id=job, commit_token="2", **arguments)
        assert api.call(again) == done
        api.backup({"b": b"2"})
        assert api.call(again) == done, "also at a later time"

    @pytest.mark.parametrize(
        "other", [{"object_count": 1}, {"outcome": "FAILED"}, {"restore_metadata": {}}, {"issue_count": 1}]
    )
    def test_another_commit_after_the_end_is_a_conflict(self, api, other):
        job = api.start_job()
        api.put(job, "a", b"1")
        arn = api.commit(job)
        refusal = api.refuses_and_keeps(JobStateConflictException, CommitBackupJob(backup_job_id=job, **other))
        assert refusal.state == "COMPLETED"
        assert api.restored(arn) == {"a": b"1"}

    def test_a_committed_job_accepts_no_more_writes(self, api):
        job = api.start_job()
        api.put(job, "a", b"1")
        upload = api.start(job, "b")
        arn = api.commit(job, discard_open_uploads=True)
        for operation in (
            StartObject(backup_job_id=job, object_name="c"),
            PutObject(backup_job_id=job, object_name="c", inline_chunk=Payload(b"1")),
            api.chunk_operation(job, upload, 0, b"1"),
            api.complete_operation(job, upload, []),
        ):
            before = api.restored(arn)
            api.refuses(IllegalArgumentException, operation, match="COMPLETED")
            assert api.restored(arn) == before == {"a": b"1"}

    @pytest.mark.parametrize("wrong", [0, 2, 4, 2**63 - 1])
    def test_another_object_count_is_refused(self, api, wrong):
        """The count includes inherited objects. The job continues."""
        api.backup({"a": b"1", "b": b"1", "gone": b"1"})
        job = api.start_job()
        api.delete(job, "gone")
        api.put(job, "c", b"1")
        refusal = api.refuses_and_keeps(
            IllegalArgumentException, CommitBackupJob(backup_job_id=job, object_count=wrong)
        )
        assert str(wrong) in refusal.message
        assert "3" in refusal.message
        assert api.commit(job, object_count=3)

    @pytest.mark.parametrize("form", [bytes.hex, lambda digest: base64.b64encode(digest).decode()])
    def test_the_checksum_over_all_objects(self, api, form):
        api.backup({"é": b"1", "b": b"2", "gone": b"3"})
        job = api.start_job()
        api.delete(job, "gone")
        api.put(job, "a/ÿ", b"4")
        right = objects_digest({"é": b"1", "b": b"2", "a/ÿ": b"4"})
        wrong = form(objects_digest({"é": b"1", "b": b"2"}))
        commit = {"objects_checksum_algorithm": "SUMMARY"}
        refusal = api.refuses_and_keeps(
            IllegalArgumentException, CommitBackupJob(backup_job_id=job, objects_checksum=wrong, **commit)
        )
        assert wrong in refusal.message
        assert form(right) in refusal.message
        assert api.commit(job, objects_checksum=form(right), **commit)

    def test_open_uploads_are_refused_unless_they_are_discarded(self, api):
        job = api.start_job()
        api.put(job, "a", b"1")
        for name in ("a", "b"):
            api.chunk(job, api.start(job, name), 0, b"2")
        for arguments in ({}, {"discard_open_uploads": False}):
            wrong = CommitBackupJob(backup_job_id=job, **arguments)
            api.refuses_and_keeps(IllegalArgumentException, wrong, match="2 uploads")
        assert api.restored(api.commit(job, discard_open_uploads=True)) == {"a": b"1"}

    def test_an_empty_job_without_base_is_refused(self, api):
        job = api.running_job()
        api.refuses_and_keeps(IllegalArgumentException, CommitBackupJob(backup_job_id=job))
        api.put(job, "a", b"1")
        api.delete(job, "a")
        api.refuses_and_keeps(IllegalArgumentException, CommitBackupJob(backup_job_id=job))
        api.put(job, "a", b"1")
        assert api.commit(job)

    def test_a_job_without_changes_makes_a_point_like_its_base(self, api):
        first = api.backup({"a": b"1", "b": b"2"})
        second = api.commit(api.start_job(), object_count=2)
        assert second != first
        assert api.restored(second) == {"a": b"1", "b": b"2"}
        assert api.point(second).backup_size_in_bytes == 2

    def test_a_job_that_deletes_everything_makes_an_empty_point(self, api):
        first = api.backup({"a": b"1"})
        job = api.start_job()
        api.delete(job, "a")
        empty = api.commit(job, object_count=0)
        assert api.restored(empty) == {}
        assert api.point(empty).backup_size_in_bytes == 0
        assert api.restored(first) == {"a": b"1"}

    def test_outcome_failed(self, api):
        """No point is made, the writes are rolled back, and a repetition has the same answer."""
        base = api.backup({"a": b"1"})
        job = api.start_job()
        api.put(job, "a", b"2")
        api.start(job, "open")
        arn = api.job(job).recovery_point_arn
        give_up = CommitBackupJob(backup_job_id=job, outcome="FAILED", status_message="disk on fire")
        done = api.call(give_up)
        assert (done.state, done.recovery_point_arn, done.backup_size_in_bytes) == ("FAILED", None, None)
        assert api.call(give_up) == done
        found = api.job(job)
        assert (found.state, found.status_message, found.message_category) == ("FAILED", "disk on fire", "AgentError")
        assert found.percent_done == "0.0"
        with pytest.raises(ResourceNotFoundException):
            api.point(arn)
        assert api.refuses(JobStateConflictException, CommitBackupJob(backup_job_id=job)).state == "FAILED"
        assert api.restored(base) == {"a": b"1"}
        assert api.restored(api.backup({"b": b"1"})) == {"a": b"1", "b": b"1"}

    def test_a_waiting_job_may_be_committed_as_failed(self, api):
        api.running_job()
        job = api.start_job()
        assert api.call(CommitBackupJob(backup_job_id=job, outcome="FAILED")).state == "FAILED"
        assert api.job(job).message_category == "AgentError"

    @pytest.mark.parametrize(
        "wrong",
        [
            {"outcome": "PERHAPS"},
            {"object_count": -1},
            {"objects_checksum": "x"},
            {"objects_checksum_algorithm": "SHA256"},
            {"issue_count": -1},
            {"resource_name": ""},
            {"resource_name": "x" * 1025},
            {"status_message": "x" * 2049},
            {"status_message": "a\nb"},
            {"message_category": "x" * 257},
            {"restore_metadata": {str(number): "" for number in range(65)}},
            {"restore_metadata": {"k": "v" * (32 * KIB)}},
            {"restore_metadata": {"é" * 8 * KIB: "é" * 8 * KIB + "x"}},
        ],
        ids=lambda wrong: str(wrong)[:40],
    )
    def test_wrong_arguments_are_refused(self, api, wrong):
        job = api.start_job()
        api.put(job, "a", b"1")
        api.refuses_and_keeps(IllegalArgumentException, CommitBackupJob(backup_job_id=job, **wrong))
        assert api.commit(job)

    def test_an_unknown_job(self, api):
        for job in ("x", "00000000-0000-4000-8000-FFFFFFFFFFFF"):
            api.refuses_and_keeps(ResourceNotFoundException, CommitBackupJob(backup_job_id=job))


class RestoreMetadataTests:
    """GetRecoveryPointRestoreMetadata returns the metadata of the commit, or that of the objects (3.4)."""

    @pytest.mark.parametrize(
        "metadata",
        [
            {},
            {"kind": "fileset", "größe": "\U0001f9ca", "lines": "a\nb\0", "": ""},
            {str(number): "x" for number in range(64)},
            {"k": "v" * (32 * KIB - 1)},
            {"é" * 8 * KIB: "é" * 8 * KIB},
        ],
        ids=["none", "texts", "64 keys", "32 KiB", "32 KiB of UTF-8"],
    )
    def test_the_metadata_of_the_commit_is_returned(self, api, metadata):
        job = api.start_job()
        api.put(job, "a", b"1", metadata_string="not asked")
        arn = api.commit(job, restore_metadata=metadata)
        found = api.call(GetRecoveryPointRestoreMetadata(backup_vault_name=api.vault, recovery_point_arn=arn))
        assert found.restore_metadata == metadata
        assert (found.recovery_point_arn, found.resource_type) == (arn, "FileSet")
        assert found.backup_vault_arn.endswith(f":backup-vault:{api.vault}")

    def test_without_it_the_objects_metadata_strings_are_saved(self, api):
        job = api.start_job()
        api.put(job, "b", b"1", metadata_string="two")
        api.upload(job, "a/é", [b"1"], metadata_string="größe=1")
        api.put(job, "c", b"1")
        assert restore_metadata(api, api.commit(job)) == {"a/é": "größe=1", "b": "two"}

    def test_inherited_objects_are_included(self, api):
        job = api.start_job()
        api.put(job, "a", b"1", metadata_string="one")
        api.put(job, "b", b"1", metadata_string="two")
        api.commit(job)
        job = api.start_job()
        api.delete(job, "b")
        assert restore_metadata(api, api.commit(job)) == {"a": "one"}

    def test_the_default_stays_within_the_limits(self, api):
        job = api.start_job()
        for number in range(66):
            api.put(job, f"{number:02}", metadata_string="x" * 700)
        found = restore_metadata(api, api.commit(job))
        assert found == {f"{number:02}": "x" * 700 for number in range(46)}

    def test_unknown_points(self, api):
        arn = api.backup({"a": b"1"})
        for wrong in (arn + "x", "x", arn.replace("local-1", "other-1")):
            api.refuses(
                ResourceNotFoundException,
                GetRecoveryPointRestoreMetadata(backup_vault_name=api.vault, recovery_point_arn=wrong),
            )


class CommitOnObjectTests:
    """Control plane 3.5: completing an object of an agreed name commits the job."""

    OPTIONS = {"CommitOnObject": "_commit"}  # noqa: RUF012 - no test changes it

    @pytest.fixture
    def job(self, api):
        job = api.start_job(backup_options=self.OPTIONS)
        api.put(job, "name", b"data", metadata_string="text")
        return job

    def test_completing_the_object_commits(self, api, job):
        """Its metadata blob is the restore metadata; the object itself is not stored."""
        upload = api.start(job, "_commit")
        answer = api.complete(job, upload, [], blob=b'{"kind": "stream", "b": "c"}')
        assert answer.object_checksum_algorithm == "SUMMARY"
        found = api.job(job)
        assert (found.state, found.message_category) == ("COMPLETED", "SUCCESS")
        assert api.restored(found.recovery_point_arn) == {"name": b"data"}
        assert restore_metadata(api, found.recovery_point_arn) == {"kind": "stream", "b": "c"}

    def test_putting_the_object_commits(self, api, job):
        answer = api.put(job, "_commit", b"ignored")
        assert answer.inline_chunk_checksum_algorithm == "SHA256"
        found = api.job(job)
        assert found.state == "COMPLETED"
        assert api.restored(found.recovery_point_arn) == {"name": b"data"}
        assert restore_metadata(api, found.recovery_point_arn) == {"name": "text"}

    def test_the_request_that_committed_may_be_repeated(self, api, job):
        """SDKs send a request again if its answer was lost."""
        answer = api.put(job, "_commit", b"ignored")
        assert api.put(job, "_commit", b"ignored") == answer
        again = PutObject(backup_job_id=job, object_name="other", inline_chunk=Payload(b"1"))
        api.refuses_and_keeps(IllegalArgumentException, again)

    def test_the_completion_that_committed_may_be_repeated(self, api, job):
        upload = api.start(job, "_commit")
        answer = api.complete(job, upload, [], blob=b'{"a": "b"}')
        assert api.complete(job, upload, [], blob=b'{"a": "b"}') == answer
        other = api.complete_operation(job, upload, [], blob=b'{"a": "c"}')
        api.refuses_and_keeps(IllegalArgumentException, other)

    @pytest.mark.parametrize(
        "blob",
        [
            b"x", b"[]", b"1", b'{"a": 1}', b'{"a": null}', b'{"a": {"b": "c"}}', b'{"a": "b"', b"\xff",
            b"{" + b",".join(b'"%d": ""' % number for number in range(65)) + b"}",
            b'{"k": "' + b"v" * 32 * KIB + b'"}',
        ],
        ids=lambda blob: repr(blob)[:20],
    )  # fmt: skip
    def test_other_metadata_is_refused_and_the_job_continues(self, api, job, blob):
        upload = api.start(job, "_commit")
        wrong = api.complete_operation(job, upload, [], blob=blob)
        api.refuses_and_keeps(IllegalArgumentException, wrong)
        api.refuses_and_keeps(IllegalArgumentException, wrong)
        assert api.job(job).state == "RUNNING"
        api.complete(job, upload, [], blob=b"{}")
        assert api.job(job).state == "COMPLETED"

    def test_other_open_uploads_are_refused_until_they_are_complete(self, api, job):
        """A refused commit leaves its own upload open, so that the same request works later."""
        other = api.start(job, "other")
        upload = api.start(job, "_commit")
        for _ in range(2):
            api.refuses_and_keeps(IllegalArgumentException, api.complete_operation(job, upload, []))
        assert api.job(job).state == "RUNNING"
        api.complete(job, other, [])
        api.complete(job, upload, [])
        assert api.job(job).state == "COMPLETED"

    def test_an_empty_job_without_base_is_refused(self, api):
        job = api.start_job(resource=new_resource(), backup_options=self.OPTIONS)
        upload = api.start(job, "_commit")
        for _ in range(2):
            api.refuses_and_keeps(IllegalArgumentException, api.complete_operation(job, upload, []))
        api.put(job, "name", b"1")
        api.complete(job, upload, [])
        assert api.job(job).state == "COMPLETED"

    def test_the_summary_of_the_upload_is_verified_first(self, api, job):
        upload = api.start(job, "_commit")
        api.chunk(job, upload, 0, b"1")
        api.refuses_and_keeps(IllegalArgumentException, api.complete_operation(job, upload, [b"2"]))
        assert api.job(job).state == "RUNNING"

    def test_without_the_option_the_name_is_an_ordinary_name(self, api):
        job = api.start_job()
        api.put(job, "_commit", b"1")
        assert api.read(job) == {"_commit": b"1"}

    def test_such_a_job_may_be_committed_in_the_usual_way(self, api, job):
        assert api.restored(api.commit(job)) == {"name": b"data"}
