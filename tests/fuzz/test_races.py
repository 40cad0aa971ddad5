"""Concurrent writers over HTTP, on two workers that share a store: one name, one index, one commit."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cryostore.client.client import Client
from cryostore.client.retry import Retry
from cryostore.core.digest import Payload
from cryostore.model.errors import (
    DataAlreadyExistsException,
    IllegalArgumentException,
    JobStateConflictException,
    ModelError,
    ResourceNotFoundException,
)
from cryostore.model.jobs import CommitBackupJob, StopBackupJob
from cryostore.model.objects import DeleteObject, PutObject, StartObject
from support.requests.api import hex_of, summary_hex
from support.requests.scrutiny import watched
from support.stores import integrity

ROUNDS = 12
ENDED = (JobStateConflictException, IllegalArgumentException, ResourceNotFoundException)
CONTENTS = [bytes([number]) * (5000 + number) for number in range(8)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Two workers. After all races, no row of the catalog refers to a missing one."""
    with watched(tmp_path_factory.mktemp("races"), "--workers", "2") as server:
        yield server
    assert integrity.problems(server.data_dir) == []


class Racers:
    """Clients with their own connections, which the kernel distributes over the workers."""

    def __init__(self, settings, count):
        self.clients = [
            Client(settings.endpoint_url, settings.region, settings.credentials, retry=Retry(attempts_max=1))
            for _ in range(count)
        ]
        self.pool = ThreadPoolExecutor(count)

    def race(self, *operations):
        """Send all requests at once; return the response or error of each."""
        start = threading.Barrier(len(operations))

        def run(client, operation):
            start.wait()
            try:
                return client.call(operation)
            except ModelError as error:
                return error

        return list(self.pool.map(run, self.clients, operations))


@pytest.fixture(scope="module")
def racers(server):
    racers = Racers(server.running.settings, len(CONTENTS))
    yield racers
    racers.pool.shutdown()
    for client in racers.clients:
        client.close()


def of_kind(answers, kind):
    return [answer for answer in answers if isinstance(answer, kind)]


def put(job, name, data, **more):
    return PutObject(backup_job_id=job, object_name=name, inline_chunk=Payload(data), **more)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_the_first_writer_of_a_name_wins_with_the_throw_flag(api, racers, number):
    """B.6: with the throw flag one writer wins, and each other gets the existing checksum."""
    job = api.running_job()
    answers = racers.race(*(put(job, "name", data, throw_on_duplicate=True) for data in CONTENTS))
    (found,) = [data for data, answer in zip(CONTENTS, answers, strict=True) if not isinstance(answer, ModelError)]
    lost = of_kind(answers, ModelError)
    assert {type(error) for error in lost} == {DataAlreadyExistsException}
    assert {error.checksum for error in lost} == {api.found(job, "name").object_checksum}
    assert api.read(job) == {"name": found}


@pytest.mark.parametrize("number", range(ROUNDS))
def test_the_last_writer_of_a_name_wins_without_the_throw_flag(api, racers, number):
    """All succeed, one after another, and the object is one of them, complete."""
    job = api.running_job()
    answers = racers.race(*(put(job, "name", data) for data in CONTENTS))
    assert of_kind(answers, ModelError) == []
    (found,) = api.read(job).values()
    assert found in CONTENTS
    assert api.restored(api.commit(job, object_count=1)) == {"name": found}


@pytest.mark.parametrize("number", range(ROUNDS))
def test_one_index(api, racers, number):
    """B.5: equal chunks all succeed. Of different ones the first stays, and the others get its checksum."""
    job = api.running_job()
    upload = api.start(job, "name")
    sent = [*CONTENTS[:3], *CONTENTS[:3], *CONTENTS[:2]]
    answers = racers.race(*(api.chunk_operation(job, upload, 7, data) for data in sent))
    (found,) = {data for data, answer in zip(sent, answers, strict=True) if not isinstance(answer, ModelError)}
    lost = of_kind(answers, ModelError)
    assert len(lost) == len(sent) - sent.count(found)
    assert {type(error) for error in lost} == {DataAlreadyExistsException}
    assert {error.checksum for error in lost} == {hex_of(found)}
    api.complete(job, upload, [found])
    assert api.read(job) == {"name": found}


@pytest.mark.parametrize("number", range(ROUNDS))
def test_one_completion(api, racers, number):
    """B.7: equal arguments get equal responses. A concurrent chunk is in the object or refused."""
    job = api.running_job()
    upload = api.start(job, "name")
    api.chunk(job, upload, 0, b"first")
    operation = api.complete_operation(job, upload, [b"first"])
    late = api.chunk_operation(job, upload, 1, b"late")
    *answers, chunk = racers.race(*[operation] * 5, late)
    if isinstance(chunk, ModelError):
        assert [answer.object_checksum for answer in answers] == [summary_hex(b"first")] * 5
        assert api.read(job) == {"name": b"first"}
    else:
        assert {type(answer) for answer in answers} == {IllegalArgumentException}
        api.complete(job, upload, [b"first", b"late"])
        assert api.read(job) == {"name": b"firstlate"}


@pytest.mark.parametrize("number", range(ROUNDS))
def test_one_commit(api, racers, number):
    """Equal commits get equal responses. A concurrent write is in the recovery point if it was accepted."""
    job = api.running_job()
    api.put(job, "kept", b"kept")  # an empty job cannot be committed
    api.put(job, "before", b"data")
    commit = CommitBackupJob(backup_job_id=job, commit_token="same")
    *writes, first, second, third = racers.race(
        put(job, "new-1", b"1"), put(job, "new-2", b"2"), DeleteObject(backup_job_id=job, object_name="before"),
        StartObject(backup_job_id=job, object_name="upload"), commit, commit, commit,
    )  # fmt: skip
    *written, started = [not isinstance(answer, ModelError) for answer in writes]
    assert not [error for error in of_kind(writes, ModelError) if not isinstance(error, ENDED)]
    if isinstance(first, ModelError):  # the upload came first, and a job with an open upload is not committed
        assert started
        assert {type(answer) for answer in (first, second, third)} <= {
            JobStateConflictException,
            IllegalArgumentException,
        }
        api.stop(job)
        return
    assert first.recovery_point_arn == second.recovery_point_arn == third.recovery_point_arn
    expected = {"kept": b"kept"}
    expected |= {"new-1": b"1"} if written[0] else {}
    expected |= {"new-2": b"2"} if written[1] else {}
    expected |= {} if written[2] else {"before": b"data"}
    assert api.restored(first.recovery_point_arn) == expected


@pytest.mark.parametrize("number", range(ROUNDS))
def test_commit_or_stop(api, racers, number):
    """A job ends in one of the two states."""
    job = api.running_job()
    api.put(job, "name", b"data")
    committed, *_ = racers.race(CommitBackupJob(backup_job_id=job), StopBackupJob(backup_job_id=job))
    state = api.job(job).state
    if isinstance(committed, ModelError):
        assert isinstance(committed, ENDED)
        assert state in ("ABORTING", "ABORTED")
    else:
        assert state == "COMPLETED"
        assert api.restored(committed.recovery_point_arn) == {"name": b"data"}


@pytest.mark.parametrize("number", range(3))
def test_many_starts_of_one_resource(api, racers, number):
    """Starts with one token make one job. Without tokens each is a new job, and one runs at a time."""
    same = racers.race(*[api.start_operation(idempotency_token=f"token-{number}", resource=api.resource)] * 8)
    assert len({answer.backup_job_id for answer in same}) == 1
    api.put(same[0].backup_job_id, "name", b"data")
    others = [answer.backup_job_id for answer in racers.race(*[api.start_operation()] * 4)]
    answers = racers.race(*(put(job, "other", b"data") for job in others))
    assert len(of_kind(answers, ModelError)) == 4
    api.commit(same[0].backup_job_id)
    answers = racers.race(*(put(job, "other", b"data") for job in others))
    assert len(of_kind(answers, ModelError)) == 3


def test_one_of_two_completions_with_the_throw_flag_wins(api, racers):
    job = api.running_job()
    uploads = [api.start(job, "name", throw=True) for _ in CONTENTS]
    for upload, data in zip(uploads, CONTENTS, strict=True):
        api.chunk(job, upload, 0, data)
    answers = racers.race(
        *(api.complete_operation(job, upload, [data]) for upload, data in zip(uploads, CONTENTS, strict=True))
    )
    lost = of_kind(answers, ModelError)
    assert [type(error) for error in lost] == [DataAlreadyExistsException] * (len(CONTENTS) - 1)
    assert len(api.read(job)) == 1
