"""The agent over a service in this process, and over a real server."""

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
    """A store that all tests share, each with a resource of its own."""
    with opened(tmp_path_factory.mktemp("agent") / "data", clock=wall_clock) as store:
        yield store


@pytest.fixture(scope="session")
def client(server):  # noqa: F811 - as above
    """A client of a real server."""
    with server.client() as client:
        yield client


@pytest.fixture(params=["in process", "over a server", "sealed"])
def runs(request):
    """The agent's runs for a resource of their own, over either, and with a key."""
    call = request.getfixturevalue("client" if request.param == "over a server" else "store")
    key = AgentKey.generate() if request.param == "sealed" else None
    return Runs(call, f"tree-{next(NUMBERS)}", key)


@pytest.fixture
def local_runs(store):
    """As `runs`, in this process alone: for what does not depend on how the store is reached."""
    return Runs(store, f"tree-{next(NUMBERS)}")


@pytest.fixture
def as_nobody():
    """Makes this process a user who owns what it makes and nothing else; a folder of theirs."""
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
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
