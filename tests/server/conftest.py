"""Servers with the fake backend, for the tests of this folder."""

from __future__ import annotations

import pytest

from cryostore.core.limits import Limits
from cryostore.options.configuration import ConnectionSettings
from support.processes.fake_process import fake_server

# Tests wait for these time-outs to pass; no test has to finish within one.
IMPATIENT = ConnectionSettings(body_idle_seconds_max=1, body_progress_bytes_min=1000, drain_seconds_max=1)
STRICT = ConnectionSettings(connections_max=20, write_idle_seconds_max=1, drain_bytes_max=1024 * 1024)
LIMITS = Limits(chunk_bytes_max=32 * 1024 * 1024)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory):
    """A server with the default limits, for all tests."""
    with fake_server(tmp_path_factory.mktemp("fake")) as server:
        yield server


@pytest.fixture
def server(shared_server):
    """A server with the default limits, whose noted calls are cleared."""
    (shared_server.data_dir / "calls").unlink(missing_ok=True)
    return shared_server


@pytest.fixture(scope="session")
def shared_impatient_server(tmp_path_factory):
    """A server that times out soon, for all tests."""
    with fake_server(tmp_path_factory.mktemp("impatient"), connection=IMPATIENT, limits=LIMITS) as server:
        yield server


@pytest.fixture
def impatient_server(shared_impatient_server):
    """A server that times out soon, whose noted calls are cleared."""
    (shared_impatient_server.data_dir / "calls").unlink(missing_ok=True)
    return shared_impatient_server


@pytest.fixture(scope="session")
def shared_strict_server(tmp_path_factory):
    """A server with low limits, for all tests."""
    with fake_server(tmp_path_factory.mktemp("strict"), connection=STRICT, limits=LIMITS) as server:
        yield server


@pytest.fixture
def strict_server(shared_strict_server):
    """A server with low limits, whose noted calls are cleared."""
    (shared_strict_server.data_dir / "calls").unlink(missing_ok=True)
    return shared_strict_server
