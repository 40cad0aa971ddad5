"""Sizes of packs that do not grow: they are in the rows, and a missing size is looked up once."""

from __future__ import annotations

import pytest

from cryostore.catalog.rows import packs
from cryostore.chunks.packs.format import pack_key
from cryostore.maintenance.garbage_collection.collect import collect, collect_all
from cryostore.maintenance.garbage_collection.run import CollectionResult
from cryostore.maintenance.rebuild.run import Rebuild, RebuildResult
from cryostore.maintenance.verification import finding_kinds
from cryostore.maintenance.verification.check import CheckResult, check
from cryostore.maintenance.verification.repair import RepairResult, repair
from support.catalogs.memory_database import MemoryDatabase
from support.faults.faulty_blobs import FaultyObjects
from support.stores.collecting import Scene

COVERS = ("maintenance/garbage_collection/compaction.py",)


@pytest.fixture
def scene(monkeypatch):
    """A scene in which every process has blobs that do not grow."""
    monkeypatch.setattr("support.stores.memory_store.FaultyBlobs", FaultyObjects)
    return Scene()


def noted(database):
    """Return the sizes in the rows of packs that are not retired, by name."""
    rows = database.read(lambda transaction: packs.not_retired(transaction, after=0, limit=1000))
    return {row.name: row.size_bytes for row in rows}


def there(scene):
    """Return the sizes of the existing packs, by name."""
    return {name: scene.store.blobs.stat(pack_key(name)) for name in scene.store.pack_names()}


def forget_sizes(scene):
    """Remove the sizes from the rows, as in a catalog of an older version."""
    scene.store.database.write(lambda transaction: transaction.run("UPDATE pack SET size_bytes = NULL"))


def asked(scene, **options):
    """Return how often a collection looks up the size of a blob, except those that it compacts."""
    before = scene.collector.blobs.calls.get("stat", 0)
    outcome = CollectionResult()
    for _ in collect(scene.collector.context, outcome, **options):
        pass
    return scene.collector.blobs.calls.get("stat", 0) - before - outcome.packs_compacted


def found(scene):
    outcome = CheckResult()
    for _ in check(scene.collector.context, outcome):
        pass
    return {each.kind for each in outcome.findings}


def test_rows_hold_the_sizes_of_packs_and_a_collection_looks_up_none(scene):
    assert noted(scene.store.database) == there(scene)
    before = noted(scene.store.database)
    assert asked(scene) == 0
    after = noted(scene.store.database)
    assert after.keys() - before.keys(), "packs were merged"
    assert after.items() <= there(scene).items()


def test_a_size_that_an_older_version_did_not_record_is_looked_up_once(scene):
    forget_sizes(scene)
    count = len(there(scene))
    assert 0 < asked(scene, dry_run=True) <= count
    assert set(noted(scene.store.database).values()) == {None}, "a dry run writes nothing"
    assert 0 < asked(scene) <= count
    assert asked(scene) == 0
    scene.check()


def test_missing_packs_do_not_cause_repeated_merges(scene):
    for name in scene.store.pack_names()[2:]:
        scene.store.blobs.delete(pack_key(name))
    for _ in range(3):
        outcome = collect_all(scene.collector.context, quarantine_ms=0)
    assert (outcome.moved, outcome.unreadable, outcome.packs_compacted) == (0, 0, 0)


def test_sizes_of_packs_that_grow_are_looked_up_each_time():
    scene = Scene()
    collect_all(scene.collector.context, quarantine_ms=0)
    assert set(noted(scene.store.database).values()) == {None}
    scene.check()


def test_a_truncated_pack_is_found_and_its_new_size_recorded(scene):
    name = scene.store.pack_names()[0]
    blobs = scene.store.blobs
    data = blobs.get(pack_key(name))
    blobs.delete(pack_key(name))
    blobs.put(pack_key(name), data[:-1])
    assert finding_kinds.PACK_SIZE in found(scene)
    for _ in repair(scene.collector.context, RepairResult(), dry_run=False):
        pass
    assert noted(scene.store.database)[name] == len(data) - 1
    assert finding_kinds.PACK_SIZE not in found(scene)


def test_a_rebuilt_catalog_has_the_sizes_too(scene):
    database = MemoryDatabase()
    for _ in Rebuild(database, scene.collector.blobs, scene.store.keyring, RebuildResult(), now_ms=1).run():
        pass
    assert noted(database) == there(scene)
