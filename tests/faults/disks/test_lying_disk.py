"""A disk that lies once: one read has a flipped bit, or one listing lacks its end.

The reader notices, and no decision that follows loses data: a lie is not damage, and damage is not garbage.
"""

from __future__ import annotations

import itertools

import pytest

from cryostore.core.errors import CryostoreError
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.maintenance.rebuild.run import Rebuild, RebuildResult
from cryostore.maintenance.verification.scrub import ScrubResult, scrub
from support.catalogs.memory_database import MemoryDatabase
from support.faults.faulty_blobs import FaultyBlobs
from support.requests.api import Api
from support.stores.collecting import Scene
from support.stores.memory_store import MemoryStore, Process


def lies_in(run, count):
    """Each possible wrong answer in turn, until a run makes no further request."""
    for at in itertools.count(1):
        if not run(at):
            assert at > count
            return


def was_told(scene):
    """Whether the collector was told its lie; there will be none later."""
    told = not scene.collector.blobs.lies
    scene.collector.blobs.lies.clear()
    return told


@pytest.mark.parametrize("place", [0, 60, -1], ids=["magic", "digest", "tag"])
def test_compaction_moves_no_lie(place):
    """An envelope that does not open stays where it is, and its row with it; all the rest is collected."""

    def run(at):
        scene = Scene()
        scene.collector.blobs.lie("get", at, place)
        collect_all(scene.collector.context, quarantine_ms=0)
        told = was_told(scene)
        scene.check()
        scene.collect_the_rest()
        return told

    lies_in(run, 1)


@pytest.mark.parametrize("place", [0, 60, 200, -1])
def test_scrub_asks_twice(place):
    """Before an envelope counts as damaged it is read again, alone: one lie marks nothing."""

    def run(at):
        scene = Scene()
        scene.collector.blobs.lie("get", at, place)
        outcome = ScrubResult()
        for _ in scrub(scene.collector.context, outcome):
            pass
        assert outcome.damaged == 0
        told = was_told(scene)
        scene.check()
        return told

    lies_in(run, 1)


@pytest.mark.parametrize("place", [0, 60, -1])
def test_a_rebuilding_calls_nothing_whole_that_is_not(place):
    """A record or an envelope that was lied about is a loss, and said; a point called complete is as it was."""
    store = MemoryStore()
    process = Process(store)
    api = Api(process, None, clock=store.clock)
    points = {}
    for contents in ({"a": b"1", "b": b"1"}, {"a": b"2"}, {"c": b"3"}):
        points[api.backup(contents)] = dict(points[max(points)] if points else {}, **contents)

    def run(at):
        database, blobs, outcome = MemoryDatabase(), FaultyBlobs(store.blobs), RebuildResult()
        blobs.lie("get", at, place)
        try:
            for _ in Rebuild(database, blobs, store.keyring, outcome, now_ms=1).run():
                pass
        except CryostoreError:
            database.close()
            return True  # the lie was about the only vault: without its keys there is nothing to begin with
        told = not blobs.lies
        rows = database.read(lambda t: t.rows("SELECT point_id, status FROM recovery_point"))
        for point_id, status in rows:
            arn = process.context.arns.point(point_id)
            if status == "COMPLETED" and not any("pack" in loss for loss in outcome.losses) and outcome.chunks == 3:
                assert read(store, database, arn) == points[arn]
        assert not told or outcome.losses or (len(rows) == 3 and outcome.chunks >= 2)
        database.close()
        return told

    lies_in(run, 4)


def read(store, database, arn):
    kept, store.database = store.database, database
    process = Process(store)
    store.database = kept
    return Api(process, None, clock=store.clock).restored(arn)
