"""Servers with the fake service, for the tests of this folder."""

from __future__ import annotations

import pytest

from cryostore.core.limits import Limits
from cryostore.options.configuration import ConnectionSettings
from support.fake_process import fake_server

QUICK = ConnectionSettings(
    connections_max=20,
    head_seconds_max=0.4,
    body_idle_seconds_max=0.4,
    body_progress_bytes_min=1000,
    write_idle_seconds_max=0.4,
    drain_bytes_max=1024 * 1024,
    drain_seconds_max=0.4,
)
LIMITS = Limits(chunk_bytes_max=32 * 1024 * 1024)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory):
    """A server with the usual bounds, for all tests."""
    with fake_server(tmp_path_factory.mktemp("fake")) as server:
        yield server


@pytest.fixture
def server(shared_server):
    """A server with the usual bounds, whose calls and log begin anew."""
    (shared_server.data_dir / "calls").unlink(missing_ok=True)
    return shared_server


@pytest.fixture(scope="session")
def shared_quick_server(tmp_path_factory):
    """A server that loses patience at once, for all tests."""
    with fake_server(tmp_path_factory.mktemp("quick"), connection=QUICK, limits=LIMITS) as server:
        yield server


@pytest.fixture
def quick_server(shared_quick_server):
    """A server that loses patience at once, whose calls begin anew."""
    (shared_quick_server.data_dir / "calls").unlink(missing_ok=True)
    return shared_quick_server
