"""Uploader: bytes in flight are bounded, each chunk is linked or sent, and the first failure is raised."""

from __future__ import annotations

import random
import signal
import threading

import pytest

from cryostore.agent.backup.job import open_job
from cryostore.agent.upload.digest_table import DigestTable
from cryostore.agent.upload.uploader import LINKS_MAX, MISSES_MAX, THREADS, ObjectUpload, Uploader
from cryostore.core.errors import CryostoreError
from cryostore.core.interrupts import deferred
from cryostore.core.limits import KIB
from cryostore.model.chunks import LinkChunks, PutChunk
from cryostore.model.errors import ServiceUnavailableException
from support.waiting import until


def noise(seed):
    return random.Random(seed).randbytes(8 * KIB)


class Watched:
    """A call that records its operations, and may fail or wait."""

    def __init__(self, call):
        self.inner = call
        self.sent = []
        self.asked = []
        self.fail = False
        self.gate = threading.Event()
        self.gate.set()

    def call(self, operation):
        if isinstance(operation, PutChunk):
            self.gate.wait()
            if self.fail:
                raise ServiceUnavailableException("no room")
            self.sent.append(operation.chunk_index)
        if isinstance(operation, LinkChunks):
            self.asked += [chunk.index for chunk in operation.chunks]
        return self.inner.call(operation)


@pytest.fixture
def watched(local_runs):
    """A recording call and an open job."""
    call = Watched(local_runs.call)
    job = open_job(call, "Default", local_runs.resource, {})
    yield call, job.job_id, local_runs.resource
    job.give_up(CryostoreError("test"))


def send(call, job_id, seeds, **options):
    upload = ObjectUpload(call, job_id, f"object-{len(call.sent)}-{len(call.asked)}")
    uploader = Uploader(call, DigestTable(32), **options)
    try:
        for seed in seeds:
            uploader.submit(upload, upload.reserve(), noise(seed))
        uploader.flush()
        upload.complete()
    finally:
        uploader.close()
    return uploader


def test_an_error_caused_by_the_shutdown_is_an_interrupt(watched):
    call, job_id, _ = watched
    call.fail = True
    uploader = Uploader(call, DigestTable(32))
    try:
        upload = ObjectUpload(call, job_id, "object")
        uploader.submit(upload, upload.reserve(), noise(1))
        until(lambda: uploader._failure)
        with deferred():
            signal.raise_signal(signal.SIGTERM)
            with pytest.raises(KeyboardInterrupt):
                uploader.flush()
        with pytest.raises(ServiceUnavailableException):
            uploader.flush()
    finally:
        uploader.close()


def test_stored_chunks_are_linked_and_not_sent(watched):
    call, job_id, name = watched
    seeds = [f"{name} {number}" for number in range(20)]
    assert send(call, job_id, seeds).chunks_sent == 20
    call.sent.clear()
    uploader = send(call, job_id, [*seeds, f"{name} new"])
    assert (uploader.chunks_sent, uploader.chunks_linked, call.sent) == (1, 20, [20])


def test_after_many_misses_few_link_requests_are_sent(watched):
    call, job_id, name = watched
    uploader = send(call, job_id, [f"{name} {number}" for number in range(800)])
    assert uploader.chunks_sent == 800
    assert len(call.asked) <= MISSES_MAX + THREADS * LINKS_MAX + 800 // 32


def test_the_bytes_in_flight_are_bounded(watched):
    call, job_id, name = watched
    call.gate.clear()
    upload = ObjectUpload(call, job_id, "object")
    uploader = Uploader(call, DigestTable(32), bytes_max=32 * KIB)
    submitted = []

    def submit():
        for number in range(10):
            uploader.submit(upload, upload.reserve(), noise(f"{name} {number}"))
            submitted.append(number)

    thread = threading.Thread(target=submit)
    thread.start()
    thread.join(0.2)
    assert len(submitted) <= 4
    call.gate.set()
    thread.join()
    uploader.flush()
    uploader.close()
    assert len(call.sent) == 10


def test_a_failure_is_raised_and_no_later_chunk_is_sent(watched):
    call, job_id, name = watched
    call.fail = True
    with pytest.raises(ServiceUnavailableException):
        send(call, job_id, [f"{name} {number}" for number in range(100)], bytes_max=16 * KIB)
    assert call.sent == []


def test_the_digest_table_is_read_under_the_lock(watched):
    call, job_id, name = watched
    looked = []

    class Watching(DigestTable):
        def __contains__(self, digest):
            looked.append(uploader._lock.locked())
            return super().__contains__(digest)

    upload = ObjectUpload(call, job_id, "object")
    uploader = Uploader(call, Watching(32))
    for number in range(8):
        uploader.submit(upload, upload.reserve(), noise(f"{name} {number}"))
    uploader.flush()
    uploader.close()
    assert looked
    assert all(looked)
