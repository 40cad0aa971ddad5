"""What compaction costs: in proportion to the packs, whatever their number."""

from __future__ import annotations

import random

import pytest

from cryostore.maintenance import maintain
from cryostore.maintenance.garbage_collection.collect import collect
from cryostore.maintenance.garbage_collection.compaction import PackUse, worthwhile
from cryostore.maintenance.garbage_collection.run import CollectionResult
from cryostore.service import Settings
from support.api import Api, new_resource
from support.faulty_blobs import FaultyObjects
from support.memory_store import MemoryStore, Process

MANY = 20_000
STEPS_PER_LOOK = 100


class CountedUse(PackUse):
    """A pack that counts how often it is compared with another."""

    compared = 0

    def __eq__(self, other):
        CountedUse.compared += 1
        return super().__eq__(other)

    __hash__ = PackUse.__hash__


def test_choosing_compares_no_pack_with_all_others():
    chance = random.Random(1)
    uses = [CountedUse(number, f"{number}", 1000, chance.randrange(1001)) for number in range(MANY)]
    small = [CountedUse(MANY + number, f"{number}", 10, 10) for number in range(MANY)]
    CountedUse.compared = 0
    chosen = worthwhile(uses + small, 1000)
    assert MANY < len(chosen) < 2 * MANY
    assert len({use.pack_number for use in chosen}) == len(chosen)
    assert CountedUse.compared <= 10 * MANY


class Costs:
    """What a collection without quarantine costs on a store of so many packs that are half garbage."""

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
        monkeypatch.setattr("support.memory_store.FaultyBlobs", FaultyObjects)
    return request.param


@pytest.mark.parametrize("cost", ["blob_calls", "transactions", "database_steps"])
def test_twice_the_packs_cost_twice_as_much(kind, cost):
    few, many = getattr(Costs(60), cost), getattr(Costs(240), cost)
    assert many < 5 * few
