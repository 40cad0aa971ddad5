"""A disk with one wrong answer: a read has a flipped bit, or a listing lacks its end.

The reader notices it and loses no data: one wrong answer is not damage, and damage is not garbage.
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
    """Yield each possible wrong answer, until a run makes no further request."""
    for at in itertools.count(1):
        if not run(at):
            assert at > count
            return


def got_wrong_answer(scene):
    """Return whether the collector got the wrong answer. Later answers are right."""
    told = not scene.collector.blobs.lies
    scene.collector.blobs.lies.clear()
    return told


@pytest.mark.parametrize("place", [0, 60, -1], ids=["magic", "digest", "tag"])
def test_compaction_moves_no_wrong_bytes(place):
    """An envelope that cannot be opened stays in its place, and so does its row. All else is collected."""

    def run(at):
        scene = Scene()
        scene.collector.blobs.lie("get", at, place)
        collect_all(scene.collector.context, quarantine_ms=0)
        told = got_wrong_answer(scene)
        scene.check()
        scene.collect_the_rest()
        return told

    lies_in(run, 1)


@pytest.mark.parametrize("place", [0, 60, 200, -1])
def test_scrub_reads_twice(place):
    """An envelope counts as damaged only after a second read, so one wrong answer marks nothing."""

    def run(at):
        scene = Scene()
        scene.collector.blobs.lie("get", at, place)
        outcome = ScrubResult()
        for _ in scrub(scene.collector.context, outcome):
            pass
        assert outcome.damaged == 0
        told = got_wrong_answer(scene)
        scene.check()
        return told

    lies_in(run, 1)


@pytest.mark.parametrize("place", [0, 60, -1])
def test_a_rebuild_completes_no_damaged_point(place):
    """A record or an envelope with a wrong answer is reported as lost. A COMPLETED point has all its data."""
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
            return True  # the wrong answer was the record of the only vault, and nothing can be opened without its keys
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
