"""Compaction takes time in proportion to the number of packs, and stays within the free space of the disk."""

from __future__ import annotations

import os
import random

import pytest

from cryostore.chunks.disk_reserve import DiskReserve
from cryostore.core.errors import StorageFullError
from cryostore.maintenance.background_tasks import maintain
from cryostore.maintenance.garbage_collection.collect import collect, collect_all
from cryostore.maintenance.garbage_collection.compaction import PackUse, worthwhile
from cryostore.maintenance.garbage_collection.run import CollectionResult
from cryostore.service import Settings
from support.faults.faulty_blobs import FaultyObjects
from support.requests.api import Api, new_resource
from support.stores.in_process import opened
from support.stores.memory_store import MemoryStore, Process

MANY = 20_000
STEPS_PER_LOOK = 100


class CountedUse(PackUse):
    """A pack that counts how often it is compared with another."""

    compared = 0

    def __eq__(self, other):
        CountedUse.compared += 1
        return super().__eq__(other)

    __hash__ = PackUse.__hash__


def test_choosing_packs_takes_linear_time():
    chance = random.Random(1)
    uses = [CountedUse(number, f"{number}", 1000, chance.randrange(1001)) for number in range(MANY)]
    small = [CountedUse(MANY + number, f"{number}", 10, 10) for number in range(MANY)]
    CountedUse.compared = 0
    chosen = worthwhile(uses + small, 1000)
    assert MANY < len(chosen) < 2 * MANY
    assert len({use.pack_number for use in chosen}) == len(chosen)
    assert CountedUse.compared <= 10 * MANY


class Costs:
    """Costs of a collection without quarantine on a store of `count` packs that are half garbage."""

    def __init__(self, count):
        store = MemoryStore(Settings(pack_bytes_target=1000))
        writer, collector = Process(store), Process(store)
        api = Api(writer, None, clock=store.clock)
        kept, gone = (api.start_job(resource=new_resource()) for _ in range(2))
        for number in range(count):
            for job, size in ((kept, 300), (gone, 600)):
                api.put(job, f"{number}", random.Random(number * size).randbytes(size))
        self.point = api.commit(kept)
        api.delete_point(api.commit(gone))
        maintain(writer.service)
        for name in store.pack_names():
            writer.context.store.roll(name)
        looks = 0

        def look():
            nonlocal looks
            looks += 1

        before = dict(collector.blobs.calls)
        transactions = -collector.database.reads - collector.database.writes
        store.database.connection.set_progress_handler(look, STEPS_PER_LOOK)
        outcome = CollectionResult()
        for _ in collect(collector.context, outcome, quarantine_ms=0):
            pass
        store.database.connection.set_progress_handler(None, 0)
        assert outcome.packs_compacted >= count // 2
        assert outcome.packs_deleted >= outcome.packs_compacted
        calls = sum(collector.blobs.calls.values()) - sum(before.values())
        self.blob_calls = calls
        self.transactions = transactions + collector.database.reads + collector.database.writes
        self.database_steps = looks


@pytest.fixture(params=["packs that grow", "packs that are put whole"])
def kind(request, monkeypatch):
    """Both kinds of blob stores."""
    if request.param == "packs that are put whole":
        monkeypatch.setattr("support.stores.memory_store.FaultyBlobs", FaultyObjects)
    return request.param


@pytest.mark.parametrize("cost", ["blob_calls", "transactions", "database_steps"])
def test_costs_grow_linearly_with_the_packs(kind, cost):
    few, many = getattr(Costs(60), cost), getattr(Costs(240), cost)
    assert many < 5 * few


def half_dead(store):
    """Make packs in which one chunk of three is live. Returns a check that the live chunks still exist."""
    api = store.api()
    arn, kept = None, {}
    for _ in range(3):
        kept = {name: os.urandom(5000) for name in ("a", "b")}
        before, arn = arn, api.backup(kept)
        if before:
            api.delete_point(before)
    store.maintain()
    return lambda: api.restored(arn) == kept


def test_with_a_quarantine_the_reserve_is_not_used_for_copies(tmp_path, monkeypatch):
    settings = Settings(reserve_bytes=1 << 20, pack_bytes_target=40_000)
    with opened(tmp_path / "data", settings=settings) as store:
        is_there = half_dead(store)
        context = store.service.context
        collect_all(context)
        store.clock.advance(settings.quarantine_ms + 1)
        monkeypatch.setattr(DiskReserve, "free_bytes", 1000)
        outcome = collect_all(context)
        assert (outcome.packs_skipped, outcome.packs_compacted, outcome.moved) == (1, 0, 0)
        assert context.reserve.held
        monkeypatch.undo()
        outcome = collect_all(context)
        assert (outcome.packs_skipped, outcome.packs_compacted) == (0, 1)
        assert is_there()


def test_without_a_quarantine_the_reserve_is_used_for_copies(tmp_path, monkeypatch):
    settings = Settings(reserve_bytes=1 << 20, pack_bytes_target=40_000)
    with opened(tmp_path / "data", settings=settings) as store:
        is_there = half_dead(store)
        reserve = store.service.context.reserve
        room = property(lambda reserve: 1000 if reserve.held else 1 << 20)
        monkeypatch.setattr(DiskReserve, "free_bytes", room)
        outcome = collect_all(store.service.context, quarantine_ms=0)
        assert (outcome.packs_skipped, outcome.packs_compacted, outcome.packs_deleted) == (0, 1, 1)
        assert not reserve.held
        assert is_there()


def test_if_the_disk_fills_up_the_rest_is_compacted_later(tmp_path, monkeypatch):
    settings = Settings(pack_bytes_target=40_000)
    with opened(tmp_path / "data", settings=settings) as store:
        is_there = half_dead(store)
        context = store.service.context

        def full(envelopes):
            raise StorageFullError("no space")

        with monkeypatch.context() as patch:
            patch.setattr(context.store, "append", full)
            outcome = collect_all(context, quarantine_ms=0)
        assert (outcome.packs_skipped, outcome.packs_compacted) == (1, 0)
        assert is_there()
        assert collect_all(context, quarantine_ms=0).packs_compacted == 1
        assert is_there()
