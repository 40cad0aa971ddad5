"""Nodes that cannot use S3: the load balancer drops such a node while another works, and keeps all if none does.

Two real nodes on PostgreSQL and S3, behind HAProxy with the configuration of contrib/compose. The faults are real ones:
S3 itself refuses a wrong clock and an unknown key, and a dead route never answers.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from cryostore.catalog.postgres.engine import PostgresDatabase
from cryostore.catalog.processes import nodes as reports
from support.faults.http_proxy import Fault, HttpProxy
from support.processes.load_balancer import load_balancer
from support.processes.nodes import Nodes
from support.processes.serving import CRYO
from support.services import postgres, s3
from support.waiting import until

LIBRARY = "*/faketime/libfaketimeMT.so.1"
LEAVES_SECONDS_MAX = 75
"""At most three reports, 10 s apart, each with a timeout of 10 s; and some reserve for a busy machine."""
BACK_SECONDS_MAX = 150
"""After a dead route, the client retries for up to a minute before it opens another connection."""
KINDS = ("delete", "get", "list", "put", "stat")


def faketime(offset):
    """Return the environment of a process whose clock follows the file `offset`, which may change."""
    found = list(Path("/usr/lib").glob(LIBRARY))
    if not found:
        pytest.skip("libfaketime is not installed (Debian: faketime): a node with a wrong clock was not tested")
    return {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


class Scene:
    """Two nodes, each with its own clock and its own proxy to S3."""

    def __init__(self, folder, opened):
        self._offsets = [folder / "clock1", folder / "clock2"]
        for path in self._offsets:
            path.write_text("+0s")
        blobs = s3.fresh_url()
        self.ways = [opened.enter_context(HttpProxy(s3.endpoint())) for _ in range(2)]
        catalog = opened.enter_context(postgres.new_database(migrated=False))
        environment = os.environ | s3.CREDENTIALS | {
            "CRYO_CATALOG": catalog, "CRYO_BLOBS": blobs, "CRYO_KEYRING": str(folder / "keyring.json"),
        }  # fmt: skip
        command = [*CRYO, "init", "--credentials", folder / "credentials"]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        own = {
            number: {"CRYO_BLOBS": f"{blobs.partition('?')[0]}?endpoint={way.address}"} | faketime(path)
            for number, (way, path) in enumerate(zip(self.ways, self._offsets, strict=True))
        }
        nodes = opened.enter_context(Nodes(folder, environment, count=2, own=own))
        self.balancer = opened.enter_context(load_balancer(folder, nodes.places))
        self.database = opened.enter_context(contextlib.closing(PostgresDatabase(catalog)))

    def wrong_clock(self, number):
        """Set the clock of a node 7 hours ahead."""
        self._offsets[number].write_text("+7h")

    def wrong_keys(self, number):
        """Make requests of a node carry an access key that S3 does not know."""
        self.ways[number].head = lambda _, value: value.replace("Credential=", "Credential=NOT")

    def dead_route(self, number):
        """Drop everything that a node sends to S3."""
        for kind in KINDS:
            self.ways[number].fail(kind, Fault.SILENT_BEFORE, 10_000)

    def heal(self, number):
        """End all faults of a node."""
        self._offsets[number].write_text("+0s")
        self.ways[number].head = lambda _, value: value
        for kind in KINDS:
            self.ways[number].fail(kind, Fault.SILENT_BEFORE, 0)

    def troubles(self):
        """Return the trouble that each live node reports."""
        rows = self.database.read(lambda transaction: reports.live(transaction, now_ms=self.database.now_ms()))
        return [row.trouble for row in rows]


@pytest.fixture
def scene(tmp_path):
    with contextlib.ExitStack() as opened:
        yield Scene(tmp_path, opened)


def eventually(condition, seconds_max=LEAVES_SECONDS_MAX):
    """Wait until a condition holds."""
    until(condition, seconds_max=seconds_max, pause_seconds=0.1)


@pytest.mark.stress
@pytest.mark.parametrize("trouble", ["wrong_clock", "wrong_keys", "dead_route"])
def test_one_node_in_trouble_is_dropped_and_taken_back(scene, trouble):
    getattr(scene, trouble)(0)
    eventually(lambda: scene.balancer.sees(1, "DOWN"))
    assert scene.balancer.sees(2, "UP")
    assert len(scene.troubles()) == 2
    scene.heal(0)
    eventually(lambda: scene.balancer.sees(1, "UP"), BACK_SECONDS_MAX)
    assert scene.balancer.sees(2, "UP")


@pytest.mark.stress
def test_two_nodes_in_trouble_both_stay(scene):
    """The first is dropped while the second works, and taken back when the second fails, too."""
    scene.wrong_keys(0)
    eventually(lambda: scene.balancer.sees(1, "DOWN"))
    scene.wrong_keys(1)
    eventually(lambda: len([trouble for trouble in scene.troubles() if trouble]) == 2)
    eventually(lambda: scene.balancer.sees(1, "UP"))
    assert scene.balancer.sees(2, "UP")
