"""Garbage collection of a real store, seen from outside: needed data stays, and the space of garbage is freed."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cryostore.core.limits import KIB
from cryostore.core.time import HOUR_MS
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.service import Settings
from support.requests.api import new_resource
from support.stores.in_process import opened
from support.stores.integrity import problems

COVERS = ("maintenance/claims.py",)


DAY_MS = 24 * HOUR_MS
SETTINGS = Settings(pack_bytes_target=64 * KIB)


@pytest.fixture
def store(tmp_path):
    """A store with small packs."""
    with opened(tmp_path / "data", settings=SETTINGS) as store:
        yield store


@pytest.fixture
def api(store):
    """The API of the store."""
    return store.api()


def noise(number, size=2 * KIB):
    """Return incompressible bytes, always the same for a number."""
    return random.Random(number).randbytes(size)


def packs_of(store):
    """Return the sizes of the pack files, by name."""
    return {path.name: path.stat().st_size for path in (store.data_dir / "packs").rglob("*.pack")}


def stored_bytes(store):
    """Return the bytes of the packs on disk."""
    return sum(packs_of(store).values())


def point_of(api, contents, **more):
    """Make a recovery point of these objects, of a new resource."""
    job = api.start_job(resource=new_resource(), **more)
    for name, data in contents.items():
        api.put(job, name, data)
    return api.commit(job)


def delete(store, api, point):
    """Delete a recovery point and the rows that only it could see."""
    api.delete_point(point)
    store.maintain()


def collect_now(store):
    """Collect without quarantine until nothing is left to do."""
    outcomes = [collect_all(store.service.context, quarantine_ms=0) for _ in range(3)]
    assert outcomes[-1].condemned == outcomes[-1].removed == outcomes[-1].packs_deleted == 0
    return outcomes[0]


def test_chunks_of_a_deleted_point_are_removed_after_their_quarantine(store, api):
    kept = point_of(api, {"kept": b"kept" * 100})
    delete(store, api, point_of(api, {"gone": b"gone" * 100}))
    assert collect_all(store.service.context).condemned == 1
    store.clock.advance(DAY_MS - 1)
    outcome = collect_all(store.service.context)
    assert (outcome.removed, outcome.waiting) == (0, 1)
    store.clock.advance(1)
    assert collect_all(store.service.context).removed == 1
    assert api.restored(kept) == {"kept": b"kept" * 100}
    assert problems(store.data_dir) == []


def test_an_empty_pack_is_deleted_after_its_own_quarantine(store, api):
    delete(store, api, point_of(api, {"gone": b"gone" * 100}))
    store.reopen()  # closes the pack: its writer is gone
    collect_all(store.service.context)
    store.clock.advance(DAY_MS)
    assert collect_all(store.service.context).packs_retired == 1
    store.clock.advance(DAY_MS - 1)
    assert (collect_all(store.service.context).packs_deleted, len(packs_of(store))) == (0, 1)
    store.clock.advance(1)
    outcome = collect_all(store.service.context)
    assert (outcome.packs_deleted, outcome.deleted_bytes > 0, packs_of(store)) == (1, True, {})


def test_the_row_of_a_deleted_pack_is_forgotten_in_a_later_epoch(store, api):
    delete(store, api, point_of(api, {"gone": b"gone" * 100}))
    store.reopen()
    assert collect_all(store.service.context, quarantine_ms=0).packs_deleted == 1

    def rows():
        return store.service.context.database.read(lambda transaction: transaction.row("SELECT count(*) FROM pack"))

    assert rows() == (1,)
    collect_all(store.service.context, quarantine_ms=0)
    assert rows() == (0,)


@pytest.mark.parametrize("scattered", [True, False], ids=["scattered", "in a row"])
def test_the_space_of_deleted_points_is_freed(tmp_path, store, api, scattered):
    """With 80 % of the bytes deleted, the store is at most 10 % larger than a new one with the rest, and intact."""
    owners = [f"owner {number}" for number in range(5)]
    contents = {owner: {} for owner in owners}
    for number in range(400):
        contents[owners[number % 5 if scattered else number // 80]][f"object {number}"] = noise(number)
    jobs = {owner: api.start_job(resource=new_resource()) for owner in owners}
    for number in range(400):
        owner = owners[number % 5 if scattered else number // 80]
        api.put(jobs[owner], f"object {number}", noise(number))
    points = {owner: api.commit(job) for owner, job in jobs.items()}
    full = stored_bytes(store)
    for owner in owners[1:]:
        delete(store, api, points[owner])
    store.reopen()
    collect_now(store)
    with opened(tmp_path / "fresh", settings=SETTINGS) as fresh:
        point_of(fresh.api(), contents[owners[0]])
        assert stored_bytes(store) <= 1.1 * stored_bytes(fresh) < 0.3 * full
    assert api.restored(points[owners[0]]) == contents[owners[0]]
    assert problems(store.data_dir) == []


def test_small_packs_are_merged(store, api):
    """Each start of a server leaves a small pack. They are merged once they fill one together."""
    contents = {f"object {number}": noise(number) for number in range(70)}
    job = api.start_job(resource=new_resource())
    for place, (name, data) in enumerate(contents.items()):
        if place % 7 == 0:
            store.reopen()
        api.put(job, name, data)
    point = api.commit(job)
    store.reopen()
    before = len(packs_of(store))
    collect_now(store)
    assert (before, len(packs_of(store)) < 5) == (10, True)
    assert api.restored(point) == contents
    assert problems(store.data_dir) == []


def test_concurrent_writers_of_the_same_bytes_lose_nothing(store):
    """Threads back up and delete the same few contents while collections without quarantine run one after another."""
    api = store.api()
    stop = threading.Event()
    contents = [noise(number, 500) for number in range(6)]

    def collect_repeatedly():
        while not stop.is_set():
            collect_all(store.service.context, quarantine_ms=0)

    def write(number):
        job = api.start_job(resource=new_resource())
        chance = random.Random(number)
        for _ in range(40):
            for name in ("a", "b"):
                api.put(job, name, chance.choice(contents))
        view = {name: chance.choice(contents) for name in ("a", "b")}
        for name, data in view.items():
            api.put(job, name, data)
        return api.commit(job), view

    with ThreadPoolExecutor(5) as pool:
        collector = pool.submit(collect_repeatedly)
        try:
            points = list(pool.map(write, range(4)))
        finally:
            stop.set()
        collector.result()
    for point, view in points:
        assert api.restored(point) == view
    assert problems(store.data_dir) == []
