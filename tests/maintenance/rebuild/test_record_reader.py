"""Reader of records: it yields the newest complete record of each noun, and reports every unreadable part."""

from __future__ import annotations

import pytest

from cryostore.catalog.rows.records import COMMIT
from cryostore.maintenance.background_tasks import maintain
from cryostore.maintenance.rebuild.record_reader import RecordReader
from support.stores.shop import Shop


@pytest.fixture
def shop():
    shop = Shop()
    maintain(shop.process.service)
    return shop


def reader(shop):
    return RecordReader(shop.context.records, [])


def key_of(shop):
    return {key.key_id: key for key in [shop.context.keys.sealing(1).key]}.get


def blobs_of(shop, noun):
    return [name.key for name in shop.context.records.names(noun)]


def test_the_records_of_store_vaults_and_commits_are_read(shop):
    records = reader(shop)
    assert len(list(records.store())) == 1
    ((_, vault),) = records.vaults()
    assert vault.vault["name"] == "Default"
    (commit,) = records.commits(key_of(shop))
    (part,) = records.parts(commit, key_of(shop))
    assert part.point["object_count"] == len(shop.contents)
    assert (records._losses, records.lost) == ([], set())


def test_a_damaged_commit_record_has_no_parts(shop):
    (key,) = blobs_of(shop, COMMIT)
    data = bytearray(shop.store.blobs.get(key))
    data[-1] ^= 1
    shop.store.blobs.delete(key)
    shop.store.blobs.put(key, bytes(data))
    (commit,) = reader(shop).commits(key_of(shop))
    assert commit.parts == 0


def test_a_part_that_is_lost_later_is_reported_once(shop):
    records = reader(shop)
    (commit,) = records.commits(key_of(shop))
    (key,) = blobs_of(shop, COMMIT)
    shop.store.blobs.delete(key)
    for _ in range(2):
        assert list(records.parts(commit, key_of(shop))) == []
    assert len(records._losses) == 1
    assert records.lost == {commit.key}
