"""Operations that may use the reserve; each transaction and each blob is retried by itself."""

from __future__ import annotations

import pytest

from conformance.blobstore import AppendableTests, BlobStoreTests
from cryostore.chunks.blobs.memory import MemoryBlobs
from cryostore.chunks.disk_reserve import FILE, NO_RESERVE, DiskReserve
from cryostore.core.errors import StorageFullError
from cryostore.model.errors import ServiceUnavailableException
from cryostore.model.jobs import CommitBackupJob, StopBackupJob
from cryostore.model.recovery_points import DeleteRecoveryPoint
from cryostore.model.vaults import CreateBackupVault, DeleteBackupVault
from cryostore.service import HANDLERS, Settings
from cryostore.service.reserve import BRINGING, ReservedBlobs, ReservedDatabase, brings_data
from support.catalogs.memory_database import MemoryDatabase
from support.faults.faulty_blobs import FaultyBlobs
from support.faults.faulty_database import FaultyDatabase
from support.requests.api import new_resource
from support.stores.in_process import opened

FULL = StorageFullError("no space")


@pytest.fixture
def reserve(tmp_path):
    reserve = DiskReserve(tmp_path, 4096)
    reserve.take_back()
    return reserve


@pytest.fixture
def store(tmp_path):
    """A store that cannot take its reserve back once it is used: the disk counts as full."""
    with opened(tmp_path / "data", settings=Settings(reserve_bytes=4096)) as store:
        yield store


@pytest.fixture
def full(store, monkeypatch):
    """Uses up the reserve, and keeps the disk full."""

    def give_up():
        monkeypatch.setattr(DiskReserve, "free_bytes", 0)
        assert store.service.context.reserve.give_up()

    return give_up


def test_exactly_the_operations_that_bring_data_are_refused():
    assert {operation.__name__ for operation in BRINGING} == {
        "CreateBackupVault", "StartBackupJob", "StartObject", "PutChunk", "LinkChunks", "PutObject",
        "NotifyObjectComplete",
    }  # fmt: skip
    assert set(HANDLERS) > BRINGING
    assert brings_data(CommitBackupJob(backup_job_id="x"))
    assert brings_data(CommitBackupJob(backup_job_id="x", outcome="COMPLETED"))
    assert not brings_data(CommitBackupJob(backup_job_id="x", outcome="FAILED"))
    assert not brings_data(StopBackupJob(backup_job_id="x"))


def test_a_new_store_has_its_reserve(store):
    assert (store.data_dir / FILE).stat().st_size == 4096


def test_without_the_reserve_new_data_is_refused_and_other_requests_succeed(store, full):
    api = store.api()
    arn = api.backup({"a": b"1"})
    second = api.backup({"a": b"2"})
    api.resource = new_resource()
    job = api.running_job()
    upload = api.start(job, "up")
    other = api.running_job(resource=new_resource())
    api.call(CreateBackupVault(backup_vault_name="spare"))
    full()
    for refused in (
        api.start_operation(resource=new_resource()),
        api.chunk_operation(job, upload, 0, b"x"),
        CommitBackupJob(backup_job_id=job, discard_open_uploads=True),
        CreateBackupVault(backup_vault_name="another"),
    ):
        api.refuses(ServiceUnavailableException, refused, match=r"^disk full on \S+: /.+: 1 MiB needed; retry later$")
    assert api.restored(second) == {"a": b"2"}
    api.delete_point(arn)
    api.call(CommitBackupJob(backup_job_id=job, outcome="FAILED"))
    api.stop(other)
    api.call(DeleteBackupVault(backup_vault_name="spare"))
    store.maintain()
    assert api.restored(second) == {"a": b"2"}


def test_a_refused_write_leaves_no_byte(store, full):
    api = store.api()
    job = api.running_job()
    upload = api.start(job, "up")
    full()
    api.refuses_and_keeps(ServiceUnavailableException, api.chunk_operation(job, upload, 0, b"x" * 1000))


def test_a_delete_happens_once_whichever_write_finds_the_disk_full(store):
    """Each write is retried by itself, so no retry sees an earlier write of the same delete."""
    api = store.api()
    context = store.service.context
    count = 1
    while True:
        arn = api.backup({"a": b"1"})
        faulty = FaultyDatabase(context.database._inner)
        faulty.fail(at=count, error=FULL)
        context.database._inner = faulty
        context.reserve.take_back()
        assert context.reserve.held
        api.call(DeleteRecoveryPoint(backup_vault_name="Default", recovery_point_arn=arn))
        context.database._inner = faulty.inner
        if faulty.faults_left:
            break
        assert not context.reserve.held
        count += 1
    assert count > 2


def test_reads_work_on_a_full_disk(reserve):
    database = ReservedDatabase(MemoryDatabase(), reserve)
    reserve.give_up()
    assert database.read(lambda _: 1) == 1


def test_a_blob_write_is_retried_in_the_space_of_the_reserve(reserve):
    faulty = FaultyBlobs(MemoryBlobs())
    blobs = ReservedBlobs(faulty, reserve)
    faulty.fail("put", error=FULL)
    with reserve.spending():
        blobs.put("a", b"data")
    assert blobs.get("a") == b"data"
    assert not reserve.held


class TestReservedBlobs(BlobStoreTests, AppendableTests):
    """With enough space it passes the conformance suite of blob stores."""

    @pytest.fixture
    def store(self):
        return ReservedBlobs(MemoryBlobs(), NO_RESERVE)

    def peek(self, store, key):
        blob = store._inner._blobs.get(key)
        return None if blob is None else bytes(blob)

    def plant(self, store, key, data):
        store._inner._blobs[key] = bytearray(data)
