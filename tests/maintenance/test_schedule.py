"""Garbage collection that nobody asked for: when it is due, and in portions."""

from __future__ import annotations

import pytest

from cryostore.catalog import collections
from cryostore.core.errors import StorageUnavailableError
from cryostore.core.time import HOUR_MS
from cryostore.maintenance import ScheduledCollection
from support.collecting import Scene


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
