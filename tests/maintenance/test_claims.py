"""Claims on background work: a process that lost its claim does no harm, wherever it was suspended."""

from __future__ import annotations

import dataclasses
import itertools
import time
from contextlib import closing, suppress
from functools import partial
from types import SimpleNamespace

import pytest

from cryostore.catalog.postgres.engine import PostgresDatabase
from cryostore.catalog.processes import claims
from cryostore.catalog.processes.claims import ClaimHeldError, ClaimLostError
from cryostore.chunks.keyring.sources import FileKeyring
from cryostore.core.errors import ConfigurationError
from cryostore.core.ids import random_id
from cryostore.core.time import HOUR_MS, MINUTE_MS, SECOND_MS
from cryostore.maintenance.background_tasks import maintain
from cryostore.maintenance.claims import BACKGROUND_TASKS, GARBAGE_COLLECTION, claimed
from cryostore.maintenance.garbage_collection.collect import collect, collect_all
from cryostore.maintenance.garbage_collection.run import CollectionResult
from cryostore.maintenance.key_rotation import RotationResult, forget_master_key, rotate_master_key
from cryostore.maintenance.key_uses import count_key_uses
from support.catalogs.catalog_model import RESOURCES, CatalogModel, catalog_context
from support.faults.faulty_database import FaultyDatabase
from support.requests.api import Api
from support.services import postgres
from support.stores.collecting import Scene, delete_point, put_and_commit, put_garbage_again
from support.stores.in_process import opened


def find(context, work):
    """Return the row of a piece of work."""
    return context.database.read(partial(claims.find, work=work))


def held_up(at, action):
    """Return a hook that calls `action` once, at its call number `at`."""
    calls = itertools.count(1)
    return lambda: action() if next(calls) == at else None


# --- garbage collection


def outlive(scene, request):
    """While the collector is suspended, the writer's process collects until the rows of deleted packs are forgotten."""

    def action():
        scene.store.clock.advance(HOUR_MS)
        scene.close_packs()
        for _ in range(3):
            collect_all(scene.writer.context, quarantine_ms=0)
        request(scene)

    return action


@pytest.mark.parametrize(
    ("method", "request_", "every"),
    [
        ("delete", put_garbage_again, 1),
        ("delete", put_and_commit, 1),
        ("delete", delete_point, 1),
        ("append", put_garbage_again, 1),
        ("owned", put_garbage_again, 2),
        ("stat", put_garbage_again, 4),
        ("get", put_garbage_again, 4),
    ],
)
def test_a_collector_that_is_suspended_before_it_touches_a_file(method, request_, every):
    """It resumes hours late, finishes the action it was about to start, and does nothing more."""
    for at in itertools.count(1, every):
        scene = Scene()
        before = scene.collector.blobs.calls.get(method, 0)
        scene.collector.blobs.on(method, held_up(at, outlive(scene, request_)))
        lost = False
        try:
            collect_all(scene.collector.context, quarantine_ms=0)
        except ClaimLostError:
            lost = True
        calls = scene.collector.blobs.calls.get(method, 0) - before
        scene.collector.blobs.before.clear()
        scene.check()
        if at % 8 == 1:
            scene.collect_the_rest()
        if calls < at:
            assert not lost
            break
        assert lost
        assert find(scene.writer.context, GARBAGE_COLLECTION).holder is None
    assert at > 2


def test_a_late_deletion_of_a_file_does_no_harm():
    """Meanwhile two other runs have deleted the file and forgotten its row. A name is never reused."""
    scene = Scene()
    gone, names = [], []

    def late():
        outlive(scene, put_garbage_again)()
        names.extend(scene.store.pack_names())

    scene.collector.blobs.on("delete", held_up(1, late))
    blobs, delete = scene.collector.blobs, scene.collector.blobs.delete
    blobs.delete = lambda key: (gone.append(key.rpartition("/")[2].removesuffix(".pack")), delete(key))
    with pytest.raises(ClaimLostError):
        collect_all(scene.collector.context, quarantine_ms=0)
    assert len(gone) == 1
    assert gone[0] not in names
    assert sorted(scene.store.pack_names()) == sorted(names)
    rows = scene.store.database.read(lambda t: t.rows("SELECT name FROM pack"))
    assert gone[0] not in {name for (name,) in rows}
    scene.check()


def test_work_renews_its_claim_however_long_it_takes():
    """Each step takes a minute, and at each step another process tries to take over."""
    scene = Scene()
    steps = 0
    for step in collect(scene.collector.context, CollectionResult(), quarantine_ms=0):
        scene.store.clock.advance(MINUTE_MS)
        with pytest.raises(ClaimHeldError):
            collect_all(scene.writer.context)
        steps += 1
        assert step.words.startswith(step.stage)
    lease_ms = scene.collector.context.settings.claim_lease_ms
    assert steps * MINUTE_MS > 5 * lease_ms, "long enough for the lease to expire several times"
    assert find(scene.writer.context, GARBAGE_COLLECTION).fencing_token == 1


def test_a_claim_shows_the_progress_of_the_work():
    scene = Scene()
    run = collect(scene.collector.context, CollectionResult(), quarantine_ms=0)
    said = set()
    for _ in run:
        scene.store.clock.advance(MINUTE_MS)
        said.add(find(scene.writer.context, GARBAGE_COLLECTION).doing.split(" ")[0])
    assert {"mark", "sweep", "compact"} <= said


# --- background tasks


def test_a_round_that_lost_its_claim_makes_no_more_changes():
    """It is suspended before each of its transactions in turn, while another process runs the round."""
    finished = False
    for at in itertools.count(2):  # the first one is that of the claim
        with CatalogModel(batch_rows=1) as model:
            point = model.commit(model.put(model.run(), b"a", b"b", parts=2))
            model.end(model.put(model.run(base=point), b"x", b"y"))
            model.delete(model.commit(model.put(model.run(RESOURCES[1]), b"c")))
            database = FaultyDatabase(model.database)
            context = dataclasses.replace(model.context, database=database)
            after = []

            def outlived(model=model, after=after):
                model.clock.advance(HOUR_MS)
                maintain(SimpleNamespace(context=model.context))
                after.append(tables(model))

            database.on_write(held_up(at, outlived))
            maintain(SimpleNamespace(context=context))
            finished = not after
            assert finished or tables(model) == after[0]
            assert find(model.context, BACKGROUND_TASKS).fencing_token == (1 if finished else 2)
        if finished:
            break
    assert at > 8


def tables(model):
    """Return all rows of all tables."""

    def work(transaction):
        names = [name for (name,) in transaction.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: transaction.rows(f"SELECT * FROM {name}") for name in names}

    return model.database.read(work)


def test_a_process_skips_a_round_that_another_one_runs():
    with CatalogModel() as model:
        with claimed(model.context, BACKGROUND_TASKS):
            maintain(SimpleNamespace(context=model.context))
            assert find(model.context, BACKGROUND_TASKS).fencing_token == 1
        maintain(SimpleNamespace(context=model.context))
        assert find(model.context, BACKGROUND_TASKS).fencing_token == 2


# --- key rotation


def test_a_suspended_rotation_never_begins_with_a_forgotten_key(tmp_path):
    """It holds the key in memory. Meanwhile another rotation used another key, and the unused first one was removed."""
    with opened(tmp_path / "data") as store:
        api, context = store.api(), store.service.context
        arn = api.backup({"name": b"bytes"})
        keyring = FileKeyring(store.data_dir / "keyring.json")
        unused = keyring.add(random_id)
        late = rotate_master_key(context, RotationResult())
        next(late)
        store.clock.advance(HOUR_MS)
        keyring.add(random_id)
        for _ in rotate_master_key(context, RotationResult()):
            pass
        forget_master_key(context, unused.key_id)
        with pytest.raises(ClaimLostError):
            list(late)
        assert unused.key_id not in count_key_uses(context).by_key
        store.reopen()
        assert api.restored(arn) == {"name": b"bytes"}


def test_no_key_is_forgotten_during_a_rotation(tmp_path):
    with opened(tmp_path / "data") as store:
        context = store.service.context
        (old,) = count_key_uses(context).by_key
        going = rotate_master_key(context, RotationResult())
        next(going)
        for attempt in (
            lambda: forget_master_key(context, old),
            lambda: list(rotate_master_key(context, RotationResult())),
        ):
            with pytest.raises(ClaimHeldError, match="^key rotation is done by "):
                attempt()
        list(going)
        forget_master_key(context, old)
        with pytest.raises(ConfigurationError):
            forget_master_key(context, old)


# --- the clock


def at_work(context, lasting=3):
    """Work under a claim, writing and renewing. Returns the claim's number in each of its transactions."""
    with claimed(context, "work") as claim:
        for _ in range(lasting):
            claim.renew()
            claim.context.database.write(lambda _: None)
            yield claim._fencing_token


@pytest.mark.parametrize("apart_ms", [0, 10 * SECOND_MS, -10 * SECOND_MS, 100 * SECOND_MS, -100 * SECOND_MS])
def test_clocks_that_differ_by_seconds_lose_no_claim(apart_ms):
    """Two processes estimate the database time seconds apart. A renewed claim is neither taken over nor lost."""
    mine = catalog_context()
    clock = mine.clock
    other = dataclasses.replace(mine, clock=lambda: clock() + apart_ms)
    for first, second in ((mine, other), (other, mine)):
        work = at_work(first, lasting=20)
        fence = next(work)
        for number in work:
            clock.advance(15 * SECOND_MS)
            assert number == fence
            with pytest.raises(ClaimHeldError):
                next(at_work(second))


@pytest.mark.parametrize("hours", [5, -5])
def test_a_clock_that_is_wrong_by_hours_only_costs_time(hours):
    """The clock of the database itself was changed. A holder whose claim is taken over too early can write no more."""
    mine = catalog_context()
    other = dataclasses.replace(mine, clock=lambda: mine.clock() + hours * HOUR_MS)
    first = at_work(mine)
    next(first)
    second = at_work(other)
    assert next(second) == 2
    with pytest.raises(ClaimLostError):
        list(first)
    assert list(second) == [2, 2]


def test_a_shared_store_does_not_use_the_clock_of_the_machine(monkeypatch):
    """All times come from PostgreSQL: reading the clock of the machine raises an error here."""

    def none():
        raise AssertionError("somebody looked at the machine's clock")

    with postgres.new_database() as url, closing(PostgresDatabase(url)) as one, closing(PostgresDatabase(url)) as two:
        contexts = [
            dataclasses.replace(catalog_context(), database=database, clock=database.now_ms) for database in (one, two)
        ]
        monkeypatch.setattr(time, "time", none)
        monkeypatch.setattr(time, "time_ns", none)
        monkeypatch.setattr("cryostore.core.time.wall_clock", none)
        first = at_work(contexts[0])
        next(first)
        with pytest.raises(ClaimHeldError):
            next(at_work(contexts[1]))
        row = find(contexts[1], "work")
        assert 0 <= contexts[1].clock() - row.begun_ms < MINUTE_MS
        one.write(lambda t: t.run("UPDATE claim SET until_ms = until_ms - :lease", lease=HOUR_MS))  # an hour passes
        second = at_work(contexts[1])
        next(second)
        with pytest.raises(ClaimLostError):
            list(first)
        with suppress(StopIteration):
            next(second)
        assert find(contexts[0], "work").fencing_token == 2


def test_another_process_collects_once_the_lease_of_a_dead_collector_expires():
    scene = Scene()
    run = collect(scene.collector.context, CollectionResult(), quarantine_ms=0)
    next(run)
    scene.collector.database.die()
    run.close()
    with pytest.raises(ClaimHeldError):
        collect_all(scene.writer.context)
    scene.store.clock.advance(scene.writer.context.settings.claim_lease_ms + 1)
    assert collect_all(scene.writer.context, quarantine_ms=0).removed > 0
    assert Api(scene.writer, None, clock=scene.store.clock).read(scene.open_job) == scene.view
