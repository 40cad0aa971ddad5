"""Garbage collection and repair with immutable packs, as in a cloud, while the cloud fails or lies.

The stores are in memory. How a real S3 and its network affect single requests: `services/test_cloud`.
"""

from __future__ import annotations

import itertools

import pytest

from cryostore.catalog.rows import packs
from cryostore.chunks.packs.format import pack_key
from cryostore.core.errors import CryostoreError
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.maintenance.verification.repair import RepairResult, repair
from cryostore.model.errors import ServiceUnavailableException
from support.faults.faulty_blobs import FaultyObjects
from support.stores import audit
from support.stores.collecting import NEW, Scene, put_new


@pytest.fixture(autouse=True)
def immutable(monkeypatch):
    """Every process of a scene has blobs that do not grow."""
    monkeypatch.setattr("support.stores.memory_store.FaultyBlobs", FaultyObjects)


def open_packs(scene):
    return scene.store.database.read(packs.open_packs)


def test_packs_are_closed_from_the_beginning_and_collected():
    scene = Scene()
    assert not scene.writer.context.store.packs_grow
    assert open_packs(scene) == []
    before = len(scene.store.pack_names())
    scene.collect_the_rest()
    assert open_packs(scene) == []
    assert len(scene.store.pack_names()) < before
    live = audit.held(scene.store.database)
    assert len(scene.store.pack_names()) < len(live), "small packs were merged"
    names = scene.store.pack_names()
    collect_all(scene.collector.context, quarantine_ms=0)
    assert scene.store.pack_names() == names, "what was merged is not copied again"


@pytest.mark.parametrize("method", ["put", "get", "stat", "delete"])
@pytest.mark.parametrize("answer_lost", [False, True], ids=["not done", "answer lost"])
def test_each_call_to_the_blobs_fails(method, answer_lost):
    """A run that meets an outage at any of its calls loses nothing, and later runs do the rest."""
    for at in itertools.count(1, 3 if method == "stat" else 1):
        scene = Scene()
        calls = scene.collector.blobs.calls.get(method, 0)
        scene.collector.blobs.fail(method, at, answer_lost=answer_lost)
        broke_off = False
        try:
            collect_all(scene.collector.context, quarantine_ms=0)
        except CryostoreError:
            broke_off = True
        met = scene.collector.blobs.calls.get(method, 0) - calls >= at
        scene.collector.blobs.faults.clear()
        scene.check()
        if not met:
            assert not broke_off
            assert at > 1
            return
        if at % 5 == 1:
            scene.collect_the_rest()


LISTINGS = {
    "empty": lambda keys: [],
    "cut short": lambda keys: keys[: len(keys) // 2],
    "without its beginning": lambda keys: keys[len(keys) // 2 :],
    "of packs that are gone": lambda keys: sorted([*keys, pack_key("00000000-0000-4000-8000-00000000dead".upper())]),
}


@pytest.mark.parametrize("lie", LISTINGS)
def test_a_listing_that_lies_costs_nobody_anything(lie):
    """Neither collection nor repair takes what a listing does not show for gone, or what it shows for there."""
    scene = Scene()
    scene.collector.blobs.lie_in_listings(LISTINGS[lie])
    for _ in range(2):
        collect_all(scene.collector.context, quarantine_ms=0)
        scene.check()
        for _ in repair(scene.collector.context, RepairResult(), dry_run=False):
            pass
        scene.check()
    scene.collect_the_rest()


def test_a_stale_listing_costs_nobody_anything():
    """Every listing is as it was before the collection, while packs go and others come."""
    scene = Scene()
    frozen = list(scene.store.blobs.list("packs/"))
    scene.collector.blobs.lie_in_listings(lambda _keys: frozen)
    for _ in range(3):
        collect_all(scene.collector.context, quarantine_ms=0)
        put_new(scene)
        for _ in repair(scene.collector.context, RepairResult(), dry_run=False):
            pass
        scene.check()


def test_a_put_that_arrives_late_is_taken_up_and_collected():
    """The answer is lost, the request fails, and the pack is there: repair finds it, collection frees it."""
    scene = Scene()
    before = set(scene.store.pack_names())
    scene.writer.blobs.fail("put", answer_lost=True)
    with pytest.raises(ServiceUnavailableException):
        scene.api.put(scene.open_job, "new", NEW)
    (late,) = set(scene.store.pack_names()) - before
    collect_all(scene.collector.context, quarantine_ms=0)
    assert late in scene.store.pack_names(), "what no row names may belong to a request under way"
    for _ in repair(scene.collector.context, RepairResult(), dry_run=False):
        pass
    scene.check()
    scene.collect_the_rest()
    assert late not in scene.store.pack_names()
