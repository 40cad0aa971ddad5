"""The service as a whole: internal failures become modelled errors, processes share a store, callers are authorised."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given, settings

from cryostore.core.errors import DamagedDataError, KeyMissingError, KeyUnavailableError, StorageFullError
from cryostore.model import OPERATIONS, jobs, objects, recovery_points, restore_jobs
from cryostore.model.chunks import GetChunk, LinkChunks, LinkedChunk, ListChunks
from cryostore.model.errors import (
    AccessDeniedException,
    DamagedDataException,
    KMSInvalidKeyUsageException,
    ModelError,
    ServiceUnavailableException,
)
from cryostore.model.objects import GetObjectMetadata
from cryostore.model.vaults import CreateBackupVault, DeleteBackupVault, ListBackupVaults
from cryostore.service import HANDLERS, Caller, Settings
from support.requests.api import footprint, hex_of, summary_hex
from support.requests.strategies import operations
from support.stores.in_process import opened


def test_every_operation_has_a_handler():
    assert {operation.__name__ for operation in HANDLERS} == set(OPERATIONS)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_an_unauthorised_caller_is_refused(shared_store, name):
    """Each operation raises AccessDeniedException, or an earlier error; it returns nothing and changes nothing."""
    nobody = Caller(access_key_id="AKIANOBODY")
    before = footprint(shared_store.data_dir)

    @settings(max_examples=5)
    @given(operation=operations(name))
    def check(operation):
        with pytest.raises(ModelError):
            shared_store.service.call(operation, nobody)

    check()
    assert footprint(shared_store.data_dir) == before


def test_an_unauthorised_caller_reaches_no_existing_resource(store):
    """With real ids, the error must be AccessDeniedException."""
    api = store.api()
    arn = api.backup({"name": b"1"})
    restore, job = api.restore(arn), api.running_job()
    upload = api.start(job, "up")
    one = api.found(restore, "name")
    nobody = Caller(access_key_id="AKIANOBODY")
    for operation in (
        objects.StartObject(backup_job_id=job, object_name="x"),
        objects.PutObject(backup_job_id=job, object_name="x"),
        objects.DeleteObject(backup_job_id=job, object_name="name"),
        api.chunk_operation(job, upload, 0, b"1"),
        api.complete_operation(job, upload, []),
        GetObjectMetadata(storage_job_id=restore, object_token=one.object_token),
        ListChunks(storage_job_id=restore, object_token=one.object_token),
        jobs.CommitBackupJob(backup_job_id=job),
        jobs.StopBackupJob(backup_job_id=job),
        jobs.DescribeBackupJob(backup_job_id=job),
        jobs.GetIncrementalBaseBackup(backup_job_id=job),
        jobs.ListBackupJobs(),
        api.start_operation(),
        recovery_points.DescribeRecoveryPoint(backup_vault_name=api.vault, recovery_point_arn=arn),
        recovery_points.DeleteRecoveryPoint(backup_vault_name=api.vault, recovery_point_arn=arn),
        restore_jobs.StartRestoreJob(recovery_point_arn=arn, metadata={}),
        restore_jobs.CompleteRestoreJob(restore_job_id=restore, status="COMPLETED"),
        restore_jobs.DescribeRestoreJob(restore_job_id=restore),
        ListBackupVaults(),
        CreateBackupVault(backup_vault_name="another"),
    ):
        with pytest.raises(AccessDeniedException, match=operation.declaration.action):
            store.service.call(operation, nobody)


@pytest.mark.parametrize(
    ("failure", "error_class"),
    [
        (StorageFullError("no space left on /secret/path"), ServiceUnavailableException),
        (KeyUnavailableError("key /secret/path is missing"), KMSInvalidKeyUsageException),
        (DamagedDataError("pack /secret/path is damaged"), DamagedDataException),
        (KeyMissingError("id", hint="/secret/path"), ServiceUnavailableException),
    ],
)
def test_internal_failures_become_errors_without_paths(shared_store, monkeypatch, failure, error_class):
    """The message tells the caller what to do next; the cause has the details for the log."""

    def fail(*_):
        raise failure

    monkeypatch.setitem(HANDLERS, ListBackupVaults, fail)
    with pytest.raises(error_class) as raised:
        shared_store.call(ListBackupVaults())
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is failure


def test_two_services_share_a_store(store):
    """An upload is started on one and completed on the other; each sees the other's writes at once."""
    other = store.open()
    first, second = store.api(), store.api()
    second._call, second.resource = other.as_caller(Caller("AKIA", root=True)), first.resource
    job = first.start_job()
    upload = second.start(job, "name")
    first.chunk(job, upload, 0, b"one")
    second.chunk(job, upload, 1, b"two")
    first.complete(job, upload, [b"one", b"two"])
    assert second.read(job) == {"name": b"onetwo"}
    arn = second.commit(job)
    token = first.restore(arn)
    assert second.read(token) == first.read(token) == {"name": b"onetwo"}
    store.service.close()
    assert second.read(token) == {"name": b"onetwo"}
    other.close()
    store.service = store.open()


def test_a_damaged_chunk_is_never_returned(store):
    api = store.api()
    job = api.restore(api.backup({"name": b"data" * 100}))
    (chunk,) = api.chunks(job, "name")
    (pack,) = (store.data_dir / "packs").rglob("*.pack")
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.write_bytes(data)
    api.refuses(DamagedDataException, GetChunk(storage_job_id=job, chunk_token=chunk.chunk_token))
    pack.unlink()
    api.refuses(DamagedDataException, GetChunk(storage_job_id=job, chunk_token=chunk.chunk_token))


def test_a_chunk_that_the_catalog_lacks_is_an_internal_failure(store):
    """With a 404, a client would conclude that the chunk does not exist."""
    api = store.api()
    job = api.restore(api.backup({"name": b"data"}))
    (chunk,) = api.chunks(job, "name")
    with closing(sqlite3.connect(store.data_dir / "catalog.sqlite")) as connection, connection:
        connection.execute("DELETE FROM chunk")
    api.refuses(DamagedDataException, GetChunk(storage_job_id=job, chunk_token=chunk.chunk_token))


def test_a_summary_is_stored_as_given_if_so_configured(tmp_path):
    """B.4: summary_checksum = "store", for clients that compute another SUMMARY."""
    with opened(tmp_path / "data", settings=Settings(summary_checksum="store")) as store:
        api = store.api()
        job = api.start_job()
        other = summary_hex(b"something else")
        upload = api.start(job, "up")
        api.chunk(job, upload, 0, b"1")
        assert api.complete(job, upload, [], object_checksum=other).object_checksum == other
        assert api.put(job, "put", b"1", object_checksum=other).object_checksum == other
        assert {api.found(job, name).object_checksum for name in ("up", "put")} == {other}
        assert api.read(job) == {"up": b"1", "put": b"1"}


def test_a_deleted_vault_leaves_no_rows(store):
    """They are gone after a round of background tasks; the rows of another vault stay."""
    api = store.api()
    kept = api.backup({"kept": b"1"})
    before = rows(store)
    name = api.new_vault()
    points = [api.backup({"a": b"1", "b": b"2"}), api.backup({"a": None})]
    points.append(api.backup({"c": b"3"}, backup_options={"IncrementalBase": points[0].rpartition(":")[2]}))
    job = api.start_job()
    api.put(job, "x", b"x")
    upload = api.start(job, "long")
    for start in (0, 1000):
        linked = [
            LinkedChunk(index=start + place, length=1, checksum=hex_of(b"x"), checksum_algorithm="SHA256")
            for place in range(1000)
        ]
        api.call(LinkChunks(backup_job_id=job, upload_id=upload, chunks=linked))
    api.complete(job, upload, [b"x"] * 2000)
    api.chunk(job, api.start(job, "open"), 0, b"1")
    api.stop(job)
    api.end_restore(api.restore(points[0]))
    for arn in points:
        api.delete_point(arn)
    api.call(DeleteBackupVault(backup_vault_name=name))
    store.maintain()
    after = rows(store)
    assert {table: count - before[table] for table, count in after.items() if count != before[table]} == {}
    api.vault = "Default"
    assert api.restored(kept) == {"kept": b"1"}


def rows(store):
    """Rows by table, without packs, which garbage collection removes, and claims."""
    with closing(sqlite3.connect(store.data_dir / "catalog.sqlite")) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in tables
            if not re.match("sqlite_|pack|idempotency|claim", table)
        }
