"""Fixtures of the agent: runs in this process and over a real server, another user, a disk image."""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cryostore.agent.encryption.agent_key import AgentKey
from cryostore.core.limits import MIB
from cryostore.core.time import wall_clock
from support.archives.agent import Runs
from support.archives.single_file import SEGMENT_BYTES, write_at
from support.processes.serving import server  # noqa: F401 - a fixture
from support.stores.in_process import opened

NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """One store for all tests; each test has a resource of its own."""
    with opened(tmp_path_factory.mktemp("agent") / "data", clock=wall_clock) as store:
        yield store


@pytest.fixture(scope="session")
def client(server):  # noqa: F811 - as above
    """A client of a real server."""
    with server.client() as client:
        yield client


@pytest.fixture(params=["in process", "over a server", "sealed"])
def runs(request):
    """The agent's runs for a new resource: in this process, over a server, and with a key."""
    call = request.getfixturevalue("client" if request.param == "over a server" else "store")
    key = AgentKey.generate() if request.param == "sealed" else None
    return Runs(call, f"tree-{next(NUMBERS)}", key)


@pytest.fixture
def local_runs(store):
    """The agent's runs in this process only, for tests that do not depend on the connection to the store."""
    return Runs(store, f"tree-{next(NUMBERS)}")


@pytest.fixture
def as_nobody():
    """Run the test as the user nobody; yield a folder of this user."""
    if os.geteuid() != 0:
        pytest.skip("only root can change its user")
    nobody = 65534
    with TemporaryDirectory() as folder:
        os.chown(folder, nobody, nobody)
        os.setegid(nobody)
        os.seteuid(nobody)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)
            os.setegid(0)


@pytest.fixture
def image(tmp_path):
    """A disk image of 11 MiB: data, a hole, data across a segment's end, a hole, and a short last block."""
    path = tmp_path / "disk.raw"
    path.touch()
    os.truncate(path, 11 * MIB + 5)
    write_at(path, 0, random.Random(1).randbytes(MIB + 100))
    write_at(path, SEGMENT_BYTES - MIB, random.Random(2).randbytes(2 * MIB))
    write_at(path, 11 * MIB, b"12345")
    return path
