"""Rounds of background tasks: they may run at any time, in any process, and fail anywhere."""

from __future__ import annotations

import dataclasses
import os
from types import SimpleNamespace

import pytest

from conformance.database import together
from cryostore.catalog import open_catalog
from cryostore.chunks.disk_reserve import DiskReserve
from cryostore.core.errors import StorageFullError, StorageUnavailableError
from cryostore.core.time import HOUR_MS
from cryostore.maintenance import background_tasks
from cryostore.maintenance.background_tasks import PROCESS_TASKS, STORE_TASKS, maintain
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.service import Settings
from support.catalogs.catalog_model import RESOURCES, CatalogModel
from support.faults.faulty_database import FaultyDatabase
from support.stores.in_process import opened

COVERS = ("maintenance/background_tasks.py",)


def test_a_round_changes_nothing_that_is_needed(model, snapshot):
    """Recovery points, running jobs, waiting jobs and restores stay as they are."""
    point = model.commit(model.put(model.run(), b"a", b"b", parts=2))
    model.restore(point)
    model.put(model.run(), b"c")
    model.put(model.run(RESOURCES[1], base=point), b"d")
    model.start()
    maintain(SimpleNamespace(context=model.context))  # which writes the record of the new store
    before = snapshot("claim")
    for _ in range(2):
        maintain(SimpleNamespace(context=model.context))
        assert snapshot("claim") == before


def test_the_other_tasks_run_when_one_fails(model, monkeypatch):
    done = []

    def fail(error):
        def task(_):
            raise error

        return task

    first, second = StorageFullError("full"), StorageUnavailableError("gone")
    all_tasks = (fail(first), lambda _: done.append(1), fail(second), lambda _: done.append(2))
    monkeypatch.setattr(background_tasks, "STORE_TASKS", all_tasks)
    with pytest.raises(ExceptionGroup) as raised:
        maintain(SimpleNamespace(context=model.context))
    assert raised.value.exceptions == (first, second)
    assert done == [1, 2]


def busy(model):
    """Give most tasks something to do. One recovery point must be left at the end."""
    for _ in range(2):
        model.commit(model.put(model.run(), b"a", b"b", b"c", parts=2))
    first, second = model.live()
    model.end(model.put(model.run(base=first), b"x", b"y"))
    model.end(model.put(model.run(), b"a", b"y"))
    model.end(model.put(model.run(RESOURCES[1], base=first), b"x", b"y"), "stop")
    model.delete(second)
    model.put(model.run(base="none"), b"z")
    model.clock.advance(2 * HOUR_MS)


def test_concurrent_rounds_of_many_processes(tmp_path):
    """Each process opens the store and ignores claims. The result is the same as that of one process."""
    path = tmp_path / "catalog.sqlite"
    with CatalogModel(batch_rows=1, database=open_catalog(path)) as model:
        busy(model)
        others = [open_catalog(path) for _ in range(4)]

        def run(number):
            context = dataclasses.replace(model.context, database=others[number])
            for _ in range(3):
                for duty in (*STORE_TASKS, *PROCESS_TASKS):
                    duty(context)

        together(4, run)
        for other in others:
            other.close()
        for job in model.open_jobs():
            job.state = model.row(job).state
            assert job.ended
        model.see_forgotten()
        assert len(model.points) == 1
        model.check()
        model.nothing_is_kept_for_nobody()


@pytest.mark.parametrize("answer_lost", [False, True])
def test_a_round_may_be_interrupted_at_any_transaction(answer_lost):
    """Whichever transaction fails, before or after its commit, the next round has the same result."""
    at = 0
    finished = False
    while not finished:
        at += 1
        with CatalogModel(batch_rows=1) as model:
            busy(model)
            faulty = FaultyDatabase(model.database)
            faulty.fail(at, answer_lost=answer_lost)
            context = dataclasses.replace(model.context, database=faulty)
            try:
                maintain(SimpleNamespace(context=context))
            except ExceptionGroup as errors:
                assert [type(error) for error in errors.exceptions] == [StorageUnavailableError]
            finished = faulty.faults_left == 1
            for job in model.open_jobs():
                job.state = model.row(job).state
            model.check()
            model.maintain(1)
            assert len(model.points) == 1
            model.check()
    assert at > 20


def test_a_round_restores_the_reserve(tmp_path):
    with opened(tmp_path / "data", settings=Settings(reserve_bytes=4096)) as store:
        reserve = store.service.context.reserve
        reserve.give_up()
        store.maintain()
        assert reserve.held


def test_tasks_and_garbage_collection_run_without_the_reserve(tmp_path, monkeypatch):
    with opened(tmp_path / "data", settings=Settings(reserve_bytes=4096)) as store:
        api = store.api()
        arn = api.backup({"a": os.urandom(10_000)})
        store.service.context.reserve.give_up()
        monkeypatch.setattr(DiskReserve, "free_bytes", 1 << 20)
        monkeypatch.setattr(DiskReserve, "size_bytes", 1 << 20)
        api.delete_point(arn)
        store.maintain()
        assert collect_all(store.service.context, quarantine_ms=0).removed == 1
        assert not store.service.context.reserve.held


def test_the_space_of_files_that_another_process_deleted_is_freed(tmp_path):
    with opened(tmp_path / "data", settings=Settings(pack_bytes_target=1000)) as store:
        api = store.api()
        arn = api.backup({"a": os.urandom(5000), "b": os.urandom(5000)})
        assert len(api.restored(arn)) == 2  # so its packs are open now
        blobs = store.service._blobs._inner
        assert len(blobs._files._files) == 2
        for path in (tmp_path / "data" / "packs").rglob("*.pack"):
            path.unlink()
        store.maintain()
        assert len(blobs._files._files) == 0
