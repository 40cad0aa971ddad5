"""Rolling restart of nodes behind a load balancer: a client that never retries sees no error.

The load balancer is HAProxy with the configuration of contrib/compose, the client is botocore. Neither retries.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import botocore.exceptions
import pytest
from botocore.config import Config

from cryostore.client.client import Client
from cryostore.client.pages import chunks, objects
from cryostore.client.settings import resolve
from cryostore.model.chunks import GetChunk
from cryostore.model.jobs import CommitBackupJob, StartBackupJob
from support.clients import sdk_folder
from support.processes.fake_process import wait_for
from support.processes.load_balancer import load_balancer
from support.processes.nodes import Nodes
from support.processes.serving import CRYO
from support.requests.api import Api
from support.services import postgres, s3

DRAIN = "1s"
WRITERS = 4
READERS = 8
FROZEN_SECONDS_MAX = 20
"""A health check takes up to 2 s; clients would wait for 60."""
START = StartBackupJob(
    backup_vault_name="Default",
    resource_arn="arn:aws:cryo:local-1:000000000000:fileset:host:rolling",
    iam_role_arn="arn:aws:iam::000000000000:role/backup-agent",
)


def body(writer, number):
    """Return a small body, or for every eighth number one that exceeds the buffers of a load balancer."""
    return b"%d of %d " % (number, writer) * (20_000 if number % 8 == 0 else 1)


class Writers:
    """Clients that write object after object while the block runs. Keeps the acknowledged objects and the errors."""

    def __init__(self, clients, job_id):
        self._job_id = job_id
        self._is_ending = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=each) for each in enumerate(clients)]
        self.acknowledged = {}
        self.errors = []

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._is_ending.set()
        for thread in self._threads:
            thread.join()

    def _write(self, writer, client):
        number = 0
        while not self._is_ending.is_set() and not self.errors:
            name, data = f"{writer}/{number}", body(writer, number)
            try:
                client.put_object(BackupJobId=self._job_id, ObjectName=name, InlineChunk=data)
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
                self.errors.append(f"{name}: {error!r}")
            else:
                self.acknowledged[name] = data
                number += 1

    def wait_for_progress(self):
        """Wait until every client has written more."""
        before = len(self.acknowledged)
        wait_for(lambda: len(self.acknowledged) > before + 10 * WRITERS or self.errors)
        assert self.errors == []


@pytest.fixture
def paths(tmp_path):
    """A shared store on one machine: a catalog file and a blob directory."""
    (tmp_path / "blobs").mkdir()
    return {"CRYO_CATALOG": str(tmp_path / "catalog.sqlite"), "CRYO_BLOBS": str(tmp_path / "blobs")}


@pytest.fixture
def services():
    """A shared store on PostgreSQL and S3, if they are available."""
    blobs = s3.fresh_url()
    with postgres.new_database(migrated=False) as catalog:
        yield {"CRYO_CATALOG": catalog, "CRYO_BLOBS": blobs} | s3.CREDENTIALS


@pytest.mark.parametrize("place", ["paths", pytest.param("services", marks=pytest.mark.stress)])
def test_a_rolling_restart_shows_no_client_an_error(tmp_path, place, request):
    place = request.getfixturevalue(place)
    environment = os.environ | place | {"CRYO_KEYRING": str(tmp_path / "keyring.json"), "CRYO_DRAIN": DRAIN}
    credentials = tmp_path / "credentials"
    subprocess.run([*CRYO, "init", "--credentials", credentials], env=environment, check=True, capture_output=True)
    with contextlib.ExitStack() as stack:
        nodes = stack.enter_context(Nodes(tmp_path, environment, count=2))
        balancer = stack.enter_context(load_balancer(tmp_path, nodes.places))
        client = stack.enter_context(Client.of(settings(balancer.url, credentials)))
        job_id = client.call(START).backup_job_id
        writers = [stock_client(tmp_path, balancer.url, credentials) for _ in range(WRITERS)]
        with Writers(writers, job_id) as writing:
            for number in (0, 1):
                writing.wait_for_progress()
                nodes.stop(number)
                writing.wait_for_progress()
                nodes.start(number)
                wait_for(lambda number=number: balancer.sees(number + 1, "UP"))
            writing.wait_for_progress()
        assert writing.errors == []
        assert read_back(client, job_id) == writing.acknowledged
        client.call(CommitBackupJob(backup_job_id=job_id, object_count=len(writing.acknowledged)))


def test_a_frozen_node_holds_no_request_for_long(tmp_path, paths):
    """The load balancer closes connections to a node that fails its health check, whatever the client's timeout."""
    environment = os.environ | paths | {"CRYO_KEYRING": str(tmp_path / "keyring.json")}
    credentials = tmp_path / "credentials"
    subprocess.run([*CRYO, "init", "--credentials", credentials], env=environment, check=True, capture_output=True)
    with contextlib.ExitStack() as stack:
        nodes = stack.enter_context(Nodes(tmp_path, environment, count=2))
        balancer = stack.enter_context(load_balancer(tmp_path, nodes.places))
        host, _, port = balancer.url.removeprefix("http://").partition(":")

        def status(_):
            """Return the status of a response, or 0 if the connection is closed."""
            connection = HTTPConnection(host, int(port), timeout=60)
            with contextlib.closing(connection):
                try:
                    connection.request("GET", "/-/health")
                    return connection.getresponse().status
                except (HTTPException, ConnectionError):
                    return 0

        nodes.freeze(0)
        try:
            began = time.monotonic()
            with ThreadPoolExecutor(8) as pool:
                found = list(pool.map(status, range(8)))
            assert time.monotonic() - began < FROZEN_SECONDS_MAX
            assert found.count(200) >= 1
            assert found.count(200) < 8, "some went to the frozen node"
            wait_for(lambda: balancer.sees(1, "DOWN"))
            assert {status(0) for _ in range(8)} == {200}
        finally:
            nodes.thaw(0)


@pytest.mark.stress
def test_a_chunk_in_flight_to_a_frozen_node_arrives_within_seconds(tmp_path, services):
    """The client retries it and the other node stores it. With the shipped configuration, PostgreSQL and S3."""
    environment = os.environ | services | {"CRYO_KEYRING": str(tmp_path / "keyring.json")}
    credentials = tmp_path / "credentials"
    subprocess.run([*CRYO, "init", "--credentials", credentials], env=environment, check=True, capture_output=True)
    with contextlib.ExitStack() as stack:
        nodes = stack.enter_context(Nodes(tmp_path, environment, count=2))
        balancer = stack.enter_context(load_balancer(tmp_path, nodes.places, as_shipped=True))
        api = Api(stack.enter_context(Client.of(settings(balancer.url, credentials))), tmp_path)
        job = api.start_job()
        upload = api.start(job, "one")
        numbers, is_ending = itertools.count(), threading.Event()
        sent, taken = {}, []

        def send():
            while not is_ending.is_set():
                index = next(numbers)
                data = b"%d " % index * 100_000
                began = time.monotonic()
                api.chunk(job, upload, index, data)
                taken.append(time.monotonic() - began)
                sent[index] = data

        with ThreadPoolExecutor(WRITERS) as pool:
            writing = [pool.submit(send) for _ in range(WRITERS)]
            try:
                wait_for(lambda: balancer.in_flight(1))
                nodes.freeze(0)
                wait_for(lambda: balancer.in_flight(1))
                wait_for(lambda: balancer.sees(1, "DOWN"))
                before = len(taken)
                wait_for(lambda: len(taken) > before + 2 * WRITERS)
            finally:
                is_ending.set()
                nodes.thaw(0)
            for each in writing:
                each.result()
        assert max(taken) < FROZEN_SECONDS_MAX
        contents = [sent[index] for index in sorted(sent)]
        api.complete(job, upload, contents)
        assert api.read(job) == {"one": b"".join(contents)}


def settings(url, credentials):
    return resolve({"AWS_ENDPOINT_URL": url, "AWS_SHARED_CREDENTIALS_FILE": str(credentials)})


def stock_client(folder: Path, url, credentials):
    """Return a botocore client that never retries."""
    key = settings(url, credentials).credentials
    session = sdk_folder.session(sdk_folder.write(folder / "sdk"), key.access_key_id, key.secret_access_key)
    config = Config(retries={"total_max_attempts": 1})
    return session.create_client("backupstorage", region_name="local-1", endpoint_url=url, config=config)


def read_back(client, job_id):
    """Return every object of a job by name."""

    def read(one):
        pieces = [
            client.call(GetChunk(storage_job_id=job_id, chunk_token=chunk.chunk_token)).data.data
            for chunk in chunks(client, job_id, one.object_token)
        ]
        return one.name, b"".join(pieces)

    with ThreadPoolExecutor(READERS) as pool:
        return dict(pool.map(read, objects(client, job_id)))
