"""GetIncrementalBaseBackup names exactly the objects of the base that need damaged chunks, while they do."""

from __future__ import annotations

import pytest

from cryostore.catalog.queries import references
from cryostore.model.chunks import LinkChunks, LinkedChunk
from cryostore.model.jobs import GetIncrementalBaseBackup
from cryostore.service import Settings
from cryostore.service.operations import damage
from support.faults.damaging import noise, scrubbed, spoil
from support.requests.api import Api, hex_of, new_resource
from support.stores.memory_store import MemoryStore, Process

ONE, TWO, THREE, BLOB = (noise(number) for number in range(4))


@pytest.fixture
def store():
    return MemoryStore(Settings())


@pytest.fixture
def api(store):
    return Api(Process(store), None, clock=store.clock)


def reported(api, **more):
    """The number and names of damaged objects that a new job of the resource gets. Stops the job."""
    job = api.start_job(**more)
    answer = api.call(GetIncrementalBaseBackup(backup_job_id=job))
    assert api.call(GetIncrementalBaseBackup(backup_job_id=job)) == answer
    api.stop(job)
    return answer.damaged_object_count, answer.damaged_objects


def damage_chunks(store, api, *contents, **more):
    for data in contents:
        spoil(store, data, **more)
    scrubbed(api._call.context)


def test_a_sound_base_has_no_damaged_objects(store, api):
    assert reported(api) == (None, None)
    api.backup({"a": ONE, "b": TWO})
    assert reported(api) == (None, None)


def test_the_objects_that_need_damaged_chunks_are_named(store, api):
    api.backup({"a": ONE, "b": TWO, "c": ONE, "d": THREE})
    damage_chunks(store, api, ONE)
    assert reported(api) == (2, ["a", "c"])


def test_damage_of_other_points_is_not_reported(store, api):
    other = new_resource()
    api.backup({"a": ONE}, resource=other)
    first = api.backup({"a": ONE, "b": TWO})
    api.backup({"a": THREE})
    damage_chunks(store, api, ONE)
    assert reported(api) == (None, None)
    assert reported(api, resource=other) == (1, ["a"])
    assert reported(api, backup_options={"IncrementalBase": first.rpartition(":")[2]}) == (1, ["a"])
    assert reported(api, backup_options={"IncrementalBase": "none"}) == (None, None)


def test_the_same_bytes_in_another_vault_are_sound(store, api):
    api.backup({"a": ONE})
    damage_chunks(store, api, ONE)
    api.new_vault()
    api.backup({"a": ONE})
    assert reported(api) == (None, None)


def test_damage_in_a_newer_vault_is_not_reported(store, api):
    api.backup({"a": ONE})
    api.new_vault()
    api.backup({"a": ONE})
    damage_chunks(store, api, ONE, vault_id=2)
    assert reported(api) == (1, ["a"])
    api.vault = "Default"
    assert reported(api) == (None, None)


def test_damaged_metadata_counts(store, api):
    job = api.running_job()
    upload = api.start(job, "a")
    api.chunk(job, upload, 0, ONE)
    api.complete(job, upload, [ONE], blob=BLOB)
    api.commit(job)
    damage_chunks(store, api, BLOB)
    assert reported(api) == (1, ["a"])


def test_a_damaged_chunk_near_the_end_of_a_long_object_is_found(store, api):
    """Its list of chunks has several parts."""
    contents = [*[ONE] * 2400, TWO, *[ONE] * 99]
    job = api.running_job()
    upload = api.start(job, "long")
    api.chunk(job, upload, 0, ONE)
    api.chunk(job, upload, 2400, TWO)
    for start in range(0, 2500, 500):
        linked = [
            LinkedChunk(index=index, length=len(ONE), checksum=hex_of(contents[index]), checksum_algorithm="SHA256")
            for index in range(start, start + 500)
        ]
        api.call(LinkChunks(backup_job_id=job, upload_id=upload, chunks=linked))
    api.complete(job, upload, contents)
    api.commit(job)
    damage_chunks(store, api, TWO)
    assert reported(api) == (1, ["long"])


def test_a_chunk_that_was_sent_again_is_sound(store, api):
    api.backup({"a": ONE, "b": TWO})
    damage_chunks(store, api, ONE, TWO)
    assert reported(api) == (2, ["a", "b"])
    api.backup({"c": ONE})
    assert reported(api) == (1, ["b"])


def test_objects_beyond_the_limit_of_names_are_counted(store, api, monkeypatch):
    monkeypatch.setattr(damage, "NAMES_MAX", 2)
    api.backup(dict.fromkeys("abcde", ONE))
    damage_chunks(store, api, ONE)
    assert reported(api) == (5, ["a", "b"])


def test_damage_beyond_the_memory_limit_is_looked_up_in_the_catalog(store, api, monkeypatch):
    monkeypatch.setattr(damage, "DIGESTS_MAX", 1)
    api.backup({"a": ONE, "b": TWO, "c": THREE})
    damage_chunks(store, api, ONE)
    assert reported(api) == (1, ["a"])
    damage_chunks(store, api, TWO)
    assert reported(api) == (2, ["a", "b"])


def test_all_pages_of_damage_and_of_objects_are_read(store, api, monkeypatch):
    for module, name in ((damage, "DIGESTS_PER_PAGE"), (damage, "OBJECTS_PER_PAGE"), (references, "PARTS_PER_PAGE")):
        monkeypatch.setattr(module, name, 2)
    contents = {f"{number}": noise(100 + number) for number in range(9)}
    api.backup(contents)
    damage_chunks(store, api, *(contents[name] for name in "01234567"))
    assert reported(api) == (8, list("01234567"))
