"""Concurrent requests to two services on one store: the outcome equals that of some sequential order."""

from __future__ import annotations

import threading

import pytest

from cryostore.core.digest import Payload
from cryostore.model.chunks import LinkChunks, LinkedChunk
from cryostore.model.errors import (
    DataAlreadyExistsException,
    IllegalArgumentException,
    InvalidResourceStateException,
    JobStateConflictException,
    ModelError,
    ResourceNotFoundException,
    ThrottlingException,
)
from cryostore.model.jobs import CommitBackupJob, GetIncrementalBaseBackup, ListBackupJobs, StopBackupJob
from cryostore.model.objects import DeleteObject, PutObject
from cryostore.model.recovery_points import DeleteRecoveryPoint
from cryostore.model.restore_jobs import StartRestoreJob
from cryostore.model.vaults import CreateBackupVault, DeleteBackupVault
from cryostore.service import Caller
from support.requests.api import hex_of, new_resource, summary_base64
from support.stores.integrity import problems

ROUNDS = 12
ROOT = Caller("AKIARACES", root=True)


@pytest.fixture(scope="module")
def services(shared_store):
    """Two services on one directory."""
    other = shared_store.open()
    yield shared_store.service, other
    other.close()


@pytest.fixture
def race(services, shared_store):
    """Carries out operations concurrently on both services; returns outputs and errors in the given order."""

    def run(*operations):
        outcomes = [None] * len(operations)
        start = threading.Barrier(len(operations))

        def one(place):
            start.wait()
            try:
                outcomes[place] = services[place % 2].call(operations[place], ROOT)
            except ModelError as error:
                outcomes[place] = error

        threads = [threading.Thread(target=one, args=(place,)) for place in range(len(operations))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert None not in outcomes, "something else than a modelled error was raised"
        return outcomes

    yield run
    shared_store.maintain()
    assert problems(shared_store.data_dir) == []


def kinds(outcomes):
    """Each outcome's error class, None where there is none."""
    return [type(outcome) if isinstance(outcome, ModelError) else None for outcome in outcomes]


def put(job, name, data, **more):
    return PutObject(backup_job_id=job, object_name=name, inline_chunk=Payload(data), **more)


def test_one_name(api, race):
    """All succeed; the object is one of them, whole."""
    job = api.start_job()
    for number in range(ROUNDS):
        contents = [b"%d" % place * 1000 for place in range(4)]
        assert kinds(race(*(put(job, f"n{number}", data) for data in contents))) == [None] * 4
        assert api.read(job)[f"n{number}"] in contents


def test_one_new_name(api, race):
    """One succeeds; the errors of the others have its checksum."""
    job = api.start_job()
    for number in range(ROUNDS):
        contents = [b"%d" % place for place in range(4)]
        outcomes = race(*(put(job, f"n{number}", data, throw_on_duplicate=True) for data in contents))
        assert sorted(map(str, kinds(outcomes))) == sorted(map(str, [None, *[DataAlreadyExistsException] * 3]))
        winner = contents[kinds(outcomes).index(None)]
        assert api.read(job)[f"n{number}"] == winner
        assert {one.checksum for one in outcomes if isinstance(one, ModelError)} == {summary_base64(winner)}


def test_one_index_with_the_same_bytes(api, race):
    """All succeed, and the chunk counts once."""
    job = api.start_job()
    for number in range(ROUNDS):
        upload = api.start(job, f"n{number}")
        data = b"%d" % number * 100
        linked = LinkedChunk(index=5, length=len(data), checksum=hex_of(data), checksum_algorithm="SHA256")
        chunk = api.chunk_operation(job, upload, 5, data)
        link = LinkChunks(backup_job_id=job, upload_id=upload, chunks=[linked])
        assert kinds(race(chunk, chunk, link, chunk)) == [None] * 4
        api.complete(job, upload, [data])
        assert api.found(job, f"n{number}").chunks_count == 1


def test_one_index_with_different_bytes(api, race):
    """One succeeds; the errors of the others have its checksum."""
    job = api.start_job()
    for number in range(ROUNDS):
        upload = api.start(job, f"n{number}")
        contents = [b"%d %d" % (number, place) for place in range(4)]
        outcomes = race(*(api.chunk_operation(job, upload, 5, data) for data in contents))
        assert kinds(outcomes).count(DataAlreadyExistsException) == 3
        winner = contents[kinds(outcomes).index(None)]
        assert {one.checksum for one in outcomes if isinstance(one, ModelError)} == {hex_of(winner)}
        api.complete(job, upload, [winner])


def test_the_same_bytes_everywhere(api, race):
    """New bytes are recorded once."""
    job = api.start_job()
    for number in range(ROUNDS):
        assert kinds(race(*(put(job, f"{number}-{place}", b"%d" % number * 50) for place in range(6)))) == [None] * 6
    assert api.read(job) == {f"{number}-{place}": b"%d" % number * 50 for number in range(ROUNDS) for place in range(6)}


def test_completing_twice_at_once(api, race):
    job = api.start_job()
    for number in range(ROUNDS):
        upload = api.start(job, f"n{number}")
        api.chunk(job, upload, 0, b"data")
        same = api.complete_operation(job, upload, [b"data"], blob=b"blob")
        other = api.complete_operation(job, upload, [b"data"], blob=b"other")
        first, second, third = race(same, same, other)
        assert kinds((first, second)) in ([None, None], [IllegalArgumentException] * 2)
        assert (kinds((third,)) == [None]) == (kinds((first,)) != [None])
        expected = b"other" if kinds((third,)) == [None] else b"blob"
        assert api.metadata(job, f"n{number}").metadata_blob == Payload(expected)


def test_putting_and_deleting(api, race):
    for _ in range(ROUNDS):
        api.backup({"a": b"1", "kept": b"1"})
        job = api.running_job()
        delete = DeleteObject(backup_job_id=job, object_name="a")
        outcomes = race(delete, put(job, "a", b"2"), delete)
        assert outcomes[1].object_checksum == summary_base64(b"2")
        assert set(kinds(outcomes)) <= {None, ResourceNotFoundException}
        assert api.read(job) in ({"kept": b"1"}, {"a": b"2", "kept": b"1"})
        deleted = kinds(outcomes).count(None) - 1
        assert 1 <= deleted <= 2
        api.commit(job, object_count=len(api.names(job)))


def test_one_commit_many_times(api, race):
    """All get the same answer, and there is one point."""
    for number in range(ROUNDS):
        job = api.start_job()
        api.put(job, f"n{number}", b"1")
        outcomes = race(*[CommitBackupJob(backup_job_id=job)] * 4)
        assert len(set(outcomes)) == 1
        assert outcomes[0].state == "COMPLETED"
    assert len(api.restored(outcomes[0].recovery_point_arn)) == ROUNDS


def test_different_commits(api, race):
    """One succeeds; the errors of the others have the resulting state."""
    for number in range(ROUNDS):
        job = api.start_job()
        api.put(job, f"n{number}", b"1")
        outcomes = race(
            CommitBackupJob(backup_job_id=job),
            CommitBackupJob(backup_job_id=job, outcome="FAILED"),
            CommitBackupJob(backup_job_id=job, issue_count=1),
        )
        assert sorted(map(str, kinds(outcomes))) == sorted(map(str, [None, *[JobStateConflictException] * 2]))
        (winner,) = [outcome for outcome in outcomes if not isinstance(outcome, ModelError)]
        assert {one.state for one in outcomes if isinstance(one, ModelError)} == {winner.state}
        assert api.job(job).state == winner.state


def test_a_commit_and_writes(api, race):
    """A write is acknowledged if, and only if, the point has it."""
    for _ in range(ROUNDS):
        job = api.start_job(backup_options={"IncrementalBase": "none"})
        api.put(job, "a", b"1")
        upload = api.start(job, "up")
        api.chunk(job, upload, 0, b"3")
        outcomes = race(
            put(job, "b", b"2"),
            CommitBackupJob(backup_job_id=job, discard_open_uploads=True),
            api.complete_operation(job, upload, [b"3"]),
            DeleteObject(backup_job_id=job, object_name="a"),
        )
        if isinstance(outcomes[1], ModelError):  # the delete ran before every write
            assert kinds(outcomes)[1] is IllegalArgumentException
            api.stop(job)
            continue
        expected = {"a": b"1"} if kinds(outcomes)[3] else {}
        expected |= {} if kinds(outcomes)[0] else {"b": b"2"}
        expected |= {} if kinds(outcomes)[2] else {"up": b"3"}
        assert api.restored(outcomes[1].recovery_point_arn) == expected


def test_a_stop_and_writes(api, race):
    """Nothing of a stopped job stays, even if it was acknowledged."""
    base = api.backup({"a": b"1", "b": b"1"})
    for number in range(ROUNDS):
        job = api.start_job()
        upload = api.start(job, "up")
        outcomes = race(
            put(job, "a", b"%d" % number),
            StopBackupJob(backup_job_id=job),
            DeleteObject(backup_job_id=job, object_name="b"),
            api.chunk_operation(job, upload, 0, b"3"),
        )
        assert kinds(outcomes)[1] is None
        assert set(kinds(outcomes)) <= {None, IllegalArgumentException}
        assert api.job(job).state == "ABORTED"
        view = api.start_job()
        assert api.read(view) == {"a": b"1", "b": b"1"}
        api.stop(view)
    assert api.restored(base) == {"a": b"1", "b": b"1"}


def test_a_stop_and_a_commit(api, race):
    """One of them ends the job, and the state says which."""
    for number in range(ROUNDS):
        job = api.start_job()
        api.put(job, f"n{number}", b"1")
        committed, stopped = race(CommitBackupJob(backup_job_id=job), StopBackupJob(backup_job_id=job))
        state = api.job(job).state
        assert state in ("COMPLETED", "ABORTED")
        assert isinstance(committed, ModelError) == (state == "ABORTED")
        assert isinstance(stopped, ModelError) == (state == "COMPLETED")


def test_first_touches_of_two_jobs(api, race):
    """One runs, the other waits."""
    for _ in range(ROUNDS):
        jobs = [api.start_job() for _ in range(4)]
        outcomes = race(*(GetIncrementalBaseBackup(backup_job_id=job) for job in jobs))
        assert kinds(outcomes).count(ThrottlingException) == 3
        assert sorted(api.job(job).state for job in jobs) == ["PENDING"] * 3 + ["RUNNING"]
        for job in jobs:
            api.stop(job)


def test_one_idempotency_token(api, race):
    for _ in range(ROUNDS):
        operation = api.start_operation(idempotency_token=new_resource(), resource=new_resource())
        outcomes = race(*[operation] * 4)
        assert len(set(outcomes)) == 1
        assert len(api.listed(ListBackupJobs(by_resource_arn=operation.resource_arn))) == 1


def test_a_restore_and_a_deletion(api, race):
    """Either the point is pinned, or it is gone."""
    for number in range(ROUNDS):
        arn = api.backup({f"n{number}": b"1"}, backup_options={"IncrementalBase": "none"})
        started, deleted = race(
            StartRestoreJob(recovery_point_arn=arn, metadata={}),
            DeleteRecoveryPoint(backup_vault_name=api.vault, recovery_point_arn=arn),
        )
        if isinstance(started, ModelError):
            assert kinds((deleted,)) == [None]
            continue
        assert kinds((deleted,)) == [InvalidResourceStateException]
        assert api.read(started.restore_job_id) == {f"n{number}": b"1"}
        api.end_restore(started.restore_job_id)


def test_a_base_and_its_deletion(api, race):
    """Either the point is the job's base, or the job starts without."""
    for _ in range(ROUNDS):
        api.resource = new_resource()
        arn = api.backup({"a": b"1"})
        job = api.start_job()
        base, deleted = race(
            GetIncrementalBaseBackup(backup_job_id=job),
            DeleteRecoveryPoint(backup_vault_name=api.vault, recovery_point_arn=arn),
        )
        assert base.base_selection == ("NONE" if not isinstance(deleted, ModelError) else "LATEST")
        assert api.read(job) == ({} if base.base_selection == "NONE" else {"a": b"1"})
        api.stop(job)


def test_neighbouring_points_deleted_at_once(api, race):
    for _ in range(ROUNDS // 2):
        api.resource = new_resource()
        points = [api.backup({"a": b"%d" % number, "b": b"0" if number == 2 else b"1"}) for number in range(5)]
        outcomes = race(
            *(
                DeleteRecoveryPoint(backup_vault_name=api.vault, recovery_point_arn=points[number])
                for number in (1, 2, 4)
            )
        )
        assert kinds(outcomes) == [None] * 3
        assert api.restored(points[0]) == {"a": b"0", "b": b"1"}
        assert api.restored(points[3]) == {"a": b"3", "b": b"1"}
        assert api.restored(api.backup({})) == {"a": b"3", "b": b"1"}


def test_a_vault_made_and_deleted(api, race):
    for number in range(ROUNDS):
        create = CreateBackupVault(backup_vault_name=f"race-{number}", creator_request_id="1")
        assert len(set(race(*[create] * 3))) == 1
        api.vault = f"race-{number}"
        started, deleted = race(api.start_operation(), DeleteBackupVault(backup_vault_name=api.vault))
        assert isinstance(started, ModelError) != isinstance(deleted, ModelError)
