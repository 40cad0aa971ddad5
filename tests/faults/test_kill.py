"""A server of two workers under load, killed again and again: whatever was acknowledged is there, and intact.

SIGKILL takes what a process holds in memory, not what the system holds for the disk: what is left of that is shown in
`test_power_loss`. Garbage is collected, packs are compacted and everything is scrubbed meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
import time

import pytest

from cryostore.client.client import Client
from cryostore.client.retry import Retry
from cryostore.client.settings import resolve
from cryostore.client.transport import ConnectionFailedError
from cryostore.core.digest import Payload
from cryostore.maintenance.gc import collect_all
from cryostore.maintenance.scrub import Scrubbed, scrub
from cryostore.model.errors import (
    NotReadableInputStreamException,
    ResourceNotFoundException,
    ServiceUnavailableException,
)
from cryostore.model.jobs import CommitBackupJob
from cryostore.model.objects import DeleteObject, PutObject, StartObject
from cryostore.model.recovery_points import DeleteRecoveryPoint
from cryostore.server.config import ConnectionSettings
from cryostore.service.open import open_service
from support import serving
from support.api import Api, new_resource, summary_base64, summary_hex
from support.integrity import problems

WRITERS = 4
SLOTS = 12
OPERATIONS_PER_JOB = 30
POINTS_KEPT = 4
SIZES = (0, 10, 1000, 50_000, 300_000)
RESTART_SECONDS_MAX = 60
UP_SECONDS_MAX = 120
PATIENCE_SECONDS = ConnectionSettings().body_idle_seconds_max


class KilledServer:
    """`cryo serve --workers 2` on one directory and one port, in a process group that can be killed as a whole."""

    def __init__(self, data_dir):
        self.data_dir = data_dir
        self.log = data_dir.parent / "server.log"
        self.listen = "127.0.0.1:0"
        self.up = threading.Event()
        self.restarts_seconds = []
        self.start()

    def start(self):
        began = time.monotonic()
        with self.log.open("a", encoding="utf-8") as log_file:
            self.process = subprocess.Popen(
                [*serving.CRYO, "serve", "--data-dir", str(self.data_dir), "--listen", self.listen, "--workers", "2",
                 "--log-level", "error"],
                stdout=subprocess.PIPE, stderr=log_file, text=True, start_new_session=True,
            )  # fmt: skip
        self.url = serving._address(self.process, self.log)
        self.listen = self.url.removeprefix("http://")
        self.restarts_seconds.append(time.monotonic() - began)
        self.up.set()

    def kill(self):
        self.up.clear()
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def client(self):
        settings = resolve({"AWS_SHARED_CREDENTIALS_FILE": str(self.data_dir / "credentials")}, endpoint_url=self.url)
        return Client(settings.endpoint_url, settings.region, settings.credentials, retry=Retry(attempts_max=1))


class Writer:
    """One agent with a resource of its own. It writes down what was acknowledged, and what may have happened."""

    def __init__(self, server, seed, stop):
        self.server = server
        self.random = random.Random(seed)
        self.stop = stop
        self.api = Api(server.client(), server.data_dir)
        self.job = None
        self.expected = {}  # by name: contents the object may have; None stands for no object
        self.points = {}  # by ARN: the same, at the commit
        self.acknowledged = 0
        self.failure = None

    def run(self):
        try:
            while not self.stop.is_set():
                self.back_up()
        except BaseException as failure:  # noqa: BLE001 - shown by the test, in its own thread
            self.failure = failure

    def back_up(self):
        self.job = self.insist(self.api.start_operation(idempotency_token=new_resource())).backup_job_id
        for _ in range(OPERATIONS_PER_JOB):
            if self.stop.is_set():
                return
            name = f"name-{self.random.randrange(SLOTS)}"
            self.random.choice((self.put, self.put, self.upload, self.delete))(name)
        done = self.insist(CommitBackupJob(backup_job_id=self.job, discard_open_uploads=True))
        self.job = None
        self.points[done.recovery_point_arn] = dict(self.expected)
        if len(self.points) > POINTS_KEPT:
            self.delete_point(self.random.choice(list(self.points)[:-1]))  # the last is the next base

    def delete_point(self, arn):
        del self.points[arn]
        with contextlib.suppress(ResourceNotFoundException):  # an attempt whose answer was lost
            self.insist(DeleteRecoveryPoint(backup_vault_name="Default", recovery_point_arn=arn))

    def put(self, name):
        data = self.data()
        put = PutObject(
            backup_job_id=self.job, object_name=name, inline_chunk=Payload(data), inline_chunk_length=len(data)
        )
        self.note(name, (data,), known=self.attempt(put) is not None)

    def delete(self, name):
        try:
            known = self.attempt(DeleteObject(backup_job_id=self.job, object_name=name)) is not None
        except ResourceNotFoundException:
            assert None in self.expected.get(name, {None})
            known = True
        self.note(name, None, known=known)

    def upload(self, name):
        """Chunk by chunk; after a death of the server it goes on where it was."""
        contents = tuple(self.data() for _ in range(self.random.randrange(1, 4)))
        upload = self.insist(StartObject(backup_job_id=self.job, object_name=name)).upload_id
        for index, data in enumerate(contents):
            self.insist(self.api.chunk_operation(self.job, upload, index, data))
        self.insist(self.api.complete_operation(self.job, upload, contents))
        self.note(name, contents, known=True)

    def data(self):
        return self.random.randbytes(self.random.choice(SIZES))

    def note(self, name, content, *, known):
        self.expected[name] = {content} if known else self.expected.get(name, {None}) | {content}

    def attempt(self, operation):
        """The answer, or None if none came: then it may have happened or not."""
        assert self.server.up.wait(UP_SECONDS_MAX)
        began = time.monotonic()
        try:
            answer = self.api.call(operation)
        except (ConnectionFailedError, ServiceUnavailableException):
            return None
        except NotReadableInputStreamException:
            # Nobody here breaks a body off, and a server that dies answers nothing: only where this process stood
            # still for so long, between the head of a request and its body, may a server have lost its patience.
            assert time.monotonic() - began >= PATIENCE_SECONDS
            return None
        self.acknowledged += 1
        return answer

    def insist(self, operation):
        """The answer, in the end: every one of these may be repeated."""
        while (answer := self.attempt(operation)) is None:
            pass
        return answer

    def check(self, verified):
        """Everything acknowledged is there. Each chunk is read once: `verified` knows those that were."""
        if self.job is not None:
            self.check_view(self.job, self.expected, verified)
        for arn, expected in self.points.items():
            restore = self.api.restore(arn)
            self.check_view(restore, expected, verified)
            self.api.end_restore(restore)

    def check_view(self, storage_job, expected, verified):
        found = {name: self.api.found(storage_job, name) for name in self.api.names(storage_job)}
        for name, contents in expected.items():
            if name not in found:
                assert None in contents, f"{name} is lost"
                continue
            summaries = {text(*content) for content in contents - {None} for text in (summary_hex, summary_base64)}
            assert found[name].object_checksum in summaries, f"{name} is another object"
            if found[name].object_checksum not in verified:
                self.api.read_chunks(storage_job, found[name].object_token)
                verified.add(found[name].object_checksum)
        assert set(found) <= set(expected)


class Collector:
    """Collects garbage all the time, without any quarantine, from a process that is not killed: this one.

    Between two collections it scrubs one pack, the one that was verified the longest ago.
    """

    def __init__(self, data_dir, stop):
        self.service = open_service(data_dir)
        self.stop = stop
        self.removed = self.compacted = 0
        self.scrubbed = Scrubbed()
        self.failure = None

    def run(self):
        try:
            while not self.stop.wait(0.1):
                outcome = collect_all(self.service.context, quarantine_ms=0)
                self.removed += outcome.removed
                self.compacted += outcome.packs_compacted
                for _ in scrub(self.service.context, self.scrubbed, seconds_max=0):
                    pass
        except BaseException as failure:  # noqa: BLE001 - shown by the test, in its own thread
            self.failure = failure
        finally:
            self.service.close()


def kill_again_and_again(data_dir, kills):
    server = KilledServer(data_dir)
    stop = threading.Event()
    writers = [Writer(server, seed, stop) for seed in range(WRITERS)]
    collector = Collector(data_dir, stop)
    threads = [threading.Thread(target=one.run) for one in (*writers, collector)]
    moments = random.Random(kills)
    try:
        for thread in threads:
            thread.start()
        for _ in range(kills):
            stop.wait(moments.uniform(0.05, 0.8))
            server.kill()
            server.start()
            if any(writer.failure for writer in writers):
                break
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    try:
        for failure in filter(None, (one.failure for one in (*writers, collector))):
            raise failure
        assert collector.removed, "there was garbage"
        assert collector.compacted, "packs were compacted"
        assert collector.scrubbed.chunks, "something was scrubbed"
        assert collector.scrubbed.is_clean
        assert min(writer.acknowledged for writer in writers) > kills, "hardly anything was written"
        verified = set()
        for writer in writers:
            writer.check(verified)
    finally:
        for writer in writers:
            writer.api._call.close()
        server.kill()
    assert problems(data_dir) == []
    assert max(server.restarts_seconds) < RESTART_SECONDS_MAX
    return server, writers


def test_what_was_acknowledged_survives_every_kill(tmp_path):
    kill_again_and_again(tmp_path / "data", 20)


@pytest.mark.stress
def test_what_was_acknowledged_survives_two_hundred_kills(tmp_path):
    kill_again_and_again(tmp_path / "data", 200)
