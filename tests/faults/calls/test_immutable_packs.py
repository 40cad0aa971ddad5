"""Garbage collection and repair of immutable packs, with failing calls and wrong listings.

The stores are in memory. For a real S3 and its network see `services/test_cloud`.
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
    """Every process of a scene has an object store, which cannot append."""
    monkeypatch.setattr("support.stores.memory_store.FaultyBlobs", FaultyObjects)


def open_packs(scene):
    return scene.store.database.read(packs.open_packs)


def test_packs_are_created_closed_and_are_collected():
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
    assert scene.store.pack_names() == names, "merged packs are not copied again"


@pytest.mark.parametrize("method", ["put", "get", "stat", "delete"])
@pytest.mark.parametrize("answer_lost", [False, True], ids=["not done", "answer lost"])
def test_each_call_to_the_blobs_fails(method, answer_lost):
    """An outage at any call of a run loses nothing, and later runs complete the work."""
    for at in itertools.count(1, 3 if method == "stat" else 1):
        scene = Scene()
        calls = scene.collector.blobs.calls.get(method, 0)
        scene.collector.blobs.fail(method, at, answer_lost=answer_lost)
        failed = False
        try:
            collect_all(scene.collector.context, quarantine_ms=0)
        except CryostoreError:
            failed = True
        met = scene.collector.blobs.calls.get(method, 0) - calls >= at
        scene.collector.blobs.faults.clear()
        scene.check()
        if not met:
            assert not failed
            assert at > 1
            return
        if at % 5 == 1:
            scene.collect_the_rest()


LISTINGS = {
    "empty": lambda keys: [],
    "cut short": lambda keys: keys[: len(keys) // 2],
    "without its first half": lambda keys: keys[len(keys) // 2 :],
    "with a missing pack": lambda keys: sorted([*keys, pack_key("00000000-0000-4000-8000-00000000dead".upper())]),
}


@pytest.mark.parametrize("lie", LISTINGS)
def test_a_wrong_listing_loses_nothing(lie):
    """Collection and repair do not trust a listing, neither for missing packs nor for existing ones."""
    scene = Scene()
    scene.collector.blobs.lie_in_listings(LISTINGS[lie])
    for _ in range(2):
        collect_all(scene.collector.context, quarantine_ms=0)
        scene.check()
        for _ in repair(scene.collector.context, RepairResult(), dry_run=False):
            pass
        scene.check()
    scene.collect_the_rest()


def test_a_stale_listing_loses_nothing():
    """Every listing is older than the collection, which removes and adds packs."""
    scene = Scene()
    frozen = list(scene.store.blobs.list("packs/"))
    scene.collector.blobs.lie_in_listings(lambda _keys: frozen)
    for _ in range(3):
        collect_all(scene.collector.context, quarantine_ms=0)
        put_new(scene)
        for _ in repair(scene.collector.context, RepairResult(), dry_run=False):
            pass
        scene.check()


def test_a_pack_of_a_failed_put_is_found_and_collected():
    """The pack is stored, but its answer is lost and the request fails. Repair finds it, and collection frees it."""
    scene = Scene()
    before = set(scene.store.pack_names())
    scene.writer.blobs.fail("put", answer_lost=True)
    with pytest.raises(ServiceUnavailableException):
        scene.api.put(scene.open_job, "new", NEW)
    (late,) = set(scene.store.pack_names()) - before
    collect_all(scene.collector.context, quarantine_ms=0)
    assert late in scene.store.pack_names(), "a pack without rows may belong to a request in flight"
    for _ in repair(scene.collector.context, RepairResult(), dry_run=False):
        pass
    scene.check()
    scene.collect_the_rest()
    assert late not in scene.store.pack_names()
