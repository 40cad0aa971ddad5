"""Recording: a record that cannot be written does not block the others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cryostore.catalog.rows import records
from cryostore.chunks.records import RecordName
from cryostore.core.errors import KeyUnavailableError, StorageUnavailableError
from cryostore.maintenance.garbage_collection.collect import collect_all
from cryostore.maintenance.verification.opened_keys import OpenedKeys
from cryostore.model.errors import ServiceUnavailableException
from cryostore.service.recording import (
    CommitRecord,
    decode_record,
    update_record,
    write_all_due_records,
    write_due_records,
)
from cryostore.service.unknown_commits import OutdatedCatalogError
from support.requests.api import new_resource
from support.stores.shop import Shop

LOST = 7


def due(shop):
    """The keys of all records that are due."""
    return [row.key for row in shop.store.database.read(lambda t: records.due(t, 1000))]


def touch_all(shop):
    """Make every record due."""
    shop.store.database.write(lambda t: t.run("UPDATE record SET changes = changes + 1"))


@pytest.fixture
def shop(monkeypatch):
    """Points in two vaults; the keys of the first vault, which has more of them, are lost."""
    shop = Shop()
    for number in range(LOST):
        shop.api.backup({"a": b"%d" % number}, resource=new_resource())
    shop.api.new_vault()
    shop.api.backup({"a": b"other"}, resource=new_resource())
    sealing = shop.context.keys.sealing

    def only_of_others(vault_id):
        if vault_id == 1:
            raise KeyUnavailableError("the key is lost")
        return sealing(vault_id)

    monkeypatch.setattr(type(shop.context.keys), "sealing", lambda _, vault_id: only_of_others(vault_id))
    return shop


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_a_page_of_rows_whose_key_is_lost_does_not_block_other_records(shop, limit):
    touch_all(shop)
    before = len(due(shop))
    with pytest.raises(KeyUnavailableError):
        write_all_due_records(shop.context, limit=limit)
    assert len(due(shop)) == LOST + 1 < before, "only records of the first vault are left"


def test_all_records_are_written_while_all_keys_are_present(monkeypatch):
    shop = Shop()
    touch_all(shop)
    assert not write_due_records(shop.context, limit=1)
    assert write_due_records(shop.context)
    assert due(shop) == []


def last_commit(shop):
    """The state of recording of the newest commit."""
    rows = shop.store.database.read(lambda t: records.page(t, records.FIRST, 1000))
    return [row for row in rows if row.noun == records.COMMIT][-1]


def test_a_commit_does_not_replace_the_record_of_an_unknown_commit():
    """The catalog was restored from an older copy under a running node, and reuses the number of a commit."""
    shop = Shop()
    shop.api.backup({"a": b"1"})
    row = last_commit(shop)
    assert (row.changes, row.recorded) == (1, 1)
    name = RecordName(*row.key._replace(generation=row.generation + 1), 1, 0)
    shop.context.records.put(name, b"of an older copy of the catalog", shop.context.keys.sealing(1).key)
    job = shop.api.running_job()
    shop.api.put(job, "a", b"2")
    for _ in range(2):
        with pytest.raises(ServiceUnavailableException):
            shop.api.commit(job)
        with pytest.raises(OutdatedCatalogError, match="1 commits are in the store and not in this catalog"):
            collect_all(shop.context, quarantine_ms=0)
    write_all_due_records(shop.context)
    assert [found for found in shop.context.records.names("commit") if found[:3] == name[:3]] == [name]


class Interrupted:
    """A database that runs an action before its first write, or before the write after `writes` of them."""

    def __init__(self, database, meanwhile, writes=0):
        self._database = database
        self._writes_left = writes
        self._meanwhile = [meanwhile]
        self.read = database.read

    def write(self, work):
        while self._meanwhile and not self._writes_left:
            self._meanwhile.pop()()
        self._writes_left -= 1
        return self._database.write(work)


def test_a_record_does_not_name_a_previous_commit_that_is_deleted_meanwhile():
    """A rebuild would miss that commit, and distrust every later point."""
    shop = Shop()
    first = shop.api.backup({"a": b"1"}, resource=(resource := new_resource()))
    shop.api.backup({"a": b"2"}, resource=resource)
    key = last_commit(shop).key
    shop.store.database.write(lambda t: records.touch_known(t, key))
    database = Interrupted(shop.context.database, lambda: shop.api.delete_point(first))
    update_record(replace(shop.context, database=database), key)
    row = last_commit(shop)
    assert row.recorded == row.changes
    sealed = shop.context.records.get(RecordName(*key, row.recorded, 0), OpenedKeys(shop.context).key_of)
    assert (decode_record(sealed, CommitRecord).previous, row.previous) == (0, 0)


def test_parts_that_a_crashed_writer_left_are_removed_with_the_point():
    """Otherwise a rebuild would bring the point back without most of its bytes."""
    shop = Shop()
    point = shop.api.backup({"a": b"1"}, resource=new_resource())
    key = last_commit(shop).key
    change = shop.store.database.write(lambda t: records.touch_known(t, key)).changes + 1

    def die():
        raise StorageUnavailableError("the process is gone before it said that the record is finished")

    with pytest.raises(StorageUnavailableError):
        update_record(replace(shop.context, database=Interrupted(shop.context.database, die, writes=1)), key)
    write_all_due_records(shop.context)
    assert last_commit(shop).recorded > change
    shop.api.delete_point(point)
    assert [name for name in shop.context.records.names() if name[:3] == key] == []
