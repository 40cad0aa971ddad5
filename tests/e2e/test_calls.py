"""The same backup and errors through every implementation of Call."""

from __future__ import annotations

import hashlib

import pytest

from cryostore.client.pages import chunks, objects
from cryostore.core.digest import Payload
from cryostore.core.time import FrozenClock
from cryostore.model.chunks import GetChunk
from cryostore.model.errors import DataAlreadyExistsException, JobStateConflictException, ModelError
from cryostore.model.jobs import CommitBackupJob, DescribeBackupJob, StartBackupJob
from cryostore.model.objects import DeleteObject, GetObjectMetadata, PutObject, StartObject
from cryostore.model.restore_jobs import StartRestoreJob
from cryostore.service.opening.open import open_service
from support.requests.calls import in_process, over_asgi

START = StartBackupJob(
    backup_vault_name="Default",
    resource_arn="arn:aws:cryo:local-1:000000000000:fileset:host:calls",
    iam_role_arn="arn:aws:iam::000000000000:role/backup-agent",
)


@pytest.fixture
def store(tmp_path):
    """A store on a stopped clock, with its directory and clock."""
    clock = FrozenClock()
    service = open_service(tmp_path / "data", clock=clock)
    yield service, tmp_path / "data", clock
    service.close()


@pytest.fixture(params=["in process", "over ASGI", "over TCP"])
def call(request):
    if request.param == "over TCP":
        with request.getfixturevalue("server").client() as client:
            yield client
        return
    service, data_dir, clock = request.getfixturevalue("store")
    if request.param == "in process":
        yield in_process(service, data_dir)
    else:
        with over_asgi(service, data_dir, clock=clock) as client:
            yield client


def test_a_backup_and_a_restore(call):
    job_id = call.call(START).backup_job_id
    for number in range(3):
        data = Payload(b"%d" % number * 1000)
        stored = call.call(
            PutObject(
                backup_job_id=job_id, object_name=f"name/{number}", inline_chunk=data, metadata_string=f"größe {number}"
            )
        )
        assert stored.object_checksum_algorithm == "SUMMARY"
    call.call(DeleteObject(backup_job_id=job_id, object_name="name/1"))
    with pytest.raises(DataAlreadyExistsException) as raised:
        call.call(StartObject(backup_job_id=job_id, object_name="name/0", throw_on_duplicate=True))
    assert raised.value.checksum is not None
    arn = call.call(CommitBackupJob(backup_job_id=job_id, object_count=2)).recovery_point_arn
    assert call.call(DescribeBackupJob(backup_job_id=job_id)).state == "COMPLETED"

    restore_job_id = call.call(StartRestoreJob(recovery_point_arn=arn, metadata={})).restore_job_id
    found = {}
    for one in objects(call, restore_job_id):
        pieces = [
            call.call(GetChunk(storage_job_id=restore_job_id, chunk_token=chunk.chunk_token)).data.data
            for chunk in chunks(call, restore_job_id, one.object_token)
        ]
        metadata = call.call(GetObjectMetadata(storage_job_id=restore_job_id, object_token=one.object_token))
        found[one.name] = b"".join(pieces), metadata.metadata_string
    assert found == {"name/0": (b"0" * 1000, "größe 0"), "name/2": (b"2" * 1000, "größe 2")}


def test_errors_have_the_same_class_and_text(call):
    """The text names argument, value and rule; its job id differs from run to run."""
    job_id = call.call(START).backup_job_id
    checksum = hashlib.sha256(b"other").hexdigest()
    wrong = PutObject(
        backup_job_id=job_id, object_name="name", inline_chunk=Payload(b"data"), inline_chunk_checksum=checksum
    )
    with pytest.raises(ModelError) as raised:
        call.call(wrong)
    assert type(raised.value).__name__ == "IllegalArgumentException"
    assert checksum in raised.value.message
    call.call(CommitBackupJob(backup_job_id=job_id, outcome="FAILED"))
    with pytest.raises(JobStateConflictException) as conflict:
        call.call(CommitBackupJob(backup_job_id=job_id, outcome="COMPLETED"))
    assert conflict.value.state == "FAILED"
