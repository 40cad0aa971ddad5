"""Faults of single calls during garbage collection: each call to the database or the blob store fails once."""

from __future__ import annotations

import itertools

import pytest

from cryostore.core.errors import CryostoreError, StorageFullError
from cryostore.maintenance.garbage_collection.collect import collect_all
from support.stores.collecting import Scene

BLOB_CALLS = ["append", "sync", "open_append", "get", "stat", "owned", "delete"]


def calls_of_a_run(count):
    """Return the number of calls in a run without faults. `count` reads it from a process."""
    scene = Scene()
    before = count(scene.collector)
    collect_all(scene.collector.context, quarantine_ms=0)
    return count(scene.collector) - before


def run_fails(scene):
    """Make a run with the planned fault; check that nothing is lost; return whether the run failed."""
    failed = False
    try:
        collect_all(scene.collector.context, quarantine_ms=0)
    except CryostoreError:
        failed = True
    scene.collector.database.heal()
    scene.check()
    return failed


@pytest.mark.parametrize("answer_lost", [False, True], ids=["not done", "answer lost"])
def test_each_write_fails(answer_lost):
    """A transaction fails, or it succeeds and its answer is lost. Later runs complete the work."""
    for at in range(1, calls_of_a_run(lambda process: process.database.writes) + 1):
        scene = Scene()
        scene.collector.database.fail(at, answer_lost=answer_lost)
        run_fails(scene)
        scene.collect_the_rest()


def test_each_read_fails():
    for at in range(1, calls_of_a_run(lambda process: process.database.reads) + 1):
        scene = Scene()
        scene.collector.database.fail(at, kind="read")
        assert run_fails(scene)
        if at % 3 == 0:
            scene.collect_the_rest()


@pytest.mark.parametrize("error", [None, StorageFullError("full")], ids=["failing", "full"])
@pytest.mark.parametrize("method", BLOB_CALLS)
def test_each_call_to_the_blobs_fails(method, error):
    for at in range(1, calls_of_a_run(lambda process: process.blobs.calls.get(method, 0)) + 1):
        scene = Scene()
        scene.collector.blobs.fail(method, at, error, torn_bytes=17)
        run_fails(scene)
        scene.collect_the_rest()


@pytest.mark.parametrize("kept_share", [0.0, 0.5, 1.0])
def test_the_power_fails_at_each_write(kept_share):
    """All processes end before a transaction, and some or all bytes that were not flushed are lost."""

    class PowerCutError(BaseException):
        """An exception that no code catches."""

    for at in itertools.count(1):
        scene = Scene()
        calls = itertools.count(1)

        def cut(scene=scene, calls=calls, at=at):
            if next(calls) == at:
                scene.collector.database.die()
                raise PowerCutError

        scene.collector.database.on_write(cut)
        try:
            collect_all(scene.collector.context, quarantine_ms=0)
        except PowerCutError:
            scene.restart(kept_share)
            scene.check()
            scene.collect_the_rest()
        else:
            break
