"""Each call of garbage collection to the database or the blob store fails once, in every possible way."""

from __future__ import annotations

import itertools

import pytest

from cryostore.core.errors import CryostoreError, StorageFullError
from cryostore.maintenance.garbage_collection.collect import collect_all
from support.stores.collecting import Scene

BLOB_CALLS = ["append", "sync", "open_append", "get", "stat", "owned", "delete"]


def calls_of_a_run(count):
    """How often a run without faults makes a call, as `count` reads it from the process."""
    scene = Scene()
    before = count(scene.collector)
    collect_all(scene.collector.context, quarantine_ms=0)
    return count(scene.collector) - before


def run_fails(scene):
    """Make a run that meets its fault, and answer whether it broke off; whatever it did, nothing is lost."""
    broke_off = False
    try:
        collect_all(scene.collector.context, quarantine_ms=0)
    except CryostoreError:
        broke_off = True
    scene.collector.database.heal()
    scene.check()
    return broke_off


@pytest.mark.parametrize("answer_lost", [False, True], ids=["not done", "answer lost"])
def test_each_write_fails(answer_lost):
    """A transaction that did not happen, or that did and whose answer was lost; later runs do the rest."""
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
def test_the_power_goes_at_each_write(kept_share):
    """Before any transaction of a run, everything dies, and bytes that were not flushed are lost, or a part of them."""

    class PowerCutError(BaseException):
        """Nobody catches it."""

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
