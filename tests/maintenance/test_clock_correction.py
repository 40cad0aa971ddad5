"""Timestamps from a wrong clock: each timestamp that a decision depends on, with the clock ahead and behind."""

from __future__ import annotations

import itertools
from functools import partial

import pytest

from cryostore.catalog.postgres.server import DatabaseClock
from cryostore.catalog.processes import claims
from cryostore.catalog.processes.claims import ClaimHeldError
from cryostore.catalog.queries import timestamps
from cryostore.catalog.tables import TABLES
from cryostore.core.time import DAY_MS, HOUR_MS
from cryostore.maintenance.background_tasks import ScheduledGarbageCollection, ScheduledScrub, maintain
from cryostore.maintenance.claims import GARBAGE_COLLECTION, SCRUB, claimed
from cryostore.maintenance.garbage_collection.collect import collect_all
from support.faults.damaging import damaged, scrubbed, spoil
from support.requests.api import new_resource
from support.stores.memory_store import Process
from support.stores.shop import DATA, Shop

COVERS = ("catalog/queries/timestamps.py",)


AHEAD_MS = 365 * DAY_MS


@pytest.fixture
def shop():
    """A store with closed packs, at a time from which the clock can be set back."""
    shop = Shop()
    shop.close_packs()
    return shop


def ahead(shop, act):
    """Do something while the clock is a year ahead."""
    shop.store.clock.advance(AHEAD_MS)
    act()
    shop.store.clock.advance(-AHEAD_MS)


def behind(shop, act):
    """Do something while the clock is a year behind."""
    shop.store.clock.advance(-AHEAD_MS)
    act()
    shop.store.clock.advance(AHEAD_MS)


STEPS = pytest.mark.parametrize("step", [ahead, behind])


def moments(shop, table, column):
    return [row[0] for row in shop.store.database.read(lambda t: t.rows(f"SELECT {column} FROM {table}"))]


def test_every_stored_timestamp_is_declared():
    """A new timestamp must be listed in `timestamps` with what happens if it lies in the future."""
    stored = {f"{table.name}.{column}" for table in TABLES for column in table.columns if column.endswith("_ms")}
    stored |= {f"claim.{column}" for column in claims.ClaimRow._fields if column.endswith("_ms")}
    declared = [
        *(f"{stamp.table}.{stamp.column}" for stamp in timestamps.STAMPS),
        *timestamps.ELSEWHERE,
        *timestamps.SHOWN,
    ]
    assert sorted(declared) == sorted({*stored} | {"idempotency.created_ms"})


# --- packs ------------------------------------------------------------------------------------------------------------


@STEPS
def test_a_pack_verified_under_a_wrong_clock_is_verified_again(shop, step):
    step(shop, partial(scrubbed, shop.context))
    spoil(shop.store, DATA[1])
    outcome = scrubbed(shop.context)
    assert (outcome.packs, outcome.damaged, outcome.is_clean) == (2, 1, False)


@STEPS
def test_servers_verify_again_what_was_verified_under_a_wrong_clock(shop, step):
    """Also if a pass is in progress at that time. No pass takes longer than one round."""
    schedule = ScheduledScrub(shop.context)
    step(shop, partial(schedule.run_if_due, seconds=0))
    spoil(shop.store, DATA[0])
    spoil(shop.store, DATA[5])
    portions = list(itertools.islice(iter(partial(schedule.run_if_due, seconds=0), None), 10))
    assert len(portions) < 10
    if step is ahead:
        assert len(damaged(shop.store)) == 2


@pytest.mark.parametrize("quarantine_ms", [0, DAY_MS])
def test_packs_retired_by_a_clock_ahead_wait_for_one_quarantine(shop, quarantine_ms):
    shop.api.delete_point(shop.point)
    maintain(shop.process.service)

    def act():
        collect_all(shop.context)
        shop.store.clock.advance(DAY_MS)
        collect_all(shop.context)

    ahead(shop, act)
    assert min(moments(shop, "pack", "retired_ms")) > shop.store.clock()
    collect_all(shop.context, quarantine_ms=quarantine_ms)
    shop.store.clock.advance(quarantine_ms)
    collect_all(shop.context, quarantine_ms=quarantine_ms)
    assert shop.store.pack_names() == []


def test_garbage_condemned_by_a_clock_ahead_is_removed(shop):
    shop.api.delete_point(shop.point)
    maintain(shop.process.service)
    ahead(shop, lambda: collect_all(shop.context))
    assert min(filter(None, moments(shop, "chunk", "condemned_ms"))) > shop.store.clock()
    assert collect_all(shop.context, dry_run=True, quarantine_ms=0).condemned == 6
    collect_all(shop.context)
    assert set(moments(shop, "chunk", "condemned_ms")) == {shop.store.clock()}
    shop.store.clock.advance(DAY_MS)
    assert collect_all(shop.context).removed == 6


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_a_job_that_was_last_active_in_the_future_ends_when_it_is_idle():
    """Both backup and restore jobs. A job with activity continues."""
    shop = Shop(idle_job_ms=4 * HOUR_MS, idle_restore_job_ms=4 * HOUR_MS)
    api = shop.api
    restore = api.restore(shop.point)
    dead, alive = api.start_job(resource=new_resource()), api.start_job(resource=new_resource())
    for job in (dead, alive):
        api.put(job, "a", b"a")

    def act():
        for job in (dead, alive):
            api.put(job, "b", b"b")
        assert api.read(restore) == shop.contents

    ahead(shop, act)
    maintain(shop.process.service)
    shop.store.clock.advance(3 * HOUR_MS)
    assert api.names(alive) == ["a", "b"]  # a heartbeat
    shop.store.clock.advance(HOUR_MS + 1)
    maintain(shop.process.service)
    assert (api.job(dead).state, api.job(alive).state) == ("FAILED", "RUNNING")
    assert moments(shop, "restore_job", "status") == ["ABORTED"]


def test_a_job_created_in_the_future_expires_after_its_start_window(shop):
    jobs = []
    ahead(shop, lambda: jobs.append(shop.api.start_job(resource=new_resource())))
    maintain(shop.process.service)
    assert shop.api.job(jobs[0]).state == "CREATED"
    (window_ms,) = moments(shop, "backup_job WHERE state = 'CREATED'", "start_by_ms - created_ms")
    shop.store.clock.advance(window_ms + 1)
    maintain(shop.process.service)
    assert shop.api.job(jobs[0]).state == "EXPIRED"


def test_jobs_continue_while_the_clock_is_behind(shop):
    job, restore = shop.api.start_job(resource=new_resource()), shop.api.restore(shop.point)
    shop.api.put(job, "a", b"a")

    def act():
        maintain(shop.process.service)
        shop.api.put(job, "b", b"b")
        assert shop.api.read(restore) == shop.contents
        maintain(shop.process.service)

    shop.store.clock.advance(-AHEAD_MS)
    act()
    assert shop.api.restored(shop.api.commit(job)) == {"a": b"a", "b": b"b"}


# --- tokens, claims, schedules ----------------------------------------------------------------------------------------


def test_a_token_used_in_the_future_is_honoured_and_then_forgotten(shop):
    start = shop.api.start_operation(resource=new_resource(), idempotency_token="one")
    jobs = []
    ahead(shop, lambda: jobs.append(shop.api.call(start).backup_job_id))
    assert shop.api.call(start).backup_job_id == jobs[0]
    maintain(shop.process.service)
    assert shop.api.call(start).backup_job_id == jobs[0]
    shop.store.clock.advance(shop.context.settings.idempotency_ms + 1)
    maintain(shop.process.service)
    assert moments(shop, "idempotency", "token") == []


@pytest.mark.parametrize("work", [GARBAGE_COLLECTION, SCRUB])
def test_a_lease_granted_by_a_clock_ahead_has_expired(shop, work):
    def claim_for_good():
        claim = claimed(shop.context, work)
        claim.__enter__()  # and the process dies
        claim.gen = None

    ahead(shop, claim_for_good)
    with claimed(Process(shop.store).context, work):
        pass


def test_a_lease_holds_while_the_clock_is_a_little_behind(shop):
    with claimed(shop.context, GARBAGE_COLLECTION):
        shop.store.clock.advance(-shop.context.settings.claim_lease_ms // 2)
        with pytest.raises(ClaimHeldError):
            collect_all(Process(shop.store).context)


def test_a_process_whose_last_attempt_lies_in_the_future_collects_again(shop):
    schedule = ScheduledGarbageCollection(shop.context)
    ahead(shop, schedule.run_if_due)
    shop.api.delete_point(shop.point)
    maintain(shop.process.service)
    schedule.run_if_due()
    assert len(list(filter(None, moments(shop, "chunk", "condemned_ms")))) == 6


def test_a_point_of_a_clock_ahead_is_the_base_only_until_the_next_backup(shop):
    """The newest recovery point is the one that was made last, whatever the clock showed."""
    ahead(shop, lambda: shop.api.backup({"a": b"1"}))
    newest = shop.api.backup({"b": b"2"})
    job = shop.api.start_job()
    shop.api.put(job, "c", b"3")
    point = shop.api.commit(job)
    assert shop.api.restored(point) == shop.api.restored(newest) | {"c": b"3"}


def test_a_database_clock_that_was_ahead_is_set_back(monkeypatch):
    """After a small step back, time stands still: perhaps a replica took over. A large step means a wrong clock."""
    elapsed = itertools.count()
    monkeypatch.setattr("cryostore.catalog.postgres.server._elapsed_seconds", lambda: next(elapsed))
    clock = DatabaseClock()
    clock.end(clock.begin(), AHEAD_MS)
    assert clock() > AHEAD_MS
    clock.end(clock.begin(), 1_000_000)
    assert clock() < 1_010_000
