"""A process that dies or freezes during background work: another one takes over, and the first one stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from cryostore.catalog.processes.claims import ClaimHeldError
from cryostore.core.time import SECOND_MS
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.service import Settings
from support.processes.shared_serving import environment
from support.stores.shared_store import ON_SERVICES, SharedStore, prepared
from support.waiting import until

LEASE_MS = 2 * SECOND_MS
SETTINGS = Settings(claim_lease_ms=LEASE_MS)
WORDS = f"""
import os
from cryostore.catalog.processes.claims import ClaimLostError
from cryostore.maintenance.garbage_collection.run import CollectionResult
from cryostore.maintenance.garbage_collection.collect import collect
from cryostore.service import Settings
from cryostore.service.opening.shared_store import SharedStoreAddress
from cryostore.service.opening.open_shared import open_shared_service

place = SharedStoreAddress(*(os.environ[f"CRYO_{{name}}"] for name in ("CATALOG", "BLOBS", "KEYRING")))
service = open_shared_service(place, settings=Settings(claim_lease_ms={LEASE_MS}))
try:
    for step in collect(service.context, CollectionResult(), quarantine_ms=0):
        print("a step", flush=True)
        input()
    print("finished", flush=True)
except ClaimLostError:
    print("lost", flush=True)
"""


IN_A_TRANSACTION = """
import os
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.service.opening.shared_store import SharedStoreAddress
from cryostore.service.opening.open_shared import open_shared_service

address = SharedStoreAddress(*(os.environ[f"CRYO_{name}"] for name in ("CATALOG", "BLOBS", "KEYRING")))
service = open_shared_service(address)
database = service.context.database
really = database.write

def write(work):
    def held(transaction):
        answer = work(transaction)
        print("before the commit", flush=True)
        input()
        return answer
    return really(held)

database.write = write
collect_all(service.context, quarantine_ms=0)
print("finished", flush=True)
"""
HELD_SECONDS_MAX = 6
"""The database waits 3 s for a frozen process. The rest is for a busy machine."""


class Scene:
    """A store with garbage, and a recovery point that needs chunks of the same packs."""

    def __init__(self, store):
        self.store = store
        self.api = store.api()
        self.kept = {f"kept-{number}": b"kept %d" % number * 100 for number in range(3)}
        job = self.api.start_job()
        for name, data in (self.kept | {"gone": b"gone" * 1000}).items():
            self.api.put(job, name, data)
        self.api.delete(job, "gone")
        self.point = self.api.commit(job)
        self.job = self.api.start_job()

    def take_over(self):
        """Collect as soon as no other process does. Returns the result."""
        outcomes = []

        def collected():
            try:
                outcomes.append(collect_all(self.store.service.context, quarantine_ms=0))
            except ClaimHeldError:
                return False
            return True

        until(collected, pause_seconds=0.05)
        return outcomes[0]

    def check(self):
        """Check the store, and read all stored data."""
        assert self.api.restored(self.point) == self.kept
        assert self.store.problems() == []


@pytest.fixture
def scene(tmp_path):
    with prepared(tmp_path, ON_SERVICES) as place:
        store = SharedStore(place, clock=None, settings=SETTINGS)
        store.service.close()
        store.clock = None  # the catalog's
        store.service = store.open()
        try:
            yield Scene(store)
        finally:
            store.close()


@contextmanager
def collecting(scene, steps, words=WORDS, says="a step"):
    """Start a process that makes so many steps of a collection and then waits for a line before each step."""
    process = subprocess.Popen(
        [sys.executable, "-c", words],
        env=environment(scene.store.place),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == f"{says}\n"
        for _ in range(steps - 1):
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{says}\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("steps", [1, 3])
def test_a_collection_that_was_frozen_past_its_lease_stops(scene, steps):
    with collecting(scene, steps) as process:
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(ClaimHeldError):
            collect_all(scene.store.service.context, quarantine_ms=0)
        scene.take_over()
        scene.api.put(scene.job, "again", b"gone" * 1000)
        os.kill(process.pid, signal.SIGCONT)
        said, _ = process.communicate("\n" * 1000)
        assert said.endswith("lost\n")
        assert "finished" not in said
    assert scene.api.read(scene.job)["again"] == b"gone" * 1000
    scene.check()


def test_the_work_of_a_dead_process_is_taken_over(scene):
    with collecting(scene, 2) as process:
        with pytest.raises(ClaimHeldError):
            collect_all(scene.store.service.context, quarantine_ms=0)
        process.kill()
        scene.take_over()
    scene.check()


@pytest.mark.stress
@pytest.mark.parametrize("transactions", range(1, 7))
def test_a_collection_that_freezes_in_a_transaction_delays_writers_by_seconds(scene, transactions):
    """It freezes in each of its transactions. Then it continues, and completes if no other process took over."""
    with collecting(scene, transactions, IN_A_TRANSACTION, "before the commit") as process:
        os.kill(process.pid, signal.SIGSTOP)
        taken = []
        for name, data in (("again", b"gone" * 1000), ("new", b"new" * 1000), ("kept", scene.kept["kept-0"])):
            began = time.monotonic()
            scene.api.put(scene.job, name, data)
            taken.append(time.monotonic() - began)
        assert max(taken) < HELD_SECONDS_MAX, taken
        os.kill(process.pid, signal.SIGCONT)
        said, _ = process.communicate("\n" * 1000)
        assert said.endswith("finished\n"), said
    assert {"again", "new", "kept"} <= set(scene.api.read(scene.job))
    scene.check()
