"""The server of the stock clients, and the data folder that adds `backupstorage` to current SDKs."""

from __future__ import annotations

import os

import pytest

from support.clients.sdk_folder import write
from support.processes.serving import server  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def call(server):  # noqa: F811 - the fixture
    """Our own client, for operations other than the nine."""
    with server.client() as client:
        yield client


@pytest.fixture(scope="session")
def data_path(tmp_path_factory):
    """The data folder that `cryo sdk-model` writes."""
    return write(tmp_path_factory.mktemp("sdk-model"))


@pytest.fixture
def environment(server):  # noqa: F811 - the fixture
    """The environment of a client's process."""
    return server.environment | {
        "AWS_REGION": "local-1",
        "PATH": os.environ["PATH"],
        "AWS_SDK_JS_SUPPRESS_MAINTENANCE_MODE_MESSAGE": "1",
    }
