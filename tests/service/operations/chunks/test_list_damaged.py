"""ListDamagedChunks: exactly the damaged chunks of a recovery point, in pages of any size."""

from __future__ import annotations

import pytest

from cryostore.client import pages
from cryostore.model.chunks import ListDamagedChunks
from cryostore.model.errors import AccessDeniedException, ResourceNotFoundException
from cryostore.service import Caller, Settings
from cryostore.service.operations import damage
from cryostore.service.operations.chunks import read
from support.faults.damaging import noise, scrubbed, spoil
from support.requests.api import Api, new_resource
from support.stores.memory_store import MemoryStore, Process

ONE, TWO, THREE, BLOB = (noise(number) for number in range(4))


@pytest.fixture
def store():
    return MemoryStore(Settings())


@pytest.fixture
def api(store):
    return Api(Process(store), None, clock=store.clock)


def damage_chunks(store, api, *contents, **more):
    for data in contents:
        spoil(store, data, **more)
    scrubbed(api._call.context)


def listed(api, point, **more):
    """The items of all pages, and the number of pages."""
    operation = ListDamagedChunks(backup_vault_name=api.vault, recovery_point_arn=point, **more)
    answers = list(pages.pages(api._call, operation))
    found = [(each.object_name, each.chunk_index) for answer in answers for each in answer.damaged_chunks]
    return found, len(answers)


def many(api):
    """A point whose objects share chunks; one has metadata, one a long list of chunks."""
    job = api.start_job()
    api.put(job, "a", ONE)
    api.upload(job, "b", [TWO, ONE, TWO, THREE, ONE])
    api.upload(job, "c", [THREE], blob=ONE)
    return api.commit(job)


ALL_OF_ONE = [("a", 0), ("b", 1), ("b", 4), ("c", None)]


def test_a_sound_point_has_no_damaged_chunks(store, api):
    other = new_resource()
    api.backup({"x": BLOB}, resource=other)
    point = many(api)
    assert listed(api, point) == ([], 1)
    damage_chunks(store, api, BLOB)
    assert listed(api, point) == ([], 1)


@pytest.mark.parametrize("max_results", [None, 1, 2, 3])
@pytest.mark.parametrize("digests_max", [100, 0], ids=["held", "asked"])
def test_damaged_chunks_are_listed_in_pages_of_any_size(store, api, monkeypatch, max_results, digests_max):
    monkeypatch.setattr(damage, "DIGESTS_MAX", digests_max)
    point = many(api)
    damage_chunks(store, api, ONE)
    assert listed(api, point, max_results=max_results)[0] == ALL_OF_ONE


def test_a_request_examines_a_limited_number_of_chunks(store, api, monkeypatch):
    monkeypatch.setattr(read, "CHUNKS_PER_REQUEST", 1)
    point = many(api)
    damage_chunks(store, api, ONE)
    assert listed(api, point) == (ALL_OF_ONE, 3)


def test_healed_damage_is_not_listed(store, api):
    point = many(api)
    damage_chunks(store, api, ONE)
    api.backup({"again": ONE}, resource=new_resource())
    assert listed(api, point)[0] == []


def test_damage_of_a_missing_point_or_for_an_unauthorised_caller_is_refused(store, api):
    point = many(api)
    asked = ListDamagedChunks(backup_vault_name=api.vault, recovery_point_arn=point)
    nobody = Caller("AKIANOBODY")
    with pytest.raises(AccessDeniedException):
        api._call.service.call(asked, nobody)
    api.delete_point(point)
    api.refuses(ResourceNotFoundException, asked)
