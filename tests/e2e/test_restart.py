"""Clients of a server that is killed and restarted at the same address."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import threading

import pytest

from cryostore.client.client import Client
from cryostore.client.pages import chunks, objects
from cryostore.client.retry import Retry
from cryostore.client.transport import ConnectionFailedError
from cryostore.core.digest import Payload
from cryostore.model.chunks import GetChunk
from cryostore.model.jobs import CommitBackupJob, StartBackupJob
from cryostore.model.objects import PutObject
from cryostore.model.restore_jobs import StartRestoreJob
from support.processes.serving import CRYO, serving
from support.waiting import until

START = StartBackupJob(
    backup_vault_name="Default",
    resource_arn="arn:aws:cryo:local-1:000000000000:fileset:host:restart",
    iam_role_arn="arn:aws:iam::000000000000:role/backup-agent",
)


class Restarts:
    """A server that a test kills, and that a client restarts when it waits to retry."""

    def __init__(self, data_dir, stack):
        self.data_dir = data_dir
        self.stack = stack
        self.running = stack.enter_context(serving(data_dir))
        self.count = 0

    def client(self):
        settings = self.running.settings
        retry = Retry(sleep=lambda _: self.start_again())
        return self.stack.enter_context(
            Client(settings.endpoint_url, settings.region, settings.credentials, retry=retry)
        )

    def start_again(self):
        if self.running.process.returncode is not None:
            address = self.running.url.removeprefix("http://")
            self.running = self.stack.enter_context(serving(self.data_dir, listen=address))
            self.count += 1


@pytest.fixture
def restarts(tmp_path):
    with contextlib.ExitStack() as stack:
        yield Restarts(tmp_path / "data", stack)


def read(client, storage_job_id):
    found = {}
    for one in objects(client, storage_job_id):
        pieces = [
            client.call(GetChunk(storage_job_id=storage_job_id, chunk_token=chunk.chunk_token)).data.data
            for chunk in chunks(client, storage_job_id, one.object_token)
        ]
        found[one.name] = b"".join(pieces)
    return found


def test_a_backup_survives_three_kills_of_the_server(restarts):
    """Every acknowledged write is there afterwards. Nothing is run between kill and restart."""
    client = restarts.client()
    job_id = client.call(START).backup_job_id
    written = {}
    for number in range(40):
        name, data = f"name-{number:02}", b"%d" % number * 5000
        client.call(PutObject(backup_job_id=job_id, object_name=name, inline_chunk=Payload(data)))
        written[name] = data
        if number in (5, 6, 30):
            restarts.running.kill()
    assert read(client, job_id) == written
    arn = client.call(CommitBackupJob(backup_job_id=job_id, object_count=40)).recovery_point_arn
    restarts.running.kill()
    restore_job_id = client.call(StartRestoreJob(recovery_point_arn=arn, metadata={})).restore_job_id
    assert read(client, restore_job_id) == written
    assert restarts.count == 4


def refuses(endpoint):
    """Return whether connections to an endpoint are refused."""
    with socket.socket() as connection:
        return connection.connect_ex((endpoint.host, endpoint.port)) == errno.ECONNREFUSED


def test_a_server_that_stays_down_is_an_error_in_the_end(restarts):
    settings = restarts.running.settings
    waits = []
    retry = Retry(sleep=waits.append)
    with Client(settings.endpoint_url, settings.region, settings.credentials, retry=retry) as client:
        client.call(START)
        restarts.running.kill()
        until(lambda: refuses(client.endpoint))  # its workers notice that it is gone, and exit
        with pytest.raises(ConnectionFailedError, match="refused"):
            client.call(START)
    assert len(waits) == 4


def test_a_running_backup_waits_for_its_server(restarts, tmp_path):
    """The server is down for longer than the usual retries. The run reports that, waits, and completes."""
    process = subprocess.Popen(
        [*CRYO, "backup", "--stdin", "--name", "stream", "--resource", "stream"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=False,
        env=restarts.running.environment | {"XDG_STATE_HOME": str(tmp_path / "state")},
    )
    parts = [os.urandom(24_000_000) for _ in range(2)]
    process.stdin.write(parts[0])
    process.stdin.flush()
    restarts.running.kill()
    writer = threading.Thread(target=lambda: (process.stdin.write(parts[1]), process.stdin.close()), daemon=True)
    writer.start()  # it blocks, because the run waits for its server
    assert b"the server is away" in process.stderr.readline()
    restarts.start_again()
    assert b"the server answers again" in process.stderr.readline()
    out = process.stdout.read()
    writer.join()
    assert process.wait() == 0, process.stderr.read()
    process.stdout.close()
    process.stderr.close()
    assert b"recovery point" in out
    got = subprocess.run(
        [*CRYO, "restore", "latest", "-", "--resource", "stream"],
        capture_output=True,
        check=True,
        env=restarts.running.environment,
    )
    assert got.stdout == b"".join(parts)
