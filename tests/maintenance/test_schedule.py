"""Garbage collection and scrubbing that nobody asked for: when they are due, and in portions."""

from __future__ import annotations

import pytest

from cryostore.catalog import collections
from cryostore.core.errors import StorageUnavailableError
from cryostore.core.time import DAY_MS, HOUR_MS
from cryostore.maintenance import ScheduledCollection, ScheduledScrub
from support.api import new_resource
from support.collecting import Scene
from support.damaging import spoil
from support.memory_store import Process
from support.shop import DATA, Shop


def epoch(scene):
    """How many runs were begun."""
    return scene.store.database.read(collections.epoch)


def test_a_run_is_made_whenever_the_period_is_over():
    scene = Scene()
    schedule = ScheduledCollection(scene.collector.context)
    for count in range(1, 4):
        schedule.go_on()
        assert epoch(scene) == count
        schedule.go_on()
        scene.store.clock.advance(6 * HOUR_MS - 1)
        schedule.go_on()
        assert epoch(scene) == count
        scene.store.clock.advance(HOUR_MS)
    scene.check()


def test_two_processes_make_one_run():
    scene = Scene()
    for process in (scene.writer, scene.collector):
        ScheduledCollection(process.context).go_on()
    assert epoch(scene) == 1


def test_a_run_goes_on_in_portions():
    scene = Scene()
    schedule = ScheduledCollection(scene.collector.context)
    for _ in range(200):
        schedule.go_on(seconds=0)
    state = scene.store.database.read(collections.state)
    assert (state.epoch, state.holder, state.finished_ms) == (1, None, scene.store.clock())


def test_a_run_that_failed_is_told_and_not_begun_again_at_once():
    scene = Scene()
    schedule = ScheduledCollection(scene.collector.context)
    scene.collector.database.fail(2)
    with pytest.raises(StorageUnavailableError):
        schedule.go_on()
    schedule.go_on()
    assert epoch(scene) == 1
    scene.store.clock.advance(HOUR_MS)
    schedule.go_on()
    assert epoch(scene) == 2
    assert scene.store.database.read(collections.state).holder is None


def all_scrubbed(schedule):
    """Go on until a pass ends; what it found."""
    for _ in range(200):
        if (outcome := schedule.go_on(seconds=0)) is not None:
            return outcome
    return None


def test_every_pack_is_verified_once_in_the_period_and_new_ones_the_next_day():
    shop = Shop()
    shop.close_packs()
    schedule = ScheduledScrub(shop.context)
    shop.store.clock.advance(DAY_MS)
    assert all_scrubbed(schedule).packs == 2
    assert all_scrubbed(schedule) is None, "the next pass is not due"
    shop.api.backup({"new": b"new" * 100}, resource=new_resource())
    shop.close_packs()
    read = []
    for _ in range(31):
        shop.store.clock.advance(DAY_MS)
        read.append(all_scrubbed(schedule).packs)
    assert (read[0], sum(read[1:28]), sum(read)) == (1, 0, 4)


def test_two_processes_share_the_verifying():
    shop = Shop()
    shop.close_packs()
    schedules = [ScheduledScrub(Process(shop.store).context) for _ in range(2)]
    shop.store.clock.advance(DAY_MS)
    assert sum(all_scrubbed(schedule).packs for schedule in schedules) == 2


def test_damage_is_logged_once_it_is_found(caplog):
    shop = Shop()
    shop.close_packs()
    spoil(shop.store, DATA[1])
    schedule = ScheduledScrub(shop.context)
    shop.store.clock.advance(DAY_MS)
    assert all_scrubbed(schedule).damaged == 1
    (line,) = caplog.messages
    assert line.startswith("scrub: 1 chunks found damaged")


def test_a_server_may_be_told_to_verify_nothing():
    shop = Shop(scrub_period_ms=0)
    schedule = ScheduledScrub(shop.context)
    shop.store.clock.advance(DAY_MS)
    assert all_scrubbed(schedule) is None


def test_a_pass_that_failed_is_told_and_made_again_the_next_day():
    shop = Shop()
    shop.close_packs()
    schedule = ScheduledScrub(shop.context)
    shop.store.clock.advance(DAY_MS)
    shop.process.database.fail(3, kind="read")
    with pytest.raises(StorageUnavailableError):
        schedule.go_on()
    assert schedule.go_on() is None
    shop.store.clock.advance(DAY_MS)
    assert all_scrubbed(schedule).packs == 2
