"""Races of every request with garbage collection, at every point where the two can interleave."""

from __future__ import annotations

import itertools

import pytest

from cryostore.catalog.processes.claims import ClaimHeldError, ClaimLostError
from cryostore.core.time import HOUR_MS
from cryostore.maintenance.garbage_collection.collect import collect, collect_all
from cryostore.maintenance.garbage_collection.run import CollectionResult
from support.stores.collecting import REQUESTS, Scene, put_garbage_again


def run_of(scene, **more):
    """Return a run without quarantine, as steps."""
    return collect(scene.collector.context, CollectionResult(), **({"quarantine_ms": 0} | more))


def steps_of_a_run():
    """Return the number of steps of a run."""
    return sum(1 for _ in run_of(Scene()))


def test_the_scene_has_work_for_every_stage():
    scene = Scene()
    scene.check()
    outcome = collect_all(scene.collector.context, quarantine_ms=0)
    assert outcome.condemned == outcome.removed > 0
    assert min(outcome.packs_compacted, outcome.moved, outcome.packs_retired, outcome.packs_deleted) > 0
    scene.check()
    scene.collect_the_rest()


@pytest.mark.parametrize("quarantine_ms", [0, HOUR_MS], ids=["at once", "quarantine"])
@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.__name__)
def test_a_request_between_any_two_steps(request_, quarantine_ms):
    """The collector runs some steps, then the request runs, then the collector continues."""
    for count in range(steps_of_a_run() + 1):
        scene = Scene()
        run = run_of(scene, quarantine_ms=quarantine_ms)
        list(itertools.islice(run, count))
        request_(scene)
        scene.check()
        list(run)
        scene.check()
        if count % 4 == 0:
            scene.collect_the_rest()


@pytest.mark.parametrize("quarantine_ms", [0, HOUR_MS], ids=["at once", "quarantine"])
@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.__name__)
def test_whole_runs_in_the_middle_of_a_request(request_, quarantine_ms):
    """The request pauses before one of its transactions. Its pack is closed, and collections run to their end."""
    for at in itertools.count(1):
        scene = Scene()
        calls = itertools.count(1)

        def pause(scene=scene, calls=calls, at=at):
            if next(calls) == at:
                scene.close_packs()
                for _ in range(2):
                    collect_all(scene.collector.context, quarantine_ms=quarantine_ms)

        scene.writer.database.on_write(pause)
        request_(scene)
        scene.writer.database.on_write(None)
        scene.check()
        scene.collect_the_rest()
        if next(calls) <= at:
            break


@pytest.mark.parametrize("runs", [1, 2, 3], ids=["dropped", "forgotten", "long forgotten"])
def test_a_late_row_for_a_pack_that_is_gone_is_refused(runs):
    """The writer had flushed its bytes to the pack when the last row that pointed there was removed."""
    scene = Scene()
    doomed = scene.job()
    scene.close_packs()
    before = set(scene.store.pack_names())
    scene.api.put(doomed, "only row of its pack", b"x" * 50)
    scene.api.stop(doomed)
    (shared,) = set(scene.store.pack_names()) - before
    calls = itertools.count(1)

    def pause():
        if next(calls) == 1:
            scene.close_packs()
            for _ in range(runs):
                collect_all(scene.collector.context, quarantine_ms=0)
            assert shared not in scene.store.pack_names()

    scene.writer.database.on_write(pause)
    scene.api.put(scene.open_job, "late", b"y" * 50)
    scene.writer.database.on_write(None)
    scene.view["late"] = b"y" * 50
    scene.check()


def test_one_run_at_a_time():
    scene = Scene()
    run = run_of(scene)
    next(run)
    with pytest.raises(ClaimHeldError):
        collect_all(scene.writer.context)
    list(run)
    collect_all(scene.writer.context)


@pytest.mark.parametrize("count", range(1, 12))
def test_a_run_that_lost_its_claim_makes_no_more_changes(count):
    """It was suspended until its lease expired; another run finished, and a writer used a chunk it would delete."""
    scene = Scene()
    run = run_of(scene)
    list(itertools.islice(run, count))
    scene.store.clock.advance(HOUR_MS // 2)
    collect_all(scene.writer.context, quarantine_ms=0)
    put_garbage_again(scene)
    with pytest.raises(ClaimLostError):
        list(run)
    scene.check()
    scene.collect_the_rest()


def test_an_interrupted_run_releases_its_claim():
    scene = Scene()
    run = run_of(scene)
    next(run)
    run.close()
    assert collect_all(scene.writer.context, quarantine_ms=0).removed > 0


def test_a_dry_run_changes_nothing():
    scene = Scene()
    query = "SELECT * FROM chunk"
    before = scene.store.database.read(lambda transaction: transaction.rows(query))
    dry = collect_all(scene.collector.context, quarantine_ms=0, dry_run=True)
    assert scene.store.database.read(lambda transaction: transaction.rows(query)) == before
    wet = collect_all(scene.collector.context, quarantine_ms=0)
    assert dry.condemned == wet.condemned > 0


def test_a_reader_that_looked_up_the_old_place_looks_again():
    """Between the look-up and the read, compaction moves the chunk and its pack is deleted."""
    scene = Scene()
    (job,) = scene.restores
    calls = itertools.count(1)
    moved = []

    def pause():
        if next(calls) == 1:
            scene.close_packs()
            moved.append(collect_all(scene.collector.context, quarantine_ms=0).moved)

    scene.writer.blobs.on("get", pause)
    assert scene.api.read(job) == scene.restores[job]
    assert moved[0] > 0


def test_a_catalog_that_cannot_be_read_in_full_stops_the_run():
    """One damaged chunk list: nothing is condemned, because its references are unknown."""
    scene = Scene()
    change = (
        "UPDATE object SET chunks = x'00' WHERE object_id = (SELECT min(object_id) FROM object WHERE chunks NOT NULL)"
    )
    scene.store.database.write(lambda transaction: transaction.run(change))
    with pytest.raises(Exception, match="chunk list is damaged"):
        collect_all(scene.collector.context, quarantine_ms=0)
    count = "SELECT count(*) FROM chunk WHERE condemned_ms IS NOT NULL"
    assert scene.store.database.read(lambda transaction: transaction.row(count)) == (0,)
