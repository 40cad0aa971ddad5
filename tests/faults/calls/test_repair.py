"""Faults of single calls during a repair: no row becomes wrong, and the next repair completes the work."""

from __future__ import annotations

import contextlib
import itertools

import pytest

from cryostore.core.errors import CryostoreError, StorageFullError
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.maintenance.verification.repair import RepairResult, repair
from support.faults.damaging import broken_scene, to_end
from support.stores import audit

BLOB_CALLS = ["get", "stat", "owned", "cut", "append", "sync", "open_append", "list"]


def scene_to_repair():
    """Return a damaged scene. One pack with needed chunks accepts no new rows, so the repair must copy the chunks."""
    scene = broken_scene()
    query = "SELECT pack_number FROM pack JOIN chunk USING (pack_number) ORDER BY pack_number LIMIT 1"
    (number,) = scene.store.database.read(lambda transaction: transaction.row(query))

    def retire(transaction):
        transaction.run("DELETE FROM chunk WHERE pack_number = :number", number=number)
        transaction.run("UPDATE pack SET retired_ms = 1, open = 0 WHERE pack_number = :number", number=number)

    scene.store.database.write(retire)
    return scene


def calls(count):
    """Return the number of calls in a repair without faults."""
    scene = scene_to_repair()
    before = count(scene.collector)
    to_end(repair(scene.collector.context, RepairResult()))
    scene.check()
    return count(scene.collector) - before


def repair_twice(scene):
    """Repair with the planned fault, then again in a new process."""
    with contextlib.suppress(CryostoreError):
        to_end(repair(scene.collector.context, RepairResult()))
    scene.collector.database.heal()
    scene.collector.blobs.faults.clear()
    finish(scene)


def finish(scene):
    """Check that no row is wrong, and that the next repair and collection make the store complete."""
    assert audit.unreadable(scene.writer.context, scene.store.database) == []
    assert audit.retired_but_used(scene.store.database) == []
    to_end(repair(scene.writer.context, RepairResult()))
    scene.check()
    scene.store.clock.advance(1)
    collect_all(scene.writer.context, quarantine_ms=0)
    scene.check()


@pytest.mark.parametrize("answer_lost", [False, True], ids=["not done", "answer lost"])
def test_each_write_fails(answer_lost):
    for at in range(1, calls(lambda process: process.database.writes) + 1):
        scene = scene_to_repair()
        scene.collector.database.fail(at, answer_lost=answer_lost)
        repair_twice(scene)


def test_each_read_fails():
    for at in range(1, calls(lambda process: process.database.reads) + 1, 3):
        scene = scene_to_repair()
        scene.collector.database.fail(at, kind="read")
        repair_twice(scene)


@pytest.mark.parametrize("error", [None, StorageFullError("full")], ids=["failing", "full"])
@pytest.mark.parametrize("method", BLOB_CALLS)
def test_each_call_to_the_blobs_fails(method, error):
    count = calls(lambda process: process.blobs.calls.get(method, 0))
    assert count > 0
    for at in range(1, count + 1, 1 + count // 15):
        scene = scene_to_repair()
        scene.collector.blobs.fail(method, at, error, torn_bytes=17)
        repair_twice(scene)


@pytest.mark.parametrize("kept_share", [0.0, 0.5, 1.0])
def test_the_power_fails_at_each_write(kept_share):
    """All processes end before a transaction, and some or all bytes that were not flushed are lost."""

    class PowerCutError(BaseException):
        """An exception that no code catches."""

    for at in itertools.count(1):
        scene = scene_to_repair()
        begun = itertools.count(1)

        def cut(scene=scene, begun=begun, at=at):
            if next(begun) == at:
                scene.collector.database.die()
                raise PowerCutError

        scene.collector.database.on_write(cut)
        try:
            to_end(repair(scene.collector.context, RepairResult()))
        except PowerCutError:
            scene.restart(kept_share)
            finish(scene)
        else:
            assert at > 1
            break
