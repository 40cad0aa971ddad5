"""The conformance suite over TCP: the whole API through the client, against a real server process."""

from __future__ import annotations

import pytest

from conformance import api as conformance
from cryostore.client.client import Client
from cryostore.client.retry import Retry
from cryostore.core.limits import MIB
from cryostore.model.errors import IllegalArgumentException
from support.requests.api import Api
from support.requests.scrutiny import watched_with

globals().update(conformance.classes_to_test(conformance.EVERYWHERE))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server without background tasks, so that only requests change its state."""
    with watched_with(tmp_path_factory.mktemp("api"), maintenance_seconds=86_400.0) as watched:
        yield watched.running


@pytest.fixture(scope="module")
def client(server):
    settings = server.settings
    # No retries: a test that expects ThrottlingException wants it at once.
    with Client(settings.endpoint_url, settings.region, settings.credentials, retry=Retry(attempts_max=1)) as client:
        yield client


@pytest.fixture
def api(server, client):
    """The API over the client; the server has default limits and the real clock."""
    return Api(client, server.data_dir)


def test_a_chunk_of_64_mib(api):
    """The largest chunk is stored and read back; one byte more is refused."""
    data = bytes(range(256)) * (64 * MIB // 256)
    job = api.start_job()
    upload = api.start(job, "name")
    api.chunk(job, upload, 0, data)
    api.refuses_and_keeps(IllegalArgumentException, api.chunk_operation(job, upload, 1, data + b"x"))
    api.complete(job, upload, [data])
    assert api.read(job) == {"name": data}
