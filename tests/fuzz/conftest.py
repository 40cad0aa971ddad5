"""Watched servers for the tests of this folder."""

from __future__ import annotations

import pytest

from cryostore.client.client import Client
from cryostore.client.retry import Retry
from support.requests.api import Api
from support.requests.scrutiny import watched


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server for each file, so that its store contains the requests of that file only."""
    with watched(tmp_path_factory.mktemp("fuzz")) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    """A client that does not retry."""
    settings = server.running.settings
    with Client(settings.endpoint_url, settings.region, settings.credentials, retry=Retry(attempts_max=1)) as client:
        yield client


@pytest.fixture
def api(server, client):
    """The test API on the client, for a resource of its own."""
    return Api(client, server.data_dir)


@pytest.fixture(scope="module", autouse=True, params=["quick", pytest.param("thorough", marks=pytest.mark.stress)])
def effort(request):
    """Run every test in `make test` and, with the many examples of its profile, in `make stress`."""
    return request.param
