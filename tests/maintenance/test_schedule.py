"""Schedule of garbage collection, scrubbing and background tasks: when they are due, and in which portions."""

from __future__ import annotations

import contextlib
import itertools
from functools import partial

import pytest

from cryostore.catalog.processes import claims
from cryostore.catalog.processes import epoch as collections
from cryostore.core.errors import StorageUnavailableError
from cryostore.core.time import DAY_MS, HOUR_MS
from cryostore.maintenance import background_tasks
from cryostore.maintenance.background_tasks import ScheduledGarbageCollection, ScheduledScrub, ScheduledTasks
from cryostore.maintenance.claims import BACKGROUND_TASKS, GARBAGE_COLLECTION, SCRUB
from cryostore.maintenance.verification.scrub import ScrubResult, scrub
from support.faults.damaging import spoil
from support.requests.api import new_resource
from support.stores.collecting import Scene
from support.stores.memory_store import Process
from support.stores.shop import DATA, Shop

COVERS = ("maintenance/background_tasks.py",)


def epoch(scene):
    """Return the number of runs that have begun."""
    return scene.store.database.read(collections.epoch)


def claim_row(store, work):
    """Return the row of a piece of work."""
    return store.database.read(partial(claims.find, work=work))


def test_a_run_begins_when_the_period_is_over():
    scene = Scene()
    schedule = ScheduledGarbageCollection(scene.collector.context)
    for count in range(1, 4):
        schedule.run_if_due()
        assert epoch(scene) == count
        schedule.run_if_due()
        scene.store.clock.advance(6 * HOUR_MS - 1)
        schedule.run_if_due()
        assert epoch(scene) == count
        scene.store.clock.advance(HOUR_MS)
    scene.check()


def test_two_processes_begin_one_run():
    scene = Scene()
    for process in (scene.writer, scene.collector):
        ScheduledGarbageCollection(process.context).run_if_due()
    assert epoch(scene) == 1


def test_a_run_continues_in_portions():
    scene = Scene()
    schedule = ScheduledGarbageCollection(scene.collector.context)
    for _ in range(200):
        schedule.run_if_due(seconds=0)
    row = claim_row(scene.store, GARBAGE_COLLECTION)
    assert (epoch(scene), row.holder, row.finished_ms) == (1, None, scene.store.clock())


def test_a_failed_run_raises_and_is_not_retried_at_once():
    scene = Scene()
    schedule = ScheduledGarbageCollection(scene.collector.context)
    scene.collector.database.fail(3)
    with pytest.raises(StorageUnavailableError):
        schedule.run_if_due()
    schedule.run_if_due()
    assert epoch(scene) == 1
    scene.store.clock.advance(HOUR_MS)
    schedule.run_if_due()
    assert epoch(scene) == 2
    assert claim_row(scene.store, GARBAGE_COLLECTION).holder is None


def test_another_process_restarts_a_suspended_run():
    scene = Scene()
    still, other = ScheduledGarbageCollection(scene.collector.context), ScheduledGarbageCollection(scene.writer.context)
    still.run_if_due(seconds=0)
    other.run_if_due()
    assert epoch(scene) == 1
    scene.store.clock.advance(HOUR_MS)
    other.run_if_due()
    row = claim_row(scene.store, GARBAGE_COLLECTION)
    assert (epoch(scene), row.finished_ms) == (2, scene.store.clock())
    still.run_if_due()
    assert claim_row(scene.store, GARBAGE_COLLECTION) == row
    scene.check()


# --- scrubbing -------------------------------------------------------------------------------------------------------


def all_scrubbed(*schedules):
    """Scrub one pack at a time, each process in turn, until no pass is due. Returns the packs verified each time."""
    turns = itertools.islice(itertools.cycle(schedules), 50)
    outcomes = (schedule.run_if_due(seconds=0) for schedule in turns)
    return [outcome.packs for outcome in itertools.takewhile(lambda outcome: outcome is not None, outcomes)]


def test_every_pack_is_verified_once_in_a_period_and_new_packs_the_next_day():
    shop = Shop()
    shop.close_packs()
    schedule = ScheduledScrub(shop.context)
    assert sum(all_scrubbed(schedule)) == 2
    assert all_scrubbed(schedule) == [], "the next pass is not due"
    shop.api.backup({"new": b"new" * 100}, resource=new_resource())
    shop.close_packs()
    read = []
    for _ in range(31):
        shop.store.clock.advance(DAY_MS)
        read.append(sum(all_scrubbed(schedule)))
    assert (read[0], sum(read[1:28]), sum(read)) == (1, 0, 4)


@pytest.mark.parametrize("unreadable", [False, True], ids=["verified", "unreadable"])
def test_processes_share_one_pass(unreadable):
    """Each continues where another stopped. A pack that cannot be verified is read only once in a pass."""
    shop = Shop()
    shop.close_packs()
    processes = [Process(shop.store) for _ in range(3)]
    read = []
    for process in processes:
        reader = process.context.store.reader

        def watched(name, reader=reader):
            read.append(name)
            if unreadable:
                raise StorageUnavailableError("as told")
            return reader(name)

        process.context.store.reader = watched
    schedules = [ScheduledScrub(process.context) for process in processes]
    for count in range(1, 3):
        assert sum(all_scrubbed(*schedules)) == (0 if unreadable else 2)
        assert all_scrubbed(*schedules) == []
        assert sorted(read) == sorted(shop.store.pack_names() * count)
        shop.store.clock.advance(30 * DAY_MS)


def test_portions_leave_a_pause_between_them():
    shop = Shop()
    shop.close_packs()
    first, second = ScheduledScrub(shop.context), ScheduledScrub(Process(shop.store).context)
    assert first.run_if_due(seconds=0).packs == 1
    assert second.run_if_due() is None
    shop.store.clock.advance(5000)
    assert second.run_if_due().packs == 1


def test_a_server_pauses_for_a_manual_scrub_and_continues_where_it_was():
    shop = Shop()
    shop.close_packs()
    schedule = ScheduledScrub(shop.context)
    assert schedule.run_if_due(seconds=0).packs == 1
    place = claim_row(shop.store, SCRUB).place
    by_hand = scrub(Process(shop.store).context, ScrubResult(), share=0.5)
    next(by_hand)
    assert schedule.run_if_due(seconds=0) is None
    by_hand.close()
    assert claim_row(shop.store, SCRUB).place == place
    assert all_scrubbed(schedule) == [1, 0]


def test_another_process_finishes_the_pass_of_a_dead_one():
    shop = Shop()
    shop.close_packs()
    shop.process.database.on_write(lambda: claim_row(shop.store, SCRUB).holder and shop.process.database.die())
    dead, alive = ScheduledScrub(shop.context), ScheduledScrub(Process(shop.store).context)
    with pytest.raises(StorageUnavailableError):
        dead.run_if_due()
    assert alive.run_if_due() is None
    shop.store.clock.advance(HOUR_MS)
    assert alive.run_if_due().packs == 2


def test_damage_is_logged_when_it_is_found(caplog):
    shop = Shop()
    shop.close_packs()
    spoil(shop.store, DATA[1])
    schedule = ScheduledScrub(shop.context)
    all_scrubbed(schedule)
    (line,) = caplog.messages
    assert line.startswith("scrub: 1 chunks found damaged")


def test_a_server_can_be_configured_to_verify_nothing():
    shop = Shop(scrub_period_ms=0)
    assert all_scrubbed(ScheduledScrub(shop.context)) == []


def test_a_failed_pass_raises_and_continues_later():
    """The failed pack is skipped, so that all others are read; the next pass reads it."""
    shop = Shop()
    shop.close_packs()
    schedule = ScheduledScrub(shop.context)
    shop.process.database.fail(4, kind="read")
    with pytest.raises(StorageUnavailableError):
        schedule.run_if_due()
    assert schedule.run_if_due() is None
    shop.store.clock.advance(3 * HOUR_MS)
    assert all_scrubbed(schedule) == [1, 0]
    shop.store.clock.advance(DAY_MS)
    assert all_scrubbed(schedule) == [1, 0]


# --- rounds of tasks -------------------------------------------------------------------------------------------------


def rounds(store):
    """Return the number of rounds that have begun."""
    return claim_row(store, BACKGROUND_TASKS).fencing_token


def test_one_of_many_processes_runs_the_rounds():
    """Another one takes over when it is gone."""
    shop = Shop()
    processes = [Process(shop.store) for _ in range(4)]
    schedules = [ScheduledTasks(process.service) for process in processes]
    for count in range(1, 6):
        for schedule in schedules:
            shop.store.clock.advance(1000)
            schedule.run_if_due()
        assert rounds(shop.store) == count
    for count in range(6, 10):  # without the process that ran them
        for schedule in schedules[1:]:
            shop.store.clock.advance(1000)
            schedule.run_if_due()
        assert rounds(shop.store) == count


def test_other_processes_run_the_rounds_if_those_of_one_fail():
    shop = Shop()
    bad, good = Process(shop.store), Process(shop.store)
    schedules = [ScheduledTasks(bad.service), ScheduledTasks(good.service)]
    for _ in range(3):
        before = claim_row(shop.store, BACKGROUND_TASKS).finished_ms
        for schedule in schedules:
            shop.store.clock.advance(1000)
            bad.database.heal()
            bad.database.fail(2)
            with contextlib.suppress(ExceptionGroup):
                schedule.run_if_due()
        assert claim_row(shop.store, BACKGROUND_TASKS).finished_ms > before


def test_every_process_runs_the_per_process_tasks(monkeypatch):
    shop = Shop()
    done = []
    monkeypatch.setattr(background_tasks, "STORE_TASKS", (lambda _: done.append("for all"),))
    monkeypatch.setattr(background_tasks, "PROCESS_TASKS", (lambda _: done.append("for itself"),))
    schedules = [ScheduledTasks(Process(shop.store).service) for _ in range(3)]
    shop.store.clock.advance(1000)
    for schedule in schedules:
        schedule.run_if_due()
    assert sorted(done) == ["for all", *["for itself"] * 3]
