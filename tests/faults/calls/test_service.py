"""Faults of single calls during write operations: each call to the disk or the database fails once."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cryostore.core.digest import Payload
from cryostore.core.errors import StorageFullError, StorageUnavailableError
from cryostore.model.chunks import LinkChunks, LinkedChunk
from cryostore.model.errors import ResourceNotFoundException, ServiceUnavailableException
from cryostore.model.jobs import (
    CommitBackupJob,
    DescribeBackupJob,
    GetIncrementalBaseBackup,
    ListBackupJobs,
    StopBackupJob,
)
from cryostore.model.objects import DeleteObject, PutObject, StartObject
from cryostore.model.recovery_points import DeleteRecoveryPoint
from cryostore.model.restore_jobs import CompleteRestoreJob, DescribeRestoreJob, ListRestoreJobs, StartRestoreJob
from cryostore.model.vaults import CreateBackupVault, DeleteBackupVault, ListBackupVaults
from support.requests.api import hex_of, new_resource
from support.requests.calls import over_asgi
from support.stores.integrity import problems


class Request(NamedTuple):
    """A request, a function that returns its visible state, and the expected state after it."""

    operation: Any
    look: Any
    after: Any
    between: tuple = ()
    """States that may be visible before the operation continues by itself."""
    gone: bool = False
    """Whether a repetition may fail because the first attempt succeeded."""
    finish: Any = None


def attached(api, upload):
    """Return the number of chunks of an upload."""
    if not isinstance(api.data_dir, Path):
        return api.data_dir.rows("SELECT chunk_count FROM upload WHERE upload_id = :upload", upload=upload)[0][0]
    with closing(sqlite3.connect(api.data_dir / "catalog.sqlite")) as connection:
        return connection.execute("SELECT chunk_count FROM upload WHERE upload_id = ?", (upload,)).fetchone()[0]


def fresh(api):
    """Make a new resource with two recovery points and an open job."""
    api.resource = new_resource()
    api.backup({"a": b"1", "b": b"1", "c": b"1"})
    api.backup({"b": b"2"})
    job = api.running_job()
    api.put(job, "own", b"3")
    return job


def put_chunk(api):
    job = fresh(api)
    upload = api.start(job, "up")

    def finish():
        api.complete(job, upload, [b"data"])
        assert api.read(job)["up"] == b"data"
        assert api.job(job).bytes_transferred == 5

    operation = api.chunk_operation(job, upload, 7, b"data")
    return Request(operation, lambda: attached(api, upload), 1, finish=finish)


def link_chunks(api):
    job = fresh(api)
    upload = api.start(job, "up")
    chunks = [
        LinkedChunk(index=index, length=1, checksum=hex_of(data), checksum_algorithm="SHA256")
        for index, data in enumerate((b"1", b"2", b"3"))
    ]

    def finish():
        api.complete(job, upload, [b"1", b"2", b"3"])
        assert api.read(job)["up"] == b"123"

    operation = LinkChunks(backup_job_id=job, upload_id=upload, chunks=chunks)
    return Request(operation, lambda: attached(api, upload), 3, finish=finish)


def put_object(api):
    job = fresh(api)
    operation = PutObject(backup_job_id=job, object_name="b", inline_chunk=Payload(b"new bytes"))
    return Request(operation, lambda: api.read(job), {"a": b"1", "b": b"new bytes", "c": b"1", "own": b"3"})


def start_object(api):
    job = fresh(api)
    view = api.read(job)
    return Request(StartObject(backup_job_id=job, object_name="b"), lambda: api.read(job), view)


def complete_upload(api):
    job = fresh(api)
    upload = api.start(job, "b")
    api.chunk(job, upload, 4, b"new")
    operation = api.complete_operation(job, upload, [b"new"], metadata_string="text", blob=b"blob")
    return Request(
        operation,
        lambda: (api.read(job), api.metadata(job, "b").metadata_string),
        ({"a": b"1", "b": b"new", "c": b"1", "own": b"3"}, "text"),
    )


def complete_long_upload(api):
    job = fresh(api)
    upload = api.start(job, "long")
    for start in (0, 1000, 2000):
        chunks = [
            LinkedChunk(index=start + place, length=1, checksum=hex_of(b"1"), checksum_algorithm="SHA256")
            for place in range(700)
        ]
        api.call(LinkChunks(backup_job_id=job, upload_id=upload, chunks=chunks))
    operation = api.complete_operation(job, upload, [b"1"] * 2100)

    def look():
        return {one: api.found(job, one).chunks_count for one in api.names(job)}

    return Request(operation, look, {"a": 1, "b": 1, "c": 1, "own": 1, "long": 2100})


def complete_upload_that_commits(api):
    fresh_job = fresh(api)
    api.stop(fresh_job)
    job = api.start_job(backup_options={"CommitOnObject": "_commit"})
    api.put(job, "own", b"3")
    upload = api.start(job, "_commit")
    operation = api.complete_operation(job, upload, [], blob=b'{"k": "v"}')
    return Request(operation, lambda: api.job(job).state, "COMPLETED", finish=lambda: restores(api, job))


def put_object_that_commits(api):
    fresh_job = fresh(api)
    api.stop(fresh_job)
    job = api.start_job(backup_options={"CommitOnObject": "_commit"})
    api.put(job, "own", b"3")
    operation = PutObject(backup_job_id=job, object_name="_commit")
    return Request(operation, lambda: api.job(job).state, "COMPLETED", finish=lambda: restores(api, job))


def restores(api, job):
    assert api.restored(api.job(job).recovery_point_arn) == {"a": b"1", "b": b"2", "c": b"1", "own": b"3"}


def delete_object(api):
    job = fresh(api)
    operation = DeleteObject(backup_job_id=job, object_name="a")
    return Request(operation, lambda: api.read(job), {"b": b"2", "c": b"1", "own": b"3"}, gone=True)


def commit(api):
    job = fresh(api)
    api.chunk(job, api.start(job, "open"), 0, b"1")
    operation = CommitBackupJob(backup_job_id=job, object_count=4, discard_open_uploads=True)

    def look():
        found = api.job(job)
        return found.state, api.point(found.recovery_point_arn).status

    return Request(operation, look, ("COMPLETED", "COMPLETED"), finish=lambda: restores(api, job))


def commit_with_checksum(api):
    """The commit computes the checksum in a separate transaction."""
    job = fresh(api)
    api.delete(job, "a")
    api.delete(job, "b")
    api.delete(job, "c")
    digest = hex_of(b"own\0" + bytes.fromhex(hex_of(bytes.fromhex(hex_of(b"3")))))
    operation = CommitBackupJob(backup_job_id=job, objects_checksum=digest)
    return Request(operation, lambda: api.job(job).state, "COMPLETED")


def give_up(api):
    job = fresh(api)
    api.delete(job, "a")
    api.start(job, "open")
    operation = CommitBackupJob(backup_job_id=job, outcome="FAILED")
    return Request(operation, lambda: api.job(job).state, "FAILED", finish=lambda: check_next_job(api))


def stop(api):
    job = fresh(api)
    api.delete(job, "a")
    api.start(job, "open")
    operation = StopBackupJob(backup_job_id=job)
    return Request(operation, lambda: api.job(job).state, "ABORTED", ("ABORTING",), finish=lambda: check_next_job(api))


def check_next_job(api):
    """Check that the next job of the resource starts without the data of this one."""
    assert api.read(api.start_job()) == {"a": b"1", "b": b"2", "c": b"1"}


def start_backup_job(api):
    fresh(api)
    operation = api.start_operation(idempotency_token=new_resource())
    return Request(operation, lambda: len(api.listed(ListBackupJobs(by_resource_arn=api.resource))), 4)


def start_job(api):
    api.stop(fresh(api))
    job = api.start_job()
    operation = GetIncrementalBaseBackup(backup_job_id=job)
    look = DescribeBackupJob(backup_job_id=job)
    return Request(operation, lambda: api.call(look).state, "RUNNING", finish=lambda: check_base_of(api, job))


def check_base_of(api, job):
    assert api.read(job) == {"a": b"1", "b": b"2", "c": b"1"}


def delete_recovery_point(api):
    api.stop(fresh(api))
    arn = api.backup({"c": b"3", "a": None})
    first, second = [job.recovery_point_arn for job in completed(api)][::-1][:2]

    def look():
        try:
            return api.point(first).status
        except ResourceNotFoundException:
            return "gone"

    def finish():
        assert api.restored(second) == {"a": b"1", "b": b"2", "c": b"1"}
        assert api.restored(arn) == {"b": b"2", "c": b"3"}

    operation = DeleteRecoveryPoint(backup_vault_name=api.vault, recovery_point_arn=first)
    return Request(operation, look, "gone", ("DELETING",), gone=True, finish=finish)


def completed(api):
    """Return the committed jobs of the resource, newest first."""
    jobs = api.listed(ListBackupJobs(by_resource_arn=api.resource, by_state="COMPLETED"))
    return sorted(jobs, key=lambda job: job.completion_date, reverse=True)


def start_restore_job(api):
    fresh(api)
    arn = completed(api)[0].recovery_point_arn
    operation = StartRestoreJob(recovery_point_arn=arn, metadata={}, idempotency_token=new_resource())

    def look():
        return len([job for job in api.listed(ListRestoreJobs()) if job.recovery_point_arn == arn])

    return Request(operation, look, 1)


def complete_restore_job(api):
    fresh(api)
    arn = completed(api)[0].recovery_point_arn
    job = api.restore(arn)
    operation = CompleteRestoreJob(restore_job_id=job, status="COMPLETED")
    look = DescribeRestoreJob(restore_job_id=job)

    def finish():
        assert api.point(arn).last_restore_time is not None

    return Request(operation, lambda: api.call(look).status, "COMPLETED", finish=finish)


def vault_names(api):
    return {vault.backup_vault_name for vault in api.listed(ListBackupVaults())}


def create_vault(api):
    name = new_resource().rpartition(":")[2]
    operation = CreateBackupVault(backup_vault_name=name, creator_request_id="1")

    def finish():
        api.vault = name
        assert api.restored(api.backup({"a": b"1"})) == {"a": b"1"}
        api.vault = "Default"

    return Request(operation, lambda: name in vault_names(api), after=True, finish=finish)


def delete_vault(api):
    name = new_resource().rpartition(":")[2]
    api.call(CreateBackupVault(backup_vault_name=name))
    operation = DeleteBackupVault(backup_vault_name=name)
    return Request(operation, lambda: name in vault_names(api), after=False, gone=True)


REQUESTS = [
    put_chunk, link_chunks, put_object, start_object, complete_upload, complete_long_upload,
    complete_upload_that_commits, put_object_that_commits, delete_object, commit, commit_with_checksum, give_up, stop,
    start_backup_job, start_job, delete_recovery_point, start_restore_job, complete_restore_job, create_vault,
    delete_vault,
]  # fmt: skip
SOME = {put_chunk}
"""The requests that `make test` tries on real services. `make stress` tries the others."""


def calls(faulty):
    """Return the number of calls of each part so far."""
    counts = {method: faulty.blobs.calls.get(method, 0) for method in faulty.blob_methods}
    return counts | {"read": faulty.database.reads, "write": faulty.database.writes}


def faults(used, blob_methods):
    """Yield all faults for a request that made so many calls: the part, the number of the call, and how it fails."""
    for kind in ("read", "write"):
        for at in range(1, used[kind] + 1):
            yield kind, at, {}
    for at in range(1, used["write"] + 1):
        yield "write", at, {"answer_lost": True}
    for method in blob_methods:
        for at in range(1, used[method] + 1):
            yield method, at, {}
            if method != "sync":
                yield method, at, {"error": StorageFullError("no space left")}
            if method == "append":
                yield method, at, {"torn_bytes": 17}
            if method == "put":
                yield method, at, {"answer_lost": True}


def inject(faulty, kind, at, how):
    if kind in ("read", "write"):
        faulty.database.fail(at, kind=kind, **how)
    else:
        error = how.get("error") or StorageUnavailableError("the disk fails")
        lost = how.get("answer_lost", False)
        faulty.blobs.fail(kind, at, error, torn_bytes=how.get("torn_bytes", 0), answer_lost=lost)


@pytest.mark.parametrize("prepare", REQUESTS, ids=lambda prepare: prepare.__name__)
def test_a_failure_at_any_call(faulty, prepare):
    fail_everywhere(faulty, prepare)


@pytest.mark.parametrize(
    "prepare",
    [pytest.param(one, marks=[] if one in SOME else [pytest.mark.stress], id=one.__name__) for one in REQUESTS],
)
def test_a_failure_at_any_call_on_services(faulty_on_services, prepare):
    """The test above on PostgreSQL and S3, which stores whole blobs."""
    fail_everywhere(faulty_on_services, prepare)


def fail_everywhere(faulty, prepare):
    api = faulty.api
    faulty.reopen()  # so that the request opens a new pack
    request = prepare(api)
    before = calls(faulty)
    api.call(request.operation)
    used = {part: count - before[part] for part, count in calls(faulty).items()}
    assert used["write"], "a write operation writes"
    tried = 0
    for kind, at, how in faults(used, faulty.blob_methods):
        faulty.reopen()
        one_failure(faulty, prepare(api), kind, at, how)
        tried += 1
    assert tried > used["write"]
    faulty.reopen()
    assert problems(api.data_dir) == []
    faulty.store.maintain()
    assert problems(api.data_dir) == []


def one_failure(faulty, request, kind, at, how):
    """Make the request with one failure, then repeat it."""
    api = faulty.api
    states = (request.look(), request.after, *request.between)
    inject(faulty, kind, at, how)
    error = None
    try:
        api.call(request.operation)
    except ServiceUnavailableException as raised:
        error = raised
    faulty.database.heal()
    faulty.blobs.faults.clear()
    assert error is None or error.__cause__ is not None
    assert request.look() in states, (kind, at, how)
    with suppress(*([ResourceNotFoundException] if request.gone and error else [])):
        api.call(request.operation)
    assert request.look() == request.after, (kind, at, how)
    if request.finish:
        request.finish()


def test_the_log_has_details_that_the_caller_does_not_get(faulty):
    """The log has the cause under the request's id. The answer only asks the caller to retry later."""
    api = faulty.api
    job = api.running_job()
    with over_asgi(faulty.store.service, api.data_dir, clock=faulty.store.clock) as client:
        for _ in range(5):  # one for each attempt of the client
            faulty.blobs.fail("append", len(faulty.blobs.faults) + 1, StorageFullError("disk /secret/path is full"))
        with pytest.raises(ServiceUnavailableException) as raised:
            client.call(PutObject(backup_job_id=job, object_name="name", inline_chunk=Payload(b"1")))
    assert "secret" not in str(raised.value)
    log = (api.data_dir.parent / "asgi.log").read_text()
    assert log.count("disk /secret/path is full") >= 1
    assert "Traceback" not in str(raised.value)


def test_the_store_opens_after_a_failed_restart(faulty, monkeypatch):
    """The next opening of the store finds all stored data."""
    api = faulty.api
    arn = api.backup({"a": b"1"})
    faulty.store.service.close()
    monkeypatch.setattr(
        "cryostore.service.opening.open.recover_packs", lambda *_: (_ for _ in ()).throw(StorageFullError("full"))
    )
    with pytest.raises(StorageFullError):
        faulty.store.open()
    monkeypatch.undo()
    faulty.store.service = faulty.store.open()
    faulty.inject()
    assert api.restored(arn) == {"a": b"1"}
